"""A model run block by block: whether the blocks' times add up to the whole."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from veltair.bench.rows import Row
from veltair.bench.turns import Turn, in_turns, middle
from veltair.engine.program import Program
from veltair.models.source import Tensors

ADDS_UP = 0.05


@dataclass(frozen=True, slots=True)
class Pieces:
    """Seconds of a model as one unit, one a round, and of its blocks as one unit each, in turns with it."""

    blocks: int
    whole_s: tuple[float, ...]
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

    whole_s, _ = in_turns([Turn(whole), Turn(pieces)], budget_s=budget_s)
    program.release(arena)
    return Pieces(blocks, tuple(whole_s), tuple(sums))


def rows(model: str, cores: int, found: Pieces, machine: str, seed: int) -> list[Row]:
    """The sum of block times over the whole's."""
    case = f"{model}, {cores} core{'s' * (cores > 1)}, {found.blocks} blocks"
    share = statistics.median(found.sum_s) / statistics.median(found.whole_s)
    _, spread = middle(found.whole_s)
    return [
        Row(
            case=case, metric="sum of blocks", value=statistics.median(found.sum_s) * 1e3, unit="ms", against="the whole",
            ratio=share, target=f"within {ADDS_UP:.0%}", met=abs(share - 1.0) <= ADDS_UP, spread=spread, machine=machine,
            seed=seed,
        ),
    ]  # fmt: skip
