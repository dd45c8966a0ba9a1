"""The trace of a run: every unit on its cores, every request's fate, what was waiting; whole or not at all."""

import gzip
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from veltair.cli.trace import trace as trace_command
from veltair.core.actions import Complete, Dispatch, Drop, EvictWeights, LoadWeights, Refuse
from veltair.core.events import ModelLoaded, RequestArrived, TimerFired, UnitFailed, UnitFinished, WeightsLoaded
from veltair.core.policies import make_policy
from veltair.core.scheduler import Scheduler
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
    Request,
    RequestId,
    TenantId,
    Variant,
)
from veltair.errors import LogError
from veltair.observe.log import DecisionLog
from veltair.observe.read import read_log
from veltair.observe.records import Arrived, Completed, Dispatched, Dropped, Finished, Refused, Started
from veltair.simulate.mixes import MIXES, capacity_per_s, timeline
from veltair.simulate.trace import TraceWriter, watch_trace, write_log_trace, write_trace
from veltair.simulate.trace_steps import StepRecords
from veltair.simulate.virtual import Step, play

Event = dict[str, Any]
TWO = Machine((CoreId(0), CoreId(1)))


def model(name: str, blocks: int = 2, batch: int | None = None) -> Model:
    table = LatencyTable((0.0,), {1: (100,)})
    variants = (Variant("wide", table, Footprint(0, 0)), Variant("lean", table, Footprint(0, 0)))
    line = tuple(LayerBlock(f"{name}.{i}", variants) for i in range(blocks))
    batches = {} if batch is None else {batch: Model(ModelName(name), tuple(LayerBlock(b.name, variants[::-1]) for b in line))}
    return Model(ModelName(name), line, batches)


def arrives(name: str, at_us: int, *actions: Any, tenant: str = "ads", of: str = "net") -> Step:
    request = Request(RequestId(name), TenantId(tenant), ModelName(of), at_us, at_us + 1000)
    return Step(at_us, RequestArrived(request), actions)


def runs(name: str, lease: int, cores: Sequence[int], blocks: range, *riders: str) -> Dispatch:
    held = Lease(LeaseId(lease), tuple(CoreId(core) for core in cores))
    others = tuple(RequestId(rider) for rider in riders)
    return Dispatch(
        RequestId(name), held, blocks.start, blocks.stop, (0,) * len(blocks), 100, 0.25, "it is first", riders=others
    )  # fmt: skip


def ends(lease: int, at_us: int, *actions: Any) -> Step:
    return Step(at_us, UnitFinished(LeaseId(lease), 90), actions)


def answer(name: str) -> Complete:
    return Complete(RequestId(name), 150, 140, 160)


def traced(path: Path, *steps: Step, machine: Machine = TWO) -> list[Event]:
    events: list[Event] = json.loads(write_trace(path / "trace.json", steps, machine).read_text())["traceEvents"]
    return events


def only(events: Sequence[Event], **wanted: Any) -> list[Event]:
    return [event for event in events if all(event.get(key) == value for key, value in wanted.items())]


def counter(events: Sequence[Event], name: str, unit: str) -> list[tuple[int, float]]:
    return [(event["ts"], event["args"][unit]) for event in only(events, ph="C", name=name)]


LOADED = Step(0, ModelLoaded(model("net")), ())


def test_a_unit_holds_its_cores_from_dispatch_to_its_end_and_says_why(tmp_path: Path) -> None:
    events = traced(tmp_path, LOADED, arrives("a", 10, runs("a", 1, (0, 1), range(2))), ends(1, 130, answer("a")))
    first, second = only(events, ph="X", cat="unit")
    assert (first["tid"], first["ts"], first["dur"], first["name"]) == (1, 10, 120, "ads · net")
    assert first["args"] == {
        "request": "a", "tenant": "ads", "model": "net", "blocks": "0 to 1", "variants": "wide ×2", "cores": "0, 1", "lease": 1,
        "predicted_us": 100, "measured_us": 90, "pressure": 0.25, "reason": "it is first", "rejected": [],
    }  # fmt: skip
    assert (second["tid"], second["ts"], second["dur"], second["args"]) == (2, 10, 120, {"lease": 1, "request": "a"})
    names = {event["tid"]: event["args"]["name"] for event in only(events, name="thread_name")}
    assert (names[1], names[2]) == ("core 0", "core 1")


