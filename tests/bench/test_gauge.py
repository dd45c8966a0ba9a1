"""What a server's log says of this minute, and a world that is like it."""

import pytest

from veltair.bench.gauge import LEAST_UNITS, AsGauged, Gauged, Stretch, gauged
from veltair.bench.result import PolicyResult, TenantResult
from veltair.core.actions import Dispatch
from veltair.core.values import (
    CoreId,
    Footprint,
    LatencyTable,
    LayerBlock,
    Lease,
    LeaseId,
    Machine,
    Model,
    ModelName,
    RequestId,
    Variant,
)
from veltair.errors import ServerError
from veltair.observe.read import Run
from veltair.observe.records import Completed, CoreRecord, Dispatched, Finished, Started

TABLE_US, TOOK_US, HANDOVER_US, AWAY_US = 1_000, 1_200, 300, 900
NET = Model(ModelName("net"), (LayerBlock("b", (Variant("direct", LatencyTable((0.0,), {1: (TABLE_US,)}), Footprint(0, 0)),)),))
STARTED = Started(
    0, 1_000.0, "0", "veltair", "cpu", (0, 1), (), (), core=CoreRecord(Machine((CoreId(0), CoreId(1)), 20_000.0), (NET,))
)


def log_of(units: int) -> Run:
    """One request each 10 ms, of one unit each; the first second of the calendar is 1,000."""
    records: list[Dispatched | Finished | Completed] = []
    for number in range(units):
        at_us, lease = number * 10_000, number + 1
        end_us = at_us + TOOK_US + HANDOVER_US
        records.append(Dispatched(at_us, f"r{number}", "shop", "net", lease, (0,), 0, 1, ("direct",), TABLE_US, 0.0, ""))
        records.append(Finished(end_us, lease, f"r{number}", TOOK_US, (TOOK_US,)))
        records.append(Completed(end_us, f"r{number}", "shop", "net", end_us - at_us, TABLE_US, end_us + 1))
    return Run(STARTED, tuple(records), 0)


def stretch(units: int, cpu_s: float = 0.0) -> Stretch:
    p50_ms = (TOOK_US + HANDOVER_US + AWAY_US) / 1000
    tenant = TenantResult("shop", "net", 20.0, 0.95, units, 1.0, p50_ms, p50_ms, p50_ms, 0, 0, {})
    return Stretch(1_000.0, 1_000.0 + units * 0.01, cpu_s, PolicyResult("veltair", (tenant,), 0))


def test_units_their_hand_overs_and_the_way_of_requests_are_told_apart() -> None:
    found = gauged(log_of(20), [stretch(20)])
    assert found.slower == {"net": pytest.approx(1.2)}
    assert found.strays == 0.0
    assert (found.handover_us, found.away_us) == (HANDOVER_US, AWAY_US)


def test_cpu_beside_the_units_is_shared_by_the_requests() -> None:
    held_s = 20 * (TOOK_US + HANDOVER_US) / 1e6
    assert gauged(log_of(20), [stretch(20, held_s + 0.02)]).message_us == pytest.approx(1_000)


def test_what_ran_outside_of_a_stretch_does_not_count() -> None:
    with pytest.raises(ServerError, match="'net'"):
        gauged(log_of(LEAST_UNITS + 5), [stretch(LEAST_UNITS - 1)])


def started(world: AsGauged, lease: int, core: int) -> int:
    unit = Dispatch(RequestId(f"r{lease}"), Lease(LeaseId(lease), (CoreId(core),)), 0, 1, (0,), TABLE_US, 0.0, "")
    return world.start(unit, NET, HANDOVER_US, 0)


def test_a_gauged_unit_takes_twice_as_long_on_a_core_that_an_outsider_holds() -> None:
    world = AsGauged(20_000.0, Gauged({"net": 1.2}, 0.0, HANDOVER_US, AWAY_US, 0.0), 2, 100.0, seed=0)
    world.pressed(0.0, (CoreId(1),))
    assert [started(world, 1, 0), started(world, 2, 1)] == [1_200 + HANDOVER_US, 2 * 1_200 + HANDOVER_US]


def test_units_take_what_was_gauged_and_longer_where_messages_find_no_idle_core() -> None:
    world = AsGauged(20_000.0, Gauged({"net": 1.2}, 0.0, HANDOVER_US, AWAY_US, 1_000.0), 2, 100.0, seed=0)
    assert started(world, 1, 0) == 1_200 + HANDOVER_US
    crowded = 1_200 / (1 - 100.0 * 0.001 / 2)
    assert started(world, 2, 1) == round(crowded + HANDOVER_US)
    world.ended(LeaseId(1), 0)
    world.ended(LeaseId(2), 0)
    assert started(world, 3, 0) == 1_200 + HANDOVER_US
