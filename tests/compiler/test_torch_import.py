"""A torch.export program is compiled like the ONNX it becomes; what is none is refused with how to make one."""

import io
import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from veltair.compiler.fallback import fallback
from veltair.compiler.lower import Lowering
from veltair.compiler.operators import HANDLERS
from veltair.compiler.preprocess import ImageInput
from veltair.compiler.simplify import simplify
from veltair.compiler.sources import load_model
from veltair.errors import CompileError, DynamicShape, ModelTooLarge, NotATorchProgram, ToolMissing, UnsupportedOperator

from .small import HOST, assert_equal, model_of, run_line, save

torch: Any = pytest.importorskip("torch", reason='writes the programs: pip install "veltair[torch]"')
pytest.importorskip("onnxscript", reason='reads the programs: pip install "veltair[torch]"')

Module: Any = torch.nn.Module
PICTURE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


class Net(Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = torch.nn.Conv2d(3, 16, 3), torch.nn.Linear(16, 5)

    def forward(self, image: Any) -> Any:
        return self.linear(self.conv(image).relu().mean((2, 3)))


class Branches(Module):  # type: ignore[misc]
    def forward(self, x: Any) -> Any:
        return torch.cond(x.sum() > 0, torch.sin, torch.cos, (x,))


class Bessel(Module):  # type: ignore[misc]
    def forward(self, x: Any) -> Any:
        return torch.special.bessel_j0(x)


class Odd(Module):  # type: ignore[misc]
    def forward(self, x: Any) -> Any:
        return torch.ops.mine.odd(x)


def exported(module: Any, folder: Path, *inputs: Any, dynamic: Any = None) -> Path:
    path = folder / "model.pt2"
    torch.export.save(torch.export.export(module.eval(), inputs, dynamic_shapes=dynamic), path)
    return path


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A network and its file; any number of pictures fits."""
    torch.manual_seed(0)
    net = Net()
    return net, exported(net, tmp_path_factory.mktemp("pt2"), PICTURE, dynamic={"image": {0: torch.export.Dim("n")}})


def test_a_program_computes_what_its_module_does(program: tuple[Any, Path]) -> None:
    net, path = program
    imported = load_model(path, {"image": (1, 3, 8, 8)}, batch=2)
    assert imported.source.startswith("model.pt2 sha256:")
    line = Lowering(simplify(imported.graph), HOST, HANDLERS, fallback).run()
    with torch.no_grad():
        expected = {imported.graph.outputs[0]: net(PICTURE).numpy()}
    assert_equal(run_line(line, {"image": PICTURE.numpy()}), expected)


def test_a_program_takes_pictures_as_bytes(program: tuple[Any, Path]) -> None:
    graph = load_model(program[1], {"image": (1, 3, 8, 8)}, images=[ImageInput("image")]).graph
    assert (graph.shapes["image"], graph.dtypes["image"]) == ((1, 8, 8, 3), "uint8")


def test_a_dynamic_axis_asks_for_its_size(program: tuple[Any, Path]) -> None:
    with pytest.raises(DynamicShape, match=r"model\.pt2: input 'image' has the dynamic shape .*--input image=1x3x8x8"):
        load_model(program[1], {})


def test_control_flow_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedOperator, match=r"node 'cond' is control flow \(torch cond\).*unrolled"):
        load_model(exported(Branches(), tmp_path, PICTURE), {})


def test_what_onnx_has_no_operator_for_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedOperator, match=r"'bessel_j0' calls torch\.ops\.prims\.bessel_j0\.default, for which"):
        load_model(exported(Bessel(), tmp_path, PICTURE), {})


def test_an_operator_of_ones_own_is_named(tmp_path: Path) -> None:
    with torch.library._scoped_library("mine", "DEF") as library:
        library.define("odd(Tensor x) -> Tensor")
        library.impl("odd", torch.sin, "CompositeExplicitAutograd")
        path = exported(Odd(), tmp_path, PICTURE)
    with pytest.raises(UnsupportedOperator, match=r"calls torch\.ops\.mine\.odd\.default, which PyTorch itself does not know"):
        load_model(path, {})


def zipped(name: str, content: bytes) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        archive.writestr(name, content)
    return memory.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: b"", "is no archive"),
        (lambda: b"\x08\x07 no zip at all", "is no archive"),
        (lambda: zipped("readme.txt", b"hello"), r"an archive, but not of torch\.export"),
        (lambda: zipped("model/archive_format", b"pt2"), "cannot read it"),
    ],
)
def test_a_file_that_is_no_program_is_named_with_how_to_make_one(
    tmp_path: Path, content: Callable[[], bytes], message: str
) -> None:
    path = tmp_path / "model.pt2"
    path.write_bytes(content())
    with pytest.raises(NotATorchProgram, match=rf"model\.pt2: .*{message}.*torch\.export\.save"):
        load_model(path, {})


def test_weights_alone_are_refused_with_how_to_make_a_program(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    torch.save(Net().state_dict(), path)
    with pytest.raises(NotATorchProgram, match="state dict or TorchScript"):
        load_model(path, {})
    with pytest.raises(NotATorchProgram, match=r"model\.pth: weights or TorchScript.*torch\.export\.save"):
        load_model(tmp_path / "model.pth", {})
    with pytest.raises(NotATorchProgram, match=r"cannot be read .*give the path"):
        load_model(tmp_path / "gone.pt2", {})


@pytest.mark.parametrize("lacking", ["torch", "onnxscript"])
def test_a_missing_package_is_named_with_the_extra_that_brings_it(
    lacking: str, program: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from veltair.compiler import torch_import

    monkeypatch.setattr(torch_import, "find_spec", lambda name: None if name == lacking else find_spec(name))
    with pytest.raises(ToolMissing, match=rf'read with {lacking}, which is not installed: pip install "veltair\[torch\]"'):
        load_model(program[1], {})


def test_a_program_larger_than_memory_is_refused_unread(program: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from veltair.compiler import onnx_file

    monkeypatch.setattr(onnx_file, "available_bytes", lambda: 1_000)
    with pytest.raises(ModelTooLarge, match=r"model\.pt2: its constants take .* available"):
        load_model(program[1], {})


def test_onnx_is_imported_without_torch(tmp_path: Path) -> None:
    path = save(model_of([("Relu", "x", "y")], {"x": np.ones((2, 3), np.float32)}), tmp_path)
    program = (
        "import sys; sys.modules['tvm_ffi'] = None\n"  # it imports torch wherever torch is installed
        "from pathlib import Path; from veltair.compiler.sources import load_model\n"
        f"assert load_model(Path({str(path)!r}), {{}}).graph.outputs == ('y',); print('torch' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert ended.stdout == "False\n", ended.stderr


def test_an_onnx_file_by_another_name_is_still_read_as_onnx(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(CompileError, match="no ONNX model"):
        load_model(tmp_path / "notes.txt", {})
