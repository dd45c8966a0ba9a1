"""The simulated world: who runs beside whom, and what that costs."""

import pytest

from veltair.core.actions import Complete, Dispatch, EvictWeights, LoadWeights
from veltair.core.events import Event, ModelLoaded, RequestArrived, WeightsLoaded
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
from veltair.simulate.virtual import Run, Span, Step, play
from veltair.simulate.world import Contended

BANDWIDTH = 1_000.0  # bytes a microsecond


def model(name: str, us: int, crowded_us: int, traffic_bytes: int) -> Model:
    variant = Variant("v", LatencyTable((0.0, 1.0), {1: (us, crowded_us)}), Footprint(traffic_bytes, 0))
    return Model(ModelName(name), (LayerBlock("b", (variant,)),))


def arrived(id_: str, name: str, at_us: int, qos_us: int = 1_000_000) -> tuple[int, Event]:
    return at_us, RequestArrived(Request(RequestId(id_), TenantId(name), ModelName(name), at_us, at_us + qos_us))


def run(*events: tuple[int, Event], cores: int = 2, **world: float) -> dict[str, int]:
    """Latency of each request under fcfs."""
    core = Scheduler(Machine(tuple(CoreId(i) for i in range(cores)), BANDWIDTH), make_policy("fcfs"))
    played = play(core, events, world=Contended(BANDWIDTH, **world), handover_us=0)
    return {outcome.request.id: outcome.latency_us for outcome in played.outcomes}


CALM = ModelLoaded(model("calm", 1_000, 2_000, 0))
GREEDY = ModelLoaded(model("greedy", 1_000, 1_000, 500_000))  # half of the bandwidth


def test_alone_a_unit_takes_its_tables_time() -> None:
    assert run((0, CALM), arrived("a", "calm", 0)) == {"a": 1_000}


def test_a_neighbours_traffic_slows_as_the_table_says() -> None:
    # Half of the bandwidth is half of the way from 1000 to 2000 us: at that speed the first 1000 us do two thirds of it.
    assert run((0, CALM), (0, GREEDY), arrived("a", "calm", 0), arrived("g", "greedy", 0)) == {"g": 1_000, "a": 1_333}


def test_a_neighbour_for_half_of_the_time_costs_for_that_half() -> None:
    latencies = run((0, CALM), (0, GREEDY), arrived("a", "calm", 0), arrived("g", "greedy", 500))
    assert latencies == {"a": 500 + 750, "g": 1_000}


def test_nobody_presses_on_himself() -> None:
    assert run((0, GREEDY), arrived("g", "greedy", 0)) == {"g": 1_000}


def test_without_interference_neighbours_cost_nothing() -> None:
    latencies = run((0, CALM), (0, GREEDY), arrived("a", "calm", 0), arrived("g", "greedy", 0), interference=False)
    assert latencies == {"a": 1_000, "g": 1_000}


def test_pressure_is_never_more_than_the_whole_bandwidth() -> None:
    others = [arrived(f"g{i}", "greedy", 0) for i in range(3)]
    assert (
        run((0, CALM), (0, GREEDY), arrived("a", "calm", 0), *others, cores=4)["a"] == 1_500
    )  # 1000 us at half speed, 500 alone


def test_noise_strays_around_the_table_and_is_the_same_for_the_same_seed() -> None:
    events = [(0, CALM), *(arrived(f"a{i}", "calm", 10_000 * i) for i in range(400))]
    noisy = run(*events, noise=0.2, seed=3)
    assert noisy == run(*events, noise=0.2, seed=3)
    assert noisy != run(*events, noise=0.2, seed=4)
    assert sorted(noisy.values())[200] == pytest.approx(1_000, rel=0.05)
    assert sorted(noisy.values())[380] == pytest.approx(1_000 * 2.718 ** (0.2 * 1.645), rel=0.1)


