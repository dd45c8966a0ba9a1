"""Pictures go in as bytes, and come out normalised as NumPy would do it."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from veltair.compiler.fallback import Foreign, fallback
from veltair.compiler.gate import Reference
from veltair.compiler.lower import Lowering
from veltair.compiler.onnx_import import load
from veltair.compiler.operators import HANDLERS
from veltair.compiler.preprocess import ImageInput, parse_image_input
from veltair.compiler.simplify import simplify
from veltair.errors import CompileError, UnknownInput

from .small import HOST, assert_equal, model_of, run_line, save

RNG = np.random.default_rng(5)
WEIGHTS = {"w": RNG.standard_normal((8, 3, 3, 3)).astype(np.float32)}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def conv(shape: tuple[int, ...] = (1, 3, 12, 10)) -> onnx.ModelProto:
    return model_of([("Conv", "x w", "y")], {"x": np.zeros(shape, np.float32)}, "y", WEIGHTS)


def identity(shape: tuple[int, ...]) -> onnx.ModelProto:
    return model_of([("Identity", "x", "y")], {"x": np.zeros(shape, np.float32)}, "y")


def run(path: Path, image: ImageInput, picture: Any) -> dict[str, Any]:
    """The reference's output, after checking that ours is the same and needs no fallback."""
    imported = load(path, {}, images=[image])
    assert imported.graph.dtypes["x"] == "uint8"
    assert imported.graph.shapes["x"] == picture.shape
    theirs = Reference(imported.folded, ()).run({"x": picture})
    line = Lowering(simplify(imported.graph), HOST, HANDLERS, fallback).run()
    assert not any(isinstance(call.kernel, Foreign) for call in line.calls)
    assert_equal(run_line(line, {"x": picture}), theirs)
    return theirs


@pytest.mark.parametrize(("layout", "channels_last"), [("nhwc", True), ("nchw", False)])
def test_a_picture_reaches_the_model_as_numpy_would_normalise_it(tmp_path: Path, layout: str, channels_last: bool) -> None:
    picture = RNG.integers(0, 256, (1, 12, 10, 3), dtype=np.uint8)
    expected = ((picture / 255 - MEAN) / STD).astype(np.float32).transpose(0, 3, 1, 2)
    given = picture if channels_last else np.ascontiguousarray(picture.transpose(0, 3, 1, 2))
    image = ImageInput("x", layout, MEAN, STD)
    made = run(save(identity((1, 3, 12, 10)), tmp_path), image, given)
    np.testing.assert_allclose(made["y"], expected, atol=2e-6)
    assert run(save(conv(), tmp_path), image, given)["y"].shape == (1, 8, 10, 8)


def test_a_model_that_takes_channels_last_is_normalised_along_them(tmp_path: Path) -> None:
    picture = RNG.integers(0, 256, (1, 12, 10, 3), dtype=np.uint8)
    made = run(save(identity((1, 12, 10, 3)), tmp_path), ImageInput("x", "nhwc", MEAN, (0.5,), 1.0), picture)
    np.testing.assert_allclose(made["y"], (picture.astype(np.float32) - np.float32(MEAN)) / 0.5, atol=1e-4)


def test_pictures_come_in_batches_too(tmp_path: Path) -> None:
    imported = load(save(conv(), tmp_path), {}, batch=4, images=[ImageInput("x")])
    assert (imported.graph.shapes["x"], imported.graph.shapes["y"]) == ((4, 12, 10, 3), (4, 8, 10, 8))


def test_a_picture_for_what_is_no_picture_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownInput, match=r"no input 'photo' to take pictures; its inputs are x \(--image\)"):
        load(save(conv(), tmp_path), {}, images=[ImageInput("photo")])
    with pytest.raises(CompileError, match=r"'x' is float32 \[1, 8, 12, 10\]; pictures go into float32 inputs"):
        load(save(identity((1, 8, 12, 10)), tmp_path), {}, images=[ImageInput("x")])
    with pytest.raises(CompileError, match="mean of image 'x' has 2 values, the input has 3 channels"):
        load(save(conv(), tmp_path), {}, images=[ImageInput("x", mean=(0.1, 0.2))])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x", ImageInput("x")),
        ("x=nchw", ImageInput("x", "nchw")),
        ("x=nhwc,mean=0.485:0.456:0.406,std=0.5,scale=128", ImageInput("x", "nhwc", MEAN, (0.5,), 128.0)),
    ],
)
def test_an_image_option_is_read(text: str, expected: ImageInput) -> None:
    assert parse_image_input(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "needs the input's name; write it like image=nhwc"),
        ("x=nwhc", "layout 'nwhc' is neither nhwc nor nchw"),
        ("x,mean=a:b", "mean 'a:b' is no list of numbers"),
        ("x,size=3", "'size' is none of mean, std and scale"),
        ("x,std=1,std=2", "'std' is given twice"),
        ("x,scale=1:2", "scale is one number"),
        ("x,std=0", "must be above 0"),
        ("x,mean=nan", "must be finite"),
    ],
)
def test_an_image_option_that_makes_no_sense_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_image_input(text)
