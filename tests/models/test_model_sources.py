import re
import subprocess
import sys
from importlib import metadata
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from veltair.errors import ToolMissing
from veltair.models import MODELS, source
from veltair.models.source import Carrier, Need
from veltair.models.suite import SUITE

PINS = Path(__file__).parents[2] / "constraints" / "models.txt"
every_model = pytest.mark.parametrize("name", MODELS)


def pins() -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)$", PINS.read_text(), flags=re.MULTILINE))


def skip_unless_complete(name: str) -> None:
    if missing := MODELS[name].missing():
        pytest.skip(f"{name} needs {missing[0].package}: {missing[0].remedy}")


def test_five_real_models_and_the_seven_of_the_paper_are_offered_by_name() -> None:
    real = ["ocr-det", "ocr-rec", "minilm", "efficientnet-lite0", "magika"]
    assert list(MODELS) == [
        *real, "resnet50", "googlenet", "efficientnet-b0", "mobilenet-v2", "ssd-resnet34", "tiny-yolov2", "bert-large",
    ]  # fmt: skip
    assert all(source.name == name for name, source in MODELS.items())


@every_model
def test_samples_fit_the_shapes_that_are_compiled_and_stay_within_bounds(name: str) -> None:
    skip_unless_complete(name)
    model = MODELS[name]
    for sample in islice(model.samples(seed=8), 6):
        assert {port: tensor.shape for port, tensor in sample.inputs.items()} == dict(model.input_shapes)
        integers = {port for port, tensor in sample.inputs.items() if np.issubdtype(tensor.dtype, np.integer)}
        assert integers == set(model.max_values)
        for port in integers:
            assert 0 <= sample.inputs[port].min() <= sample.inputs[port].max() < model.max_values[port]


@pytest.mark.parametrize("name", [name for name in MODELS if MODELS[name] not in SUITE])
def test_the_exported_file_has_the_inputs_that_are_promised(name: str, tmp_path: Path) -> None:
    skip_unless_complete(name)
    import onnx

    path = MODELS[name].export(tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / f"{name}.onnx"
    graph = onnx.load(path).graph
    weights = {tensor.name for tensor in graph.initializer}
    sample = next(iter(MODELS[name].samples()))
    ports = {port.name: port.type.tensor_type.elem_type for port in graph.input if port.name not in weights}
    assert ports == {port: onnx.helper.np_dtype_to_tensor_dtype(tensor.dtype) for port, tensor in sample.inputs.items()}


@every_model
def test_the_same_seed_gives_the_same_samples_and_another_seed_others(name: str) -> None:
    skip_unless_complete(name)

    def drawn(seed: int) -> list[bytes]:
        return [b"".join(t.tobytes() for t in sample.inputs.values()) for sample in islice(MODELS[name].samples(seed), 5)]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


@every_model
def test_the_gate_gets_as_many_different_inputs_as_it_asks_for(name: str) -> None:
    skip_unless_complete(name)
    inputs = MODELS[name].gate_inputs(5)
    assert len({b"".join(t.tobytes() for t in tensors.values()) for tensors in inputs}) == 5


def test_a_model_without_its_packages_names_each_and_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for kind in (Need, Carrier):
        monkeypatch.setattr(kind, "is_met", lambda need: need.package not in ("magika", "pillow"))
    model = MODELS["magika"]
    assert [need.package for need in model.missing()] == ["magika", "pillow"]
    message = r"'magika' needs .*: magika \(.*pip install --no-deps magika==1\.0\.3; pillow \(.*veltair\[models\]"
    with pytest.raises(ToolMissing, match=message):
        model.needs()
    with pytest.raises(ToolMissing, match=message):
        model.export(tmp_path)
    with pytest.raises(ToolMissing, match=message):
        next(iter(model.samples()))


def test_a_need_is_met_by_code_that_can_be_imported() -> None:
    assert Need("numpy", "why", "remedy", module="numpy").is_met()
    assert not Need("no-such-package", "why", "remedy", module="no_such_module").is_met()


def test_a_carrier_must_be_installed_at_its_very_version() -> None:
    assert Carrier("numpy", metadata.version("numpy"), "why").is_met()
    assert not Carrier("numpy", "0.0.1", "why").is_met()
    assert not Carrier("no-such-package", "1.0", "why").is_met()


def test_a_file_that_a_package_lacks_is_named_with_the_remedy() -> None:
    with pytest.raises(ToolMissing, match=f"numpy {re.escape(metadata.version('numpy'))} holds no file numpy/weights.bin: pip"):
        Carrier("numpy", "1.0", "why").file("numpy/weights.bin")
    with pytest.raises(ToolMissing, match="no-such-package is not installed: pip"):
        Carrier("no-such-package", "1.0", "why").file("weights.bin")


def test_each_package_that_carries_data_is_pinned_and_each_pin_is_used() -> None:
    carriers = {need for model in MODELS.values() for need in model.requires if isinstance(need, Carrier)}
    assert {carrier.package: carrier.version for carrier in carriers} == pins()


def test_one_output_is_expected_where_one_is_read() -> None:
    with pytest.raises(ValueError, match=r"expected one output, got \['a', 'b'\]"):
        source.only({"a": np.zeros(1), "b": np.zeros(1)})


def test_importing_the_models_imports_none_of_the_heavy_libraries() -> None:
    heavy = "{'cv2', 'PIL', 'onnx', 'onnxruntime', 'tokenizers', 'torch', 'tvm', 'magika'}"
    program = f"import sys, veltair.models; print(sorted({heavy} & set(sys.modules)))"
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30).stdout == "[]\n"
    )
