"""Co-runs: who is drawn to run together, what is held out together, and what is not learnt from."""

from pathlib import Path
from random import Random

import msgspec
import pytest

from tests.interference.world import CONVS, L2, PRODUCTS, SUBJECTS, coruns, manifest, variant, with_indices
from veltair.errors import ProfileError
from veltair.interference.corun import (
    CoRun,
    Discarded,
    Outsider,
    Subject,
    Unit,
    draw,
    folds,
    models_of,
    pair_of,
    read,
    sound,
    write,
)

BY_NAME = {subject.name: subject for subject in SUBJECTS}
A, B = (subject.whole(0, 1) for subject in SUBJECTS)
TIMES = ((100, 101, 102, 103),) * len(CONVS.blocks)


def test_a_pair_is_the_same_whoever_was_timed_and_whatever_the_variants() -> None:
    there, back = CoRun(A, B, TIMES), CoRun(B, msgspec.structs.replace(A, variant=1, cores=2), TIMES)
    assert pair_of(there) == pair_of(back)


def test_ranges_of_a_model_are_other_co_runners_but_the_same_model() -> None:
    part = msgspec.structs.replace(B, end_block=1)
    assert pair_of(CoRun(A, B, TIMES)) != pair_of(CoRun(A, part, TIMES))
    assert models_of(CoRun(A, B, TIMES)) == models_of(CoRun(A, part, TIMES))


def test_folds_are_even_and_the_same_for_the_same_seed() -> None:
    pairs = [pair_of(run) for run in coruns(200)]
    dealt = folds(pairs, 5, seed=1)
    sizes = [list(dealt.values()).count(fold) for fold in range(5)]
    assert max(sizes) - min(sizes) <= 1
    assert dealt == folds(reversed(pairs), 5, seed=1)
    assert dealt != folds(pairs, 5, seed=2)


def test_a_victim_runs_whole_and_leaves_cores_for_who_is_beside_it() -> None:
    rng = Random(0)
    for _ in range(300):
        victim, beside = draw(SUBJECTS, 4, L2, rng)
        assert (victim.first_block, victim.end_block) == (0, len(BY_NAME[victim.bundle].manifest.blocks))
        if isinstance(beside, Unit):
            assert victim.cores + beside.cores <= 4
        elif isinstance(beside, Outsider):
            assert victim.cores == 1


def test_with_one_core_nobody_runs_beside_anybody() -> None:
    rng = Random(0)
    assert all(draw(SUBJECTS, 1, L2, rng)[1] is None for _ in range(50))


def test_a_range_begins_and_ends_where_layers_do_and_moves_more_than_the_l2_holds() -> None:
    small = manifest("small", {f"{i:02d}-conv": (variant(100, 1.0, 1),) for i in range(8)})
    parts = tuple(msgspec.structs.replace(block, continues=i % 2 == 1) for i, block in enumerate(small.blocks))
    subject, rng = Subject.of(msgspec.structs.replace(small, blocks=parts)), Random(0)
    ranges = [beside for _ in range(400) if isinstance(beside := draw([subject], 2, L2, rng)[1], Unit)]
    assert {(r.first_block % 2, r.end_block % 2) for r in ranges} == {(0, 0)}
    assert min(r.end_block - r.first_block for r in ranges) == 2  # two blocks of 1 MiB each: twice the L2
    assert len({(r.first_block, r.end_block) for r in ranges}) > 5


def test_a_model_that_hands_on_indices_runs_whole() -> None:
    subject, rng = Subject.of(with_indices(CONVS)), Random(0)
    besides = [draw([subject], 2, L2, rng)[1] for _ in range(100)]
    assert {(b.first_block, b.end_block) for b in besides if isinstance(b, Unit)} == {(0, 4)}


def test_times_that_cannot_be_true_are_left_out_and_counted() -> None:
    suspended = CoRun(A, B, ((100, 90_000, 101, 102, 0), *TIMES[1:]))
    [kept], lost = sound([suspended], BY_NAME)
    assert kept.block_us == ((100, 101, 102), *TIMES[1:])
    assert lost == Discarded(absurd=2)


@pytest.mark.parametrize(("waited", "intruded"), [(0.2, 0.0), (float("nan"), 0.0), (0.0, 0.5), (0.0, float("nan"))])
def test_a_co_run_whose_cores_somebody_else_used_is_left_out(waited: float, intruded: float) -> None:
    assert sound([CoRun(A, B, TIMES, waited, intruded)], BY_NAME) == ([], Discarded(disturbed=1))


def test_co_runs_of_a_bundle_that_was_compiled_anew_are_left_out() -> None:
    anew = Subject.of(msgspec.structs.replace(PRODUCTS, source="another"))
    runs = [CoRun(A, B, TIMES), CoRun(A, None, TIMES)]
    assert sound(runs, {**BY_NAME, "products": anew}) == (runs[1:], Discarded(stale=1))


def test_co_runs_are_read_as_they_were_written_on_the_same_machine_only(tmp_path: Path) -> None:
    runs = coruns(20)
    write(tmp_path / "coruns.jsonl", "here", runs)
    assert read(tmp_path / "coruns.jsonl", "here") == runs
    assert read(tmp_path / "coruns.jsonl", "elsewhere") == []
    assert read(tmp_path / "none.jsonl", "here") == []


def test_a_file_of_another_kind_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "coruns.jsonl").write_text("what is this\n")
    with pytest.raises(ProfileError, match="remove it"):
        read(tmp_path / "coruns.jsonl", "here")
