"""What requests and units should take, by the tables that a log carries: alone on the machine, and under pressure."""

from collections.abc import Mapping
from dataclasses import dataclass

from veltair.core.predict import ModelCosts, costs_by_precision
from veltair.core.values import LatencyTable, LayerBlock, Model, Precision, Variant
from veltair.observe.records import CoreRecord, Dispatched


@dataclass(frozen=True, slots=True)
class UnitTimes:
    """Of one unit, its variants and cores given. Of a batch, all of its members together."""

    table: LatencyTable  # of its blocks together
    cores: int
    quiet_us: int
    single_us: int  # what one request alone would have taken on these cores for as much of its model; not of a batch: `quiet_us`
    traffic_bytes_per_us: float

    def at(self, pressure: float) -> int:
        return self.table.latency_us(self.cores, pressure)


class Tables:
    """Reads `Started.core`. Whatever it does not tell of (all of an old log, a model of another name) is None, never a guess."""

    def __init__(self, core: CoreRecord | None) -> None:
        self._cores = len(core.machine.cores) if core is not None else 0
        self._models: Mapping[str, Model] = {} if core is None else {model.name: model for model in core.models}
        self._costs: dict[str, Mapping[Precision, ModelCosts] | None] = {}
        self._known: dict[tuple[object, ...], UnitTimes | None] = {}
        self.bandwidth_bytes_per_us = 1.0 if core is None else core.machine.bandwidth_bytes_per_us

    def solo_us(self, model: str, precision: Precision) -> int | None:
        """The whole model on the idle machine, on as many cores and as the variants that end it soonest."""
        costs = self._costs_of(model)
        return None if costs is None else costs[precision].best_us

    def of(self, unit: Dispatched, precision: Precision) -> UnitTimes | None:
        key = (unit.model, len(unit.riders), unit.first_block, unit.variants, len(unit.cores), precision)
        if key not in self._known:
            self._known[key] = self._times(unit, precision)
        return self._known[key]

    def _costs_of(self, model: str) -> Mapping[Precision, ModelCosts] | None:
        if model not in self._costs:
            known = self._models.get(model)
            self._costs[model] = None if known is None else costs_by_precision(known, self._cores)
        return self._costs[model]

    def _times(self, unit: Dispatched, precision: Precision) -> UnitTimes | None:
        costs = self._costs_of(unit.model)
        if costs is None:
            return None
        single, batched = costs[precision], costs[precision].batches.get(1 + len(unit.riders))
        whole = single if not unit.riders else batched
        if whole is None:
            return None
        blocks = whole.model.blocks[unit.first_block : unit.end_block]
        forms = [_form(block, name) for block, name in zip(blocks, unit.variants, strict=False)]
        chosen = [form for form in forms if form is not None]
        cores = len(unit.cores)
        if not chosen or len(chosen) < len(unit.variants) or any(min(form.table.rows_us) > cores for form in chosen):
            return None
        table = _together(chosen, cores)
        quiet_us = table.latency_us(cores)
        traffic = sum(form.footprint.traffic_bytes for form in chosen)
        return UnitTimes(table, cores, quiet_us, _single_us(single, whole, cores, quiet_us), traffic / quiet_us)


def _form(block: LayerBlock, name: str) -> Variant | None:
    return next((variant for variant in block.variants if variant.name == name), None)


def _together(forms: list[Variant], cores: int) -> LatencyTable:
    """Sums of times that are linear between levels are linear between the levels of all."""
    levels = tuple(sorted({level for form in forms for level in form.table.pressure_levels}))
    return LatencyTable(levels, {cores: tuple(sum(form.table.latency_us(cores, p) for form in forms) for p in levels)})


def _single_us(single: ModelCosts, whole: ModelCosts, cores: int, quiet_us: int) -> int:
    """The batch's time, less what its riders add: scaled as the fastest whole runs on these cores are."""
    if whole is single:
        return quiet_us
    fit = max((c for c in single.core_counts if c <= cores), default=single.narrowest)
    fit_batch = max((c for c in whole.core_counts if c <= cores), default=whole.narrowest)
    ratio = single.fastest(fit, 0.0).rest_us(0) / whole.fastest(fit_batch, 0.0).rest_us(0)
    return min(quiet_us, round(quiet_us * ratio))
