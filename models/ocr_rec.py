"""PP-OCRv4 recognition: what does a line of text say? Weights from rapidocr-onnxruntime."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random

from veltair.models import ocr
from veltair.models.ocr_page import draw_line, invoice_lines
from veltair.models.source import ModelSource, Sample, Tensors, only


class OcrRec(ModelSource):
    """A sample's `origin` is the picture of the line."""

    name = "ocr-rec"
    requires = ocr.NEEDS
    input_shapes = {"x": (1, 3, ocr.REC_HEIGHT, ocr.REC_WIDTH)}
    qos_ms = 60.0

    def export(self, folder: Path) -> Path:
        self.needs()
        folder.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copyfile(ocr.weights_file("rec"), folder / f"{self.name}.onnx"))

    def samples(self, seed: int = 0) -> Iterator[Sample]:
        self.needs()
        random = Random(seed)
        while True:
            for text in invoice_lines(random):
                picture = draw_line(text, font_pixels=random.randint(24, 44))
                yield Sample({"x": ocr.rec_input(picture)}, f"a picture of {text!r}", (text,), picture)

    def answer(self, outputs: Tensors, sample: Sample) -> str:
        return ocr.decode(only(outputs))[0]
