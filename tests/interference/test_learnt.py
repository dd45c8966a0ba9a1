"""Margins that make a p95 true, and what is used: trees only where they beat the tables on co-runs they have not seen."""

from importlib.util import find_spec

import numpy as np
import pytest

from tests.interference.world import HOST, coruns
from veltair.interference import learnt
from veltair.interference.corun import folds, pair_of
from veltair.interference.learnt import FOLDS, Learning, learn, learn_and_judge, margin, margins, trial
from veltair.interference.model import Example, Examples, examples_of, quiet_times

needs_trees = pytest.mark.skipif(find_spec("xgboost") is None, reason="xgboost is not installed (extra calibrate)")


def split(count: int, seed: int = 0) -> tuple[list[Example], list[Example], list[int]]:
    """Examples beside somebody, examples alone, and the fold of each co-run of the former."""
    runs = coruns(count, seed=seed)
    quiet = quiet_times(runs, HOST)
    together = [run for run in runs if run.beside is not None]
    numbers = folds(map(pair_of, together), FOLDS, seed)
    alone = examples_of([run for run in runs if run.beside is None], quiet, HOST)
    return examples_of(together, quiet, HOST), alone, [numbers[pair_of(run)] for run in together]


def learning(seed: int = 0) -> Learning:
    examples, alone, fold_of = split(200)
    return learn_and_judge(examples, alone, fold_of, 0, seed)


def test_a_margin_covers_new_times_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    strays = margin(rng.lognormal(0, 0.1, 4000))
    assert np.mean(rng.lognormal(0, 0.1, 4000) <= strays) == pytest.approx(0.95, abs=0.01)


def test_of_few_times_the_margin_is_the_largest() -> None:
    assert margin(np.array([1.0, 1.3, 1.1])) == 1.3


def test_a_class_with_too_few_times_takes_the_margin_of_all() -> None:
    times = [np.full(600, 120.0), np.full(3, 900.0)]
    found = margins(["conv", "pool"], np.array([100.0, 100.0]), times)
    assert found == {"": 1.2, "conv": 1.2}


@needs_trees
def test_trees_are_used_where_tables_are_wrong_and_tables_where_they_are_right() -> None:
    names = learning().chosen.names
    assert names["matmul"] == "learnt"
    assert names["conv"] in ("table", "anchored table")


@needs_trees
def test_what_is_chosen_foretells_unseen_pairs_within_its_target() -> None:
    examples, alone, fold_of = split(300)
    held = list(trial(examples, alone, fold_of, seed=0))
    middle, late = (np.concatenate([each.by["chosen"][which] for each in held]) for which in (0, 1))
    times = [each.times for fold in held for each in fold.examples]
    measured = np.array([np.median(each) for each in times])
    assert np.median(np.abs(middle - measured) / measured) < 0.03
    assert 0.93 <= np.mean(np.concatenate([t <= us for t, us in zip(times, late, strict=True)])) <= 0.97
    wholes = [each.wholes for each in held]
    within = [measured <= us for each in wholes for measured, us in zip(each.times, each.late_us, strict=True)]
    assert 0.93 <= np.mean(np.concatenate(within)) <= 0.97


def test_each_example_is_held_out_once_and_its_pair_is_then_neither_learnt_from_nor_judged_by(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    examples, alone, fold_of = split(150)
    told: list[set[int]] = []

    def spy(seen: Examples, unseen: Examples, seed: int) -> Learning:
        told.append({*map(id, seen), *map(id, unseen)})
        return learn(seen, unseen, seed)

    monkeypatch.setattr(learnt, "has_trees", lambda: False)
    monkeypatch.setattr(learnt, "learn", spy)
    held = [{*map(id, each.examples)} for each in trial(examples, alone, fold_of, seed=0)]
    assert all(not out & known for out, known in zip(held, told, strict=True))
    assert sorted(number for out in held for number in out) == sorted(map(id, examples))


@needs_trees
def test_the_same_seed_learns_the_same() -> None:
    asked = split(40)[0]
    ours, theirs = (learning(seed=3).foretell(asked)["learnt"] for _ in range(2))
    assert np.array_equal(ours, theirs)


def test_without_xgboost_there_are_the_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learnt, "has_trees", lambda: False)
    assert set(learning().chosen.names.values()) <= {"table", "anchored table"}