def test_the_core_is_told_of_the_whole_time_that_cores_were_held() -> None:
    told: list[Step] = []
    core = Scheduler(Machine((CoreId(0),), BANDWIDTH), make_policy("fcfs"))
    play(core, [(0, CALM), arrived("a", "calm", 5)], handover_us=50, watch=told.append)
    assert [(step.now_us, getattr(step.event, "measured_us", None)) for step in told] == [(0, None), (5, None), (1_055, 1_050)]


def test_what_an_outcome_leads_to_comes_true_and_a_run_can_be_ended_early() -> None:
    def again(outcome: object) -> tuple[int, Event]:
        return arrived(f"a{core.units}", "calm", 1_100 * core.units)

    core = Scheduler(Machine((CoreId(0),), BANDWIDTH), make_policy("fcfs"))
    played = play(core, [(0, CALM), arrived("a0", "calm", 0)], follow_up=again, until=lambda outcome: outcome.request.id == "a4")
    assert [outcome.request.id for outcome in played.outcomes] == ["a0", "a1", "a2", "a3", "a4"]
    assert played.stopped


def test_core_time_units_and_the_foretold_interval_are_accounted_to_their_request() -> None:
    spans: list[Span] = []
    core = Scheduler(Machine((CoreId(0), CoreId(1)), BANDWIDTH), make_policy("fcfs"))
    played = play(core, [(0, CALM), arrived("a", "calm", 0)], handover_us=50, span_ended=spans.append)
    [outcome] = played.outcomes
    assert (outcome.running_us, outcome.units, outcome.unit_cores, outcome.core_us) == (1_050, 1, 1, 1_050)
    assert outcome.low_us < outcome.latency_us < outcome.high_us
    assert [(span.begin_us, span.end_us, span.request.id) for span in spans] == [(0, 1_050, "a")]


class Commanding(Scheduler):
    """Says what a test wants said."""

    def __init__(self, said: dict[type[Event], list[object]]) -> None:
        super().__init__(Machine((CoreId(0),), BANDWIDTH), make_policy("fcfs"))
        self.said, self.heard = said, []

    def handle(self, event: Event, now_us: int) -> list:
        self.heard.append((now_us, event))
        return self.said.get(type(event), [])


def test_weights_are_there_when_their_load_time_is_over() -> None:
    heavy = Model(ModelName("m"), CALM.model.blocks, load_us=700)
    core = Commanding({RequestArrived: [EvictWeights(ModelName("old")), LoadWeights(ModelName("m"))]})
    played = play(core, [(0, ModelLoaded(heavy)), arrived("a", "m", 100)])
    assert core.heard[-1] == (800, WeightsLoaded(ModelName("m")))
    assert (played.loads, played.evictions) == (1, 1)


def test_a_batch_runs_once_and_its_core_time_is_shared() -> None:
    pair = model("calm", 1_600, 1_600, 0)
    batched = Model(ModelName("calm"), CALM.model.blocks, batches={2: pair})
    unit = Dispatch(RequestId("a"), Lease(LeaseId(1), (CoreId(0),)), 0, 1, (0,), 1_600, 0.0, "", riders=(RequestId("b"),))

    class Pairing(Commanding):
        def handle(self, event: Event, now_us: int) -> list:
            super().handle(event, now_us)
            if isinstance(event, RequestArrived):
                return [unit] if event.request.id == "b" else []
            ended = not isinstance(event, ModelLoaded)
            return [Complete(RequestId("a"), 0, 0, 0), Complete(RequestId("b"), 0, 0, 0)] if ended else []

    played: Run = play(Pairing({}), [(0, ModelLoaded(batched)), arrived("a", "calm", 0), arrived("b", "calm", 0)], handover_us=0)
    assert [(o.request.id, o.latency_us, o.units, o.core_us) for o in played.outcomes] == [
        ("a", 1_600, 1, 800),
        ("b", 1_600, 1, 800),
    ]
