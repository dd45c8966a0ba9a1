"""Whose weights are in memory, where not all fit: what to bring in next, and what to let go for it.

Loads are work with deadlines: the model whose waiting request must start soonest is loaded first, one at a time. What goes is
chosen by GreedyDual-Size (Cao and Irani, Cost-Aware WWW Proxy Caching Algorithms, USITS 1997): each use gives a model credit
of its load time per byte on top of the level at which the last one went, and the least credit goes. Weights of requests that
are under way stay. A request that would be refused only because its weights are not there cannot bring them in, but leaves a
hope: the last such model is loaded when nobody accepted waits for another, or else it could never be served.
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
    until_us: int = 0  # when the last of those requests is due
    forgotten: bool = False  # unloaded: goes with its last user


@dataclass(slots=True)
class Residency:
    """`budget_bytes` None: whatever is registered is resident."""

    budget_bytes: int | None
    held_bytes: int = 0
    _weights: dict[ModelName, _Weights] = field(default_factory=dict)
    _wanted: dict[ModelName, int] = field(default_factory=dict)  # not here; when the most pressing that waits must start
    _hoped: ModelName | None = None
    _loading: ModelName | None = None
    _loaded_us: int = 0  # when that load should be over
    _level: float = 0.0

    def register(self, model: Model) -> None:
        """A new version of what is in memory is held to be as large. Raises ValueError where it can never fit."""
        if self.budget_bytes is None:
            return
        if model.weights_bytes > self.budget_bytes:
            raise ValueError(
                f"model {model.name!r} holds {model.weights_bytes} bytes of weights, the budget is {self.budget_bytes}; raise it"
            )
        known = self._weights.get(model.name)
        if known is None:
            self._weights[model.name] = _Weights(model.weights_bytes, model.load_us)
            return
        known.forgotten = False
        if not known.resident and model.name != self._loading:
            known.bytes, known.load_us = model.weights_bytes, model.load_us

    def forget(self, name: ModelName) -> list[EvictWeights]:
        """The model is unloaded; its weights go when nobody is under way with them."""
        if name not in self._weights:
            return []
        self._weights[name].forgotten = True
        return self._let_go_if_forgotten(name)

    def is_resident(self, name: ModelName) -> bool:
        return self.budget_bytes is None or self._weights[name].resident

    def ready_us(self, name: ModelName, now_us: int) -> int:
        """When its weights should be in, if it were wanted from now on: behind the load under way and those wanted before.

        Where those in use must make room, they go when the last request of theirs is due.
        """
        if self.is_resident(name):
            return now_us
        at_us = max(now_us, self._loaded_us) if self._loading is not None else now_us
        if name == self._loading:
            return at_us
        coming = [self._weights[n] for n in self._wanted if n not in (name, self._loading)] + [self._weights[name]]
        return max(at_us, self._room_us(sum(w.bytes for w in coming), now_us)) + sum(w.load_us for w in coming)

    def _room_us(self, coming_bytes: int, now_us: int) -> int:
        assert self.budget_bytes is not None
        missing = self.held_bytes + coming_bytes - self.budget_bytes
        if missing <= 0:
            return now_us
        held = ((max(now_us, w.until_us) if w.users else now_us, w.bytes) for w in self._weights.values() if w.resident)
        for until_us, gone_bytes in sorted(held):
            missing -= gone_bytes
            if missing <= 0:
                return until_us
        return max([now_us, *(w.until_us for w in self._weights.values() if w.users)])  # more is wanted than fits at a time

    def hope(self, name: ModelName) -> None:
        """A request of it was refused for want of its weights alone."""
        if not self.is_resident(name) and name != self._loading:
            self._hoped = name

    def use(self, name: ModelName, start_by_us: int, due_us: int) -> None:
        """A request of it was accepted."""
        if self.budget_bytes is None:
            return
        weights = self._weights[name]
        weights.users += 1
        weights.until_us = max(weights.until_us, due_us)
        weights.credit = self._credit(weights)
        if not weights.resident and name != self._loading:
            self._wanted[name] = min(start_by_us, self._wanted.get(name, start_by_us))

    def release(self, name: ModelName) -> list[EvictWeights]:
        """That request is over."""
        if self.budget_bytes is None:
            return []
        self._weights[name].users -= 1
        if not self._weights[name].users:
            self._wanted.pop(name, None)
            self._weights[name].until_us = 0
        return self._let_go_if_forgotten(name)

    def loaded(self, name: ModelName) -> list[EvictWeights]:
        """They go at once if the model was unloaded meanwhile. Raises ValueError where no such load was asked for."""
        if name != self._loading:
            raise ValueError(f"weights of {name!r} were not being loaded; loading: {self._loading or 'nothing'}")
        self._loading, self._weights[name].resident = None, True
        return self._let_go_if_forgotten(name)

    def next_load(self, now_us: int) -> list[EvictWeights | LoadWeights]:
        """What to do now: let go of what is in the way, and bring in the most pressing. Nothing, while a load is under way."""
        if self._loading is not None or self.budget_bytes is None:
            return []
        name = min(self._wanted, key=lambda n: (self._wanted[n], n), default=self._hoped)
        if name is None:
            return []
        weights = self._weights[name]
        missing = self.held_bytes + weights.bytes - self.budget_bytes
        idle = sorted((w.credit, n) for n, w in self._weights.items() if w.resident and not w.users) if missing > 0 else []
        going: list[ModelName] = []
        level = self._level
        for credit, other in idle:
            if missing <= 0:
                break
            missing -= self._weights[other].bytes
            level = credit
            going.append(other)
        if missing > 0:  # the rest is in use: asked again when a request of it is over
            return []
        self._level = level
        weights.credit = self._credit(weights)
        evictions = [self._evict(other) for other in going]
        self._wanted.pop(name, None)
        if name == self._hoped:
            self._hoped = None
        self._loading, self._loaded_us = name, now_us + weights.load_us
        self.held_bytes += weights.bytes
        return [*evictions, LoadWeights(name)]

    def _credit(self, weights: _Weights) -> float:
        return self._level + weights.load_us / max(1, weights.bytes)

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
        if name == self._hoped:
            self._hoped = None
        return gone
