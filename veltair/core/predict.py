"""How long will it take: measured tables summed over blocks. What was measured lately corrects them (`residuals`)."""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import accumulate, count, pairwise

from veltair.core.values import PRECISIONS, LayerBlock, Model, Precision

PRESSURE_STEPS = 16  # tables are linear between a handful of measured levels; a sixteenth loses under 1 % of a time
MOST_KEPT = 4096  # sums over units of a model
ANY = 1 << 30  # cores: as many as there are


@dataclass(frozen=True, slots=True)
class Line:
    """A model's blocks, one variant chosen for each, at one core count and one pressure. Sums up to each block."""

    number: int  # among its model's lines
    variants: tuple[int, ...]
    until_us: tuple[int, ...]  # time of the blocks before i; one longer than `variants`
    until_bytes: tuple[int, ...]

    def span_us(self, first_block: int, end_block: int) -> int:
        return self.until_us[end_block] - self.until_us[first_block]

    def rest_us(self, first_block: int) -> int:
        return self.until_us[-1] - self.until_us[first_block]

    def span_bytes(self, first_block: int, end_block: int) -> int:
        return self.until_bytes[end_block] - self.until_bytes[first_block]


class LinesByCores:
    """The fastest line of every measured core count, ascending; and the counts worth having, which are not all of them."""

    def __init__(self, lines: Sequence[tuple[int, Line]]) -> None:
        self._lines = lines
        self._fronts: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = {}

    def __iter__(self) -> Iterator[tuple[int, Line]]:
        return iter(self._lines)

    def fewest(self, first_block: int, budget_us: float, at_most: int) -> tuple[int, int]:
        """The fewest cores that end the rest within `budget_us`, and its time; if none of up to `at_most` (which hold the
        narrowest) do, those of them that end it soonest."""
        cores, negated_us = self.front(first_block)
        i = bisect_left(negated_us, -budget_us)
        if i == len(cores) or cores[i] > at_most:
            i = bisect_right(cores, at_most) - 1
            assert i >= 0, f"nothing was measured on {at_most} cores or fewer"
        return cores[i], -negated_us[i]

    def within(self, first_block: int, at_most: int) -> int:
        """Of up to `at_most` cores, which hold the narrowest, those that end the rest soonest."""
        counts, _ = self.front(first_block)
        return counts[bisect_right(counts, at_most) - 1]

    def front(self, first_block: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Core counts that end the rest sooner than all narrower ones, and their times, negated so that they ascend."""
        known = self._fronts.get(first_block)
        if known is None:
            known = self._fronts[first_block] = self._front(first_block)
        return known

    def _front(self, first_block: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        front: list[tuple[int, int]] = []
        for cores, line in self._lines:
            us = line.rest_us(first_block)
            if not front or -us > front[-1][1]:
                front.append((cores, -us))
        return tuple(c for c, _ in front), tuple(us for _, us in front)


class ModelCosts:
    """The tables of one loaded model, summed on first use and kept: a prediction is then two look-ups.

    Variants of a precision that is not permitted are as good as absent, so whatever is predicted or chosen by these tables
    holds for the tenants of that permission. Numbers of variants are the model's own all the same.
    """

    def __init__(self, model: Model, most_cores: int, precision: Precision = "fp32") -> None:
        """Raises ValueError where the machine has fewer cores than some block was measured on."""
        self.model = model
        self.precision = precision
        self._permitted = [[v for v, form in enumerate(b.variants) if form.is_permitted(precision)] for b in model.blocks]
        forms = [[b.variants[v] for v in numbers] for b, numbers in zip(model.blocks, self._permitted, strict=True)]
        measured = {cores for block in forms for form in block for cores in form.table.rows_us}
        narrowest = max(min(min(form.table.rows_us) for form in block) for block in forms)
        if narrowest > most_cores:
            raise ValueError(f"model {model.name!r} was measured on {narrowest} cores and more, this machine has {most_cores}")
        self.core_counts: Sequence[int] = sorted(cores for cores in measured if narrowest <= cores <= most_cores)
        self.batches = {count: ModelCosts(batch, most_cores, precision) for count, batch in sorted(model.batches.items())}
        self.best_us = 0  # the whole model as fast as it was ever measured
        self.least_core_us = 0  # and with the least of the machine
        self._fastest: dict[tuple[int, int], Line] = {}
        self._gentlest: dict[tuple[int, int], Line] = {}
        self._under: dict[tuple[int, int, int], Line] = {}
        self._numbers = count(1)  # of lines
        self._by_cores: dict[int, LinesByCores] = {}
        self._by_variant: dict[tuple[int, tuple[int, ...], int], Counter[str]] = {}
        self._has_names = len({form.name for block in forms for form in block}) > 1
        self._least_rest = [min(self.fastest(c, 0.0).rest_us(b) for c in self.core_counts) for b in range(len(model.blocks) + 1)]
        self.best_us = self._least_rest[0]
        self.least_core_us = min(cores * self.fastest(cores, 0.0).rest_us(0) for cores in self.core_counts)

    def fastest(self, cores: int, pressure: float) -> Line:
        """Least predicted time, layer by layer; the lighter footprint where times tie."""
        key = (cores, _step(pressure))
        line = self._fastest.get(key)
        if line is None:
            line = self._fastest[key] = self._line(key, gentle=False)
        return line

    def by_cores(self, pressure: float) -> LinesByCores:
        """The fastest lines for every measured core count, ascending."""
        step = _step(pressure)
        lines = self._by_cores.get(step)
        if lines is None:
            lines = self._by_cores[step] = LinesByCores([(cores, self.fastest(cores, pressure)) for cores in self.core_counts])
        return lines

    def gentlest(self, cores: int, pressure: float) -> Line:
        """Least traffic, layer by layer: what to run beside a co-tenant without slack."""
        key = (cores, _step(pressure))
        line = self._gentlest.get(key)
        if line is None:
            line = self._gentlest[key] = self._line(key, gentle=True)
        return line

    def under(self, line: Line, cores: int, pressure: float) -> Line:
        """The same variants with their times on these cores at this pressure."""
        key = (line.number, cores, _step(pressure))
        timed = self._under.get(key)
        if timed is None:
            timed = self._under[key] = self._timed(line.variants, key[1:])
        return timed

    def unadapted(self, cores: int, pressure: float) -> Line:
        """What is fastest on a quiet machine, with its times at this pressure."""
        return self.under(self.fastest(cores, 0.0), cores, pressure)

    def of_twin(self, twin: Model) -> "ModelCosts":
        """The same tables, and the same memory of sums, for a model with the very same blocks under another name."""
        costs = copy(self)
        costs.model = twin
        return costs

    @property
    def narrowest(self) -> int:
        """The fewest cores it can run on."""
        return self.core_counts[0]

    def least_rest_us(self, first_block: int, at_most: int = ANY) -> int:
        """No schedule can beat this: every core count up to `at_most` allowed, nobody else on the machine."""
        if at_most >= self.core_counts[-1]:
            return self._least_rest[first_block]
        return self.by_cores(0.0).fewest(first_block, 0.0, at_most)[1]

    def as_chosen_us(self, variants: Sequence[int], first_block: int, cores: int, pressure: float) -> int:
        """Time of a unit whose variants are already fixed, at another pressure."""
        blocks = self.model.blocks[first_block : first_block + len(variants)]
        return sum(b.variants[v].table.latency_us(cores, pressure) for b, v in zip(blocks, variants, strict=True))

    def isolated(self, cores: int, pressure: float) -> Line:
        """What is fastest on a crowded machine, with its times at this pressure: it suffers least from what nobody foresaw."""
        return self.under(self.fastest(cores, 1.0), cores, pressure)

    def by_variant_us(self, variants: Sequence[int], first_block: int, cores: int) -> Mapping[str, int] | None:
        """Of a unit: its time on a quiet machine by name of variant. None where the model has variants of one name only."""
        if not self._has_names:
            return None
        key = first_block, tuple(variants), cores
        known = self._by_variant.get(key)
        if known is None:
            known = Counter[str]()
            for block, v in zip(self.model.blocks[first_block:], variants, strict=False):
                known[block.variants[v].name] += block.variants[v].table.latency_us(cores)
            if len(self._by_variant) < MOST_KEPT:
                self._by_variant[key] = known
        return known

    def _line(self, key: tuple[int, int], *, gentle: bool) -> Line:
        cores, pressure = key[0], key[1] / PRESSURE_STEPS

        def rank(blocks: Sequence[LayerBlock], v: int) -> tuple[int, int, int]:
            us = sum(b.variants[v].table.latency_us(cores, pressure) for b in blocks)
            moved = sum(b.variants[v].footprint.traffic_bytes for b in blocks)
            return (moved, us, v) if gentle else (us, moved, v)

        chosen: list[int] = []
        while len(chosen) < len(self.model.blocks):  # layer by layer: all parts of one run as the same variant
            first = len(chosen)
            layer = self.model.blocks[first : self.model.layer_end(first)]
            fitting = [v for v in self._permitted[first] if min(layer[0].variants[v].table.rows_us) <= cores]
            chosen += [min(fitting, key=lambda v, layer=layer: rank(layer, v))] * len(layer)  # type: ignore[misc]
        return self._timed(tuple(chosen), key)

    def _timed(self, variants: tuple[int, ...], key: tuple[int, int]) -> Line:
        cores, pressure = key[0], key[1] / PRESSURE_STEPS
        forms = [b.variants[v] for b, v in zip(self.model.blocks, variants, strict=True)]
        return Line(
            number=next(self._numbers),
            variants=variants,
            until_us=tuple(accumulate((f.table.latency_us(cores, pressure) for f in forms), initial=0)),
            until_bytes=tuple(accumulate((f.footprint.traffic_bytes for f in forms), initial=0)),
        )


CostsOf = Callable[[Model, int], Mapping[Precision, ModelCosts]]
"""The tables of a model on a machine of so many cores, for each permission."""


def costs_by_precision(model: Model, most_cores: int) -> dict[Precision, ModelCosts]:
    """The tables for each permission; shared by those that permit the same variants of this model."""
    costs = {PRECISIONS[0]: ModelCosts(model, most_cores, PRECISIONS[0])}
    for finer, precision in pairwise(PRECISIONS):
        offered = any(variant.precision == precision for block in model.blocks for variant in block.variants)
        costs[precision] = ModelCosts(model, most_cores, precision) if offered else costs[finer]
    return costs


def _step(pressure: float) -> int:
    """Rounded up: a promise should err to the late side."""
    if pressure <= 0.0:
        return 0
    return PRESSURE_STEPS if pressure >= 1.0 else -int(-pressure * PRESSURE_STEPS // 1)
