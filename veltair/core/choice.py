"""Which variants a unit runs as (VELTAIR, section 4.3: by the interference that is seen now; DESIGN, online stage).

1. Those with the least predicted time on its cores at this pressure.
2. Where what was measured lately tells variants apart, those with the least corrected time. What a model was switched to it
   keeps until that is no gain any more, so variants of nearly one time do not take turns.
3. While a model is adrift (its times are far from its tables, so they foretell nothing), those that stand a crowded machine best.
4. Not those that would push somebody who runs now past its deadline, where the gentlest would not and still are in time.
"""

from collections.abc import Mapping
from typing import NamedTuple

from veltair.core.actions import Alternative
from veltair.core.interference import CoTenants, own_pressure, pressure_on
from veltair.core.plans import UnitPlan
from veltair.core.predict import Line, ModelCosts
from veltair.core.state import Job, Ledger

WORTH_SWITCHING = 0.9  # of the time of those that the tables take for the fastest


class Chosen(NamedTuple):
    line: Line
    us: float  # predicted, corrected by what was measured lately
    rejected: tuple[Alternative, ...]


class Choice:
    """Told by the policy when a unit begins and ends."""

    def __init__(self) -> None:
        self._co_tenants = CoTenants()
        self._preferred: dict[ModelCosts, tuple[int, ...]] = {}  # variants that were switched to

    def begin(self, plan: UnitPlan, costs: ModelCosts, line: Line, ledger: Ledger, now_us: int) -> None:
        self._co_tenants.begin(plan, costs, line, ledger, now_us)

    def end(self, job: Job) -> None:
        self._co_tenants.end(job)

    def choose(self, job: Job, costs: ModelCosts, cores: int, end_block: int, ledger: Ledger, now_us: int) -> Chosen:
        """For blocks up to `end_block`."""
        pressure, first = pressure_on(ledger), job.next_block
        fastest = costs.fastest(cores, pressure)
        liked, why = fastest, ""
        uneven = ledger.residuals.uneven(costs.model.name, now_us)
        if ledger.residuals.is_adrift(costs.model.name):
            liked, why = costs.isolated(cores, pressure), "the model is adrift: its times are far from its tables"
        elif uneven is not None:
            liked, why = self._corrected(uneven, costs, cores, pressure, first, end_block), "took longer lately than they say"
        elif self._preferred:
            self._preferred.pop(costs, None)
        rejected = []
        if liked.variants != fastest.variants:
            rejected.append(Alternative("fastest variants by the tables", why))
        line, spared = self._spare(liked, job, costs, cores, end_block, ledger, now_us)
        if spared is not None:
            rejected.append(Alternative("fastest variants", f"would push {spared.request.id} past its deadline"))
        if line.variants == fastest.variants and (quiet := costs.unadapted(cores, pressure)).variants != fastest.variants:
            quiet_us, fastest_us = quiet.span_us(first, end_block), fastest.span_us(first, end_block)
            if fastest_us < quiet_us:
                times = f"{quiet_us} us in place of {fastest_us}"
                rejected.append(Alternative("variants fastest on a quiet machine", f"{times} at pressure {pressure:.2f}"))
        us = line.span_us(first, end_block) if uneven is None else _us(line, uneven, costs, cores, pressure, first, end_block)
        return Chosen(line, us * ledger.correction(job, now_us), tuple(rejected))

    def _corrected(
        self, uneven: Mapping[str, float], costs: ModelCosts, cores: int, pressure: float, first: int, end: int
    ) -> Line:
        def us(line: Line) -> float:
            return _us(line, uneven, costs, cores, pressure, first, end)

        fastest = costs.fastest(cores, pressure)
        others = [costs.unadapted(cores, pressure), costs.isolated(cores, pressure), costs.gentlest(cores, pressure)]
        fastest_us = us(fastest)
        kept = next((other for other in others if other.variants == self._preferred.get(costs)), None)
        if kept is not None and us(kept) < fastest_us:
            return kept
        best = min(others, key=us)
        if us(best) < WORTH_SWITCHING * fastest_us:
            self._preferred[costs] = best.variants
            return best
        self._preferred.pop(costs, None)
        return fastest

    def _spare(
        self, liked: Line, job: Job, costs: ModelCosts, cores: int, end: int, ledger: Ledger, now_us: int
    ) -> tuple[Line, Job | None]:
        """The co-tenant for whose sake they are not those it likes (None: they are)."""
        if not ledger.units:
            return liked, None
        first, bandwidth = job.next_block, ledger.machine.bandwidth_bytes_per_us
        gentlest = costs.gentlest(cores, pressure_on(ledger))

        def presses(line: Line) -> float:
            return own_pressure(line.span_bytes(first, end), line.span_us(first, end), bandwidth)

        if presses(gentlest) >= presses(liked):
            return liked, None
        spared = self._co_tenants.pushed(ledger, presses(liked))
        if spared is None or self._co_tenants.pushed(ledger, presses(gentlest)) is not None:
            return liked, None
        own_finish = now_us + gentlest.rest_us(first) * ledger.correction(job, now_us)
        return (gentlest, spared) if own_finish <= job.deadline_us else (liked, None)


def _us(line: Line, uneven: Mapping[str, float], costs: ModelCosts, cores: int, pressure: float, first: int, end: int) -> float:
    """Each block's time by its variant's table, times what that variant differs by."""
    blocks = costs.model.blocks[first:end]
    chosen = [block.variants[v] for block, v in zip(blocks, line.variants[first:end], strict=True)]
    return sum(v.table.latency_us(cores, pressure) * uneven.get(v.name, 1.0) for v in chosen)
