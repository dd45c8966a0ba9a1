"""Reading a page with two models: the detector finds the lines, each is cropped, the recogniser reads it.

Pre- and post-processing follow PP-OCR: differentiable binarization (Liao et al., AAAI 2020) behind the detector,
connectionist temporal classification (Graves et al., ICML 2006) behind the recogniser. Pictures are height x width x 3,
uint8, blue first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import ceil
from pathlib import Path

import numpy as np

from veltair.models.source import COMPILE, LIBRARIES, Carrier, Infer, Need, Tensor, only

WEIGHTS = Carrier("rapidocr-onnxruntime", "1.4.4", "weights and character list")
NEEDS = (
    WEIGHTS,
    Need("pillow", "draws the sample pages", LIBRARIES, module="PIL"),
    Need("opencv-python-headless", "contours and perspective crops", LIBRARIES, module="cv2"),
    Need("onnx", "the character list is in the file's metadata", COMPILE, module="onnx"),
)
DET_PIXELS = 320
REC_HEIGHT, REC_WIDTH = 48, 320
# PP-OCR's own settings
TEXT_THRESHOLD = 0.3  # a pixel is text
BOX_THRESHOLD = 0.5  # mean over the box
UNCLIP_RATIO = 1.6  # the detector is trained on shrunken boxes
MIN_SIDE_PIXELS = 3
ROW_PIXELS = 10  # boxes whose tops differ by less stand on one row


@dataclass(frozen=True, slots=True)
class TextLine:
    corners: Tensor  # 4 x 2 in pixels of the page, clockwise from the top left
    text: str
    confidence: float  # mean over the characters, 0..1


def read_page(image: Tensor, infer_det: Infer, infer_rec: Infer) -> list[TextLine]:
    """The lines of text on `image` in reading order."""
    tensor, scale = det_input(image)
    lines = []
    for corners in find_boxes(only(infer_det({"x": tensor})), scale, image.shape[:2]):
        text, confidence = decode(only(infer_rec({"x": rec_input(crop(image, corners))})))
        if text:
            lines.append(TextLine(corners, text, confidence))
    return lines


def det_input(image: Tensor) -> tuple[Tensor, float]:
    """The page shrunk to fit the detector's square, the rest grey, and the factor it was scaled by."""
    import cv2

    check_picture(image)
    height, width = image.shape[:2]
    scale = DET_PIXELS / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    tensor = np.zeros((1, 3, DET_PIXELS, DET_PIXELS), np.float32)
    tensor[0, :, : size[1], : size[0]] = _normalised(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
    return tensor, scale


def rec_input(line: Tensor) -> Tensor:
    """A crop scaled to the recogniser's height; what is narrower than its width is filled up, wider is squeezed."""
    import cv2

    check_picture(line)
    width = min(REC_WIDTH, ceil(REC_HEIGHT * line.shape[1] / line.shape[0]))
    tensor = np.zeros((1, 3, REC_HEIGHT, REC_WIDTH), np.float32)
    tensor[0, :, :, :width] = _normalised(cv2.resize(line, (width, REC_HEIGHT)))
    return tensor


def find_boxes(probability: Tensor, scale: float, page: Sequence[int]) -> list[Tensor]:
    """Corners of each line in pixels of the page (height, width), from the detector's map of text probability."""
    import cv2

    chance = np.asarray(probability, np.float32).reshape(DET_PIXELS, DET_PIXELS)
    text = cv2.dilate((chance > TEXT_THRESHOLD).astype(np.uint8), np.ones((2, 2), np.uint8))
    contours, _ = cv2.findContours(text, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    boxes = []
    for contour in contours:
        centre, (width, height), angle = cv2.minAreaRect(contour)
        if min(width, height) < MIN_SIDE_PIXELS:
            continue
        if _mean_inside(chance, cv2.boxPoints((centre, (width, height), angle))) < BOX_THRESHOLD:
            continue
        # Offsetting a rectangle by a distance and taking the smallest rectangle around it only widens both sides.
        grow = 2 * UNCLIP_RATIO * width * height / (2 * (width + height))
        corners = cv2.boxPoints((centre, (width + grow, height + grow), angle)) / scale
        boxes.append(_clockwise(np.clip(corners, 0, [page[1] - 1, page[0] - 1])))
    return _reading_order(boxes)


def crop(image: Tensor, corners: Tensor) -> Tensor:
    """The quadrilateral made upright; text that stands is laid down."""
    import cv2

    corners = corners.astype(np.float32)
    width = max(1, round(max(_distance(corners[0], corners[1]), _distance(corners[3], corners[2]))))
    height = max(1, round(max(_distance(corners[0], corners[3]), _distance(corners[1], corners[2]))))
    upright = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    warp = cv2.getPerspectiveTransform(corners, upright)
    line = cv2.warpPerspective(image, warp, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.rot90(line) if height >= 1.5 * width else np.asarray(line)


def decode(scores: Tensor) -> tuple[str, float]:
    """Greedy CTC: the best class at each step, repeats merged, blanks (class 0) and outer white space dropped."""
    steps = np.asarray(scores).reshape(-1, scores.shape[-1])
    best = steps.argmax(axis=1)
    kept = (best != 0) & (best != np.concatenate(([-1], best[:-1])))
    if not kept.any():
        return "", 0.0
    characters = _characters()
    return "".join(characters[i] for i in best[kept]).strip(), float(steps.max(axis=1)[kept].mean())


def check_picture(image: Tensor) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise ValueError(f"a picture must be height x width x 3 of uint8, got {image.dtype} {image.shape}")


def weights_file(which: str) -> Path:
    return WEIGHTS.file(f"rapidocr_onnxruntime/models/ch_PP-OCRv4_{which}_infer.onnx")


@cache
def _characters() -> tuple[str, ...]:
    """What each class of the recogniser stands for: the blank, the characters of the file's metadata, the space."""
    import onnx

    model = onnx.load(weights_file("rec"))
    listed = next(entry.value for entry in model.metadata_props if entry.key == "character")
    return ("", *listed.splitlines(), " ")


def _normalised(image: Tensor) -> Tensor:
    return (image.astype(np.float32).transpose(2, 0, 1) / 255 - 0.5) / 0.5


def _mean_inside(chance: Tensor, corners: Tensor) -> float:
    import cv2

    inside = np.zeros(chance.shape, np.uint8)
    cv2.fillPoly(inside, [np.round(corners).astype(np.int32)], 1)
    return float(cv2.mean(chance, inside)[0])


def _clockwise(corners: Tensor) -> Tensor:
    """From the top left: by angle around the centre, then turned so that the corner nearest the origin comes first."""
    away = corners - corners.mean(axis=0)
    around = corners[np.argsort(np.arctan2(away[:, 1], away[:, 0]))]
    return np.asarray(np.roll(around, -int(around.sum(axis=1).argmin()), axis=0))


def _reading_order(boxes: list[Tensor]) -> list[Tensor]:
    ordered: list[Tensor] = []
    row: list[Tensor] = []
    for box in sorted(boxes, key=lambda box: float(box[0, 1])):
        if row and box[0, 1] - row[0][0, 1] >= ROW_PIXELS:
            ordered += sorted(row, key=lambda box: float(box[0, 0]))
            row = []
        row.append(box)
    return ordered + sorted(row, key=lambda box: float(box[0, 0]))


def _distance(a: Tensor, b: Tensor) -> float:
    return float(np.linalg.norm(a - b))
