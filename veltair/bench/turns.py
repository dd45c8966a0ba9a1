"""Contenders timed in turns: A B C A B C ..., so that a clock that drifts or a neighbour that wakes hits all alike.

A turn is a few runs in a row of one contender. It begins with a pause, in which the pool of the one before falls asleep,
and with a run that does not count, which wakes this one's threads and brings back what of its weights a cache may hold.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

PAUSE_S = 0.002  # pools spin for under a millisecond after a run (see `peers`)
TURN_S = 0.05
MOST_RUNS = 40
LONG_S = 0.1  # a run as long as this hides what its threads need to wake, and reads its weights from memory anyway
LEAST_ROUNDS, MOST_ROUNDS = 5, 60


@dataclass(frozen=True, slots=True)
class Clock:
    """Stands for the machine's in tests."""

    now_s: Callable[[], float] = time.perf_counter
    pause: Callable[[float], None] = time.sleep


@dataclass(frozen=True, slots=True)
class Turn:
    """A contender. `begin` is called first in each turn, then `run` with the number of the run."""

    run: Callable[[int], object]
    begin: Callable[[], object] = lambda: None


def in_turns(contenders: Sequence[Turn], *, budget_s: float, turn_s: float = TURN_S, clock: Clock = Clock()) -> list[list[float]]:
    """For each contender the seconds a run took, one median a round.

    As many rounds as fit `budget_s`, LEAST_ROUNDS at least; every contender has the same number.
    """
    once = [_warmed(each, clock) for each in contenders]
    counts = [int(min(MOST_RUNS, max(1, turn_s / s))) for s in once]
    round_s = sum(s * (count + (s < LONG_S)) + PAUSE_S for s, count in zip(once, counts, strict=True))
    rounds = int(min(MOST_ROUNDS, max(LEAST_ROUNDS, budget_s / round_s)))
    times: list[list[float]] = [[] for _ in contenders]
    for _ in range(rounds):
        for number, each in enumerate(contenders):
            clock.pause(PAUSE_S)
            each.begin()
            if once[number] < LONG_S:
                each.run(-1)
            times[number].append(statistics.median(_seconds(each.run, turn, clock) for turn in range(counts[number])))
    return times


def _warmed(contender: Turn, clock: Clock) -> float:
    """How long a run takes; the ones before it plan memory, pack weights and load code."""
    contender.begin()
    first = _seconds(contender.run, 0, clock)
    if first < LONG_S:
        contender.run(1)
    return max(_seconds(contender.run, 2, clock), 1e-6)


def _seconds(run: Callable[[int], object], number: int, clock: Clock) -> float:
    start = clock.now_s()
    run(number)
    return clock.now_s() - start


def middle(values: Sequence[float]) -> tuple[float, float]:
    """Median, and half the quartile distance relative to it."""
    if len(values) < 2:
        return values[0], 0.0
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return median, (high - low) / 2 / median if median else 0.0
