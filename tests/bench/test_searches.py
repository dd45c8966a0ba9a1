"""Searches in several processes find what one process finds, in the order they were asked."""

from veltair.bench.searches import Search, run_all

ASKED = [
    Search("queue-mixed", 400, "veltair", 0),
    Search("queue-mixed", 400, "fcfs", 0),
    Search("queue-mixed", 400, "fcfs", 1),
    Search("queue-mixed", 400, "fcfs", 0, fcfs_share=0.5),
]


def test_several_processes_find_the_same_in_the_same_order() -> None:
    alone = list(run_all(ASKED, jobs=1))
    assert list(run_all(ASKED, jobs=2)) == alone
    assert alone[0] > alone[1] > 0
    assert alone[1] != alone[2]


def test_a_tuned_fcfs_is_called_what_it_is() -> None:
    assert [search.name for search in ASKED[2:]] == ["fcfs", "fcfs with cores for 50% of the QoS"]
