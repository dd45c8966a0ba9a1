"""The seven networks of VELTAIR's evaluation, as PyTorch makes them, with seeded weights (no package carries trained ones).

Weights and inputs are real in shape and in range, so speed, accuracy of kernels and memory mean what they would with
trained ones; what the networks answer means nothing, so no answer is expected.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from importlib import import_module
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import numpy as np

from veltair.models.efficientnet import PHOTOS, SUBJECTS, frame, photograph
from veltair.models.source import LIBRARIES, TORCH, Carrier, ModelSource, Need, Sample, Tensor, Tensors, only

WEIGHTS_SEED = 2022
MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pixels, scaled to 0..1


class SeededModel(ModelSource):
    """A network of `models.nets`: `network` is "file.Class"."""

    weights = "seeded"
    network: ClassVar[str]
    outputs: ClassVar[tuple[str, ...]]
    requires: ClassVar[tuple[Need | Carrier, ...]] = (
        Need("torch", "builds the network", TORCH, module="torch"),
        Need("onnxscript", "writes it as ONNX", TORCH, module="onnxscript"),
    )

    def definition(self) -> Any:
        """The network's class. Raises ToolMissing."""
        self.needs()
        file, _, name = self.network.partition(".")
        return getattr(import_module(f"veltair.models.nets.{file}"), name)

    def module(self) -> Any:
        """The network with its weights, in evaluation mode. The same at every call. Raises ToolMissing."""
        definition = self.definition()
        from veltair.models.nets import seeded

        return seeded.make(definition, WEIGHTS_SEED, self._picture())

    def export(self, folder: Path) -> Path:
        """Write `<name>.onnx` and its weights, `<name>.onnx.data`, into `folder`."""
        module = self.module()
        import torch

        from veltair.models.nets.export import export

        inputs = {name: torch.from_numpy(value) for name, value in self._example().items()}
        return export(module, inputs, self.outputs, folder / f"{self.name}.onnx")

    def _picture(self) -> tuple[int, ...] | None:
        return None

    @abstractmethod
    def _example(self) -> dict[str, Tensor]:
        """Inputs of the right shapes and types."""


class PictureModel(SeededModel):
    """Takes `image`, a photograph of `pixels` x `pixels` scaled by ImageNet's mean and spread. `origin` is that photograph."""

    pixels: ClassVar[int]
    requires = (
        *SeededModel.requires,
        PHOTOS,
        Need("pillow", "reads the photographs", LIBRARIES, module="PIL"),
    )

    def __init_subclass__(cls) -> None:
        cls.input_shapes = {"image": (1, 3, cls.pixels, cls.pixels)}

    def samples(self, seed: int = 0) -> Iterator[Sample]:
        """The photographs in turn, each time seen through another frame."""
        self.needs()
        random = Random(seed)
        for number in count(random.randrange(len(SUBJECTS))):
            file = tuple(SUBJECTS)[number % len(SUBJECTS)]
            share, across, mirrored = random.uniform(0.6, 1.0), random.random(), random.random() < 0.5
            square = frame(photograph(file), share, across, mirrored)
            yield Sample({"image": normalised(square, self.pixels)}, f"the photograph {file}", (), square)

    def answer(self, outputs: Tensors, sample: Sample) -> str:
        return f"class {int(only(outputs).argmax())}"

    def _picture(self) -> tuple[int, ...]:
        return self.input_shapes["image"][1:]

    def _example(self) -> dict[str, Tensor]:
        return {"image": np.zeros(self.input_shapes["image"], np.float32)}


def normalised(square: Tensor, pixels: int) -> Tensor:
    """A square photograph (side x side x 3, uint8, red first) as [1, 3, pixels, pixels] of mean about 0, variance about 1."""
    from PIL import Image

    scaled = np.asarray(Image.fromarray(square).resize((pixels, pixels), Image.Resampling.BICUBIC), np.float32) / 255
    standard: Tensor = (scaled - np.array(MEAN, np.float32)) / np.array(SPREAD, np.float32)
    return standard.transpose(2, 0, 1)[None].copy()


class ResNet50(PictureModel):
    name, network, outputs, pixels, qos_ms = "resnet50", "resnet50.ResNet50", ("logits",), 224, 150.0


class GoogLeNet(PictureModel):
    name, network, outputs, pixels, qos_ms = "googlenet", "googlenet.GoogLeNet", ("logits",), 224, 60.0


class EfficientNetB0(PictureModel):
    name, network, outputs, pixels, qos_ms = "efficientnet-b0", "efficientnet_b0.EfficientNetB0", ("logits",), 224, 30.0


class MobileNetV2(PictureModel):
    name, network, outputs, pixels, qos_ms = "mobilenet-v2", "mobilenet_v2.MobileNetV2", ("logits",), 224, 20.0


class SsdResNet34(PictureModel):
    name, network, outputs, pixels, qos_ms = "ssd-resnet34", "ssd_resnet34.SsdResNet34", ("boxes", "scores"), 300, 400.0

    def answer(self, outputs: Tensors, sample: Sample) -> str:
        """The anchor that is surest of a class other than the background, which comes first."""
        scores = outputs["scores"][0, 1:]
        kind, anchor = np.unravel_index(int(scores.argmax()), scores.shape)
        return f"class {kind + 1} at anchor {anchor}"


class TinyYoloV2(PictureModel):
    name, network, outputs, pixels, qos_ms = "tiny-yolov2", "tiny_yolov2.TinyYoloV2", ("grid",), 416, 140.0

    def answer(self, outputs: Tensors, sample: Sample) -> str:
        """The surest anchor's place and class; an anchor's 25 numbers are its box, its objectness and 20 classes."""
        grid = only(outputs)[0]
        anchors = grid.reshape(5, 25, *grid.shape[1:])
        anchor, row, column = np.unravel_index(int(anchors[:, 4].argmax()), anchors[:, 4].shape)
        return f"class {int(anchors[anchor, 5:, row, column].argmax())} in row {row}, column {column}"


class BertLarge(SeededModel):
    """A sample's `origin` is the number of its tokens; the rest up to 128 is padding."""

    name, network, outputs, qos_ms = "bert-large", "bert_large.BertLarge", ("hidden", "pooled"), 1_500.0
    input_shapes: ClassVar[Mapping[str, tuple[int, ...]]] = {"input_ids": (1, 128), "attention_mask": (1, 128)}
    max_values: ClassVar[Mapping[str, int]] = {"input_ids": 30_522, "attention_mask": 2}

    def samples(self, seed: int = 0) -> Iterator[Sample]:
        """Random tokens, between a quarter of the length and all of it."""
        self.needs()
        rng = np.random.default_rng(seed)
        shape = self.input_shapes["input_ids"]
        while True:
            tokens = int(rng.integers(shape[1] // 4, shape[1] + 1))
            mask = (np.arange(shape[1]) < tokens).astype(np.int64)[None]
            ids = rng.integers(0, self.max_values["input_ids"], shape) * mask
            yield Sample({"input_ids": ids, "attention_mask": mask}, f"{tokens} random tokens", (), tokens)

    def answer(self, outputs: Tensors, sample: Sample) -> str:
        """There is no head for a task: the strongest of the pooled state's directions."""
        return f"direction {int(outputs['pooled'].argmax())}"

    def _example(self) -> dict[str, Tensor]:
        return {name: np.ones(shape, np.int64) for name, shape in self.input_shapes.items()}


SUITE: tuple[SeededModel, ...] = (
    ResNet50(),
    GoogLeNet(),
    EfficientNetB0(),
    MobileNetV2(),
    SsdResNet34(),
    TinyYoloV2(),
    BertLarge(),
)
