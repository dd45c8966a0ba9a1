"""The models that veltair is shown and tested with: five real ones, each with its real inputs and answers, and the seven
networks of the paper's evaluation with seeded weights (`suite`).

A source names its model, writes its ONNX file and makes real inputs; see `source.ModelSource`. Importing this is cheap:
libraries are imported by the functions that need them.
"""

from collections.abc import Mapping
from types import MappingProxyType

from veltair.models.efficientnet import EfficientNetLite0
from veltair.models.magika import Magika
from veltair.models.minilm import MiniLM
from veltair.models.ocr_det import OcrDet
from veltair.models.ocr_rec import OcrRec
from veltair.models.source import Carrier, Infer, ModelSource, Need, Sample
from veltair.models.suite import SUITE

MODELS: Mapping[str, ModelSource] = MappingProxyType(
    {source.name: source for source in (OcrDet(), OcrRec(), MiniLM(), EfficientNetLite0(), Magika(), *SUITE)}
)

__all__ = ["MODELS", "Carrier", "Infer", "ModelSource", "Need", "Sample"]
