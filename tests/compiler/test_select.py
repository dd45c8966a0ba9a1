"""What a block keeps of its candidates, on hand-made measurements."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veltair.compiler.select import MOST_VARIANTS, WITHIN, Candidate, select


def kept(*candidates: Candidate) -> list[str]:
    return [candidates[i].name for i in select(candidates).kept]


def test_one_variant_is_enough_where_it_is_the_best_everywhere() -> None:
    assert kept(Candidate("fast", (100, 110)), Candidate("lean", (120, 125))) == ["fast"]


def test_a_candidate_that_wins_only_under_pressure_is_kept_for_it() -> None:
    fast, lean = Candidate("fast", (100, 200)), Candidate("lean", (120, 130))
    found = select([fast, lean])
    assert [found.kept, found.regret] == [(0, 1), 0.0]
    assert found.worth == {"fast": pytest.approx(0.2), "lean": pytest.approx(200 / 130 - 1)}


def test_a_win_within_the_noise_keeps_no_second_variant() -> None:
    found = select([Candidate("fast", (100, 104)), Candidate("lean", (101, 100))])
    assert found.kept == (0,) or found.kept == (1,)
    assert found.regret <= WITHIN


def test_bf16_does_not_replace_the_exact_variant() -> None:
    assert kept(Candidate("direct", (100, 110)), Candidate("bf16", (50, 60), exact=False)) == ["direct", "bf16"]


def test_a_bf16_variant_that_gains_nothing_is_dropped_with_its_gain() -> None:
    found = select([Candidate("direct", (100, 110)), Candidate("bf16", (99, 109), exact=False)])
    assert found.kept == (0,)
    assert found.dropped == {"bf16": "gains 1.0% at most"}


def test_a_gentle_candidate_is_kept_for_what_it_spares_others() -> None:
    found = select([Candidate("fast", (100, 120), pressure=0.6), Candidate("lean", (115, 130), pressure=0.2)])
    assert found.kept == (0, 1)
    assert found.gentle == ("lean",)


def test_a_gentle_candidate_that_is_much_slower_is_not_kept() -> None:
    assert kept(Candidate("fast", (100, 120), pressure=0.6), Candidate("lean", (150, 180), pressure=0.2)) == ["fast"]


def test_a_block_without_an_exact_candidate_is_refused() -> None:
    with pytest.raises(ValueError, match="no candidate is exact"):
        select([Candidate("bf16", (1, 1), exact=False)])


POINTS = 4
CANDIDATES = st.lists(
    st.builds(
        Candidate,
        name=st.just("c"),
        us=st.tuples(*[st.floats(10, 1000)] * POINTS),
        pressure=st.floats(0, 1),
        exact=st.booleans(),
    ),
    min_size=1,
    max_size=8,
).filter(lambda found: any(c.exact for c in found))


@given(CANDIDATES)
def test_the_kept_set_is_small_and_within_reach_of_the_best_or_full(candidates: list[Candidate]) -> None:
    found = select(candidates)
    assert 1 <= len(found.kept) <= MOST_VARIANTS
    assert any(candidates[i].exact for i in found.kept)
    if len(found.kept) < MOST_VARIANTS:
        assert found.regret <= WITHIN
        assert found.exact_regret <= WITHIN