def test_an_arrow_leads_from_a_unit_to_the_requests_next_one(tmp_path: Path) -> None:
    steps = [
        LOADED,
        arrives("a", 0, runs("a", 1, (0,), range(1))),
        ends(1, 100, runs("a", 2, (1,), range(1, 2))),
        ends(2, 200, answer("a")),
    ]
    events = traced(tmp_path, *steps)
    [tail], [head] = only(events, ph="s"), only(events, ph="f")
    assert (tail["tid"], tail["ts"], head["tid"], head["ts"]) == (1, 0, 2, 100)
    assert (tail["id"], head["bp"]) == (head["id"], "e")
    assert events.index(tail) > max(events.index(unit) for unit in only(events, ph="X", cat="unit"))


def test_a_request_is_a_span_from_arrival_to_answer(tmp_path: Path) -> None:
    events = traced(tmp_path, LOADED, arrives("a", 10, runs("a", 1, (0,), range(2))), ends(1, 130, answer("a")))
    [begin], [end] = only(events, ph="b"), only(events, ph="e")
    assert (begin["id"], begin["ts"], end["ts"]) == (end["id"], 10, 130)
    assert begin["args"] == {"request": "a", "tenant": "ads", "model": "net", "deadline_us": 1000}
    told = {"latency_us": 120, "predicted_us": 150, "low_us": 140, "high_us": 160, "in_time": True}
    assert end["args"] == {"outcome": "answered", **told}


def test_refusals_and_drops_are_instants_with_their_reason(tmp_path: Path) -> None:
    refusal = Refuse(RequestId("b"), "deadline_unmeetable", "9 wait ahead", 1700)
    steps = [
        LOADED,
        arrives("a", 0, tenant="x"),
        arrives("b", 5, refusal),
        Step(900, TimerFired(), (Drop(RequestId("a"), "deadline_missed", "too late"),)),
    ]
    events = traced(tmp_path, *steps)
    refused, dropped = only(events, ph="i")
    assert (refused["ts"], refused["name"]) == (5, "refused: deadline_unmeetable")
    assert (refused["args"]["request"], refused["args"]["reason"], refused["args"]["earliest_us"]) == ("b", "9 wait ahead", 1695)
    assert (dropped["ts"], dropped["args"]["tenant"], dropped["args"]["reason"]) == (900, "x", "too late")
    assert [end["args"]["outcome"] for end in only(events, ph="e")] == ["refused", "dropped"]


def test_counters_follow_who_waits_and_which_cores_are_idle(tmp_path: Path) -> None:
    steps = [
        LOADED,
        arrives("a", 10, runs("a", 1, (0, 1), range(1))),
        arrives("b", 20),
        ends(1, 110, runs("a", 2, (0,), range(1, 2)), runs("b", 3, (1,), range(2))),
        ends(2, 200, answer("a")),
        ends(3, 300, answer("b")),
    ]
    events = traced(tmp_path, *steps)
    assert counter(events, "waiting", "requests") == [(0, 0), (20, 1), (110, 0)]
    assert counter(events, "idle", "cores") == [(0, 2), (10, 0), (200, 1), (300, 2)]
    assert counter(events, "pressure", "%") == [(0, 0.0), (10, 25.0)]


def test_a_batch_goes_on_under_the_name_of_its_first_who_was_cancelled(tmp_path: Path) -> None:
    steps = [
        Step(0, ModelLoaded(model("net", batch=2)), ()),
        arrives("a", 0),
        arrives("b", 1, runs("a", 1, (0,), range(1), "b")),
        Step(50, TimerFired(), (Drop(RequestId("a"), "cancelled", "cancelled by the client"),)),
        ends(1, 100, runs("a", 2, (0,), range(1, 2), "b")),
        ends(2, 200, answer("b")),
    ]
    events = traced(tmp_path, *steps)
    units = only(events, ph="X", cat="unit")
    assert [(unit["args"]["request"], unit["args"]["with"], unit["args"]["variants"]) for unit in units] == [
        ("a", ["b"], "lean"),  # as the batch's own model numbers them
        ("a", ["b"], "lean"),
    ]
    assert len(only(events, ph="s")) == 1
    assert counter(events, "waiting", "requests") == [(0, 1), (1, 0)]


