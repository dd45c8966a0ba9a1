"""Measured over predicted time: what the tables do not know.

Per model a ratio, bounded and fading towards 1, with how far single units stray from it. Per variant of the model how much it
differs from that ratio, as far as units tell: what a unit's time is off is laid on those variants that it has more or less of
than the model's units usually have (normalised least mean squares). So variants that always run together stay alike.

Where most units of a model are far from their tables, its tables are no longer those of this machine: the model is adrift. That
begins and ends at different shares, so it does not flicker.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from veltair.core.values import ModelName

RATIO_BOUNDS = (0.5, 3.0)  # beyond this the table is wrong, not the moment: compile again rather than learn it
ABSURD_RATIO = 100  # a suspended machine or a stepped clock, not a kernel
RATIO_GAIN = 0.1  # about twenty units forget the past: fast enough for a neighbour's burst, deaf to one slow page-in
LEAST_MARGIN = 1.005  # hand-overs between units, which tables of kernels do not hold
MOST_MARGIN = 0.03  # of a ratio: with more, who would have been in time is refused; with less, more promises are broken
SURE_STRAYS = 3  # deviations, mean ones: exponentially distributed ones are below that 95 times of 100
BARELY = 0.01  # where nothing has strayed yet
RATIO_HALF_LIFE_US = 2_000_000  # a correction that refuses every request is never measured again: it must fade by itself

VARIANT_BOUNDS = (-0.5, 1.0)  # of the model's ratio, more than that
VARIANT_GAIN = 0.1
LOOKED_AT = 0.25  # of units: telling variants apart costs as much as a sixth of a decision
GOLDEN = 0.618033988749895  # steps of it round a circle fall on no period, so no part of a model is left out
LEAST_CONTRAST = 0.05  # sum of squares of shares: units that are nearly of one mix tell nothing apart
UNEVEN = 0.1  # variants that differ less are alike: single units stray by as much

FAR = 1.5  # times the table, or as much below it
FAR_US = 500  # and by as much: short units are mostly hand-over
FAR_GAIN = 0.1
ADRIFT, AGROUND = 0.6, 0.3  # share of units lately that are far: above the one it begins, below the other it is over


@dataclass(slots=True)
class _Learnt:
    ratio: float = 1.0
    strays: float = 0.0  # mean distance of a unit's ratio from `ratio`
    at_us: int = 0
    usual: dict[str, float] = field(default_factory=dict)  # share of units' time lately, by variant
    more: dict[str, float] = field(default_factory=dict)  # by variant, of `ratio`
    turn: float = 0.0  # 0..1: below LOOKED_AT the next unit is looked at
    most_uneven: float = 0.0  # of `more`, the largest distance from what is usual
    far: float = 0.0  # share of units lately
    adrift: bool = False


class Residuals:
    """Of all models. `discarded` counts measurements that cannot be times of a unit."""

    def __init__(self) -> None:
        self.discarded = 0
        self._learnt: dict[ModelName, _Learnt] = {}
        self._faded: dict[ModelName, tuple[int, float, float]] = {}  # as last asked for: when, ratio, strays

    @property
    def adrift(self) -> list[ModelName]:
        """Whose tables most of their units lately are far from."""
        return [model for model, learnt in self._learnt.items() if learnt.adrift]

    def is_adrift(self, model: ModelName) -> bool:
        learnt = self._learnt.get(model)
        return learnt is not None and learnt.adrift

    def ratio(self, model: ModelName, now_us: int) -> float:
        return self._at(model, now_us)[1]

    def cautious_ratio(self, model: ModelName, now_us: int) -> float:
        _, ratio, strays = self._at(model, now_us)
        return ratio * LEAST_MARGIN + strays

    def sure_ratio(self, model: ModelName, now_us: int) -> float:
        """What nineteen units of twenty stay below."""
        _, ratio, strays = self._at(model, now_us)
        return ratio + BARELY + SURE_STRAYS * strays

    def uneven(self, model: ModelName, now_us: int) -> Mapping[str, float] | None:
        """By variant, how much longer it takes than the model's ratio says. None where that hardly differs among them."""
        learnt = self._learnt.get(model)
        if learnt is None or learnt.most_uneven < UNEVEN:
            return None
        fading = _fading(learnt, now_us)
        if learnt.most_uneven * fading < UNEVEN:
            return None
        usual = _usually_more(learnt)
        return {name: 1.0 + (more - usual) * fading for name, more in learnt.more.items()}

    def learn(
        self,
        model: ModelName,
        table_us: int,
        measured_us: int,
        now_us: int,
        variants_us: Callable[[], Mapping[str, int] | None] = lambda: None,
    ) -> None:
        """`table_us` is the uncorrected prediction, else the correction would chase itself; `variants_us` tells its parts."""
        if measured_us <= 0 or table_us <= 0 or measured_us > ABSURD_RATIO * table_us:
            self.discarded += 1
            return
        learnt, (_, old, _) = self._learnt.setdefault(model, _Learnt()), self._at(model, now_us)
        seen = min(max(measured_us / table_us, RATIO_BOUNDS[0]), RATIO_BOUNDS[1])
        learnt.turn = (learnt.turn + GOLDEN) % 1.0
        if learnt.turn < LOOKED_AT and (parts_us := variants_us()):
            _tell_apart(learnt, seen / old - 1.0, parts_us, _fading(learnt, now_us))
        learnt.strays += RATIO_GAIN * (abs(seen - old) - learnt.strays)
        learnt.ratio, learnt.at_us = old + RATIO_GAIN * (seen - old), now_us
        far = not 1 / FAR <= measured_us / table_us <= FAR and abs(measured_us - table_us) > FAR_US
        learnt.far += FAR_GAIN * (far - learnt.far)
        learnt.adrift = learnt.far > (AGROUND if learnt.adrift else ADRIFT)
        self._faded.pop(model, None)

    def _at(self, model: ModelName, now_us: int) -> tuple[int, float, float]:
        faded = self._faded.get(model)
        if faded is not None and faded[0] == now_us:
            return faded
        learnt = self._learnt.get(model)
        if learnt is None:
            return now_us, 1.0, 0.0
        fading = _fading(learnt, now_us)
        faded = self._faded[model] = now_us, 1.0 + (learnt.ratio - 1.0) * fading, min(learnt.strays * fading, MOST_MARGIN)
        return faded


