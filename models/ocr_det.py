"""PP-OCRv4 detection: where on a page is text? Weights from rapidocr-onnxruntime."""

import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from veltair.models import ocr
from veltair.models.ocr_page import draw_page
from veltair.models.source import ModelSource, Sample, Tensors, only


class OcrDet(ModelSource):
    """A sample's `origin` is its `ocr_page.Page`."""

    name = "ocr-det"
    requires = ocr.NEEDS
    input_shapes = {"x": (1, 3, ocr.DET_PIXELS, ocr.DET_PIXELS)}
    qos_ms = 60.0

    def export(self, folder: Path) -> Path:
        self.needs()
        folder.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copyfile(ocr.weights_file("det"), folder / f"{self.name}.onnx"))

    def samples(self, seed: int = 0) -> Iterator[Sample]:
        self.needs()
        for number in count():
            page = draw_page(seed * 1_000_003 + number)
            tensor, _ = ocr.det_input(page.image)
            what = f"a page that begins with {page.lines[0]!r}"
            yield Sample({"x": tensor}, what, (f"{len(page.lines)} lines of text",), page)

    def answer(self, outputs: Tensors, sample: Sample) -> str:
        _, scale = ocr.det_input(sample.origin.image)
        found = ocr.find_boxes(only(outputs), scale, sample.origin.image.shape[:2])
        return f"{len(found)} lines of text"
