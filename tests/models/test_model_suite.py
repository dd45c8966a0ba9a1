"""The paper's networks have the shapes their papers give, and weights that are drawn once and for all."""

from itertools import combinations, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from veltair.models import MODELS
from veltair.models.suite import SUITE, SeededModel

torch: Any = pytest.importorskip("torch", reason='builds the networks: pip install "veltair[torch]"')
pytest.importorskip("onnxscript", reason='writes them as ONNX: pip install "veltair[torch]"')

# Published or, for SSD, where the papers give none, as counted when it was written.
PARAMETERS = {
    "resnet50": 25_557_032,
    "googlenet": 7_005_832,
    "efficientnet-b0": 5_288_548,
    "mobilenet-v2": 3_504_872,
    "ssd-resnet34": 19_972_534,
    "tiny-yolov2": 15_861_773,
    "bert-large": 335_141_888,
}
OUTPUTS = {
    "ssd-resnet34": [(1, 4, 8_732), (1, 81, 8_732)],
    "tiny-yolov2": [(1, 125, 13, 13)],
    "bert-large": [(1, 128, 1_024), (1, 1_024)],
}


def suite(name: str) -> SeededModel:
    return next(source for source in SUITE if source.name == name)


@pytest.fixture(scope="module")
def mobilenet() -> Any:
    return suite("mobilenet-v2").module()


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_network_has_the_parameters_and_outputs_of_its_paper(name: str) -> None:
    with torch.device("meta"):
        network = suite(name).definition()()
        inputs = [
            torch.zeros(shape, dtype=torch.int64 if shape[1:] == (128,) else None) for shape in MODELS[name].input_shapes.values()
        ]
        outputs = network.eval()(*inputs)
    assert sum(parameter.numel() for parameter in network.parameters()) == PARAMETERS[name]
    shapes = [tuple(output.shape) for output in (outputs if isinstance(outputs, tuple) else (outputs,))]
    assert shapes == OUTPUTS.get(name, [(1, 1_000)])
    assert len(suite(name).outputs) == len(shapes)


def test_weights_are_the_same_at_every_call_and_others_with_another_seed(mobilenet: Any) -> None:
    from veltair.models.nets import seeded

    source = suite("mobilenet-v2")
    first, again = mobilenet.state_dict(), source.module().state_dict()
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    other = seeded.make(source.definition(), 1, (3, 32, 32)).state_dict()
    assert not torch.equal(first["0.0.weight"], other["0.0.weight"])


def test_activations_stay_in_range_and_photographs_are_told_apart(mobilenet: Any) -> None:
    spreads: list[float] = []
    for layer in mobilenet.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.register_forward_hook(lambda _, ins, out: spreads.append(float(out.std())))
    with torch.no_grad():
        logits = [mobilenet(torch.from_numpy(s.inputs["image"])) for s in islice(suite("mobilenet-v2").samples(), 4)]
    assert len(spreads) == 4 * 52
    assert 0.1 < min(spreads) < max(spreads) < 10
    assert all(1 < float(each.std()) < 10 for each in logits)
    spread = max(float(each.std()) for each in logits)
    assert all(float((a - b).abs().max()) > 0.02 * spread for a, b in combinations(logits, 2))


def test_masked_tokens_do_not_change_what_bert_makes_of_the_others() -> None:
    from veltair.models.nets import bert_large, seeded

    module = seeded.make(lambda: bert_large.BertLarge(layers=1), 3)
    sample = next(s for s in suite("bert-large").samples() if s.origin < 100)
    ids, mask = (torch.from_numpy(sample.inputs[name]) for name in ("input_ids", "attention_mask"))
    with torch.no_grad():
        hidden, pooled = module(ids, mask)
        filled = module(torch.where(mask == 1, ids, 77), mask)[0]
    assert 0.5 < float(hidden.std()) < 2
    assert float(pooled.abs().max()) < 1
    assert torch.allclose(hidden[:, : sample.origin], filled[:, : sample.origin], atol=1e-5)
    assert not torch.allclose(hidden[:, sample.origin :], filled[:, sample.origin :], atol=1e-1)


def fallbacks(path: Path) -> list[str]:
    """What of a model no schedule covers."""
    from veltair.compiler.fallback import Foreign, fallback
    from veltair.compiler.lower import Lowering
    from veltair.compiler.operators import HANDLERS
    from veltair.compiler.simplify import simplify
    from veltair.compiler.sources import load_model
    from veltair.compiler.target import host_target

    line = Lowering(simplify(load_model(path, {}).graph), host_target(), HANDLERS, fallback).run()
    return [call.label for call in line.calls if isinstance(call.kernel, Foreign)]


def test_what_is_written_computes_what_the_network_does_in_kernels_of_our_own(mobilenet: Any, tmp_path: Path) -> None:
    pytest.importorskip("tvm", reason='lowers the model: pip install "veltair[compile]"')
    onnxruntime = pytest.importorskip("onnxruntime", reason='runs the model here: pip install "veltair[compile]"')
    source = suite("mobilenet-v2")
    path = source.export(tmp_path)
    assert fallbacks(path) == []
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert {port.name: tuple(port.shape) for port in session.get_inputs()} == dict(source.input_shapes)
    for inputs in source.gate_inputs(2):
        with torch.no_grad():
            expected = mobilenet(torch.from_numpy(inputs["image"])).numpy()
        assert np.abs(session.run(["logits"], inputs)[0] - expected).max() <= 1e-4 * np.abs(expected).max()
