"""Added latency is the client's time minus the kernels', request by request."""

import pytest

from veltair.bench.overhead import Added, added
from veltair.errors import LogError
from veltair.observe.read import Run
from veltair.observe.records import Completed, Finished, Record, Started


def run_of(*records: Record, lost: int = 0) -> Run:
    return Run(Started(0, 0.0, "1", "veltair", "here", (0, 1), (), ()), records, lost)


def completed(request: str, latency_us: int) -> Completed:
    return Completed(0, request, "bench", "tiny", latency_us, 0, 0)


def test_the_units_of_a_request_are_summed_and_the_parts_add_up() -> None:
    run = run_of(
        Finished(0, 1, "r1", 30), Finished(0, 2, "r1", 20), completed("r1", 80), Finished(0, 3, "r2", 40), completed("r2", 60)
    )  # fmt: skip
    told = added([250, 100], run)
    assert told == [Added(50, 30, 170), Added(40, 20, 40)]
    assert [a.us for a in told] == [200, 60]


@pytest.mark.parametrize(("observed", "lost"), [([1, 2], 0), ([], 0), ([1], 3)])
def test_a_log_that_does_not_tell_of_every_answer_is_refused(observed: list[int], lost: int) -> None:
    with pytest.raises(LogError, match=rf"1 answers and {lost} lost records, the client of {len(observed)}"):
        added(observed, run_of(Finished(0, 1, "r1", 30), completed("r1", 80), lost=lost))