def _fading(learnt: _Learnt, now_us: int) -> float:
    return float(0.5 ** (max(0, now_us - learnt.at_us) / RATIO_HALF_LIFE_US))


def _usually_more(learnt: _Learnt) -> float:
    return sum(share * learnt.more.get(name, 0.0) for name, share in learnt.usual.items())


def _tell_apart(learnt: _Learnt, off: float, variants_us: Mapping[str, int], fading: float) -> None:
    """`off` is how far the unit's time is from what the model's ratio says, as a share of that."""
    total_us = sum(variants_us.values())
    shares = {name: us / total_us for name, us in variants_us.items()}
    if not learnt.usual:
        learnt.usual = dict(shares)
    unusual = {name: shares.get(name, 0.0) - learnt.usual.get(name, 0.0) for name in learnt.usual | shares}
    learnt.more = {name: learnt.more.get(name, 0.0) * fading for name in unusual}
    surprise = off - sum(share * learnt.more[name] for name, share in unusual.items())
    step = VARIANT_GAIN * surprise / (LEAST_CONTRAST + sum(share * share for share in unusual.values()))
    for name, share in unusual.items():
        learnt.more[name] = min(max(learnt.more[name] + step * share, VARIANT_BOUNDS[0]), VARIANT_BOUNDS[1])
        learnt.usual[name] = learnt.usual.get(name, 0.0) + RATIO_GAIN * share
    usual = _usually_more(learnt)
    learnt.most_uneven = max(abs(more - usual) for more in learnt.more.values())
