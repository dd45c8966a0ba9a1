"""Pictures as bytes: a uint8 input whose normalisation is compiled in, ahead of what the model takes.

It is done on the ONNX graph before anything else, so the gate's reference computes it too.
"""

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from veltair.compiler.graph import Array
from veltair.errors import CompileError, UnknownInput

_LAYOUTS = ("nhwc", "nchw")
_MOST_CHANNELS = 4  # of a picture: grey, with alpha, RGB, RGBA
_EXAMPLE = "write it like image=nhwc,mean=0.485:0.456:0.406,std=0.229:0.224:0.225,scale=255"


@dataclass(frozen=True, slots=True)
class ImageInput:
    """Input `name` becomes uint8 in `layout`; the model gets (byte / scale - mean) / std, per channel or alike for all."""

    name: str
    layout: str = "nhwc"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    scale: float = 255.0

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError(f"an image input needs the input's name; {_EXAMPLE}")
        if self.layout not in _LAYOUTS:
            raise ValueError(f"{self.name}: layout {self.layout!r} is neither nhwc nor nchw; {_EXAMPLE}")
        if not np.isfinite([self.scale, *self.mean, *self.std]).all() or not self.mean or not self.std:
            raise ValueError(f"{self.name}: mean, std and scale must be finite numbers; {_EXAMPLE}")
        if self.scale <= 0 or min(self.std) <= 0:
            raise ValueError(f"{self.name}: std {self.std} and scale {self.scale:g} divide, so they must be above 0")


def parse_image_input(text: str) -> ImageInput:
    """`NAME[=nhwc|nchw][,mean=A:B:C][,std=A:B:C][,scale=N]`, left out parts as in ImageInput. Raises ValueError."""
    first, *settings = text.split(",")
    name, _, layout = first.partition("=")
    values: dict[str, tuple[float, ...]] = {}
    for setting in settings:
        key, _, numbers = setting.partition("=")
        if key not in ("mean", "std", "scale") or key in values:
            problem = "is given twice" if key in values else "is none of mean, std and scale"
            raise ValueError(f"{text!r}: {key!r} {problem}; {_EXAMPLE}")
        try:
            values[key] = tuple(float(number) for number in numbers.split(":"))
        except ValueError:
            raise ValueError(f"{text!r}: {key} {numbers!r} is no list of numbers; {_EXAMPLE}") from None
    scale = values.pop("scale", (255.0,))
    if len(scale) != 1:
        raise ValueError(f"{text!r}: scale is one number for all channels; {_EXAMPLE}")
    return ImageInput(name, layout or "nhwc", values.get("mean", (0.0,)), values.get("std", (1.0,)), scale[0])


def prepend(model: onnx.ModelProto, image: ImageInput, file: str) -> None:
    """Put the normalisation in front of a float32 input of fixed shape. Raises UnknownInput, CompileError; edits `model`."""
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    port = next((p for p in graph.input if p.name == image.name and p.name not in constants), None)
    if port is None:
        names = ", ".join(sorted(p.name for p in graph.input if p.name not in constants))
        raise UnknownInput(f"{file}: no input {image.name!r} to take pictures; its inputs are {names} (--image)")
    kind = port.type.tensor_type
    shape = [d.dim_value for d in kind.shape.dim]
    theirs = _layout_of(shape)
    if kind.elem_type != TensorProto.FLOAT or theirs is None:
        raise CompileError(
            f"{file}: input {image.name!r} is {helper.tensor_dtype_to_np_dtype(kind.elem_type)} {shape}; pictures go into "
            f"float32 inputs [n, channels, height, width] or [n, height, width, channels] of up to {_MOST_CHANNELS} channels"
        )
    channels = shape[theirs.index("c")]
    factor = 1.0 / (image.scale * _per_channel(image, "std", image.std, channels, file))
    shift = -_per_channel(image, "mean", image.mean, channels, file) / _per_channel(image, "std", image.std, channels, file)
    broadcast = [channels if axis == "c" else 1 for axis in theirs]
    nodes, value = [], image.name

    def step(op: str, *constants: Array, **attributes: object) -> None:
        nonlocal value
        made, names = f"{image.name}__{op.lower()}", []
        for constant in constants:
            names.append(f"{made}_by")
            graph.initializer.append(numpy_helper.from_array(constant.reshape(broadcast).astype(np.float32), names[-1]))
        nodes.append(helper.make_node(op, [value, *names], [made], name=made, **attributes))
        value = made

    if image.layout != theirs:  # bytes are moved before they become four times as many
        step("Transpose", perm=[image.layout.index(axis) for axis in theirs])
    step("Cast", to=TensorProto.FLOAT)
    step("Mul", factor)
    if shift.any():
        step("Add", shift)
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name == image.name:
                node.input[place] = value
    for node in reversed(nodes):
        graph.node.insert(0, node)
    sizes = dict(zip(theirs, shape, strict=True))
    port.CopyFrom(helper.make_tensor_value_info(image.name, TensorProto.UINT8, [sizes[axis] for axis in image.layout]))


def _layout_of(shape: list[int]) -> str | None:
    if len(shape) != 4:
        return None
    return "nchw" if shape[1] <= _MOST_CHANNELS else "nhwc" if shape[3] <= _MOST_CHANNELS else None


def _per_channel(image: ImageInput, what: str, values: tuple[float, ...], channels: int, file: str) -> Array:
    if len(values) not in (1, channels):
        raise CompileError(f"{file}: {what} of image {image.name!r} has {len(values)} values, the input has {channels} channels")
    return np.broadcast_to(np.asarray(values, np.float64), (channels,))