def test_a_unit_that_failed_says_what_happened(tmp_path: Path) -> None:
    gone = Drop(RequestId("a"), "engine_failed", "out of memory")
    steps = [LOADED, arrives("a", 0, runs("a", 1, (0,), range(1))), Step(70, UnitFailed(LeaseId(1), "out of memory"), (gone,))]
    [unit] = only(traced(tmp_path, *steps), ph="X")
    assert (unit["dur"], unit["args"]["failed"]) == (70, "out of memory")
    assert "measured_us" not in unit["args"]


def test_weights_on_their_way_in_are_a_slice(tmp_path: Path) -> None:
    name = ModelName("net")
    steps = [
        Step(5, TimerFired(), (EvictWeights(ModelName("old")), LoadWeights(name))),
        Step(905, WeightsLoaded(name), ()),
    ]
    events = traced(tmp_path, *steps)
    [load], [evicted] = only(events, ph="X", cat="weights"), only(events, ph="i")
    assert (load["name"], load["ts"], load["dur"]) == ("net", 5, 900)
    assert (evicted["name"], evicted["ts"]) == ("evicted old", 5)


def test_what_is_under_way_at_the_end_is_drawn_up_to_there(tmp_path: Path) -> None:
    events = traced(tmp_path, LOADED, arrives("a", 0, runs("a", 1, (0,), range(1))), arrives("b", 60))
    [unit] = only(events, ph="X")
    assert (unit["dur"], unit["args"]["unfinished"]) == (60, True)
    assert [(end["ts"], end["args"]["outcome"]) for end in only(events, ph="e")] == [(60, "open"), (60, "open")]


def test_a_simulated_run_is_in_its_trace_unit_for_unit(tmp_path: Path) -> None:
    mix = MIXES["mixed"]
    events_in = list(timeline(mix, 1.1 * capacity_per_s(mix, 2), 1.0, seed=3))
    with watch_trace(tmp_path / "trace.json.gz", TWO, {"policy": "veltair", "seed": "3"}) as watch:
        run = play(Scheduler(TWO, make_policy("veltair")), events_in, watch=watch)
    whole = json.loads(gzip.decompress((tmp_path / "trace.json.gz").read_bytes()))
    events = whole["traceEvents"]
    assert whole["otherData"] == {"policy": "veltair", "seed": "3"}
    assert len([unit for unit in only(events, ph="X", cat="unit") if "reason" in unit["args"]]) == run.units
    assert sum(unit["dur"] for unit in only(events, ph="X", cat="unit")) == run.busy_core_us
    fates = [end["args"]["outcome"] for end in only(events, ph="e")]
    assert len(fates) == len(run.outcomes)
    assert fates.count("answered") == sum(outcome.error is None for outcome in run.outcomes)
    assert len(only(events, ph="i")) == sum(outcome.error is not None for outcome in run.outcomes)
    busy = defaultdict(list)
    for unit in only(events, ph="X", cat="unit"):
        busy[unit["tid"]].append((unit["ts"], unit["ts"] + unit["dur"]))
    for spans in busy.values():
        spans.sort()
        assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    steps = [LOADED, arrives("a", 10, runs("a", 1, (0, 1), range(2))), ends(1, 130, answer("a"))]
    one, two = (write_trace(tmp_path / name, steps, TWO).read_bytes() for name in ("one.json.gz", "two.json.gz"))
    assert one == two


