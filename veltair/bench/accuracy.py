"""How near a model's answers are to the reference's, from end to end."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from veltair.bench.rows import Row
from veltair.models.source import Tensors

SAME = 1e-3  # of the output's range, as the compiler's gate allows a whole model in fp32
ALIKE = 0.999  # cosine, reduced precision


@dataclass(frozen=True, slots=True)
class Likeness:
    """The worst of all outputs and samples. `answers`: the share of samples with the reference's answer; None: it has none."""

    cosine: float
    error: float  # of the reference's largest magnitude
    answers: float | None


def likeness(
    outputs: Sequence[Tensors], references: Sequence[Tensors], answers: Sequence[tuple[str, str]] | None = None
) -> Likeness:
    """`outputs` and `references` by sample; `answers` are the words for both, where the model has words.

    Without words, outputs that look like scores of classes (n, classes) are answered by their largest.
    """
    cosine, error = 1.0, 0.0
    largest: list[bool] = []
    for ours, theirs in zip(outputs, references, strict=True):
        for name, reference in theirs.items():
            got, expected = (np.asarray(a, np.float64).reshape(-1) for a in (ours[name], reference))
            cosine = min(cosine, _cosine(got, expected))
            error = max(error, _error(got, expected))
            if reference.ndim == 2 and reference.shape[1] > 1 and reference.dtype.kind == "f":
                largest.append(bool((np.argmax(ours[name], 1) == np.argmax(reference, 1)).all()))
    same = [a == b for a, b in answers] if answers is not None else largest
    return Likeness(cosine, error, sum(same) / len(same) if same else None)


def _cosine(got: np.ndarray, expected: np.ndarray) -> float:
    lengths = float(np.linalg.norm(got) * np.linalg.norm(expected))
    if lengths == 0.0:
        return float(np.array_equal(got, expected))
    found = float(got @ expected) / lengths
    return found if np.isfinite(found) else -1.0


def _error(got: np.ndarray, expected: np.ndarray) -> float:
    scale = float(np.abs(expected).max(initial=0.0)) or 1.0
    found = float(np.abs(got - expected).max(initial=0.0)) / scale
    return found if np.isfinite(found) else float("inf")


def rows(model: str, who: str, precision: str, found: Likeness, machine: str, seed: int, *, ours: bool) -> list[Row]:
    """Targets for ours alone: in fp32 the error, in reduced precision the direction and the answer."""
    against, case = "ONNX Runtime fp32", f"{model}, {precision}, {who}"

    def row(metric: str, value: float, target: str, met: bool) -> Row:
        goal = {"target": target, "met": met} if ours else {}
        return Row(case=case, metric=metric, value=value, unit="", against=against, machine=machine, seed=seed, **goal)  # type: ignore[arg-type]

    if precision == "fp32":
        return [row("largest error, of the range", found.error, f"<= {SAME:g}", found.error <= SAME)]
    made = [row("cosine, worst", found.cosine, f">= {ALIKE:g}", found.cosine >= ALIKE)]
    if found.answers is not None:
        made.append(row("same answer, share", found.answers, "1", found.answers == 1.0))
    return made
