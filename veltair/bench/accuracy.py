"""How near a model's answers are to the reference's, from end to end, by the measure and the rule of the compiler's gate."""

from collections.abc import Sequence
from dataclasses import dataclass

from veltair.bench.rows import Row
from veltair.bench.turns import middle
from veltair.compiler.likeness import Likeness
from veltair.models.source import Tensors


@dataclass(frozen=True, slots=True)
class Compared:
    """`cosines` has one for each sample. `answers`: the share of samples with the reference's answer; None: it has no words."""

    likeness: Likeness
    cosines: tuple[float, ...]
    answers: float | None


def compared(
    outputs: Sequence[Tensors],
    references: Sequence[Tensors],
    tolerance: float,
    answers: Sequence[tuple[str, str]] | None = None,
) -> Compared:
    """`outputs` and `references` by sample; `answers` are the words for both, where the model has any that mean something.

    `tolerance` is what the gate allows a block of this precision, as a share of the largest magnitude.
    """
    whole, cosines = Likeness(tolerance), []
    for ours, theirs in zip(outputs, references, strict=True):
        sample = Likeness(tolerance)
        for name, reference in theirs.items():
            whole.compare(ours[name], reference)
            sample.compare(ours[name], reference)
        cosines.append(sample.cosine)
    same = None if answers is None else sum(a == b for a, b in answers) / len(answers)
    return Compared(whole, tuple(cosines), same)


def rows(model: str, who: str, precision: str, found: Compared, machine: str, seed: int, *, ours: bool) -> list[Row]:
    """Targets for ours alone: in fp32 the error, in reduced precision what the gate asks besides, and the answer in words."""
    against, case, likeness = "ONNX Runtime fp32", f"{model}, {precision}, {who}", found.likeness

    def row(metric: str, value: float, target: str, met: bool, spread: float | None = None) -> Row:
        goal = {"target": target, "met": met} if ours else {}
        return Row(
            case=case, metric=metric, value=value, unit="", against=against, spread=spread, machine=machine, seed=seed,
            **goal,  # type: ignore[arg-type]
        )  # fmt: skip

    if precision == "fp32":
        allowed = likeness.allowed_error
        return [row("largest error, of the range", likeness.error, f"<= {allowed:g}", likeness.error <= allowed)]
    least = likeness.least_cosine
    target = f">= {least:g} where winners are the same" if likeness.rows else f">= {least:g}"
    _, spread = middle(found.cosines)
    made = [row(f"cosine, worst of {len(found.cosines)} inputs", likeness.cosine, target, likeness.cosine >= least, spread)]
    if likeness.rows:
        share = likeness.same / likeness.rows
        made.append(row(f"same winner, of {likeness.rows} clear ones", share, "1", likeness.same == likeness.rows))
    if found.answers is not None:
        made.append(row("same answer in words, share", found.answers, "1", found.answers == 1.0))
    return made
