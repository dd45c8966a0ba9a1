"""Winograd's form of a 3x3 convolution: its transforms, the shapes it is offered for, and what it computes on them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from veltair.bundle.format import TargetSpec
from veltair.compiler import winograd_forms
from veltair.compiler.line import Call, Line
from veltair.compiler.schedules.winograd import Winograd, register_block
from veltair.compiler.schedules.winograd_transform import data_tree, output_tree, transform_weights
from veltair.compiler.winograd_forms import pack_winograd, saving

from .small import HASWELL, HOST, OLDEST, assert_equal, line_of, model_of, reference, run_line, save

PADS = {"pads": [1, 1, 1, 1]}


@pytest.fixture
def any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both tile sizes are offered, however small the image."""
    monkeypatch.setattr(winograd_forms, "worthwhile", lambda direct, channels: [4, 2])


def random(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def forms_of(call: Call) -> dict[int, Call]:
    return {form.kernel.m: form for form in call.forms if type(form.kernel) is Winograd}


def conv_of(line: Line) -> Call:
    (conv,) = (call for call in line.calls if forms_of(call))
    return conv


def model(x: Any, w: Any, attrs: dict[str, Any], *, silu: bool = False) -> Any:
    """A convolution with bias and either Relu, or a residual behind SiLU."""
    if silu:
        steps = [("Conv", "x w b", "c", attrs), ("Sigmoid", "c", "s"), ("Mul", "c s", "m"), ("Add", "m c", "y")]
    else:
        steps = [("Conv", "x w b", "c", attrs), ("Relu", "c", "y")]
    return model_of(steps, {"x": x}, constants={"w": w, "b": random(w.shape[0], seed=2)})


def check(
    folder: Path,
    x: Any,
    w: Any,
    attrs: dict[str, Any],
    m: int,
    *,
    target: TargetSpec = HOST,
    candidate: int = 0,
    silu: bool = False,
) -> None:
    made = model(x, w, attrs, silu=silu)
    line = line_of(save(made, folder), target)
    conv = conv_of(line)
    picked = run_line(line, {"x": x}, target, pick=lambda call: forms_of(call)[m] if call is conv else call, candidate=candidate)
    assert_equal(picked, reference(made, {"x": x}), tolerance=1e-5)


@pytest.mark.parametrize("m", [2, 4])
def test_the_transforms_compute_a_correlation_of_three_taps(m: int) -> None:
    d, g = random(m + 2).astype(np.float64), random(1, 1, 3, 3, seed=1)
    spread = np.zeros((m + 2, m + 2))
    spread[:] = d  # all rows alike and taps that act on one row only: the two-dimensional transform shows one dimension
    g[:, :, 1:] = 0
    u = transform_weights(g, m)[0, 0].astype(np.float64)

    def both(tile: Any, tree: Any) -> Any:
        columns = np.array(tree(list(tile), lambda v: v, float))
        return np.array(tree(list(columns.T), lambda v: v, float)).T

    got = both(u * both(spread, data_tree), output_tree)
    expected = [float(np.dot(d[i : i + 3], g[0, 0, 0])) for i in range(m)]
    np.testing.assert_allclose(got, np.tile(expected, (m, 1)), rtol=1e-5, atol=1e-6)


SHAPES = [
    ("tiles that cover the image", (1, 32, 16, 16), 32, PADS),
    ("rows and columns cropped", (1, 32, 13, 22), 48, PADS),
    ("no padding", (1, 16, 18, 15), 32, {}),
    ("uneven padding", (1, 16, 14, 15), 32, {"pads": [0, 2, 1, 0]}),
    ("padding on the lower side", (1, 16, 16, 12), 16, {"auto_pad": "SAME_UPPER"}),
    ("channels that fill no block", (1, 20, 16, 24), 40, PADS),
    ("a batch", (3, 16, 8, 9), 32, PADS),
]


@pytest.mark.usefixtures("any_size")
@pytest.mark.parametrize("m", [2, 4])
@pytest.mark.parametrize(("shape", "co", "attrs"), [s[1:] for s in SHAPES], ids=[s[0] for s in SHAPES])
def test_equals_onnx_runtime(shape: tuple[int, ...], co: int, attrs: dict[str, Any], m: int, tmp_path: Path) -> None:
    check(tmp_path, random(*shape), random(co, shape[1], 3, 3, seed=1), attrs, m)


@pytest.mark.usefixtures("any_size")
@pytest.mark.parametrize(
    ("target", "m"), [(HASWELL, 2), (HASWELL, 4), (OLDEST, 2), (OLDEST, 4)], ids=lambda v: str(getattr(v, "mcpu", v))
)
def test_narrower_registers_compute_the_same(target: TargetSpec, m: int, tmp_path: Path) -> None:
    check(tmp_path, random(1, 20, 13, 16), random(24, 20, 3, 3, seed=1), PADS, m, target=target)


@pytest.mark.usefixtures("any_size")
def test_every_setting_computes_the_same(tmp_path: Path) -> None:
    x, w = random(1, 96, 44, 42), random(32, 96, 3, 3, seed=1)
    line = line_of(save(model(x, w, PADS), tmp_path))
    kernel = forms_of(conv_of(line))[4].kernel
    settings = kernel.candidates()
    assert {(s["split"], kernel.cut(s)[0] > 2) for s in settings} >= {(0, True), (0, False), (1, False)}
    for candidate in range(len(settings)):
        check(tmp_path, x, w, PADS, 4, candidate=candidate)


@pytest.mark.usefixtures("any_size")
def test_chunks_of_unequal_size_compute_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = random(1, 16, 44, 42), random(32, 16, 3, 3, seed=1)
    for split in (0, 1):
        monkeypatch.setattr(Winograd, "candidates", lambda _, split=split: [{"tr": 7, "chunk": 28, "split": split}])
        check(tmp_path, x, w, PADS, 4)


@pytest.mark.usefixtures("any_size")
def test_the_chain_behind_it_is_fused(tmp_path: Path) -> None:
    check(tmp_path, random(1, 16, 12, 14), random(32, 16, 3, 3, seed=1), PADS, 4, silu=True)


@pytest.mark.usefixtures("any_size")
@pytest.mark.parametrize(("m", "bound"), [(2, 5e-6), (4, 1e-5)])
def test_accuracy_holds_over_many_channels_of_one_sign(m: int, bound: float, tmp_path: Path) -> None:
    """As behind Relu: a large mean, which the data transform must cancel."""
    x, w = np.abs(random(1, 512, 8, 8)) + np.float32(1), random(32, 512, 3, 3, seed=1)
    made = model_of([("Conv", "x w", "y", PADS)], {"x": x}, constants={"w": w})
    line = line_of(save(made, tmp_path))
    picked = run_line(line, {"x": x}, pick=lambda call: forms_of(call).get(m, call))
    xp = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    exact = sum(
        np.einsum("oc,nchw->nohw", w[:, :, i, j].astype(np.float64), xp[:, :, i : i + 8, j : j + 8])
        for i in range(3)
        for j in range(3)
    )
    error = np.abs(picked["y"] - exact).max() / np.abs(exact).max()
    assert error <= bound
    assert bound <= forms_of(conv_of(line))[m].kernel.tolerance / 10


@pytest.mark.parametrize(
    ("shape", "co", "kernel", "attrs"),
    [
        ((1, 3, 32, 32), 32, 3, PADS),
        ((1, 32, 32, 32), 32, 3, {**PADS, "strides": [2, 2]}),
        ((1, 32, 32, 32), 32, 3, {"pads": [2, 2, 2, 2], "dilations": [2, 2]}),
        ((1, 32, 32, 32), 32, 1, {}),
        ((1, 32, 32, 32), 32, 5, {"pads": [2, 2, 2, 2]}),
        ((1, 8, 32, 32), 32, 3, PADS),
        ((1, 32, 32, 32), 8, 3, PADS),
        ((1, 32, 1, 64), 32, 3, PADS),
        ((1, 32, 3, 3), 32, 3, {}),
    ],
    ids=["image", "strided", "dilated", "1x1", "5x5", "few channels in", "few channels out", "one row", "one pixel"],
)
def test_is_not_offered_where_it_can_not_win(
    shape: tuple[int, ...], co: int, kernel: int, attrs: dict[str, Any], tmp_path: Path
) -> None:
    made = model(random(*shape), random(co, shape[1], kernel, kernel, seed=1), attrs)
    assert not any(forms_of(call) for call in line_of(save(made, tmp_path)).calls)


@pytest.mark.parametrize(
    ("channels", "side", "sizes"),
    [(16, 28, [4]), (256, 28, [4, 2]), (32, 14, [4, 2]), (256, 3, [4])],
    ids=["light weights", "heavy weights", "wasteful tiles", "one tile"],
)
def test_small_tiles_are_offered_where_large_ones_waste_much(channels: int, side: int, sizes: list[int], tmp_path: Path) -> None:
    made = model(random(1, channels, side, side), random(channels, channels, 3, 3, seed=1), PADS)
    assert list(forms_of(conv_of(line_of(save(made, tmp_path))))) == sizes


def kernel(**changed: Any) -> Winograd:
    return replace(Winograd(1, 4, 16, 56, 56, 4, 16, (1, 1, 1, 1), 4, 4), **changed)


def test_a_register_tile_divides_the_output_blocks_and_fits_the_registers() -> None:
    for blocks in range(1, 33):
        for tiles in (1, 4, 16, 196):
            for registers in (12, 24):
                cb = register_block(blocks, tiles, registers)
                assert blocks % cb == 0
                for knobs in kernel(out_blocks=blocks, cb=cb, registers=registers).candidates():
                    assert cb * knobs["tr"] <= registers
                    assert knobs["chunk"] % knobs["tr"] == 0


def test_two_cores_that_share_chunks_get_as_many_tiles_each() -> None:
    for tiles in (7, 16, 49, 100, 361):
        for knobs in kernel(w=4 * tiles, h=4).candidates():
            chunks, most = kernel(w=4 * tiles, h=4).cut(knobs)
            runs = -(-tiles // knobs["tr"])
            assert chunks == 1 or chunks % 2 == 0 or chunks == runs
            assert most == -(-runs // chunks) * knobs["tr"] <= max(knobs["chunk"], knobs["tr"])


def test_its_rate_counts_the_operations_of_the_direct_form(tmp_path: Path) -> None:
    line = line_of(save(model(random(1, 32, 14, 14), random(32, 32, 3, 3, seed=1), PADS), tmp_path))
    for form in forms_of(conv_of(line)).values():
        assert form.kernel.flops == conv_of(line).kernel.flops
    assert saving(kernel()) == 4.0
    assert saving(kernel(m=2)) == 2.25


def test_weights_are_as_much_larger_as_they_are_said_to_be() -> None:
    for m, growth in ((4, 4.0), (2, 16 / 9)):
        packed = pack_winograd(random(64, 64, 3, 3), kernel(m=m))
        assert packed.shape == kernel(m=m).inputs[1][0]
        assert packed.size == growth * 64 * 64 * 9


def test_a_larger_chunk_moves_less_and_holds_more() -> None:
    deep = kernel(in_blocks=16, out_blocks=16)
    small, large = ({"tr": 6, "chunk": chunk, "split": 0} for chunk in (6, 12))
    assert deep.traffic_bytes(small) > deep.traffic_bytes(large)
    assert deep.working_set_bytes(small) < deep.working_set_bytes(large)
