"""Whatever file a model comes in, imported: the suffix tells what it is."""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from veltair.compiler import onnx_import
from veltair.compiler.apart import Apart
from veltair.compiler.graph import Shape
from veltair.compiler.onnx_file import digest
from veltair.compiler.onnx_import import Imported
from veltair.compiler.preprocess import ImageInput
from veltair.errors import NotATorchProgram


def load_model(path: Path, shapes: Mapping[str, Shape], *, batch: int = 1, images: Sequence[ImageInput] = ()) -> Imported:
    """Import an .onnx or a torch.export .pt2 file for `batch` samples at once; `shapes` are those at batch 1.

    Each of `images` turns a float input into one of uint8 pictures. Raises what `as_onnx` and `onnx_import.load` raise.
    """
    with tempfile.TemporaryDirectory(prefix="veltair-torch-") as folder:
        file, source = as_onnx(path, Path(folder))
        return onnx_import.load(file, shapes, batch=batch, images=images, source=source)


def as_onnx(path: Path, folder: Path) -> tuple[Path, str | None]:
    """`path` itself, or a .pt2 program written into `folder` as ONNX, and what `onnx_import.load` is to call its source.

    For who imports one file at several batch sizes. Torch is loaded for a .pt2 alone, in a process of its own unless this one
    has it already. Raises what `torch_import.to_onnx` raises.
    """
    if path.suffix in (".pt", ".pth"):
        raise NotATorchProgram(
            f"{path}: weights or TorchScript hold no graph that can be read; save the model with "
            "torch.export.save(torch.export.export(model, inputs), 'model.pt2')"
        )
    if path.suffix != ".pt2":
        return path, None
    from veltair.compiler.torch_import import to_onnx

    if "torch" in sys.modules:
        written = to_onnx(path, folder)
    else:
        with Apart(to_onnx, path, folder) as process:
            written = process.result()
    return written, f"{path.name} sha256:{digest(path)}"
