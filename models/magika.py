"""Magika: of which type is a file, judged by its first and last 1024 bytes. Weights from the package of that name.

Features and the rule that turns scores into a type follow Magika's configuration (standard model v3.3, the mode it
calls high confidence).
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from veltair.models.magika_files import KINDS
from veltair.models.source import LIBRARIES, Carrier, Infer, ModelSource, Need, Sample, Tensor, Tensors, only

WEIGHTS = Carrier("magika", "1.0.3", "weights and the names of the types")
FOLDER = "magika/models/standard_v3_3"


@dataclass(frozen=True, slots=True)
class Verdict:
    label: str  # Magika's name of the type, e.g. "python"
    score: float  # 0..1


class Magika(ModelSource):
    """A sample's `origin` is the content, bytes."""

    name = "magika"
    requires = (
        WEIGHTS,
        Need("pillow", "draws the sample pictures", LIBRARIES, module="PIL"),
    )
    input_shapes = {"bytes": (1, 2048)}
    qos_ms = 30.0
    max_values = {"bytes": 257}  # 256 is the padding

    def export(self, folder: Path) -> Path:
        self.needs()
        folder.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copyfile(WEIGHTS.file(f"{FOLDER}/model.onnx"), folder / f"{self.name}.onnx"))

    def samples(self, seed: int = 0) -> Iterator[Sample]:
        self.needs()
        random = Random(seed)
        for number in count(random.randrange(len(KINDS))):
            kind = KINDS[number % len(KINDS)]
            content = kind.make(random)
            tensor = features(content)
            assert tensor is not None, f"{kind.what} is too short to judge"
            yield Sample({"bytes": tensor}, f"{kind.what}, {len(content)} bytes", (kind.label,), content)

    def answer(self, outputs: Tensors, sample: Sample) -> str:
        return verdict(only(outputs)).label


def identify(content: bytes, infer: Infer) -> Verdict:
    """The type of a file's content; what is too short for the model is judged without it."""
    tensor = features(content)
    if tensor is not None:
        return verdict(only(infer({"bytes": tensor})))
    if not content:
        return Verdict("empty", 1.0)
    try:
        content[: _config()["block_size"]].decode("utf-8")
    except UnicodeDecodeError:
        return Verdict("unknown", 1.0)
    return Verdict("txt", 1.0)


def features(content: bytes) -> Tensor | None:
    """The model's input, or None where too few bytes are left to judge once white space is stripped."""
    config = _config()
    begin_size, end_size, padding = config["beg_size"], config["end_size"], config["padding_token"]
    begin = content[: config["block_size"]].lstrip()[:begin_size]
    end = content[-config["block_size"] :].rstrip()[-end_size:]
    if min(len(content), len(begin)) < config["min_file_size_for_dl"]:
        return None
    tensor = np.full((1, begin_size + end_size), padding, np.int32)
    tensor[0, : len(begin)] = np.frombuffer(begin, np.uint8)
    if end:
        tensor[0, -len(end) :] = np.frombuffer(end, np.uint8)
    return tensor


def verdict(scores: Tensor) -> Verdict:
    """The best type, or where its score is too low for that type just whether it is text."""
    config = _config()
    best = int(np.asarray(scores).ravel().argmax())
    score = float(np.asarray(scores).ravel()[best])
    guess = config["target_labels_space"][best]
    label = config["overwrite_map"].get(guess, guess)
    if score < config["thresholds"].get(guess, config["medium_confidence_threshold"]):
        label = "txt" if _types()[label]["is_text"] else "unknown"
    return Verdict(label, score)


@cache
def _config() -> Mapping[str, Any]:
    return dict(json.loads(WEIGHTS.file(f"{FOLDER}/config.min.json").read_text(encoding="utf-8")))


@cache
def _types() -> Mapping[str, Any]:
    return dict(json.loads(WEIGHTS.file("magika/config/content_types_kb.min.json").read_text(encoding="utf-8")))
