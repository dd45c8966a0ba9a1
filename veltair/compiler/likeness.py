"""How near a model's outputs are to the reference's, over the whole model and all inputs, and what counts as the same.

The gate judges by it when a bundle is made, and the benchmarks when they compare. Exact forms stay within WHOLE times a
block's tolerance. What is coarser must besides name the same winner in every row that has a clear one (a class, the character
of a time step), and point the same way, the more closely where there are no winners (an embedding).
"""

from dataclasses import dataclass
from math import inf, isfinite
from typing import Any

import numpy as np

WHOLE = 10  # times a block's tolerance: block errors add up along a deep model
LEAST_COSINE = 0.999  # of each output of a coarser variant with the reference, over the whole model
LEAST_COSINE_OF_WINNERS = 0.99  # where the output names winners, and they are the same

STRICTNESS = (WHOLE, LEAST_COSINE, LEAST_COSINE_OF_WINNERS)  # what was rejected under it may pass under another


@dataclass(slots=True)
class Likeness:
    """The worst of all outputs that were compared so far. `tolerance` is a block's, as a share of the largest magnitude."""

    tolerance: float
    error: float = 0.0  # of the reference's largest magnitude
    cosine: float = 1.0
    rows: int = 0  # along the last axis, with a clear winner in the reference
    same: int = 0  # of them, those with the same winner here

    def compare(self, ours: Any, reference: Any) -> None:
        """One output for one input."""
        self.error = max(self.error, relative_error(ours, reference))
        if reference.dtype.kind != "f" or not reference.size:
            return
        a, b = np.asarray(ours, np.float64).ravel(), np.asarray(reference, np.float64).ravel()
        self.cosine = min(self.cosine, _cosine(a, b))
        if reference.ndim < 2 or reference.shape[-1] < 2:
            return
        rows, theirs = b.reshape(-1, reference.shape[-1]), a.reshape(-1, reference.shape[-1])
        second, first = np.partition(rows, -2, axis=1)[:, -2:].T
        clear = first - second > 2 * self.tolerance * np.abs(b).max(initial=0.0)
        self.rows += int(clear.sum())
        self.same += int((rows.argmax(1) == theirs.argmax(1))[clear].sum())

    @property
    def allowed_error(self) -> float:
        return WHOLE * self.tolerance

    @property
    def least_cosine(self) -> float:
        return LEAST_COSINE_OF_WINNERS if self.rows else LEAST_COSINE

    def is_same(self, *, coarse: bool) -> bool:
        """Whether that may be served. `coarse`: something in it is computed in less than fp32."""
        alike = self.cosine >= self.least_cosine and self.same == self.rows
        return self.error <= self.allowed_error and (alike or not coarse)

    def described(self) -> dict[str, str]:
        found = {"error": f"{self.error:.1e} of the range", "cosine": f"{self.cosine:.6f}"}
        if self.rows:
            found["top-1"] = f"same in {self.same} of {self.rows}"
        return found


def relative_error(ours: Any, reference: Any) -> float:
    """Largest deviation as a share of the reference's largest magnitude; infinite for what is no number, or other integers."""
    reference = np.asarray(reference)
    if reference.dtype.kind != "f":
        return 0.0 if np.array_equal(ours, reference) else inf
    scale = float(np.abs(reference).max(initial=0.0)) or 1.0
    found = float(np.abs(np.asarray(ours, np.float64) - reference).max(initial=0.0)) / scale
    return found if isfinite(found) else inf


def _cosine(a: Any, b: Any) -> float:
    """Of two vectors; 1 where both are zero, -1 where they hold what is no number."""
    scale = float(np.linalg.norm(a) * np.linalg.norm(b))
    if scale == 0.0:
        return float(np.array_equal(a, b))
    found = float(a @ b) / scale
    return found if isfinite(found) else -1.0
