"""Products in bf16: exact sums of rounded factors, forms offered where the CPU has the instruction, nothing elsewhere."""

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tvm
from msgspec.structs import replace

from veltair.bundle.format import TargetSpec
from veltair.compiler.line import Call
from veltair.compiler.schedules.bf16 import TOLERANCE, Ahead, split_columns
from veltair.compiler.schedules.conv import Window
from veltair.compiler.schedules.conv_bf16 import ConvBf16
from veltair.compiler.schedules.gemm_bf16 import GemmBf16
from veltair.compiler.target import BF16, tvm_target

from .small import HASWELL, HOST, line_of, model_of, reference, run_line, save
from .test_attention import separate

ZEN4 = TargetSpec(
    arch="x86_64", mcpu="znver4", lanes=16, features=("avx512f", "avx512bw", "avx512vl", "avx512dq", "fma", "avx2", BF16)
)
EXACT = 1e-5  # of the largest magnitude: fp32 sums of the same rounded factors, in another order

needs_bf16 = pytest.mark.skipif(BF16 not in HOST.features, reason="this CPU has no AVX512-BF16: its code cannot run here")


def random(*shape: int, seed: int = 0) -> Any:
    return (np.random.default_rng(seed).random(shape, dtype=np.float32) - np.float32(0.5)) * np.float32(2)


def rounded(value: Any) -> Any:
    return value.astype(ml_dtypes.bfloat16).astype(np.float32)


def in_bf16(call: Call) -> Call:
    return next((form for form in call.forms if form.kernel.precision == "bf16"), call)


def conv_model(x: Any, w: Any, **attrs: Any) -> Any:
    """Two convolutions and what fuses behind the second, whose input is what the first one wrote: packed channels."""
    c = x.shape[1]
    steps = [
        ("Conv", "x one", "a", {"kernel_shape": [1, 1]}),
        ("Conv", "a w b", "c", {"kernel_shape": w.shape[2:], **attrs}),
        ("Relu", "c", "y"),
    ]
    return model_of(
        steps, {"x": x}, constants={"one": np.eye(c, dtype=np.float32)[:, :, None, None], "w": w, "b": random(w.shape[0], seed=2)}
    )


def gemm_model(x: Any, w: Any) -> Any:
    return model_of(
        [("MatMul", "x w", "a"), ("Add", "a b", "c"), ("Relu", "c", "y")],
        {"x": x},
        constants={"w": w, "b": random(w.shape[1], seed=2)},
    )


def worst(got: Any, want: Any) -> float:
    return float(np.abs(got - want).max() / np.abs(want).max())


