"""Which candidates of a block stay as its variants, and the proof that they are enough (VELTAIR, section 4.2: "only a few
versions cover the whole range of interference").

A point is a core count and a pressure on one resource. The kept set must come within WITHIN of the best candidate at every
point, once for tenants that allow any precision and once for those that want fp32. What adds nothing is dropped.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

WITHIN = 0.05  # of the best candidate, at every point
NOISE = 0.02  # a variant that is worth less than this anywhere is worth nothing: medians repeat to about as much
MOST_VARIANTS = 5
GENTLER = 0.8  # a variant kept for what it spares others presses at most this share of the gentlest other one
GENTLER_AT_LEAST = 0.05  # and this much less, of what the antagonist does
SLOWER_AT_MOST = 1.3


@dataclass(frozen=True, slots=True)
class Candidate:
    """One candidate of a block as measured: microseconds at each point, and the pressure it puts on others (0..1)."""

    name: str
    us: tuple[float, ...]
    pressure: float = 0.0
    exact: bool = True  # fp32 throughout


@dataclass(frozen=True, slots=True)
class Selection:
    """The kept candidates, and why. Shares are of time: 0.03 is 3 % slower."""

    kept: tuple[int, ...]  # places among the candidates
    worth: Mapping[str, float]  # kept candidate -> the most that any point would lose without it
    gentle: tuple[str, ...]  # kept for the pressure they spare others
    regret: float  # of the kept set against the best candidate, at its worst point, any precision
    exact_regret: float  # the same among exact candidates
    dropped: Mapping[str, str] = field(default_factory=dict)  # candidate -> why

    def moved(self, places: Sequence[int], dropped: Mapping[str, str]) -> "Selection":
        """The same among more candidates: what was number i is number `places[i]`, and `dropped` had not been offered."""
        return replace(self, kept=tuple(places[i] for i in self.kept), dropped={**self.dropped, **dropped})

    def as_data(self, names: Sequence[str]) -> dict[str, Any]:
        """As plain data; `names` are those of all candidates."""
        return {
            "kept": [names[i] for i in self.kept],
            "worth": {name: _rounded(worth) for name, worth in self.worth.items()},
            "gentle": list(self.gentle),
            "regret": _rounded(self.regret),
            "exact_regret": _rounded(self.exact_regret),
            "dropped": dict(self.dropped),
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any], names: Sequence[str]) -> "Selection":
        """What `as_data` gave, where the candidates are now `names`.

        Raises LookupError, TypeError or ValueError for other data.
        """

        def share(value: float | None) -> float:
            return math.inf if value is None else float(value)

        return cls(
            tuple(names.index(name) for name in data["kept"]),
            {str(name): share(worth) for name, worth in data["worth"].items()},
            tuple(data["gentle"]),
            share(data["regret"]),
            share(data["exact_regret"]),
            dict(data["dropped"]),
        )


def select(candidates: Sequence[Candidate]) -> Selection:
    """At least one of `candidates` must be exact; all have the same points.

    Raises ValueError where none is.
    """
    if not any(c.exact for c in candidates):
        raise ValueError(f"no candidate is exact, of {[c.name for c in candidates]}")
    everyone = list(range(len(candidates)))
    exact = [i for i in everyone if candidates[i].exact]
    kept: list[int] = []
    _grow(candidates, kept, (exact, everyone))
    gentle = _gentle(candidates, kept, everyone)
    kept += gentle
    for i in sorted(set(kept) - set(gentle), key=lambda i: _worth(candidates, kept, i)):
        if _worth(candidates, kept, i) <= NOISE:
            kept.remove(i)
    _grow(candidates, kept, (exact, everyone))  # what was dropped may have made room for what found none before
    kept.sort()
    return Selection(
        tuple(kept),
        {candidates[i].name: _worth(candidates, kept, i) for i in kept},
        tuple(candidates[i].name for i in gentle),
        _regret(candidates, kept, everyone),
        _regret(candidates, kept, exact),
        {candidates[i].name: _why_not(candidates, kept, i) for i in everyone if i not in kept},
    )


def _grow(candidates: Sequence[Candidate], kept: list[int], classes: Sequence[Sequence[int]]) -> None:
    """Add the candidate that helps most, as long as there is room and some point is too far from the best."""
    for allowed in classes:
        while len(kept) < MOST_VARIANTS and _regret(candidates, kept, allowed) > WITHIN:
            kept.append(min((i for i in allowed if i not in kept), key=lambda i: _after(candidates, [*kept, i], allowed)))


def _best(candidates: Sequence[Candidate], among: Sequence[int]) -> list[float]:
    return [min(us) for us in zip(*(candidates[i].us for i in among), strict=True)]


def _losses(candidates: Sequence[Candidate], kept: Sequence[int], allowed: Sequence[int]) -> list[float]:
    """At each point, how much slower the kept set is than the best allowed candidate."""
    usable = [i for i in kept if i in allowed]
    if not usable:
        return [math.inf]
    return [have / best - 1.0 for have, best in zip(_best(candidates, usable), _best(candidates, allowed), strict=True)]


def _regret(candidates: Sequence[Candidate], kept: Sequence[int], allowed: Sequence[int]) -> float:
    return max(_losses(candidates, kept, allowed))


def _after(candidates: Sequence[Candidate], kept: Sequence[int], allowed: Sequence[int]) -> tuple[float, float]:
    losses = _losses(candidates, kept, allowed)
    return max(losses), sum(losses)


def _worth(candidates: Sequence[Candidate], kept: Sequence[int], i: int) -> float:
    """The most that any point, for any tenant, would lose if candidate `i` were not among the kept."""
    rest = [k for k in kept if k != i]
    worth = 0.0
    for allowed in ([k for k in kept if candidates[k].exact], kept):
        if i in allowed:
            worth = max(worth, _regret(candidates, rest, allowed))
    return worth


def _gentle(candidates: Sequence[Candidate], kept: Sequence[int], everyone: Sequence[int]) -> list[int]:
    """One exact candidate that presses clearly less than any kept one, for units beside a co-tenant without slack."""
    if len(kept) >= MOST_VARIANTS:
        return []
    usual = min(candidates[i].pressure for i in kept if candidates[i].exact)
    quickest = min(candidates[i].us[0] for i in everyone if candidates[i].exact)
    spared = [
        i
        for i in everyone
        if i not in kept
        and candidates[i].exact
        and candidates[i].us[0] <= SLOWER_AT_MOST * quickest
        and candidates[i].pressure <= min(GENTLER * usual, usual - GENTLER_AT_LEAST)
    ]
    return sorted(spared, key=lambda i: candidates[i].pressure)[:1]


def _why_not(candidates: Sequence[Candidate], kept: Sequence[int], i: int) -> str:
    allowed = [k for k in kept if candidates[k].exact or not candidates[i].exact]
    gain = max(have / own - 1.0 for have, own in zip(_best(candidates, allowed), candidates[i].us, strict=True))
    if gain <= 0.0:
        return "never the best"
    return f"gains {gain:.1%} at most"


def _rounded(share: float) -> float | None:
    """None stands for what cannot be done without."""
    return round(share, 4) if share != math.inf else None
