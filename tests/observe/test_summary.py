"""The numbers of a run, on logs small enough to count by hand."""

import pytest

from veltair.observe.read import Run
from veltair.observe.records import Record
from veltair.observe.story import tell
from veltair.observe.summary import RunSummary, percentile_us, summarize

from .logs import arrived, completed, dispatched, dropped, finished, refused, started, tenant

MS = 1000


def summary_of(*records: Record, tenants: tuple[str, ...] = ("ads",)) -> RunSummary:
    return summarize(tell(Run(started(*(tenant(name) for name in tenants)), records, lost_records=0)))


def test_refused_and_dropped_requests_count_as_misses() -> None:
    ads = summary_of(
        arrived("in time", 0), completed("in time", 8 * MS, 8 * MS),
        arrived("late", 0), completed("late", 12 * MS, 12 * MS),
        arrived("refused", 13 * MS), refused("refused", 13 * MS),
        arrived("dropped", 14 * MS), dropped("dropped", 25 * MS),
    ).tenants[0]  # fmt: skip
    assert (ads.requests, ads.in_time, ads.answered, ads.refused, ads.dropped, ads.unanswered) == (4, 1, 2, 1, 1, 0)
    assert (ads.attainment, ads.met) == (0.25, False)
    assert (ads.p50_us, ads.p95_us, ads.p99_us) == (8 * MS, 12 * MS, 12 * MS)


def test_a_request_without_an_answer_is_a_miss_once_its_deadline_has_passed() -> None:
    ads = summary_of(arrived("forgotten", 0), arrived("under way", 15 * MS), dropped("other", 20 * MS, who="nobody")).tenants[0]
    assert (ads.requests, ads.unanswered, ads.attainment) == (1, 1, 0.0)


def test_an_answer_at_the_deadline_is_in_time_and_one_later_is_not() -> None:
    ads = summary_of(
        arrived("a", 0), completed("a", 10 * MS, 10 * MS), arrived("b", 0), completed("b", 10 * MS + 1, 10 * MS + 1)
    ).tenants[0]  # fmt: skip
    assert ads.in_time == 1


def test_a_tenant_without_requests_has_no_attainment_rather_than_a_perfect_one() -> None:
    quiet = summary_of(tenants=("ads", "quiet")).tenants[1]
    assert (quiet.requests, quiet.attainment, quiet.met, quiet.p99_us) == (0, None, None, None)


def test_an_id_that_comes_back_after_its_end_is_another_request() -> None:
    ads = summary_of(
        arrived("a", 0), refused("a", 1), arrived("a", 2), completed("a", 2 * MS, 2 * MS - 2)
    ).tenants[0]  # fmt: skip
    assert (ads.requests, ads.refused, ads.in_time) == (2, 1, 1)


def test_cores_variants_and_prediction_are_counted_by_unit() -> None:
    summary = summary_of(
        arrived("a", 0),
        dispatched("a", 0, 1, predicted_us=1000), finished("a", 2000, 1, measured_us=1500),
        dispatched("a", 2000, 2, cores=(0, 1), predicted_us=1000), finished("a", 4000, 2, measured_us=900),
        dispatched("b", 4000, 3, predicted_us=1000), finished("b", 8000, 3, measured_us=1100),
        completed("a", 8000, 8000),
    )  # fmt: skip
    assert summary.duration_us == 8000
    assert summary.cores_units == {1: 2, 2: 1}
    assert summary.core_busy == {0: 1.0, 1: 0.25}
    assert summary.variant_blocks == {"tiny": {"wide": 3}}
    assert summary.measured_over_predicted == 1.1


def test_a_unit_cut_off_by_a_crash_occupies_its_core_to_the_end_of_the_log() -> None:
    summary = summary_of(arrived("a", 0), dispatched("a", 0, 1), dispatched("b", 4000, 2, cores=(1,)))
    assert summary.core_busy == {0: 1.0, 1: 0.0}


@pytest.mark.parametrize(("percentile", "expected"), [(0.5, 50), (0.95, 95), (0.99, 99), (1.0, 100), (0.001, 1)])
def test_percentiles_are_by_nearest_rank(percentile: float, expected: int) -> None:
    assert percentile_us(range(1, 101), percentile) == expected


def test_coverage_is_the_share_of_answers_within_the_interval_that_was_foretold() -> None:
    ads = summary_of(
        arrived("a", 0), completed("a", 3 * MS, 3 * MS, interval_us=(3 * MS, 4 * MS)),
        arrived("b", 0), completed("b", 3 * MS, 3 * MS, interval_us=(2 * MS, 3 * MS)),
        arrived("c", 0), completed("c", 5 * MS, 5 * MS, interval_us=(2 * MS, 3 * MS)),
        arrived("d", 0), completed("d", 1 * MS, 1 * MS, interval_us=(2 * MS, 3 * MS)),
        arrived("of an older engine", 0), completed("of an older engine", 1 * MS, 1 * MS),
    ).tenants[0]  # fmt: skip
    assert ads.coverage == 0.5


def test_without_intervals_there_is_no_coverage() -> None:
    assert summary_of(arrived("a", 0), completed("a", MS, MS)).tenants[0].coverage is None


def test_units_of_a_batch_are_of_each_request_in_it_also_when_the_first_has_ended() -> None:
    records = (
        arrived("a", 0), arrived("b", 0),
        dispatched("a", 0, 1, riders=("b",)), dropped("a", 10), finished("a", 1000, 1, measured_us=900),
        dispatched("a", 1000, 2, first=1, riders=("b",)), finished("a", 3000, 2, measured_us=1900), completed("b", 3000, 3000),
    )  # fmt: skip
    story = tell(Run(started(tenant("ads")), records, lost_records=0))
    assert [(request.id, request.outcome, request.units) for request in story.requests] == [
        ("a", "dropped", [0, 1]),
        ("b", "answered", [0, 1]),
    ]
    assert story.running_us(story.requests[1]) == 3000
