"""The load at which a policy keeps a given share of a tenant's requests within QoS: bisection over the scale of a scenario."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from veltair.errors import ConfigError

FARTHEST = 64.0  # a scenario that is this many times off was written for another machine


@dataclass(frozen=True, slots=True)
class Probe:
    """What one run at `scale` found."""

    scale: float
    share: float


def find_load(
    share: float, measure: Callable[[float], float], *, start: float = 1.0, tolerance: float = 0.02, probes: int = 8
) -> tuple[Probe, ...]:
    """All probes in order of how near they came to `share`; the first is the answer.

    `measure` gives the share at a scale; it should fall as the scale grows, and is noisy. Ends within `tolerance` of
    `share`, or after `probes` runs once both sides of it were seen. Raises ConfigError where 64 times more or less than
    `start` does not reach it.
    """
    seen: list[Probe] = []
    below, above = 0.0, math.inf  # the largest scale that keeps more than the share, the smallest that keeps less
    scale = start
    while True:
        seen.append(Probe(scale, measure(scale)))
        if abs(seen[-1].share - share) <= tolerance or (below and above < math.inf and len(seen) >= probes):
            return tuple(sorted(seen, key=lambda probe: abs(probe.share - share)))
        if seen[-1].share > share:
            below = max(below, scale)
        else:
            above = min(above, scale)
        if not below:
            scale = above / 2
        elif above == math.inf:
            scale = below * 2
        else:  # loads are compared by ratio
            scale = math.sqrt(below * above)
        if not start / FARTHEST <= scale <= start * FARTHEST:
            side = "more" if seen[-1].share > share else "less"
            raise ConfigError(
                f"{side} than {share:.0%} in QoS at every scale from {start:g} to {seen[-1].scale:g}, last {seen[-1].share:.1%}; "
                "write rates and targets into the scenario that this machine can be loaded with"
            )
