"""Whose weights are in memory, where not all fit: what to bring in next, and what to let go for it.

Loads are work with deadlines: the model whose waiting request must start soonest is loaded first, one at a time. What goes is
chosen by GreedyDual-Size (Cao and Irani, Cost-Aware WWW Proxy Caching Algorithms, USITS 1997): each use gives a model credit
of its load time per byte on top of the level at which the last one went, and the least credit goes. Weights of requests that
are under way stay.
"""

from dataclasses import dataclass, field

from veltair.core.actions import EvictWeights, LoadWeights
from veltair.core.values import Model, ModelName


@dataclass(slots=True)
class _Weights:
    bytes: int
    load_us: int
    resident: bool = False
    users: int = 0  # requests under way
    credit: float = 0.0
    wanted_by_us: int | None = None  # when the most pressing of those that wait for it must start
    forgotten: bool = False  # unloaded: goes with its last user


@dataclass(slots=True)
class Residency:
    """`budget_bytes` None: whatever is registered is resident."""

    budget_bytes: int | None
    held_bytes: int = 0
    _weights: dict[ModelName, _Weights] = field(default_factory=dict)
    _loading: ModelName | None = None
    _loaded_us: int = 0  # when that load should be over
    _level: float = 0.0

    def register(self, model: Model) -> None:
        """Raises ValueError where it can never fit."""
        if self.budget_bytes is None:
            return
        if model.weights_bytes > self.budget_bytes:
            raise ValueError(
                f"model {model.name!r} holds {model.weights_bytes} bytes of weights, the budget is {self.budget_bytes}; raise it"
            )
        known = self._weights.get(model.name)
        if known is None or known.forgotten:
            self._weights[model.name] = known or _Weights(model.weights_bytes, model.load_us)
            self._weights[model.name].forgotten = False

    def forget(self, name: ModelName) -> list[EvictWeights]:
        """The model is unloaded; its weights go when nobody is under way with them."""
        if name not in self._weights:
            return []
        self._weights[name].forgotten = True
        return self._let_go_if_forgotten(name)

    def is_resident(self, name: ModelName) -> bool:
        return self.budget_bytes is None or self._weights[name].resident

    def ready_us(self, name: ModelName, now_us: int) -> int:
        """When its weights should be in, if it were wanted from now on: behind the load under way and those wanted before."""
        if self.is_resident(name):
            return now_us
        at_us = max(now_us, self._loaded_us) if self._loading is not None else now_us
        if name == self._loading:
            return at_us
        before = (w.load_us for n, w in self._weights.items() if w.wanted_by_us is not None and n not in (name, self._loading))
        return at_us + sum(before) + self._weights[name].load_us

    def use(self, name: ModelName, start_by_us: int) -> None:
        """A request of it was accepted."""
        if self.budget_bytes is None:
            return
        weights = self._weights[name]
        weights.users += 1
        weights.credit = self._level + weights.load_us / max(1, weights.bytes)
        if not weights.resident:
            weights.wanted_by_us = min(start_by_us, weights.wanted_by_us or start_by_us)

    def release(self, name: ModelName) -> list[EvictWeights]:
        """That request is over."""
        if self.budget_bytes is None:
            return []
        self._weights[name].users -= 1
        if not self._weights[name].users and name != self._loading:
            self._weights[name].wanted_by_us = None
        return self._let_go_if_forgotten(name)

    def loaded(self, name: ModelName) -> None:
        """Raises ValueError where no such load was asked for."""
        if name != self._loading:
            raise ValueError(f"weights of {name!r} were not being loaded; loading: {self._loading or 'nothing'}")
        weights = self._weights[name]
        self._loading, weights.resident, weights.wanted_by_us = None, True, None

    def next_load(self, now_us: int) -> list[EvictWeights | LoadWeights]:
        """What to do now: let go of what is in the way, and bring in the most pressing. Nothing, while a load is under way."""
        if self._loading is not None or self.budget_bytes is None:
            return []
        wanted = min(((w.wanted_by_us, n) for n, w in self._weights.items() if w.wanted_by_us is not None), default=None)
        if wanted is None:
            return []
        name = wanted[1]
        weights = self._weights[name]
        missing = self.held_bytes + weights.bytes - self.budget_bytes
        idle = sorted((w.credit, n) for n, w in self._weights.items() if w.resident and not w.users) if missing > 0 else []
        going: list[ModelName] = []
        for credit, other in idle:
            if missing <= 0:
                break
            missing -= self._weights[other].bytes
            self._level = credit
            going.append(other)
        if missing > 0:  # the rest is in use: asked again when a request of it is over
            return []
        evictions = [self._evict(other) for other in going]
        self._loading, self._loaded_us = name, now_us + weights.load_us
        self.held_bytes += weights.bytes
        return [*evictions, LoadWeights(name)]

    def _evict(self, name: ModelName) -> EvictWeights:
        self._weights[name].resident = False
        self.held_bytes -= self._weights[name].bytes
        return EvictWeights(name)

    def _let_go_if_forgotten(self, name: ModelName) -> list[EvictWeights]:
        weights = self._weights[name]
        if not weights.forgotten or weights.users or name == self._loading:
            return []
        gone = [self._evict(name)] if weights.resident else []
        del self._weights[name]
        return gone