CONVS = {
    "pointwise": (20, 40, 6, 6, (1, 1), {}),
    "3x3 with its border": (16, 48, 7, 9, (3, 3), {"pads": [1, 1, 1, 1]}),
    "strided": (24, 16, 9, 11, (3, 3), {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
    "dilated past the border": (32, 24, 10, 10, (3, 3), {"pads": [4, 4, 4, 4], "dilations": [4, 4]}),
    "even window, padded on one side": (16, 16, 8, 30, (2, 4), {"pads": [0, 0, 1, 3]}),
    "strided pointwise": (16, 32, 9, 9, (1, 1), {"strides": [2, 2]}),
    "half a register of channels": (8, 8, 5, 26, (3, 3), {"pads": [1, 1, 1, 1]}),
    "a batch, pointwise": (16, 24, 7, 11, (1, 1), {}),
    "a batch": (16, 32, 5, 5, (3, 3), {"pads": [1, 1, 1, 1]}),
}


@needs_bf16
@pytest.mark.parametrize("name", CONVS)
def test_a_convolution_in_bf16_sums_the_rounded_factors_exactly(name: str, tmp_path: Path) -> None:
    c, co, h, w, kernel, attrs = CONVS[name]
    x, weights = random(2 if "batch" in name else 1, c, h, w), random(co, c, *kernel, seed=1)
    line = line_of(save(conv_model(x, weights, **attrs), tmp_path))
    want = reference(conv_model(rounded(x), rounded(weights), **attrs), {"x": rounded(x)})["y"]
    found = in_bf16(line.calls[-2 if line.calls[-1].label == "unpack" else -1])
    assert found.kernel.precision == "bf16"
    for candidate in (0, 99):  # weights stay; the input stays
        assert worst(run_line(line, {"x": x}, pick=in_bf16, candidate=candidate)["y"], want) <= EXACT


IMAGES = {
    "three channels, strided, with a border": (3, 32, 33, 40, (3, 3), {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
    "a large window": (3, 48, 20, 37, (7, 7), {"pads": [3, 3, 3, 3], "strides": [2, 2]}),
    "one channel, no border": (1, 16, 9, 16, (3, 3), {}),
    "four channels, padded at the end": (4, 24, 12, 33, (3, 4), {"pads": [0, 0, 1, 1]}),
    "a border of two, columns left over": (3, 8, 18, 19, (3, 5), {"pads": [0, 2, 0, 2], "strides": [3, 3]}),
    "a batch, two channels": (2, 16, 6, 18, (3, 3), {"pads": [1, 1, 1, 1]}),
}


@needs_bf16
@pytest.mark.parametrize("name", IMAGES)
def test_the_convolution_of_an_image_in_bf16_sums_the_rounded_factors_exactly(name: str, tmp_path: Path) -> None:
    c, co, h, w, kernel, attrs = IMAGES[name]
    x, weights = random(2 if "batch" in name else 1, c, h, w), random(co, c, *kernel, seed=1)

    def model(x: Any, weights: Any) -> Any:
        steps = [("Conv", "x w b", "c", {"kernel_shape": kernel, **attrs}), ("Relu", "c", "y")]
        return model_of(steps, {"x": x}, constants={"w": weights, "b": random(co, seed=2)})

    line = line_of(save(model(x, weights), tmp_path))
    want = reference(model(rounded(x), rounded(weights)), {"x": rounded(x)})["y"]
    assert in_bf16(line.calls[0]).kernel.kind == "image_bf16"
    for candidate in (0, 99):
        assert worst(run_line(line, {"x": x}, pick=in_bf16, candidate=candidate)["y"], want) <= EXACT


@needs_bf16
@pytest.mark.parametrize(("m", "k", "n"), [(1, 64, 48), (17, 33, 100), (64, 32, 16), (5, 7, 3), (23, 96, 200)])
def test_a_product_in_bf16_sums_the_rounded_factors_exactly(m: int, k: int, n: int, tmp_path: Path) -> None:
    x, w = random(m, k), random(k, n, seed=1)
    line = line_of(save(gemm_model(x, w), tmp_path))
    want = reference(gemm_model(rounded(x), rounded(w)), {"x": rounded(x)})["y"]
    kernel = in_bf16(line.calls[0]).kernel
    assert kernel.precision == "bf16"
    for candidate in (0, 99):  # weights stay; the input stays
        assert worst(run_line(line, {"x": x}, pick=in_bf16, candidate=candidate)["y"], want) <= EXACT


@needs_bf16
@pytest.mark.parametrize(("tokens", "heads", "size"), [(32, 2, 16), (48, 3, 32), (64, 1, 64)], ids=str)
def test_attention_in_bf16_is_that_of_fp32_within_its_tolerance(tokens: int, heads: int, size: int, tmp_path: Path) -> None:
    steps, inputs, constants = separate(tokens, heads, size)
    inputs["x"] = random(1, tokens, heads * size)  # the same whichever tests ran before
    for seed, (name, value) in enumerate(constants.items()):
        if name[0] in "wb":
            constants[name] = random(*value.shape, seed=seed) * np.float32(0.3)
    model = model_of(steps, inputs, constants=constants)
    line, want = line_of(save(model, tmp_path)), reference(model, inputs)["y"]
    assert in_bf16(line.calls[-1]).kernel.kind == "attention_bf16"

    def attention_in_bf16(call: Call) -> Call:
        return in_bf16(call) if call.kernel.kind == "attention" else call

    for candidate in range(3):
        assert EXACT < worst(run_line(line, inputs, pick=attention_in_bf16, candidate=candidate)["y"], want) < TOLERANCE / 2


@needs_bf16
def test_bf16_stays_within_its_tolerance_of_fp32_and_is_not_fp32(tmp_path: Path) -> None:
    x, w = random(1, 64, 8, 8), random(32, 64, 3, 3, seed=1)
    model = conv_model(x, w, pads=[1, 1, 1, 1])
    line = line_of(save(model, tmp_path))
    want = reference(model, {"x": x})["y"]
    assert EXACT < worst(run_line(line, {"x": x}, pick=in_bf16)["y"], want) < TOLERANCE / 2
    assert worst(run_line(line, {"x": x})["y"], want) <= EXACT


@needs_bf16
def test_rounding_is_to_nearest_even_and_keeps_what_is_not_finite(tmp_path: Path) -> None:
    ties = np.array([[1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, np.inf, -np.inf, np.nan, 0.0, 3e38]], np.float32).T.copy()
    x = np.concatenate([ties, np.zeros((8, 31), np.float32)], axis=1)
    line = line_of(save(model_of([("MatMul", "x w", "y")], {"x": x}, constants={"w": np.eye(32, dtype=np.float32)}), tmp_path))
    got = run_line(line, {"x": x}, pick=in_bf16)["y"][:, 0]
    np.testing.assert_array_equal(got, rounded(ties)[:, 0])
    assert list(got[:3]) == [1, 1 + 2**-6, -1]


def test_weights_are_pairs_of_input_channels_in_one_stream_a_tile() -> None:
    kernel = GemmBf16(4, 5, 40, vectors=2)
    w = random(5, 40)
    packed = kernel.pack(w)
    assert (packed.shape, packed.dtype) == kernel.inputs[1]
    halves, steps = packed.view(ml_dtypes.bfloat16).astype(np.float32).reshape(-1, 2), kernel.pairs
    first, second = halves[: steps * 32].reshape(steps, 32, 2), halves[steps * 32 :].reshape(steps, 8, 2)
    np.testing.assert_array_equal(first[0], rounded(w[:2, :32]).T)
    np.testing.assert_array_equal(second[1], rounded(w[2:4, 32:]).T)
    np.testing.assert_array_equal(first[2, :, 1], 0)  # k is odd
    np.testing.assert_array_equal(first[3:], 0)


@pytest.mark.parametrize(("lanes", "vectors"), [(16, 4), (24, 2), (40, 2), (8, 1), (96, 4), (1000, 6)])
def test_tiles_cover_every_lane_once_and_differ_by_one_register_at_most(lanes: int, vectors: int) -> None:
    tiles = split_columns(lanes, vectors)
    assert [t.first for t in tiles] == [sum(t.lanes for t in tiles[:i]) for i in range(len(tiles))]
    assert lanes <= tiles[-1].first + tiles[-1].lanes < lanes + 8
    sizes = {len(t.widths) for t in tiles}
    assert min(sizes) + 1 >= max(sizes) <= vectors


def test_kernels_are_built_for_a_cpu_with_bf16_from_any_other() -> None:
    kernels = [GemmBf16(8, 32, 48, 3), ConvBf16(1, 2, 16, 6, 6, 2, 16, Window((3, 3), pads=(1, 1, 1, 1)), 2)]
    functions = {f"f{i}": k.build(k.candidates()[-1]).with_attr("global_symbol", f"f{i}") for i, k in enumerate(kernels)}
    assembly = tvm.compile(tvm.IRModule(functions), target=tvm_target(ZEN4)).mod.inspect_source("asm")
    assert "vdpbf16ps" in assembly
    assert "vcvtne" in assembly
    assert "prefetch" in assembly


@pytest.mark.parametrize(("words", "rounds", "sweeps"), [(1536, 8, 2), (1000, 3, 7), (64, 4, 40)])
def test_the_sweeps_over_a_tile_ask_for_every_line_of_the_next(words: int, rounds: int, sweeps: int) -> None:
    ahead, first = Ahead(words, rounds, sweeps), 512
    asked = {ahead.start(first, s) + 16 * line for s in range(sweeps) for line in range(rounds * ahead.lines)}
    assert set(range(first + words, first + 2 * words, 16)) <= asked
    assert max(asked) - (first + 2 * words) < 16 * rounds * ahead.lines  # and for little of what follows that


def test_weights_that_are_used_once_are_not_asked_for() -> None:
    assert Ahead(words=1536, rounds=8, sweeps=1).lines == 0


def test_a_cpu_without_the_instruction_is_offered_no_bf16(tmp_path: Path) -> None:
    path = save(gemm_model(random(4, 32), random(32, 32)), tmp_path)
    without = replace(ZEN4, features=tuple(f for f in ZEN4.features if f != BF16))
    for target, offered in ((ZEN4, True), (without, False), (HASWELL, False)):
        assert any(f.kernel.precision == "bf16" for call in line_of(path, target).calls for f in call.forms) == offered


def test_weights_take_half_the_bytes(tmp_path: Path) -> None:
    x, w = random(1, 32, 8, 8), random(64, 32, 3, 3)
    line = line_of(save(conv_model(x, w), tmp_path), ZEN4)
    exact = next(c for c in line.calls if c.others and c.kernel.kind == "conv" and c.kernel.flops > 1e6)
    other = in_bf16(exact)
    sizes = [line.tensors[c.tensors[1]].size_bytes for c in (exact, other)]
    assert sizes[1] * 2 == sizes[0]
    assert (other.reads[0], other.writes) == (exact.reads[0], exact.writes)
    assert other.kernel.traffic_bytes({}) < exact.kernel.traffic_bytes({})
