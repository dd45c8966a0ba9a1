"""What it costs to run a model block by block: whether the blocks' times add up to the whole, and what a hand-over takes."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from veltair.bench.rows import Row
from veltair.bench.turns import Turn, in_turns, middle
from veltair.engine.program import Program
from veltair.models.source import Tensors

ADDS_UP = 0.05
DISPATCH_US = 10.0


@dataclass(frozen=True, slots=True)
class Pieces:
    """Seconds of a model as one unit and as one unit a block, a pair for each round, and of its blocks timed alone."""

    blocks: int
    whole_s: tuple[float, ...]
    pieces_s: tuple[float, ...]
    sum_s: tuple[float, ...]  # of the blocks' own times in the runs block by block


def measure_pieces(program: Program, variants: Sequence[int], inputs: Tensors, budget_s: float) -> Pieces:
    """Run the model both ways in turns, on the cores this thread has been given."""
    arena = program.new_arena()
    blocks = len(variants)
    sums: list[float] = []

    def whole(_: int) -> None:
        program.write_inputs(arena, inputs)
        program.run(arena, 0, blocks, tuple(variants))

    def pieces(_: int) -> None:
        program.write_inputs(arena, inputs)
        sums.append(sum(program.run(arena, b, b + 1, (variants[b],))[0] for b in range(blocks)) / 1e6)

    whole_s, pieces_s = in_turns([Turn(whole), Turn(pieces)], budget_s=budget_s)
    program.release(arena)
    return Pieces(blocks, tuple(whole_s), tuple(pieces_s), tuple(sums))


def rows(model: str, cores: int, found: Pieces, machine: str, seed: int) -> list[Row]:
    """The sum of block times over the whole's, and what each further unit adds."""
    case = f"{model}, {cores} core{'s' * (cores > 1)}, {found.blocks} blocks"
    share = statistics.median(found.sum_s) / statistics.median(found.whole_s)
    added = [(p - w) / max(found.blocks - 1, 1) * 1e6 for w, p in zip(found.whole_s, found.pieces_s, strict=True)]
    dispatch_us, _ = middle(added)
    _, spread = middle(found.whole_s)
    return [
        Row(
            case=case, metric="sum of blocks", value=statistics.median(found.sum_s) * 1e3, unit="ms", against="the whole",
            ratio=share, target=f"within {ADDS_UP:.0%}", met=abs(share - 1.0) <= ADDS_UP, spread=spread, machine=machine,
            seed=seed,
        ),
        Row(
            case=case, metric="dispatch of a block", value=dispatch_us, unit="us", target=f"< {DISPATCH_US:.0f} us",
            met=dispatch_us < DISPATCH_US, machine=machine, seed=seed,
        ),
    ]  # fmt: skip
