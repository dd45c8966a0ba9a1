"""A model at one batch size, on its way through the compiler's stages."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from veltair.compiler.assemble import Blocks, Memory
from veltair.compiler.blocks import Span
from veltair.compiler.candidates import Lines
from veltair.compiler.gate import Verdict
from veltair.compiler.line import Line
from veltair.compiler.measure import Measured
from veltair.compiler.onnx_import import Imported
from veltair.compiler.schedules.base import Kernel
from veltair.compiler.select import Selection


@dataclass(slots=True)
class Form:
    """Each stage fills in what the ones behind it need."""

    batch: int
    imported: Imported
    line: Line
    samples: list[Mapping[str, Any]]
    lines: Lines = field(default_factory=dict)
    spans: list[Span] = field(default_factory=list)
    blocks: Blocks = ()
    memory: Memory | None = None
    verdict: Verdict | None = None
    measured: Measured | None = None
    chosen: list[Selection] = field(default_factory=list)
    fingerprint: str = ""  # of its candidates: where it is known, so is what to keep of them

    @property
    def kernels(self) -> dict[str, Kernel]:
        return {form.kernel.key: form.kernel for call in self.line.calls for form in call.forms}
