"""Whatever file a model comes in, imported: one function that looks at the suffix."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from veltair.compiler import onnx_import
from veltair.compiler.graph import Shape
from veltair.compiler.onnx_file import digest
from veltair.compiler.onnx_import import Imported
from veltair.compiler.preprocess import ImageInput
from veltair.errors import NotATorchProgram


def load_model(path: Path, shapes: Mapping[str, Shape], *, batch: int = 1, images: Sequence[ImageInput] = ()) -> Imported:
    """Import an .onnx or a torch.export .pt2 file for `batch` samples at once; `shapes` are those at batch 1.

    Each of `images` turns a float input into one of uint8 pictures. Torch is loaded for a .pt2 alone. Raises what
    `onnx_import.load` and `torch_import.to_onnx` raise.
    """
    if path.suffix in (".pt", ".pth"):
        raise NotATorchProgram(
            f"{path}: weights or TorchScript hold no graph that can be read; save the model with "
            "torch.export.save(torch.export.export(model, inputs), 'model.pt2')"
        )
    if path.suffix != ".pt2":
        return onnx_import.load(path, shapes, batch=batch, images=images)
    from veltair.compiler.torch_import import to_onnx

    with tempfile.TemporaryDirectory(prefix="veltair-torch-") as folder:
        written = to_onnx(path, Path(folder))
        source = f"{path.name} sha256:{digest(path)}"
        return onnx_import.load(written, shapes, batch=batch, images=images, source=source)
