from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from veltair.models import MODELS, Infer
from veltair.models.source import Tensors


@pytest.fixture(scope="session")
def infer_with(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Infer]:
    """Makes, once a model, a function that runs it in ONNX Runtime; skips the test where its packages are missing."""
    onnxruntime = pytest.importorskip("onnxruntime", reason='runs the models here: pip install "veltair[compile]"')

    @cache
    def session(name: str) -> Any:
        path: Path = MODELS[name].export(tmp_path_factory.mktemp("onnx"))
        return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def make(name: str) -> Infer:
        missing = MODELS[name].missing()
        if missing:
            pytest.skip(f"{name} needs {', '.join(need.package for need in missing)}: {missing[0].remedy}")
        running = session(name)
        names = [output.name for output in running.get_outputs()]

        def infer(inputs: Tensors) -> Tensors:
            return dict(zip(names, running.run(None, dict(inputs)), strict=True))

        return infer

    return make
