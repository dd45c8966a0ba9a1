"""Which cores a unit gets, on machines with siblings, several caches and several nodes."""

from veltair.core.topology import choose_cores
from veltair.core.values import CoreId, Place


def ids(*cores: int) -> tuple[CoreId, ...]:
    return tuple(CoreId(core) for core in cores)


# Two nodes with two caches each, two cores a cache, two threads a core: thread n and n + 8 are siblings.
PLACES = {CoreId(t): Place(core=t % 8, cache=t % 8 // 2, node=t % 8 // 4) for t in range(16)}
ALL = ids(*range(16))


def test_without_places_the_first_idle_ones_are_taken() -> None:
    assert choose_cores(ids(3, 1, 2), 2, {}) == ids(3, 1)


def test_a_narrow_unit_gets_cores_of_one_cache_and_no_siblings() -> None:
    assert choose_cores(ALL, 2, PLACES) == ids(0, 1)


def test_siblings_are_used_last_of_all() -> None:
    assert choose_cores(ids(2, 10, 3, 11), 2, PLACES) == ids(2, 3)
    assert choose_cores(ids(8, 2, 10), 1, PLACES) == ids(2)  # 8's sibling is at work


def test_the_cache_with_the_least_room_that_suffices_is_used_up_first() -> None:
    assert choose_cores(ids(0, 1, 8, 9, 2, 10), 1, PLACES) == ids(2)


def test_a_wide_unit_stays_on_one_node() -> None:
    chosen = choose_cores(ALL, 4, PLACES)
    assert {PLACES[core].node for core in chosen} == {0}


def test_more_than_one_node_has_is_taken_all_the_same() -> None:
    assert len(set(choose_cores(ALL, 13, PLACES))) == 13
