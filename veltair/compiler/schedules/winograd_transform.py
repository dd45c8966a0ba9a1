"""Winograd's minimal filtering F(m x m, 3 x 3): the three transforms, for weights as matrices, for data as few operations.

A tile of m x m outputs is A^T [ (G g G^T) * (B^T d B) ] A: data d and weights g are evaluated at the points of a polynomial
product, multiplied point by point and interpolated (Winograd 1980, "Arithmetic complexity of computations"; Lavin and Gray
2016, "Fast Algorithms for Convolutional Neural Networks").

m = 2 evaluates at 0, 1, -1 and infinity. m = 4 evaluates at 0, +-sqrt(1/2), +-sqrt(2) and infinity: the usual 0, +-1, +-2
have four times the error, since the powers of 2 in A and B spread the magnitudes that are summed (Alam et al. 2022, "Winograd
Convolution for Deep Neural Networks: Efficient Point Selection", on pairs c, 1/c). Their product being 1 saves multiplications.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

POINTS = {2: (0.0, 1.0, -1.0), 4: (0.0, math.sqrt(0.5), -math.sqrt(0.5), math.sqrt(2.0), -math.sqrt(2.0))}

Keep = Callable[[Any], Any]
"""Names an intermediate value, so that it is computed once."""


def weight_matrix(m: int) -> Any:
    """G, (m + 2, 3), float64: the powers of each point, over the scale that B^T leaves out of its row; the last is infinity's."""
    points = POINTS[m]
    rows = []
    for i, p in enumerate(points):
        scale = math.prod(p - q for j, q in enumerate(points) if j != i)
        rows.append([p**k / scale for k in range(3)])
    return np.array([*rows, [0.0, 0.0, 1.0]])


def transform_weights(w: Any, m: int) -> Any:
    """(co, ci, 3, 3) -> (co, ci, m + 2, m + 2) fp32, computed in float64: the only rounding is the last."""
    g = weight_matrix(m)
    return np.matmul(np.matmul(g, w.astype(np.float64)), g.T).astype(np.float32)


def data_tree(d: Sequence[Any], keep: Keep, constant: Callable[[float], Any]) -> list[Any]:
    """B^T d of m + 2 values: for each point the polynomial that vanishes at the others. +-p share even and odd parts."""
    if len(d) == 4:
        return [keep(d[2] - d[0]), keep(d[2] + d[1]), keep(d[2] - d[1]), keep(d[3] - d[1])]
    _, a, _, b, _ = POINTS[4]
    a2, b2, both = constant(a * a), constant(b * b), constant(a * a + b * b)  # a * b is 1
    out = [keep(d[4] - d[2] * both + d[0])]
    for p, other in ((constant(a), b2), (constant(b), a2)):
        even, odd = keep(d[4] - d[2] * other), keep(d[3] - d[1] * other)
        out += [keep(even + odd * p), keep(even - odd * p)]
    return [*out, keep(d[5] - d[3] * both + d[1])]


def output_tree(v: Sequence[Any], keep: Keep, constant: Callable[[float], Any]) -> list[Any]:
    """A^T v of m + 2 values: output k sums p^k v over the points p; infinity's belongs to the last."""
    if len(v) == 4:
        return [keep(v[0] + (v[1] + v[2])), keep(v[1] - v[2] + v[3])]
    _, a, _, b, _ = POINTS[4]
    (even_a, odd_a), (even_b, odd_b) = ((keep(v[i] + v[i + 1]), keep(v[i] - v[i + 1])) for i in (1, 3))
    return [
        keep(v[0] + even_a + even_b),
        keep(odd_a * constant(a) + odd_b * constant(b)),
        keep(even_a * constant(a**2) + even_b * constant(b**2)),
        keep(odd_a * constant(a**3) + odd_b * constant(b**3) + v[5]),
    ]
