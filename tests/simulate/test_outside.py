"""Processes that are not ours in the simulated world: what they cost, and what the scheduler is told of them."""

from pathlib import Path

import msgspec
import pytest

from veltair.core.events import Event, ModelLoaded, PressureChanged, RequestArrived
from veltair.core.policies import make_policy
from veltair.core.scheduler import Scheduler
from veltair.core.values import (
    CoreId,
    Footprint,
    LatencyTable,
    LayerBlock,
    Machine,
    Model,
    ModelName,
    Request,
    RequestId,
    TenantId,
    Variant,
)
from veltair.errors import ConfigError
from veltair.observe.read import read_log
from veltair.observe.records import PressureTold
from veltair.simulate.run import record
from veltair.simulate.setting import prepare, serve
from veltair.simulate.virtual import Step, play
from veltair.simulate.workload import Outside, Workload, read_workload
from veltair.simulate.world import Contended

MODEL = Model(ModelName("m"), (LayerBlock("b", (Variant("v", LatencyTable((0.0, 1.0), {1: (1_000, 2_000)}), Footprint(0, 0)),)),))


def latencies(*pressed: tuple[int, float]) -> list[int]:
    """Of one request at 0 that takes 1 ms alone and 2 ms under full pressure."""
    arrived = RequestArrived(Request(RequestId("r"), TenantId("t"), ModelName("m"), 0, 1_000_000))
    told: list[tuple[int, Event]] = [(at_us, PressureChanged(pressure)) for at_us, pressure in pressed]
    core = Scheduler(Machine((CoreId(0),)), make_policy("fcfs"))
    played = play(core, [(0, ModelLoaded(MODEL)), *told, (0, arrived)], world=Contended(20_000.0), handover_us=0)
    return [outcome.latency_us for outcome in played.outcomes]


def test_an_outsider_slows_as_the_table_says() -> None:
    assert latencies((0, 1.0)) == [2_000]
    assert latencies((0, 0.5)) == [1_500]
    assert latencies((0, 0.0)) == [1_000]


def test_an_outsider_who_comes_or_goes_meanwhile_costs_for_the_time_he_was_there() -> None:
    assert latencies((500, 1.0)) == [500 + 1_000]
    assert latencies((0, 1.0), (1_000, 0.0)) == [1_000 + 500]


def workload(**changed: object) -> Workload:
    """Of the zoo's measured tables, few requests."""
    return msgspec.structs.replace(read_workload("light"), **{"requests": 200, **changed})


FROM_THE_START = Outside(((0.0, 1.0),))


def told(asked: Workload) -> tuple[set[float], set[int], float]:
    """What the scheduler was told of outsiders, how many levels its tables had, and the mean latency of all requests."""
    setting = prepare(asked)
    steps: list[Step] = []
    run = serve(setting, "veltair", 0.3 * setting.capacity_per_s, 1, watch=steps.append)
    pressures = {step.event.pressure for step in steps if isinstance(step.event, PressureChanged)}
    models = [step.event.model for step in steps if isinstance(step.event, ModelLoaded)]
    levels = {len(v.table.pressure_levels) for model in models for block in model.blocks for v in block.variants}
    answered = [outcome.latency_us for outcome in run.outcomes if outcome.error is None]
    return pressures, levels, sum(answered) / len(answered)


def test_a_scheduler_that_is_aware_is_told_of_outsiders_and_of_what_pressure_does() -> None:
    assert told(workload())[:2] == (set(), {3})
    assert told(workload(outside=FROM_THE_START))[:2] == ({1.0}, {3})


def test_an_unaware_scheduler_is_told_of_nothing_and_its_requests_are_slowed_all_the_same() -> None:
    pressures, levels, mean_us = told(workload(outside=FROM_THE_START, aware=False))
    assert (pressures, levels) == ({0.0}, {1})
    assert mean_us > told(workload(aware=False))[2]


def test_steps_beyond_the_last_arrival_do_not_lengthen_a_run() -> None:
    never = workload(outside=Outside(((0.0, 0.5), (1e6, 0.0))))
    setting = prepare(never)
    assert serve(setting, "veltair", 0.3 * setting.capacity_per_s, 1).ended_us < 1e9


def test_outsiders_stand_in_the_log_of_a_simulated_run(tmp_path: Path) -> None:
    record(workload(outside=FROM_THE_START), "veltair", 0, tmp_path / "log.jsonl")
    records = read_log(tmp_path / "log.jsonl").runs[-1].records
    assert [each.pressure for each in records if isinstance(each, PressureTold)] == [1.0]


TENANT = '[[tenant]]\nname = "a"\nmodel = "mobilenet-v2"\nqos_ms = 20\nshare = 1\n'


def read(tmp_path: Path, text: str) -> Workload:
    path = tmp_path / "w.toml"
    path.write_text(text + TENANT)
    return read_workload(path)


def test_steps_are_read_from_the_workload_file(tmp_path: Path) -> None:
    asked = read(tmp_path, "aware = false\n[outside]\nsteps = [[0, 0.5], [2.5, 0]]\n")
    assert (asked.outside.steps, asked.aware) == (((0.0, 0.5), (2.5, 0.0)), False)


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ("[[0, 1.5]]", "outside: a pressure must lie within 0..1 (a share of the bandwidth), got 1.5"),
        ("[[2, 0.5], [1, 0]]", "outside: the seconds of steps must ascend, from 0 or later, got [2.0, 1.0]"),
        ("[[-1, 0.5]]", "outside: the seconds of steps must ascend"),
        ("[[0]]", "outside"),
    ],
)
def test_steps_that_make_no_sense_are_named(tmp_path: Path, steps: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read(tmp_path, f"[outside]\nsteps = {steps}\n")
    assert said in str(raised.value)
