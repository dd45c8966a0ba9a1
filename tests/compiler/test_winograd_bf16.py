"""Winograd's form with bf16 products: what it computes on awkward shapes, how exact that is, and where it is offered."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tvm
from msgspec.structs import replace as with_fields

from veltair.compiler import winograd_forms
from veltair.compiler.line import Call, Line
from veltair.compiler.parts import divisible
from veltair.compiler.schedules.bf16 import TOLERANCE
from veltair.compiler.schedules.winograd_bf16 import WinogradBf16, register_block
from veltair.compiler.schedules.winograd_transform import data_tree, output_tree, transform_weights
from veltair.compiler.target import BF16, tvm_target
from veltair.compiler.winograd_forms import pack_winograd_bf16

from .small import HASWELL, line_of, reference, run_line, save
from .test_bf16 import EXACT, ZEN4, needs_bf16, rounded, worst
from .test_winograd import PADS, SHAPES, model, random

CLASSES = {  # (batch, channels in, channels out, side): whether it is offered
    "deep, on a small image": ((1, 512, 512, 13), True),
    "where the larger tiles of fp32 waste little, too": ((1, 128, 128, 28), True),
    "few channels": ((1, 64, 128, 28), False),
    "fewer tiles than it takes to hide the weights": ((1, 512, 512, 7), False),
    "a batch of those": ((4, 512, 512, 7), True),
    "tiles that cover a quarter of the image": ((40, 128, 128, 1), False),
}


@pytest.fixture
def any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offered however small the image and however few the channels."""
    monkeypatch.setattr(winograd_forms, "worthwhile_in_bf16", lambda direct, channels: True)


def form_of(call: Call) -> Call | None:
    return next((form for form in call.forms if isinstance(form.kernel, WinogradBf16)), None)


def conv_of(line: Line) -> Call:
    (conv,) = (call for call in line.calls if form_of(call))
    return conv


def run(folder: Path, made: Any, x: Any, candidate: int = 0) -> Any:
    return run_line(line_of(save(made, folder)), {"x": x}, pick=lambda call: form_of(call) or call, candidate=candidate)["y"]


def padded(x: Any, attrs: dict[str, Any]) -> Any:
    top, left, bottom, right = attrs.get("pads", (0, 0, 0, 0)) if "auto_pad" not in attrs else (1, 1, 1, 1)
    return np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))


def modelled(x: Any, w: Any, attrs: dict[str, Any]) -> Any:
    """What tiles of 2 x 2 give with data and weights rounded once transformed, and a bias and Relu behind them."""
    image = padded(x, attrs)
    oh, ow = image.shape[2] - 2, image.shape[3] - 2
    image = np.pad(image, ((0, 0), (0, 0), (0, oh % 2), (0, ow % 2)))
    u = rounded(transform_weights(w, 2))
    out = np.zeros((x.shape[0], w.shape[0], oh + oh % 2, ow + ow % 2), np.float32)

    def both(tile: Any, tree: Any) -> Any:
        """A tile with its rows and columns in front."""
        columns = [tree(list(tile[:, j]), lambda v: v, np.float32) for j in range(tile.shape[1])]
        return np.array([tree([column[i] for column in columns], lambda v: v, np.float32) for i in range(len(columns[0]))])

    for i in range(0, oh, 2):
        for j in range(0, ow, 2):
            v = rounded(both(image[:, :, i : i + 4, j : j + 4].transpose(2, 3, 0, 1), data_tree))
            products = np.einsum("ijnc,ocij->ijno", v, u, optimize=True)
            out[:, :, i : i + 2, j : j + 2] = both(products, output_tree).transpose(2, 3, 0, 1)
    return np.maximum(out[:, :, :oh, :ow] + random(w.shape[0], seed=2)[:, None, None], 0)


@needs_bf16
@pytest.mark.usefixtures("any_size")
@pytest.mark.parametrize(("shape", "co", "attrs"), [s[1:] for s in SHAPES], ids=[s[0] for s in SHAPES])
def test_sums_the_rounded_factors_exactly(shape: tuple[int, ...], co: int, attrs: dict[str, Any], tmp_path: Path) -> None:
    x, w = random(*shape), random(co, shape[1], 3, 3, seed=1)
    want = modelled(x, w, attrs)
    for candidate in (0, 99):  # cores share chunks of the tiles, or the channels
        assert worst(run(tmp_path, model(x, w, attrs), x, candidate), want) <= EXACT


@needs_bf16
@pytest.mark.usefixtures("any_size")
def test_chunks_of_unequal_size_compute_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = random(1, 16, 22, 21), random(32, 16, 3, 3, seed=1)
    want = modelled(x, w, PADS)
    for split in (0, 1):
        monkeypatch.setattr(WinogradBf16, "candidates", lambda _, split=split: [{"tr": 7, "chunk": 28, "split": split}])
        assert worst(run(tmp_path, model(x, w, PADS), x), want) <= EXACT


