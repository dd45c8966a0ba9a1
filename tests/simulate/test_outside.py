"""Processes that are not ours in the simulated world: what they cost, and what the scheduler is told of them."""

import io
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from veltair.core.actions import Dispatch
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
from veltair.observe.read import Run, read_log
from veltair.observe.records import PressureTold
from veltair.simulate.replay import replay
from veltair.simulate.result import encode_result
from veltair.simulate.run import record, simulate
from veltair.simulate.setting import held_by_outsiders, prepare, serve
from veltair.simulate.table import print_result
from veltair.simulate.virtual import Step, play
from veltair.simulate.workload import MachineSpec, Outside, OutsideStep, Tenant, Workload, read_workload
from veltair.simulate.world import Contended

MODEL = Model(ModelName("m"), (LayerBlock("b", (Variant("v", LatencyTable((0.0, 1.0), {1: (1_000, 2_000)}), Footprint(0, 0)),)),))


def request(at_us: int = 0) -> tuple[int, Event]:
    return at_us, RequestArrived(Request(RequestId(f"r{at_us}"), TenantId("t"), ModelName("m"), at_us, at_us + 1_000_000))


def pressed(at_us: int, pressure: float, *held: int) -> tuple[int, Event]:
    return at_us, PressureChanged(pressure, tuple(map(CoreId, held)))


def latencies(*events: tuple[int, Event], cores: int = 1, handover_us: int = 0, **world: bool) -> list[int]:
    """Of requests that take 1 ms alone and 2 ms under full pressure, on the first idle core."""
    core = Scheduler(Machine(tuple(map(CoreId, range(cores)))), make_policy("fcfs"))
    played = play(core, [(0, ModelLoaded(MODEL)), *events], world=Contended(20_000.0, **world), handover_us=handover_us)
    return [outcome.latency_us for outcome in played.outcomes]


def test_an_outsider_slows_as_the_table_says() -> None:
    assert latencies(pressed(0, 1.0), request()) == [2_000]
    assert latencies(pressed(0, 0.5), request()) == [1_500]
    assert latencies(pressed(0, 0.0), request()) == [1_000]


def test_an_outsider_who_comes_or_goes_meanwhile_costs_for_the_time_he_was_there() -> None:
    assert latencies(pressed(500, 1.0), request()) == [500 + 1_000]
    assert latencies(pressed(0, 1.0), pressed(1_000, 0.0), request()) == [1_000 + 500]


def test_on_a_core_that_an_outsider_holds_a_unit_takes_twice_as_long_and_on_another_it_does_not() -> None:
    assert latencies(pressed(0, 0.0, 0), request()) == [2_000]
    assert latencies(pressed(0, 0.0, 1), request(), cores=2) == [1_000]
    assert latencies(pressed(0, 0.0, 0), request(), handover_us=50) == [2_000 + 50]


def test_a_unit_that_met_the_holder_of_its_core_for_half_of_its_time_pays_half() -> None:
    assert latencies(pressed(500, 0.0, 0), request()) == [500 + 1_000]
    assert latencies(pressed(0, 0.0, 0), pressed(1_000, 0.0), request()) == [1_000 + 500]
    assert latencies(pressed(0, 0.0, 0), pressed(1_000, 0.0, 1), request(), cores=2) == [1_000 + 500]


def test_who_holds_a_core_and_presses_costs_both() -> None:
    assert latencies(pressed(0, 1.0, 0), request()) == [4_000]


def test_a_unit_on_several_cores_waits_for_the_one_that_is_shared() -> None:
    wide = Model(ModelName("m"), (LayerBlock("b", (Variant("v", LatencyTable((0.0,), {2: (1_000,)}), Footprint(0, 0)),)),))
    core = Scheduler(Machine((CoreId(0), CoreId(1))), make_policy("fcfs"))
    events = [(0, ModelLoaded(wide)), pressed(0, 0.0, 1), request()]
    assert [o.latency_us for o in play(core, events, world=Contended(20_000.0), handover_us=0).outcomes] == [2_000]


