"""A decision log tells enough to take every decision again, and a core that decides otherwise is found out."""

from functools import cache
from pathlib import Path

import msgspec
import pytest

from veltair.core.events import DrainStarted, Event, ModelLoaded, PressureChanged, RequestArrived, RequestCancelled
from veltair.core.policies import POLICIES, make_policy
from veltair.core.scheduler import Scheduler
from veltair.core.values import CoreId, Machine
from veltair.errors import LogError
from veltair.observe import records
from veltair.observe.read import Run, read_log
from veltair.simulate.mixes import MIXES, capacity_per_s, timeline
from veltair.simulate.replay import replay
from veltair.simulate.trace_steps import StepRecords
from veltair.simulate.virtual import Step, play
from veltair.simulate.world import Contended

GOLDEN = Path(__file__).parent / "golden"


@cache
def recorded(policy: str) -> Run:
    """A crowded run with noise, a request that is cancelled, an outsider that comes and goes, and an end by draining."""
    machine, mix = Machine((CoreId(0), CoreId(1)), 20_000.0), MIXES["mixed"]
    events: list[tuple[int, Event]] = list(timeline(mix, 1.1 * capacity_per_s(mix, 2), 1.5, seed=1))
    arrivals = [event.request for _, event in events if isinstance(event, RequestArrived)]
    events += [(request.arrived_us + 300, RequestCancelled(request.id)) for request in arrivals[::40]]
    events += [(400_000, PressureChanged(0.75)), (900_000, PressureChanged(0.0))]
    events.append((1_400_000, DrainStarted()))
    steps: list[Step] = []
    play(Scheduler(machine, make_policy(policy)), events, world=Contended(20_000.0, noise=0.3, seed=2), watch=steps.append)
    words = StepRecords()
    log = tuple(record for step in steps for record in words.of(step))
    core = records.CoreRecord(machine, tuple(e.model for _, e in events if isinstance(e, ModelLoaded)))
    return Run(records.Started(0, 0.0, "0", policy, "virtual", (0, 1), (), (), core=core), log, 0)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_recorded_run_replays_to_the_same_decisions(policy: str) -> None:
    run = recorded(policy)
    replayed = replay(run)
    assert replayed.difference is None
    kinds = records.Dispatched | records.Completed | records.Refused | records.Dropped
    assert replayed.decisions == sum(isinstance(record, kinds) for record in run.records) > 300


def test_another_policys_first_other_decision_is_found() -> None:
    found = replay(recorded("veltair"), policy="fcfs").difference
    assert found is not None
    assert str(found).startswith(f"decision {found.number}, ")
    assert "recorded dispatched" in str(found)
    assert "; now " in str(found)


def test_a_fact_that_was_tampered_with_is_found() -> None:
    run = recorded("veltair")
    at = next(i for i, record in enumerate(run.records) if isinstance(record, records.Arrived) and i > 50)
    changed = msgspec.structs.replace(run.records[at], deadline_us=run.records[at].at_us + 1)
    tampered = Run(run.started, (*run.records[:at], changed, *run.records[at + 1 :]), 0)
    found = replay(tampered).difference
    assert found is not None
    assert found.at_us >= changed.at_us


def test_a_change_of_outside_pressure_is_a_fact_too() -> None:
    run = recorded("veltair")
    forgotten = tuple(record for record in run.records if not isinstance(record, records.PressureTold))
    assert len(run.records) - len(forgotten) == 2
    found = replay(Run(run.started, forgotten, 0)).difference
    assert found is not None
    assert found.at_us >= 400_000


def test_who_was_turned_away_at_the_door_is_no_decision() -> None:
    run = recorded("fcfs")
    turned_away = records.Refused(run.records[0].at_us, "r0", "b9", "b9", "bad_tensor", "input 'x' is missing")
    assert replay(Run(run.started, (turned_away, *run.records), 0)) == replay(run)


def test_what_comes_after_an_engine_gave_up_is_not_replayed() -> None:
    run = recorded("fcfs")
    at = next(i for i, record in enumerate(run.records) if isinstance(record, records.Arrived) and i > 200)
    broken = records.Dropped(run.records[at].at_us, "a1-1", "a1", "a1", "server_failed", "lane 0 died")
    cut = replay(Run(run.started, (*run.records[:at], broken, *run.records[at:]), 0))
    assert cut.difference is None
    assert cut.decisions < replay(run).decisions


def test_a_log_with_a_hole_or_without_tables_is_refused() -> None:
    run = recorded("fcfs")
    with pytest.raises(LogError, match="lost 3 records"):
        replay(Run(run.started, run.records, 3))
    with pytest.raises(LogError, match="no tables to decide by"):
        replay(Run(msgspec.structs.replace(run.started, core=None), run.records, 0))


@pytest.mark.parametrize("policy", ["fcfs", "veltair"])
def test_what_a_real_engine_decided_is_decided_again(policy: str) -> None:
    """Under the default policy beside a process of somebody else's, with refusals, cancellations and time that ran out. Where it
    is meant to decide otherwise: scripts/record_golden."""
    [run] = read_log(GOLDEN / f"engine_{policy}.jsonl").runs
    replayed = replay(run)
    assert replayed.difference is None
    assert replayed.decisions > 100
    if policy == "veltair":
        assert {type(record) for record in run.records} > {records.Refused, records.Woken, records.Drifted, records.DrainBegan}
        assert any(isinstance(record, records.PressureTold) and record.held for record in run.records)
        codes = {record.code for record in run.records if isinstance(record, records.Dropped)}
        assert codes == {"cancelled", "deadline_missed"}
