from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from itertools import islice

import numpy as np
import pytest

from veltair.models import MODELS, Infer, ocr
from veltair.models.ocr_page import draw_page

pytest.importorskip("cv2", reason='pip install "veltair[models]"')

InferWith = Callable[[str], Infer]
MOST_WRONG = 0.01  # of all characters: the models confuse o and 0 now and then


def share_wrong(read: Sequence[str], drawn: Sequence[str]) -> float:
    """Share of characters that are not matched in order, over both texts."""
    return 1 - SequenceMatcher(None, "\n".join(read), "\n".join(drawn), autojunk=False).ratio()


def test_the_text_drawn_on_a_page_is_the_text_read_from_it(infer_with: InferWith) -> None:
    det, rec = infer_with("ocr-det"), infer_with("ocr-rec")
    pages = [draw_page(seed) for seed in range(4)]
    read = [line.text for page in pages for line in ocr.read_page(page.image, det, rec)]
    assert share_wrong(read, [text for page in pages for text in page.lines]) <= MOST_WRONG


def test_a_page_laid_crooked_on_the_scanner_is_still_read(infer_with: InferWith) -> None:
    from PIL import Image

    page = draw_page(1)
    tilted = np.array(Image.fromarray(page.image).rotate(4, Image.Resampling.BICUBIC, fillcolor=(240, 240, 240)))
    read = [line.text for line in ocr.read_page(tilted, infer_with("ocr-det"), infer_with("ocr-rec"))]
    assert share_wrong(read, page.lines) <= 0.03


def test_corners_are_given_in_pixels_of_the_page_whatever_its_shape(infer_with: InferWith) -> None:
    page = draw_page(2)
    wide = np.full((page.image.shape[0], 1000, 3), 240, np.uint8)
    wide[:, 300:940] = page.image
    lines = ocr.read_page(wide, infer_with("ocr-det"), infer_with("ocr-rec"))
    assert [line.text for line in lines] == list(page.lines)
    for line in lines:
        x, y = line.corners[:, 0], line.corners[:, 1]
        assert wide[int(y.min()) : int(y.max()), int(x.min()) : int(x.max())].min() < 80  # ink inside
        assert x.min() > 320


def test_an_empty_page_holds_no_text(infer_with: InferWith) -> None:
    blank = np.full((640, 640, 3), 250, np.uint8)
    assert ocr.read_page(blank, infer_with("ocr-det"), infer_with("ocr-rec")) == []


@pytest.mark.parametrize("name", ["ocr-det", "ocr-rec"])
def test_the_answer_to_a_sample_is_one_of_those_expected(name: str, infer_with: InferWith) -> None:
    source, infer = MODELS[name], infer_with(name)
    for sample in islice(source.samples(seed=1), 6):
        assert source.answer(infer(sample.inputs), sample) in sample.expected, sample.what


def scores(*classes: int) -> np.ndarray:
    return np.eye(6625, dtype=np.float32)[list(classes)][None]


def test_a_repeated_class_is_one_character_unless_a_blank_stands_between(infer_with: InferWith) -> None:
    infer_with("ocr-rec")  # the character list comes with the weights
    a, _ = ocr.decode(scores(0, 50, 50, 0))
    assert len(a) == 1
    assert ocr.decode(scores(50, 0, 50))[0] == a + a
    assert ocr.decode(scores(50, 50, 0, 0, 51))[0] == a + ocr.decode(scores(51))[0]


def test_blanks_alone_are_no_text() -> None:
    assert ocr.decode(scores(0, 0, 0)) == ("", 0.0)


def test_boxes_are_read_row_by_row_from_the_left() -> None:
    probability = np.zeros((1, 1, 320, 320), np.float32)
    for left, top in ((200, 52), (20, 50), (20, 120)):
        probability[0, 0, top : top + 14, left : left + 80] = 1.0
    boxes = ocr.find_boxes(probability, 1.0, (320, 320))
    assert [(round(box[0, 0], -1), round(box[0, 1], -1)) for box in boxes] == [(10, 40), (190, 40), (10, 110)]


def test_text_that_the_detector_doubts_is_left_out() -> None:
    probability = np.zeros((1, 1, 320, 320), np.float32)
    probability[0, 0, 50:64, 20:100] = 0.4  # over the pixels' threshold, under the box's
    assert ocr.find_boxes(probability, 1.0, (320, 320)) == []


def test_a_standing_line_is_laid_down() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    corners = np.array([[10, 10], [20, 10], [20, 90], [10, 90]], np.float32)
    assert ocr.crop(image, corners).shape == (10, 80, 3)


@pytest.mark.parametrize("picture", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float32), np.zeros((0, 8, 3), np.uint8)])
def test_what_is_no_picture_is_refused_with_what_it_should_be(picture: np.ndarray) -> None:
    for prepare in (ocr.det_input, ocr.rec_input):
        with pytest.raises(ValueError, match="height x width x 3 of uint8, got"):
            prepare(picture)