def test_what_is_over_is_not_held(tmp_path: Path) -> None:
    translate = StepRecords()
    with TraceWriter(tmp_path / "trace.json", (0, 1), {}) as trace:
        for i in range(50):
            at_us = 1000 * i
            steps = [
                arrives(f"a{i}", at_us),
                arrives(f"b{i}", at_us, runs(f"a{i}", i, (0,), range(2), f"b{i}")),
                ends(i, at_us + 100, answer(f"a{i}"), answer(f"b{i}")),
            ]
            for step in [Step(0, ModelLoaded(model("net", batch=2)), ()), *steps] if i == 0 else steps:
                for record in translate.of(step):
                    trace.write(record)
        held = [*vars(trace).values(), *vars(translate).values()]
        # the loaded model, three counters, and the two cores
        assert all(len(each) <= 3 for each in held if isinstance(each, dict))


def engine_log(path: Path) -> Path:
    def told() -> Iterator[Any]:
        yield Started(0, 1.7e9, "0.1.0", "veltair", "Test CPU", (4, 6), (), ())
        yield Arrived(10, "r1", "</script>", "net", 1010)
        yield Dispatched(20, "r1", "</script>", "net", 1, (6,), 0, 2, ("wide", "lean"), 100, 0.5, "first")
        yield Finished(140, 1, "r1", 110)
        yield Completed(145, "r1", "</script>", "net", 135, 130, 1010)
        yield Refused(150, "r2", "late", "net", "unknown_tenant", "who?")  # refused before it counted as arrived
        yield Arrived(160, "r3", "late", "net", 170)
        yield Dropped(175, "r3", "late", "net", "deadline_missed", "too late")

    with DecisionLog(path) as log:
        for record in told():
            log.write(record)
    return path


def test_the_log_of_an_engine_becomes_a_trace_too(tmp_path: Path) -> None:
    [run] = read_log(engine_log(tmp_path / "decisions.jsonl")).runs
    whole = json.loads(write_log_trace(tmp_path / "trace.json", run).read_text())
    events = whole["traceEvents"]
    [unit] = only(events, ph="X")
    assert (unit["tid"], unit["ts"], unit["dur"], unit["args"]["variants"]) == (7, 20, 120, "wide, lean")
    assert unit["args"]["tenant"] == "</script>"
    assert whole["otherData"] == {"policy": "veltair", "machine": "Test CPU", "version": "0.1.0"}
    assert [(end["ts"], end["args"]["outcome"]) for end in only(events, ph="e")] == [
        (145, "answered"),
        (150, "refused"),
        (175, "dropped"),
    ]
    assert counter(events, "waiting", "requests") == [(0, 0), (10, 1), (20, 0), (140, 1), (145, 0), (160, 1), (175, 0)]


def test_a_run_that_breaks_off_leaves_no_file(tmp_path: Path) -> None:
    unknown = Step(5, TimerFired(), (runs("nobody", 1, (0,), range(1)),))
    with pytest.raises(KeyError, match="nobody"):
        write_trace(tmp_path / "trace.json", [LOADED, unknown], TWO)
    assert list(tmp_path.iterdir()) == []


def test_a_trace_that_cannot_be_written_says_which(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(LogError, match=r"taken' cannot be written: Is a directory; name a writable file"):
        write_trace(tmp_path / "taken", [LOADED], TWO)
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_the_command_takes_the_last_run_unless_told_which(tmp_path: Path) -> None:
    log, trace_file = engine_log(tmp_path / "decisions.jsonl"), tmp_path / "trace.json"
    with DecisionLog(log) as again:
        again.write(Started(0, 1.7e9, "0.1.0", "fcfs", "Test CPU", (4,), (), ()))
    policies = []
    for options in ([], ["--run", "1"]):
        result = CliRunner().invoke(trace_command, [str(log), "-o", str(trace_file), *options])
        assert result.exit_code == 0, result.output
        policies.append(json.loads(trace_file.read_text())["otherData"]["policy"])
    assert policies == ["fcfs", "veltair"]
    result = CliRunner().invoke(trace_command, [str(log), "--run", "3", "-o", str(trace_file)])
    assert result.exit_code == 1
    assert "has 2 runs, not 3; name one of them with --run" in result.output.replace("\n", "")
