"""What it costs to dispatch a block, by itself: a chain of kernels that do next to nothing, run in units of every size.

A unit is one call of `Program.run`, which leaves Python for as long as the unit takes. So a block costs least inside a unit,
more as a unit of its own, and most where each unit gets other cores than the one before. The scheduler's decision between two
units is not part of it: `bench_scheduler` times that.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from veltair.bench.rows import Row
from veltair.bench.turns import Turn, in_turns, middle
from veltair.bench.versus import on_cores
from veltair.bundle.format import SCHEMA_VERSION, Manifest, MeasureSpec
from veltair.bundle.store import Bundle, to_model
from veltair.compiler.assemble import BlockCandidate, block_specs, ports
from veltair.compiler.blocks import Span
from veltair.compiler.candidates import Chosen
from veltair.compiler.library import build_library
from veltair.compiler.line import Call, Line, plan_memory
from veltair.compiler.schedules.base import Chain, Operand
from veltair.compiler.schedules.move import Move
from veltair.compiler.target import cpu_name, host_target
from veltair.engine.lanes import hold_cores
from veltair.engine.program import Program

BLOCKS = 32
NUMBERS = 16  # that a kernel's Relu takes: one vector
DISPATCH_US = 10.0
BUDGET_S = 2.0
CASE = f"{BLOCKS} blocks of a Relu over {NUMBERS} numbers"


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Seconds of BLOCKS kernels run in each way, one time a round, all in the same rounds."""

    cores: int
    one_block: tuple[float, ...]  # one unit of one block that calls every kernel
    one_unit: tuple[float, ...]  # one unit of BLOCKS blocks
    units: tuple[float, ...]  # BLOCKS units of one block
    moved: tuple[float, ...]  # the same, each on another number of cores than the one before; empty where there is but one core


def empty_chain(folder: Path, blocks: int) -> Program:
    """BLOCKS such kernels, each on what the one before wrote, evenly in `blocks` blocks. `folder` must outlive it."""
    target, line, shape = host_target(), Line(), (1, NUMBERS)
    relu = Chain(("Clip", (0.0, None), ("in", 0)), (Operand(shape, "float32", (0, 1)),))
    kernel = Move("identity", (), (), shape, target.lanes, chain=relu)
    first = last = line.new(shape, "float32", "input")
    for number in range(BLOCKS):
        made = line.new(shape, "float32", "output" if number == BLOCKS - 1 else "activation")
        line.calls.append(Call(kernel, (last, made), "Relu"))
        last = made
    line.inputs, line.outputs = {"x": first}, {"y": last}
    chosen = [Chosen(call, kernel.candidates()[0], 1.0, 1.0) for call in line.calls]
    each = BLOCKS // blocks
    spans = [Span(start, start + each, 4 * NUMBERS) for start in range(0, BLOCKS, each)]
    made_of = [[BlockCandidate(("direct",), tuple(chosen[span.first : span.end]))] for span in spans]
    symbols = build_library((candidates[0] for candidates in made_of), target, folder / "blocks.so")
    tensors, arena_bytes, _ = plan_memory(line)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        name="empty",
        source="made here",
        qos=None,
        target=target,
        tools={},
        measured=MeasureSpec(cpu_name(), 1, 0, 0, 0, 1.0),
        pressure_levels=(0.0,),
        inputs=ports(line, line.inputs),
        outputs=ports(line, line.outputs),
        tensors=tuple(tensors),
        arena_bytes=arena_bytes,
        blocks=block_specs(spans, made_of, symbols),
        files={},
    )
    return Program(Bundle(folder, manifest, to_model(manifest), np.empty(0, np.uint8)))


def measure_dispatch(cores: tuple[int, ...], folder: Path, budget_s: float = BUDGET_S) -> Dispatch:
    """On the first of `cores`, and on the first two where units move; `folder` is for what is compiled."""
    for name in ("one", "many"):
        (folder / name).mkdir()
    fused, program = empty_chain(folder / "one", 1), empty_chain(folder / "many", BLOCKS)
    fused_arena, arena = fused.new_arena(), program.new_arena()
    one, every = (0,), (0,) * BLOCKS

    def units(_: int) -> None:
        for b in range(BLOCKS):
            program.run(arena, b, b + 1, one)

    def moved(_: int) -> None:
        for b in range(BLOCKS):
            hold_cores(cores[: 1 + b % 2])
            program.run(arena, b, b + 1, one)

    ways: list[Callable[[int], object]] = [
        lambda _: fused.run(fused_arena, 0, 1, one),
        lambda _: program.run(arena, 0, BLOCKS, every),
        units,
        moved,
    ]
    usable = ways if len(cores) > 1 else ways[:-1]
    seconds = in_turns([Turn(way, lambda: hold_cores(cores[:1])) for way in usable], budget_s=budget_s)
    one_block, one_unit, many, *rest = map(tuple, seconds)
    return Dispatch(len(cores), one_block, one_unit, many, rest[0] if rest else ())


def rows(found: Dispatch, machine: str, seed: int) -> list[Row]:
    """What each further block costs, inside a unit, as a unit, and as a unit on other cores. The kernels are not counted."""

    def row(metric: str, more: Sequence[float], less: Sequence[float]) -> Row:
        us, spread = middle([(m - f) / (BLOCKS - 1) * 1e6 for m, f in zip(more, less, strict=True)])
        return Row(
            case=f"{CASE}, {on_cores(found.cores)}", metric=metric, value=us, unit="us", target=f"< {DISPATCH_US:.0f} us",
            met=us < DISPATCH_US, spread=spread, machine=machine, seed=seed,
        )  # fmt: skip

    made = [
        row("a block more in a unit", found.one_unit, found.one_block),
        row("a unit more, of one block", found.units, found.one_unit),
    ]
    if found.moved:
        made.append(row("a unit more, on other cores than the last", found.moved, found.one_unit))
    return made
