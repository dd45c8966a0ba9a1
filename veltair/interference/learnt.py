"""The learnt model, margins that make a p95 true, and the trial that decides what is used.

Trees (xgboost) learn the quantiles of a block's slowdown against its quiet time from co-runs. Whatever foretells, its p95 gets
a margin from co-runs that it has not seen: the factor that 95 of 100 of their times stay within (conformalised quantile
regression, Romano, Patterson and Candès 2019; split by class of block, which is Mondrian conformal prediction, Vovk 2005).
For each class of block, what errs least on those co-runs is used; the trees have to beat the tables to be.

The trial is by turns: co-runs are dealt into FOLDS by pair of co-runners; each fold in turn is foretold by what was learnt
without it, and without the JUDGES folds behind it, by which margin and choice were made. So each co-run is held out once.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from veltair.interference.model import Alone, Anchored, Examples, Floats, Predictor, Table, errors

FOLDS, JUDGES = 8, 2
P95 = 0.95
CHOSEN = "chosen"  # among those who foretell
LEAST_TIMES = 100  # of a class, for a margin of its own: it then covers 95 of 100 give or take 2; that of all may be far off
MOST_TIMES = 8  # of one example learnt from: further ones say little new, and long co-runs of short blocks have hundreds
TREES, DEPTH, RATE = 80, 3, 0.08  # more and deeper ones foretold unseen pairs no better
LEAF_WEIGHT = 50.0  # times below which no leaf is made: 2 or 3 of them beyond its p95


class Learnt:
    """Trees for the median and the p95 of log(time / quiet time)."""

    name = "learnt"

    def __init__(self, examples: Examples, seed: int) -> None:
        import xgboost  # 0.3 s, and an extra: only who calibrates deep needs it

        rows, slowed = _spread_out(examples)
        parameters = {
            "objective": "reg:quantileerror",
            "quantile_alpha": [0.5, P95],
            "tree_method": "hist",
            "max_depth": DEPTH,
            "learning_rate": RATE,
            "min_child_weight": LEAF_WEIGHT,
            "seed": seed,
            "nthread": 1,  # the same sums in the same order: the same trees
        }
        self._xgboost = xgboost
        data = xgboost.DMatrix(_features(examples)[rows], np.log(slowed))
        self._booster: Any = xgboost.train(parameters, data, TREES)

    def median_us(self, examples: Examples) -> Floats:
        return self._quantiles_us(examples)[:, 0]

    def p95_us(self, examples: Examples) -> Floats:
        """Never below the median."""
        late: Floats = self._quantiles_us(examples).max(axis=1)
        return late

    def _quantiles_us(self, examples: Examples) -> Floats:
        slowed = np.exp(self._booster.predict(self._xgboost.DMatrix(_features(examples))).astype(float))
        us: Floats = _quiet_us(examples)[:, None] * slowed
        return us


def _features(examples: Examples) -> Floats:
    return np.array([each.features for each in examples], float)


def _quiet_us(examples: Examples) -> Floats:
    return np.array([each.quiet_us for each in examples], float)


def _spread_out(examples: Examples) -> tuple[npt.NDArray[np.intp], Floats]:
    """Row and slowdown of some of the times of each example, evenly taken."""
    picked = [each.times[:: max(1, -(-len(each.times) // MOST_TIMES))] for each in examples]
    rows = np.repeat(np.arange(len(picked)), [len(times) for times in picked])
    return rows, np.concatenate(picked) / _quiet_us(examples)[rows]


def margin(ratios: Floats, level: float = P95) -> float:
    """The factor on what was foretold that the next time stays within with probability `level`; `ratios` are measured over
    foretold times that took no part in foretelling. The split conformal quantile, with its correction for few of them."""
    if not len(ratios):
        return 1.0
    return float(np.quantile(ratios, min(1.0, np.ceil((len(ratios) + 1) * level) / len(ratios)), method="higher"))


def margins(groups: Sequence[str], foretold_us: Floats, times: Sequence[Floats]) -> dict[str, float]:
    """The margin of each group, and under "" the one of all, which groups with too few times have to take."""
    ratios: dict[str, list[Floats]] = {"": []}
    for group, measured, us in zip(groups, times, foretold_us, strict=True):
        ratios[""].append(measured / us)
        ratios.setdefault(group, []).append(measured / us)
    joined = {group: np.concatenate(of) if of else np.empty(0) for group, of in ratios.items()}
    return {group: margin(of) for group, of in joined.items() if group == "" or len(of) >= LEAST_TIMES}


def with_margin(by_group: Mapping[str, float], groups: Sequence[str]) -> Floats:
    return np.array([by_group.get(group, by_group[""]) for group in groups], float)


def _kinds(examples: Examples) -> list[str]:
    return [each.kind for each in examples]


def _times(examples: Examples) -> list[Floats]:
    return [each.times for each in examples]


@dataclass(frozen=True, slots=True)
class Judged:
    """A predictor with its margins."""

    predictor: Predictor
    by_kind: Mapping[str, float]

    @classmethod
    def on(cls, predictor: Predictor, unseen: Examples) -> "Judged":
        return cls(predictor, margins(_kinds(unseen), predictor.p95_us(unseen), _times(unseen)))

    @property
    def name(self) -> str:
        return self.predictor.name

    def foretell(self, examples: Examples) -> tuple[Floats, Floats]:
        """Median and p95."""
        late = self.predictor.p95_us(examples) * with_margin(self.by_kind, _kinds(examples))
        middle = self.predictor.median_us(examples)
        return middle, np.maximum(middle, late)


class Chosen:
    """For each class of block, the predictor that errs least; tables first where they err alike."""

    def __init__(self, rivals: Sequence[Judged], unseen: Examples) -> None:
        self._rivals = rivals
        wrong = np.array([errors(_times(unseen), rival.predictor.median_us(unseen)) for rival in rivals])
        kinds = np.array(_kinds(unseen))
        self._of = {kind: int(wrong[:, kinds == kind].mean(axis=1).argmin()) for kind in sorted({*_kinds(unseen)})}
        self._else = int(wrong.mean(axis=1).argmin())

    @property
    def names(self) -> dict[str, str]:
        return {kind: self._rivals[number].name for kind, number in self._of.items()}

    def foretell(self, examples: Examples) -> tuple[Floats, Floats]:
        """Median and p95."""
        numbers = [self._of.get(each.kind, self._else) for each in examples]
        middles, lates = zip(*(rival.foretell(examples) for rival in self._rivals), strict=True)
        rows = np.arange(len(examples))
        return np.array(middles)[numbers, rows], np.array(lates)[numbers, rows]


@dataclass(frozen=True, slots=True)
class Learning:
    """All that came of some co-runs."""

    alone: Judged  # never chosen: it says what knowing who is beside is worth
    rivals: Sequence[Judged]
    chosen: Chosen
    by_bundle: Mapping[str, float]  # margin of a whole model's time over the sum of its blocks' medians

    def foretell(self, examples: Examples) -> dict[str, tuple[Floats, Floats]]:
        """Median and p95, by name of who foretells."""
        by = {each.name: each.foretell(examples) for each in (self.alone, *self.rivals)}
        return by | {CHOSEN: self.chosen.foretell(examples)}

    def foretell_whole(self, examples: Examples) -> "Wholes":
        wholes = wholes_of(examples, self.chosen.foretell(examples)[0])
        return replace(wholes, late_us=wholes.middle_us * with_margin(self.by_bundle, wholes.bundles))


def learn(seen: Examples, unseen: Examples, seed: int) -> Learning:
    """From `seen`; margins and choice are from `unseen`. Without xgboost there are the tables to choose from."""
    predictors: list[Predictor] = [Table(), Anchored()]
    if has_trees():
        predictors.append(Learnt(seen, seed))
    rivals = [Judged.on(predictor, unseen) for predictor in predictors]
    chosen = Chosen(rivals, unseen)
    wholes = wholes_of(unseen, chosen.foretell(unseen)[0])
    return Learning(Judged.on(Alone(), unseen), rivals, chosen, margins(wholes.bundles, wholes.middle_us, wholes.times))


def has_trees() -> bool:
    return find_spec("xgboost") is not None


@dataclass(frozen=True, slots=True)
class Wholes:
    """Runs of whole models, one co-run a row: what the core sums up from blocks."""

    bundles: Sequence[str]
    middle_us: Floats
    late_us: Floats
    times: Sequence[Floats]


def wholes_of(examples: Examples, middle_us: Floats) -> Wholes:
    """The sums over the blocks of each co-run, of those in which no time of a block was discarded."""
    rows_of: dict[int, list[int]] = {}
    for row, each in enumerate(examples):
        rows_of.setdefault(each.run, []).append(row)
    whole = [rows for rows in rows_of.values() if len({len(examples[row].times) for row in rows}) == 1]
    middle = np.array([middle_us[rows].sum() for rows in whole], float)
    times = [np.sum([examples[row].times for row in rows], axis=0) for rows in whole]
    return Wholes([examples[rows[0]].key.bundle for rows in whole], middle, middle, times)


@dataclass(frozen=True, slots=True)
class Held:
    """A fold that was held out, and what was foretold of it."""

    examples: Examples
    by: Mapping[str, tuple[Floats, Floats]]  # median and p95, by name of who foretold
    wholes: Wholes


def trial(examples: Examples, alone: Examples, fold_of: Sequence[int], seed: int) -> Iterator[Held]:
    """Every example held out once, with its fold; `fold_of` has the folds of co-runs, by number. Examples `alone`, with nobody
    beside, are learnt from and never held out."""
    for number in range(FOLDS):
        held = [each for each in examples if fold_of[each.run] == number]
        rest = [each for each in examples if fold_of[each.run] != number]
        learning = learn_and_judge(rest, alone, fold_of, number + 1, seed)
        yield Held(held, learning.foretell(held), learning.foretell_whole(held))


def learn_and_judge(examples: Examples, alone: Examples, fold_of: Sequence[int], first: int, seed: int) -> Learning:
    """Of the examples, JUDGES folds from number `first` on make margins and choice; the others are learnt."""
    judging = {(first + i) % FOLDS for i in range(JUDGES)}
    seen = [each for each in examples if fold_of[each.run] not in judging]
    return learn([*seen, *alone], [each for each in examples if fold_of[each.run] in judging], seed)
