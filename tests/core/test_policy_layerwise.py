"""Layer by layer: everybody's next layer joins the end of one line."""

from core_build import answered, arrived, model, scheduler, unit

from veltair.core.events import UnitFinished
from veltair.core.values import LeaseId

BIG = model("big", [8_000, 2_000], [4_500, 1_200])
SHORT = model("short", [1_000])


def test_a_layer_gets_the_fewest_cores_that_meet_its_part_of_the_qos_and_the_next_one_queues_up_behind() -> None:
    core = scheduler("layerwise", BIG, SHORT)
    # Four fifths of the work are in the first layer, so are four fifths of the 6 ms.
    assert core.handle(arrived("a", "big", 0, 6_000), 0) == [
        unit("a", 1, (0, 1), range(1), 4_500, "first come; the layer takes 4.5 ms of its 4.8 ms", ("1 core", "would take 8.0 ms"))
    ]
    assert core.handle(arrived("b", "short", 0, 2_000), 0) == []
    assert core.handle(arrived("c", "short", 0, 2_000), 0) == []
    takes = "first come; the layer takes 1.0 ms of its 2.0 ms"
    assert core.handle(UnitFinished(LeaseId(1), 4_500), 4_500) == [
        unit("b", 2, (0,), range(1), 1_000, takes, ("request c", "was ready later")),
        unit("c", 3, (1,), range(1), 1_000, takes, ("request a", "was ready later")),
    ]
    # It wants both cores again and starts on the one there is.
    assert core.handle(UnitFinished(LeaseId(2), 1_000), 5_500) == [
        answered("b", 6_700),
        unit(
            "a", 4, (0,), range(1, 2), 2_000, "first come; the layer takes 2.0 ms of its 1.2 ms", ("2 cores", "conflict: 1 idle")
        ),
    ]
    assert core.conflicts == 1
    assert core.handle(UnitFinished(LeaseId(3), 1_000), 5_500) == [answered("c", 7_200)]
    assert core.handle(UnitFinished(LeaseId(4), 2_000), 7_500) == [answered("a", 5_700)]


def test_with_time_enough_one_core_does() -> None:
    core = scheduler("layerwise", BIG)
    assert core.handle(arrived("a", "big", 0, 60_000), 0) == [
        unit("a", 1, (0,), range(1), 8_000, "first come; the layer takes 8.0 ms of its 48.0 ms")
    ]