def test_in_a_world_without_interference_outsiders_cost_nothing() -> None:
    assert latencies(pressed(0, 1.0, 0), request(), interference=False) == [1_000]


@pytest.mark.parametrize(
    ("count", "of", "held"), [(0, 4, ()), (1, 2, (0,)), (2, 4, (0, 2)), (3, 8, (0, 2, 5)), (4, 16, (0, 4, 8, 12)), (2, 2, (0, 1))]
)
def test_held_cores_are_spread_evenly_over_the_machine(count: int, of: int, held: tuple[int, ...]) -> None:
    cores = tuple(CoreId(core) for core in range(of))
    assert held_by_outsiders(count, cores) == held
    assert max((b - a for a, b in pairwise(held)), default=0) <= -(-of // max(count, 1))


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


TWO = (Tenant(name="a", model="mobilenet-v2", qos_ms=20, share=0.7), Tenant(name="b", model="resnet50", qos_ms=80, share=0.3))
ON_TWO_CORES = {"machine": MachineSpec(cores=2, bandwidth_gb_per_s=20.0), "requests": 1_000, "tenant": TWO}
ONE_IS_HELD = Outside(((0.0, 0.0, 1),))


def beside_the_holder(*, aware: bool) -> tuple[set[CoreId], float]:
    """On which cores units began, and the share of requests that were answered in time."""
    setting = prepare(workload(outside=ONE_IS_HELD, aware=aware, **ON_TWO_CORES))
    steps: list[Step] = []
    run = serve(setting, "veltair", 0.4 * setting.capacity_per_s, 1, watch=steps.append)
    units = [action for step in steps for action in step.actions if isinstance(action, Dispatch)]
    in_time = sum(outcome.in_time for outcome in run.outcomes) / len(run.outcomes)
    return {core for unit in units for core in unit.lease.cores}, in_time


def test_who_is_told_which_core_an_outsider_holds_leases_the_other_only_and_meets_more_deadlines() -> None:
    (cores, in_time), (all_cores, unaware) = beside_the_holder(aware=True), beside_the_holder(aware=False)
    assert (cores, all_cores) == ({1}, {0, 1})
    assert in_time > unaware + 0.05


def test_cores_are_held_until_the_step_at_which_they_are_not() -> None:
    setting = prepare(workload(outside=Outside(((0.25, 0.5, 1), (1.5, 0.5))), **ON_TWO_CORES))
    steps: list[Step] = []
    serve(setting, "veltair", 0.4 * setting.capacity_per_s, 1, watch=steps.append)
    told = [(step.now_us, step.event) for step in steps if isinstance(step.event, PressureChanged)]
    assert told == [(250_000, PressureChanged(0.5, (CoreId(0),))), (1_500_000, PressureChanged(0.5))]


def test_an_unaware_scheduler_does_not_hear_of_held_cores() -> None:
    setting = prepare(workload(outside=ONE_IS_HELD, aware=False, **ON_TWO_CORES))
    steps: list[Step] = []
    serve(setting, "veltair", 0.4 * setting.capacity_per_s, 1, watch=steps.append)
    assert [step.event for step in steps if isinstance(step.event, PressureChanged)] == [PressureChanged(0.0)]


def test_a_machine_cannot_have_more_cores_held_than_it_has() -> None:
    prepare(workload(outside=Outside(((0.0, 0.0, 2),)), **ON_TWO_CORES))
    with pytest.raises(ConfigError, match=r"from 1\.5 s on outsiders hold 3 cores, the machine has 2; let them hold fewer"):
        prepare(workload(outside=Outside(((0.0, 0.0, 1), (1.5, 0.0, 3))), **ON_TWO_CORES))


def test_the_table_and_the_result_say_how_many_cores_outsiders_hold() -> None:
    asked = workload(outside=Outside(((0.0, 0.5, 1), (1.0, 0.25, 2), (2.0, 0.0))), **ON_TWO_CORES | {"requests": 100})
    result = simulate(asked, ["fcfs"], seeds=(0,))
    assert msgspec.json.decode(encode_result(result))["scenario"]["outside"] == [[0.0, 0.5, 1], [1.0, 0.25, 2], [2.0, 0.0, 0]]
    said = io.StringIO()
    print_result(result, Console(file=said, width=150))
    said_of = "outsiders press with 0.5 and hold 1 core from 0 s on, 0.25 and hold 2 cores from 1 s on, 0 from 2 s on"
    assert said_of in said.getvalue()


def test_steps_beyond_the_last_arrival_do_not_lengthen_a_run() -> None:
    never = workload(outside=Outside(((0.0, 0.5), (1e6, 0.0))))
    setting = prepare(never)
    assert serve(setting, "veltair", 0.3 * setting.capacity_per_s, 1).ended_us < 1e9


def test_outsiders_stand_in_the_log_of_a_simulated_run(tmp_path: Path) -> None:
    record(workload(outside=Outside(((0.0, 1.0, 1),)), **ON_TWO_CORES), "veltair", 0, tmp_path / "log.jsonl")
    records = read_log(tmp_path / "log.jsonl").runs[-1].records
    assert [(each.pressure, each.held) for each in records if isinstance(each, PressureTold)] == [(1.0, (0,))]


def test_a_recorded_run_beside_outsiders_who_hold_cores_is_decided_again_the_same(tmp_path: Path) -> None:
    comes_and_goes = Outside(((0.2, 0.3, 1), (1.0, 0.6, 2), (1.5, 0.0)))
    record(workload(outside=comes_and_goes, **ON_TWO_CORES), "veltair", 0, tmp_path / "log.jsonl")
    run = read_log(tmp_path / "log.jsonl").runs[-1]
    assert sum(isinstance(each, PressureTold) for each in run.records) == 3
    assert replay(run).difference is None
    not_held = tuple(msgspec.structs.replace(r, held=()) if isinstance(r, PressureTold) else r for r in run.records)
    assert replay(Run(run.started, not_held, 0)).difference is not None


TENANT = '[[tenant]]\nname = "a"\nmodel = "mobilenet-v2"\nqos_ms = 20\nshare = 1\n'


def read(tmp_path: Path, text: str) -> Workload:
    path = tmp_path / "w.toml"
    path.write_text(text + TENANT)
    return read_workload(path)


def test_steps_are_read_from_the_workload_file(tmp_path: Path) -> None:
    asked = read(tmp_path, "aware = false\n[outside]\nsteps = [[0, 0.5], [1, 0.25, 2], [2.5, 0]]\n")
    assert asked.outside.told == (OutsideStep(0.0, 0.5), OutsideStep(1.0, 0.25, 2), OutsideStep(2.5, 0.0))
    assert asked.aware is False


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ("[[0, 1.5]]", "outside: a pressure must lie within 0..1 (a share of the bandwidth), got 1.5"),
        ("[[2, 0.5], [1, 0]]", "outside: the seconds of steps must ascend, from 0 or later, got [2.0, 1.0]"),
        ("[[-1, 0.5]]", "outside: the seconds of steps must ascend"),
        ("[[0]]", "outside: a step is [second, pressure] or [second, pressure, cores], got [0.0]"),
        ("[[0, 0.5, 1, 1]]", "outside: a step is [second, pressure] or [second, pressure, cores], got [0.0, 0.5, 1.0, 1.0]"),
        ("[[0, 0.5, -1]]", "outside: the cores that outsiders hold must be a whole number, 0 or more, got -1"),
        ("[[0, 0.5, 1.5]]", "outside: the cores that outsiders hold must be a whole number, 0 or more, got 1.5"),
        ("[[0, 0.5, inf]]", "outside: the cores that outsiders hold must be a whole number, 0 or more, got inf"),
        ('[[0, 0.5, "one"]]', "outside steps [0] [2] = 'one': Expected `float`, got `str`"),
    ],
)
def test_steps_that_make_no_sense_are_named(tmp_path: Path, steps: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read(tmp_path, f"[outside]\nsteps = {steps}\n")
    assert said in str(raised.value)
