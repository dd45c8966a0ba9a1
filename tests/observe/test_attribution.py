"""Who cost whom how much: small logs split by hand, logs of the scheduler against the simulated truth, and any log at all."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from veltair.core.events import Event, ModelLoaded, RequestArrived, RequestCancelled
from veltair.core.policies import POLICIES, make_policy
from veltair.core.scheduler import Scheduler
from veltair.core.values import CoreId, Footprint, LatencyTable, LayerBlock, Machine, Model, ModelName, Variant
from veltair.observe.attribution import Split, attribute, matrix
from veltair.observe.read import Run, read_log
from veltair.observe.records import (
    Arrived,
    Completed,
    CoreRecord,
    Dispatched,
    Dropped,
    Finished,
    PressureTold,
    Record,
    Refused,
    Started,
    TenantRecord,
    WeightsAsked,
    WeightsLoaded,
)
from veltair.simulate.mixes import MIXES, capacity_per_s, timeline
from veltair.simulate.trace_steps import StepRecords
from veltair.simulate.virtual import Span, Step, play
from veltair.simulate.world import Contended

GOLDEN = Path(__file__).parent.parent / "simulate" / "golden" / "engine_fcfs.jsonl"
BANDWIDTH = 1000.0  # bytes a microsecond


def model(name: str, rows: Mapping[int, tuple[int, int]], traffic: int = 0, batches: Mapping[int, Model] | None = None) -> Model:
    """One block, one variant; a row is its time on an idle machine and at full pressure."""
    variant = Variant("only", LatencyTable((0.0, 1.0), rows), Footprint(traffic, 0))
    return Model(ModelName(name), (LayerBlock("b", (variant,)),), batches or {})


PLAIN = model("plain", {1: (1000, 1000)})
TENDER = model("tender", {1: (1000, 2000)})  # twice as long at full pressure
HALF = model("half", {1: (1000, 1000)}, traffic=500_000)  # presses with half of the bandwidth
EIGHTH = model("eighth", {1: (1000, 1000)}, traffic=125_000)
WIDE = model("wide", {1: (1000, 1000), 2: (600, 600)})
PAIR = model("pair", {1: (1000, 1000)}, batches={2: model("pair x2", {1: (1400, 1400)})})
MODELS = (PLAIN, TENDER, HALF, EIGHTH, WIDE, PAIR)


class Log:
    """Writes down what happened. A tenant is called as its request begins: `ads1` is of `ads`."""

    def __init__(self, cores: int = 2, *, models: Sequence[Model] | None = MODELS) -> None:
        machine = Machine(tuple(CoreId(i) for i in range(cores)), BANDWIDTH)
        core = None if models is None else CoreRecord(machine, tuple(models))
        tenants = tuple(TenantRecord(name, "plain", 10_000, 0.95) for name in ("ads", "docs", "shop"))
        self.started = Started(0, 0.0, "0", "fcfs", "machine", tuple(range(cores)), (), tenants, core=core)
        self.records: list[Record] = []
        self._arrived: dict[str, Arrived] = {}
        self._leases: dict[int, str] = {}

    def arrive(self, at_us: int, request: str, model: str = "plain") -> "Log":
        self._arrived[request] = Arrived(at_us, request, request.rstrip("0123456789"), model, at_us + 10_000)
        return self._write(self._arrived[request])

    def start(self, at_us: int, request: str, lease: int, *cores: int, riders: tuple[str, ...] = (), us: int = 1000) -> "Log":
        who = self._arrived[request]
        self._leases[lease] = request
        run = (lease, cores or (0,), 0, 1, ("only",), us, 0.0, "why")
        return self._write(Dispatched(at_us, request, who.tenant, who.model, *run, riders=riders))

    def end(self, at_us: int, lease: int, measured_us: int, *answered: str) -> "Log":
        """The unit ends, and `answered` (by default its request) are answered at once."""
        self._write(Finished(at_us, lease, self._leases[lease], measured_us))
        for request in answered or (self._leases[lease],):
            who = self._arrived[request]
            self._write(Completed(at_us, request, who.tenant, who.model, at_us - who.at_us, 1000, who.deadline_us))
        return self

    def also(self, record: Record) -> "Log":
        return self._write(record)

    def split(self) -> dict[str, Split]:
        splits = attribute(Run(self.started, tuple(self.records), 0))
        for each in splits:
            assert_adds_up(each)
        return {each.request: each for each in splits}

    def _write(self, record: Record) -> "Log":
        self.records.append(record)
        return self


def assert_adds_up(split: Split) -> None:
    of_others = [*split.waited_us.values(), *split.slowed_us.values(), split.outsiders_us]
    assert sum(of_others) + split.self_us == split.latency_us - split.solo_us == split.excess_us
    assert min(of_others) >= 0
    assert all(isinstance(part, int) for part in (*of_others, split.self_us, split.solo_us))


def parts(split: Split) -> tuple[dict[str, int], dict[str, int], int, int]:
    return dict(split.waited_us), dict(split.slowed_us), split.outsiders_us, split.self_us


def test_alone_and_as_fast_as_its_table_a_request_has_no_excess() -> None:
    split = Log().arrive(0, "ads").start(0, "ads", 1).end(1000, 1, 1000).split()["ads"]
    assert (split.solo_us, split.excess_us, parts(split)) == (1000, 0, ({}, {}, 0, 0))


def test_a_hand_over_and_a_time_that_strays_are_a_requests_own() -> None:
    split = Log().arrive(0, "ads").start(0, "ads", 1).end(1150, 1, 1100).split()["ads"]
    assert parts(split) == ({}, {}, 0, 150)


def test_only_what_is_a_requests_own_may_be_below_nought() -> None:
    split = Log().arrive(0, "ads").start(0, "ads", 1).end(900, 1, 900).split()["ads"]
    assert (split.excess_us, parts(split)) == (-100, ({}, {}, 0, -100))


def test_waiting_is_the_fault_of_who_held_the_core() -> None:
    log = Log(1).arrive(0, "ads").start(0, "ads", 1).arrive(200, "docs").end(1000, 1, 1000)
    split = log.start(1000, "docs", 2).end(2000, 2, 1000).split()["docs"]
    assert parts(split) == ({"ads": 800}, {}, 0, 0)


def test_waiting_for_ones_own_requests_is_told_apart_from_waiting_by_oneself() -> None:
    log = Log(1).arrive(0, "ads1").start(0, "ads1", 1).arrive(0, "ads2").end(1000, 1, 1000)
    split = log.start(1300, "ads2", 2).end(2300, 2, 1000).split()["ads2"]
    assert parts(split) == ({"ads": 1000}, {}, 0, 300)  # nobody held a core in the last 300


def test_waiting_is_shared_by_cores_held_moment_by_moment() -> None:
    log = Log(4).arrive(0, "ads").start(0, "ads", 1, 0, 1, 2).arrive(0, "shop").start(0, "shop", 2, 3).arrive(0, "docs")
    log.end(1000, 2, 1000).end(1400, 1, 1400)
    split = log.start(1400, "docs", 3).end(2400, 3, 1000).split()["docs"]
    assert parts(split)[0] == {"ads": 750 + 400, "shop": 250}


def test_a_slowdown_is_its_co_runners_as_far_as_the_tables_explain_it() -> None:
    def beside(measured_us: int) -> Split:
        log = Log().arrive(0, "ads", "half").start(0, "ads", 1, 0).arrive(0, "docs", "tender").start(0, "docs", 2, 1)
        return log.end(measured_us, 2, measured_us).end(3000, 1, 3000).split()["docs"]

    assert parts(beside(1500)) == ({}, {"ads": 500}, 0, 0)  # half of the pressure, half of the slowdown at full pressure
    assert parts(beside(1400)) == ({}, {"ads": 400}, 0, 0)
    assert parts(beside(1700)) == ({}, {"ads": 500}, 0, 200)
    assert parts(beside(950)) == ({}, {}, 0, -50)


def test_what_runs_beside_for_a_part_of_the_time_presses_for_that_part() -> None:
    log = Log().arrive(0, "docs", "tender").start(0, "docs", 2, 1).arrive(600, "ads", "half").start(600, "ads", 1, 0)
    split = log.end(1200, 2, 1200).end(1700, 1, 1000).split()["docs"]
    assert parts(split) == ({}, {"ads": 200}, 0, 0)  # half a bandwidth for half of the time: 250 explained, 200 measured


def test_co_runners_share_a_slowdown_by_their_traffic() -> None:
    log = Log(3).arrive(0, "ads", "half").start(0, "ads", 1, 0).arrive(0, "shop", "eighth").start(0, "shop", 2, 1)
    log.arrive(0, "docs", "tender").start(0, "docs", 3, 2)
    split = log.end(1625, 3, 1625).split()["docs"]
    assert parts(split) == ({}, {"ads": 500, "shop": 125}, 0, 0)


def test_a_co_runner_without_traffic_slows_nobody() -> None:
    log = Log().arrive(0, "ads").start(0, "ads", 1, 0).arrive(0, "docs", "tender").start(0, "docs", 2, 1)
    assert parts(log.end(1500, 2, 1500).split()["docs"]) == ({}, {}, 0, 500)


def test_outsiders_share_what_the_tables_explain_by_their_pressure() -> None:
    log = Log().also(PressureTold(0, 0.25, 0.1, 0.0)).arrive(0, "ads", "half").start(0, "ads", 1, 0)
    split = log.arrive(0, "docs", "tender").start(0, "docs", 2, 1).end(1600, 2, 1600).split()["docs"]
    assert parts(split) == ({}, {"ads": 400}, 200, 0)


def test_outsiders_that_come_and_go_press_for_the_time_they_were_there() -> None:
    log = Log().arrive(0, "docs", "tender").start(0, "docs", 1).also(PressureTold(300, 1.0, 0.1, 0.0))
    split = log.also(PressureTold(600, 0.0, 0.1, 0.0)).end(1250, 1, 1250).split()["docs"]
    assert parts(split) == ({}, {}, 240, 10)  # 300 of 1250 us


def test_outsiders_on_the_very_cores_are_blamed_beyond_the_tables_up_to_the_time_they_used() -> None:
    def beside(cores: float, measured_us: int) -> tuple[int, int]:
        log = Log().also(PressureTold(0, 0.0, 0.1, cores)).arrive(0, "docs").start(0, "docs", 1)
        split = log.end(measured_us, 1, measured_us).split()["docs"]
        return split.outsiders_us, split.self_us

    assert beside(1.0, 2500) == (1500, 0)
    assert beside(0.4, 2500) == (1000, 500)
    assert beside(0.0, 2500) == (0, 1500)
    assert beside(1.0, 900) == (0, -100)


def test_fewer_cores_than_it_would_have_alone_are_a_requests_own() -> None:
    split = Log().arrive(0, "ads", "wide").start(0, "ads", 1, 0).end(1100, 1, 1100).split()["ads"]
    assert (split.solo_us, split.self_us, split.chosen_us) == (600, 500, 400)


def test_in_a_batch_the_others_are_what_it_takes_longer_for() -> None:
    log = Log(1).arrive(0, "ads", "pair").arrive(0, "docs", "pair").start(0, "ads", 1, riders=("docs",))
    split = log.end(1450, 1, 1450, "ads", "docs").split()
    assert parts(split["ads"]) == ({}, {"docs": 400}, 0, 50)
    assert parts(split["docs"]) == ({}, {"ads": 400}, 0, 50)


def test_who_waits_behind_a_batch_waits_for_all_of_its_members() -> None:
    log = Log(1).arrive(0, "ads", "pair").arrive(0, "docs", "pair").start(0, "ads", 1, riders=("docs",)).arrive(0, "shop")
    log.end(1400, 1, 1400, "ads", "docs").start(1400, "shop", 2)
    assert parts(log.end(2400, 2, 1000).split()["shop"])[0] == {"ads": 700, "docs": 700}


def test_waiting_for_ones_own_weights_is_nobody_elses_fault() -> None:
    log = Log(1).arrive(0, "ads").start(0, "ads", 1).also(WeightsAsked(0, "wide")).arrive(0, "docs", "wide")
    log.also(WeightsLoaded(700, "wide")).end(1000, 1, 1000).start(1000, "docs", 2).end(2000, 2, 1000)
    assert parts(log.split()["docs"]) == ({"ads": 300}, {}, 0, 700)


def test_who_is_refused_or_dropped_has_no_split_but_its_time_on_cores_counts() -> None:
    log = Log(1).arrive(0, "ads").start(0, "ads", 1).arrive(0, "docs").arrive(0, "shop")
    log.also(Refused(0, "shop", "shop", "plain", "deadline_unmeetable", "late"))
    log.also(Dropped(500, "ads", "ads", "plain", "cancelled", "cancelled")).also(Finished(1000, 1, "ads", 1000))
    splits = log.start(1000, "docs", 2).end(2000, 2, 1000).split()
    assert splits.keys() == {"docs"}
    assert parts(splits["docs"])[0] == {"ads": 1000}


def test_without_tables_waiting_is_split_all_the_same_and_solo_is_what_was_predicted() -> None:
    log = Log(1, models=None).arrive(0, "ads").start(0, "ads", 1).arrive(0, "docs").end(1000, 1, 1000)
    split = log.start(1000, "docs", 2, us=900).end(2000, 2, 1000).split()["docs"]
    assert (split.solo_us, parts(split)) == (900, ({"ads": 1000}, {}, 0, 100))


def test_a_unit_whose_end_was_lost_ends_when_its_core_is_leased_again() -> None:
    log = Log(1).arrive(0, "ads").start(0, "ads", 1).arrive(1000, "shop").start(1000, "shop", 2).arrive(1000, "docs")
    split = log.end(2000, 2, 1000).start(2000, "docs", 3).end(3000, 3, 1000).split()["docs"]
    assert parts(split)[0] == {"shop": 1000}


def test_the_matrix_sums_up_requests_and_names_the_noisiest_neighbour() -> None:
    log = Log(1).arrive(0, "ads").start(0, "ads", 1).arrive(200, "docs1").arrive(300, "docs2").end(1000, 1, 1000)
    log.start(1000, "docs1", 2).end(2000, 2, 1000).start(2000, "docs2", 3).end(3100, 3, 1000)
    rows = matrix(log.split().values(), ["ads", "docs", "shop"])
    docs = rows["docs"]
    assert (docs.requests, docs.solo_us, docs.excess_us) == (2, 2000, 1800 + 2800 - 2000)
    assert (docs.by_us("ads"), docs.by_us("docs"), docs.self_us) == (800 + 700, 1000, 100)
    assert docs.noisiest == "ads"
    assert (rows["ads"].noisiest, rows["shop"].requests) == (None, 0)


def test_a_log_of_the_engine_is_split() -> None:
    [run] = read_log(GOLDEN).runs
    splits = attribute(run)
    assert len(splits) == sum(isinstance(record, Completed) for record in run.records) == 149
    for split in splits:
        assert_adds_up(split)
    rows = matrix(splits)
    assert (rows["files"].noisiest, rows["pictures"].noisiest) == ("pictures", "files")
    assert not rows["files"].slowed_us  # there was one core


def simulated(policy: str, seed: int, load: float, *, noise: float = 0.0) -> tuple[Run, list[Span]]:
    """Two seconds of a mix whose models press on each other, on three cores."""
    machine, mix = Machine(tuple(CoreId(i) for i in range(3)), 4_000.0), MIXES["mixed"]
    events: list[tuple[int, Event]] = []
    for at_us, event in timeline(mix, load * capacity_per_s(mix, 3), 2.0, seed=seed):
        events.append((at_us, ModelLoaded(pressing(event.model)) if isinstance(event, ModelLoaded) else event))
    asked = [event.request for _, event in events if isinstance(event, RequestArrived)]
    events += [(request.arrived_us + 300, RequestCancelled(request.id)) for request in asked[::40]]
    steps: list[Step] = []
    spans: list[Span] = []
    world = Contended(machine.bandwidth_bytes_per_us, noise=noise, seed=seed)
    play(Scheduler(machine, make_policy(policy)), events, world=world, watch=steps.append, span_ended=spans.append)
    words = StepRecords()
    log = tuple(record for step in steps for record in words.of(step))
    core = CoreRecord(machine, tuple(event.model for _, event in events if isinstance(event, ModelLoaded)))
    return Run(Started(0, 0.0, "0", policy, "virtual", (0, 1, 2), (), (), core=core), log, 0), spans


def pressing(model: Model) -> Model:
    """Each block takes half as long again at full pressure, and presses with three tenths of the bandwidth."""
    blocks = tuple(
        LayerBlock(block.name, tuple(Variant(v.name, slowed(v.table), Footprint(traffic(v.table), 0)) for v in block.variants))
        for block in model.blocks
    )
    return Model(model.name, blocks)


def slowed(table: LatencyTable) -> LatencyTable:
    return LatencyTable((0.0, 1.0), {cores: (row[0], row[0] * 3 // 2) for cores, row in table.rows_us.items()})


def traffic(table: LatencyTable) -> int:
    return round(0.3 * 4_000 * table.rows_us[min(table.rows_us)][0])


def test_in_a_simulation_the_slowdown_by_co_runners_is_what_it_was_made_of() -> None:
    run, spans = simulated("fcfs", seed=3, load=0.8)
    splits = attribute(run)
    answered = {split.request for split in splits}
    assert run.started.core is not None
    models = {each.name: each for each in run.started.core.models}
    truth = 0
    for span in spans:
        blocks = models[span.request.model].blocks[span.unit.first_block : span.unit.end_block]
        forms = [block.variants[v] for block, v in zip(blocks, span.unit.variants, strict=True)]
        quiet_us = sum(form.table.latency_us(len(span.unit.lease.cores)) for form in forms)
        if span.request.id in answered:
            truth += span.end_us - span.begin_us - quiet_us - 50  # the hand-over
    found = sum(sum(split.slowed_us.values()) for split in splits)
    assert truth > 20_000
    assert found == pytest.approx(truth, rel=0.05)


@pytest.mark.parametrize("policy", POLICIES)
def test_whatever_the_policy_nobody_waits_longer_than_he_waited(policy: str) -> None:
    run, spans = simulated(policy, seed=1, load=1.2, noise=0.2)
    ran: dict[str, int] = {}
    for span in spans:
        ran[span.request.id] = ran.get(span.request.id, 0) + span.end_us - span.begin_us
    splits = attribute(run)
    assert len(splits) > 100
    for split in splits:
        assert_adds_up(split)
        assert sum(split.waited_us.values()) <= split.latency_us - ran[split.request] + len(split.waited_us)
        assert sum(split.slowed_us.values()) <= ran[split.request]
        assert split.self_us >= -split.solo_us - len(split.waited_us) - len(split.slowed_us)


requests = st.sampled_from(["ads1", "ads2", "docs1", "docs2", "shop1"])
times = st.integers(0, 5_000)
names = st.sampled_from([*(str(each.name) for each in MODELS), "gone"])
any_record = st.one_of(
    st.builds(Arrived, times, requests, st.sampled_from(["ads", "docs"]), names, times),
    st.builds(
        Dispatched,
        at_us=times,
        request=requests,
        tenant=st.sampled_from(["ads", "docs", "shop"]),
        model=names,
        lease=st.integers(1, 4),
        cores=st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True).map(tuple),
        first_block=st.integers(0, 2),
        end_block=st.integers(0, 3),
        variants=st.sampled_from([("only",), ("only", "only"), ("other",), ()]),
        predicted_us=st.integers(0, 3_000),
        pressure=st.floats(0, 1),
        reason=st.just(""),
        riders=st.lists(requests, max_size=2).map(tuple),
    ),
    st.builds(Finished, times, st.integers(1, 4), requests, times),
    st.builds(Completed, times, requests, st.sampled_from(["ads", "docs"]), names, times, times, times),
    st.builds(Dropped, times, requests, st.just("ads"), names, st.just("cancelled"), st.just("")),
    st.builds(WeightsLoaded, times, names),
    st.builds(PressureTold, times, st.floats(0, 1), st.floats(0, 1), st.floats(0, 64)),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(any_record, max_size=40), st.booleans())
def test_whatever_the_log_the_parts_add_up_and_only_its_own_may_be_below_nought(log: list[Record], sorted_by_time: bool) -> None:
    records = sorted(log, key=lambda record: record.at_us) if sorted_by_time else log
    splits = attribute(Run(Log(3).started, tuple(records), 0))
    assert len(splits) == sum(isinstance(record, Completed) for record in records)
    for split in splits:
        assert_adds_up(split)


@settings(max_examples=30, deadline=None)
@given(st.sets(st.integers(0, 595), max_size=200))
def test_a_log_with_holes_still_adds_up(lost: set[int]) -> None:
    [run] = read_log(GOLDEN).runs
    kept = tuple(record for number, record in enumerate(run.records) if number not in lost)
    for split in attribute(Run(run.started, kept, len(lost))):
        assert_adds_up(split)
