"""Convolutions where their loops differ: at edges of the image, in ragged tiles, in groups; and what their settings promise."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from veltair.bundle.format import TargetSpec
from veltair.compiler.layout import channel_block
from veltair.compiler.schedules.base import Kernel
from veltair.compiler.schedules.conv import Conv, register_tiles
from veltair.compiler.schedules.depthwise import Depthwise
from veltair.compiler.schedules.tiles import Window, column_runs

from .small import HASWELL, HOST, OLDEST, assert_equal, line_of, model_of, reference, run_line, save

SAME3 = Window((3, 3), pads=(1, 1, 1, 1))


def random(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def check(
    folder: Path, x: Any, w: Any, *, target: TargetSpec = HOST, kind: str = "conv", candidates: int = 1, **attrs: Any
) -> list[Kernel]:
    """Compare with ONNX Runtime in each of the first `candidates` settings, a residual and Relu behind; returns the kernels."""
    bias = random(w.shape[0], seed=3)
    steps = [("Conv", "x w b", "c", attrs), ("Relu", "c", "y")]
    model = model_of(steps, {"x": x}, constants={"w": w, "b": bias})
    line = line_of(save(model, folder), target)
    kernels = [call.kernel for call in line.calls]
    assert kind in {k.kind for k in kernels}, f"became {[k.kind for k in kernels]}"
    expected = reference(model, {"x": x})
    for number in range(candidates):
        assert_equal(run_line(line, {"x": x}, target, candidate=number), expected)
    return kernels


# --- edges ------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("h", "w", "kernel", "attrs"),
    [
        (7, 7, (3, 3), {"pads": [1, 1, 1, 1]}),
        (5, 40, (3, 3), {"pads": [0, 1, 2, 3]}),  # tiles at the left edge, inside, and two kinds at the right
        (2, 3, (5, 5), {"pads": [2, 2, 2, 2]}),  # no pixel sees the whole kernel
        (1, 1, (3, 3), {"pads": [1, 1, 1, 1]}),  # only the middle tap is inside
        (9, 30, (5, 5), {"pads": [4, 4, 4, 4], "dilations": [2, 2]}),
        (11, 25, (7, 7), {"pads": [3, 3, 3, 3], "strides": [2, 2]}),
        (4, 5, (2, 2), {"pads": [3, 3, 3, 3]}),  # whole outputs lie in the padding
        (6, 9, (3, 3), {"pads": [2, 5, 0, 0], "strides": [3, 2], "dilations": [1, 3]}),
    ],
    ids=str,
)
@pytest.mark.parametrize("group", ["dense", "depthwise"])
def test_taps_outside_the_image_add_nothing(
    h: int, w: int, kernel: tuple[int, int], attrs: dict[str, Any], group: str, tmp_path: Path
) -> None:
    x = random(1, 32, h, w, seed=1)
    if group == "dense":
        check(tmp_path, x, random(48, 32, *kernel), **attrs)
    else:
        check(tmp_path, x, random(32, 1, *kernel), kind="depthwise", group=32, **attrs)


@pytest.mark.parametrize(("w", "tile"), [(7, 20), (14, 5), (30, 8), (112, 5), (1, 8)])
def test_tiles_of_a_row_cover_every_output_column_once(w: int, tile: int) -> None:
    runs = column_runs(SAME3, w, w, tile)
    starts = [r.start + k * r.width for r in runs for k in range(r.count)]
    widths = [r.width for r in runs for _ in range(r.count)]
    assert starts == [sum(widths[:i]) for i in range(len(widths))]
    assert sum(widths) == w
    assert max(widths) <= tile
    assert max(widths) - min(widths) <= 1


def test_work_counts_no_tap_that_falls_outside() -> None:
    conv = Conv(1, 1, 16, 7, 7, 1, 16, SAME3)
    assert conv.flops == 2 * 16 * 16 * 19 * 19  # along each axis 7 middle taps and 6 of either side


def test_padded_input_channels_are_not_multiplied(tmp_path: Path) -> None:
    (kernel,) = (k for k in check(tmp_path, random(1, 60, 6, 6), random(32, 60, 1, 1)) if isinstance(k, Conv))
    assert kernel.flops == 2 * kernel.out_blocks * kernel.out_lanes * 60 * 36


# --- settings ---------------------------------------------------------------------------------------------------------------
SHAPES = {
    "3x3 on 14x14": Conv(1, 16, 16, 14, 14, 16, 16, SAME3),
    "3x3 on 7x7": Conv(1, 32, 16, 7, 7, 32, 16, SAME3),
    "1x1 on 56x56": Conv(1, 4, 16, 1, 3136, 16, 16, Window((1, 1))),
    "1x1 on one pixel": Conv(1, 12, 16, 1, 1, 3, 16, Window((1, 1))),
    "first layer": Conv(1, 3, 1, 224, 224, 4, 16, Window((7, 7), (2, 2), pads=(3, 3, 3, 3))),
    "24 channels in 8 lanes": Conv(1, 6, 16, 80, 80, 3, 8, SAME3),
    "31 blocks": Conv(1, 32, 16, 10, 10, 31, 16, SAME3),
    "few registers": Conv(1, 8, 8, 28, 28, 16, 8, SAME3, registers=12),
}


@pytest.mark.parametrize("kernel", SHAPES.values(), ids=SHAPES)
def test_settings_are_few_distinct_and_leave_registers_for_operands(kernel: Conv) -> None:
    found = kernel.candidates()
    assert 1 <= len(found) <= 8
    assert len({tuple(sorted(k.items())) for k in found}) == len(found)
    for cb, tile in register_tiles(kernel):
        assert cb * tile + (cb if cb > 1 else 0) <= kernel.registers + 4


@pytest.mark.parametrize("kernel", [k for name, k in SHAPES.items() if "pixel" not in name], ids=lambda k: str(k.output))
def test_two_cores_get_shares_that_differ_by_a_tenth_at_most(kernel: Conv) -> None:
    for knobs in kernel.candidates():
        shares = list(_shares(kernel, knobs))
        assert max(shares) <= 1.1 * sum(shares) / 2, f"{knobs}: {shares}"


def _shares(kernel: Conv, knobs: dict[str, int]) -> Iterator[int]:
    """Tiles that each of two cores computes when the tasks are cut in the middle."""
    _, ob, oh, ow, _ = kernel.output
    steps = oh if oh > 1 else -(-ow // knobs["ow"])
    bands = [min(knobs["hb"], steps - at) for at in range(0, steps, knobs["hb"])]
    tasks = bands * (-(-ob // knobs["cb"]) if knobs["order"] == 0 else kernel.halves(knobs))
    half = -(-len(tasks) // 2)
    yield sum(tasks[:half])
    yield sum(tasks[half:])


@pytest.mark.parametrize(
    ("x", "w", "attrs"),
    [
        (random(1, 48, 14, 13), random(80, 48, 3, 3, seed=1), {"pads": [1, 1, 1, 1]}),
        (random(2, 32, 12, 9), random(64, 32, 1, 1, seed=1), {}),
        (random(1, 96, 1, 1), random(48, 96, 1, 1, seed=1), {}),  # several sums for each output
        (random(1, 3, 24, 31), random(64, 3, 7, 7, seed=1), {"pads": [3, 3, 3, 3], "strides": [2, 2]}),
        (random(1, 32, 6, 6), random(176, 32, 3, 3, seed=1), {"pads": [1, 1, 1, 1]}),  # 11 blocks: a last tile overlaps
    ],
    ids=["3x3", "1x1", "one pixel", "image", "11 blocks"],
)
def test_every_setting_computes_the_same(x: Any, w: Any, attrs: dict[str, Any], tmp_path: Path) -> None:
    check(tmp_path, x, w, candidates=8, **attrs)


def test_asking_ahead_for_a_large_input_reads_nothing_it_should_not(tmp_path: Path) -> None:
    x = random(1, 96, 61, 61)
    for strides in ([1, 1], [2, 2]):
        (kernel,) = (k for k in check(tmp_path, x, random(16, 96, 1, 1, seed=1), strides=strides) if isinstance(k, Conv))
        assert kernel.candidates()[0]["ahead"] == 1


@pytest.mark.parametrize("target", [HASWELL, OLDEST], ids=["8 lanes", "4 lanes"])
def test_narrower_registers_compute_the_same(target: TargetSpec, tmp_path: Path) -> None:
    check(tmp_path, random(1, 20, 9, 11), random(36, 20, 3, 3, seed=1), target=target, pads=[1, 1, 1, 1])
    check(
        tmp_path, random(1, 20, 9, 11), random(20, 1, 5, 5, seed=1), target=target, kind="depthwise", pads=[2, 2, 2, 2], group=20
    )
    check(tmp_path, random(1, 24, 9, 11), random(48, 6, 3, 3, seed=1), target=target, kind="grouped", pads=[1, 1, 1, 1], group=4)


def test_settings_of_a_depthwise_convolution_compute_the_same(tmp_path: Path) -> None:
    x, w = random(1, 40, 13, 23), random(40, 1, 5, 5, seed=1)
    kernels = check(tmp_path, x, w, kind="depthwise", candidates=4, pads=[2, 2, 2, 2], strides=[2, 2], group=40)
    several = 1 if HOST.lanes < 16 else 2  # narrow registers leave one tile that fits
    assert any(isinstance(k, Depthwise) and len(k.candidates()) >= several for k in kernels)


# --- groups -----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("channels", "out", "groups"),
    [
        (64, 64, 2),  # whole blocks
        (96, 96, 3),
        (64, 64, 16),  # four groups share a register
        (32, 96, 32),  # each channel three times
        (20, 30, 10),
        (36, 60, 3),  # groups that end inside a block, on either side
        (24, 8, 4),
        (6, 4, 2),
    ],
    ids=str,
)
def test_a_group_reads_its_own_channels_alone(channels: int, out: int, groups: int, tmp_path: Path) -> None:
    x, w = random(1, channels, 7, 9), random(out, channels // groups, 3, 3, seed=1)
    check(tmp_path, x, w, kind="grouped", group=groups, pads=[1, 1, 1, 1])


def test_groups_as_wide_as_a_register_multiply_no_zeros(tmp_path: Path) -> None:
    x, w = random(1, 128, 6, 6), random(128, 32, 1, 1, seed=1)
    (kernel,) = (k for k in check(tmp_path, x, w, kind="grouped", group=4) if k.kind == "grouped")
    (shape, _) = kernel.inputs[1]
    assert int(np.prod(shape)) == w.size


# --- layout -----------------------------------------------------------------------------------------------------------------
def test_half_a_register_is_a_block_where_a_whole_one_would_be_padding() -> None:
    blocks = {c: channel_block(c, 16) for c in (12, 16, 24, 40, 112, 360, 486)}
    assert blocks == {12: 16, 16: 16, 24: 8, 40: 8, 112: 16, 360: 16, 486: 16}
    assert channel_block(12, 8) == 8