@needs_bf16
@pytest.mark.usefixtures("any_size")
def test_the_chain_behind_it_is_fused(tmp_path: Path) -> None:
    x, w = random(1, 32, 12, 14), random(32, 32, 3, 3, seed=1)
    made = model(x, w, PADS, silu=True)
    assert worst(run(tmp_path, made, x), reference(made, {"x": x})["y"]) < TOLERANCE / 2


@needs_bf16
@pytest.mark.usefixtures("any_size")
@pytest.mark.parametrize("mean", [0, 1])
def test_stays_within_the_tolerance_of_bf16_over_many_channels(mean: int, tmp_path: Path) -> None:
    """With a mean as behind Relu too, which the data transform must cancel."""
    x, w = random(1, 512, 8, 8) + np.float32(mean), random(32, 512, 3, 3, seed=1)
    made = model(x, w, PADS)
    assert EXACT < worst(run(tmp_path, made, x), reference(made, {"x": x})["y"]) < TOLERANCE / 2


@pytest.mark.parametrize("name", CLASSES)
def test_is_offered_where_it_can_win(name: str, tmp_path: Path) -> None:
    (n, c, co, side), offered = CLASSES[name]
    line = line_of(save(model(random(n, c, side, side), random(co, c, 3, 3, seed=1), PADS), tmp_path), ZEN4)
    assert any(form_of(call) for call in line.calls) == offered


OTHER_WINDOWS = {
    "strided": (3, {**PADS, "strides": [2, 2]}),
    "dilated": (3, {"pads": [2, 2, 2, 2], "dilations": [2, 2]}),
    "1x1": (1, {}),
    "5x5": (5, {"pads": [2, 2, 2, 2]}),
}


@pytest.mark.usefixtures("any_size")
@pytest.mark.parametrize("name", OTHER_WINDOWS)
def test_is_not_offered_for_other_windows(name: str, tmp_path: Path) -> None:
    size, attrs = OTHER_WINDOWS[name]
    made = model(random(1, 64, 9, 9), random(64, 64, size, size, seed=1), attrs)
    assert not any(form_of(call) for call in line_of(save(made, tmp_path), ZEN4).calls)


@pytest.mark.usefixtures("any_size")
def test_a_cpu_without_the_instruction_is_not_offered_it(tmp_path: Path) -> None:
    path = save(model(random(1, 32, 13, 13), random(32, 32, 3, 3, seed=1), PADS), tmp_path)
    without = with_fields(ZEN4, features=tuple(f for f in ZEN4.features if f != BF16))
    for target, offered in ((ZEN4, True), (without, False), (HASWELL, False)):
        assert any(form_of(call) for call in line_of(path, target).calls) == offered


def kernel(**changed: Any) -> WinogradBf16:
    return replace(WinogradBf16(1, 4, 16, 13, 13, 8, 16, (1, 1, 1, 1), 2, 2), **changed)


def test_weights_are_pairs_of_input_channels_and_take_sixteen_ninths_of_the_direct_form() -> None:
    w = random(128, 64, 3, 3)
    packed = pack_winograd_bf16(w, kernel())
    assert (packed.shape, str(packed.dtype)) == kernel().inputs[1]
    assert packed.nbytes == 16 / 9 * w.nbytes / 2
    pairs = packed.view(ml_dtypes.bfloat16).astype(np.float32).reshape(4, 16, 32, 32, 2)
    u = rounded(transform_weights(w, 2))
    np.testing.assert_array_equal(pairs[1, 6, 3], u[32:64, 6:8, 1, 2])


def test_is_built_for_a_cpu_with_bf16_from_any_other() -> None:
    functions = {f"f{i}": kernel().function(knobs, f"f{i}") for i, knobs in enumerate(kernel().candidates())}
    assembly = tvm.compile(tvm.IRModule(functions), target=tvm_target(ZEN4)).mod.inspect_source("asm")
    for instruction in ("vdpbf16ps", "vcvtneps2bf16", "prefetch"):
        assert instruction in assembly


def test_a_register_tile_divides_the_output_blocks_and_fits_the_registers() -> None:
    for blocks in range(1, 33):
        for tiles in (1, 16, 49, 361):
            cb = register_block(blocks, tiles)
            assert blocks % cb == 0
            for knobs in kernel(out_blocks=blocks, cb=cb).candidates():
                assert cb * knobs["tr"] <= 24
                assert knobs["chunk"] % knobs["tr"] == 0


def test_a_long_one_can_be_divided_between_blocks() -> None:
    knobs = kernel(in_blocks=64, out_blocks=64).candidates()[-1]
    found = divisible(kernel(in_blocks=64, out_blocks=64), knobs)
    assert found is not None
    assert (found.extent, found.before) == (32, 1)
