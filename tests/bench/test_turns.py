"""Contenders take turns: what disturbs the machine for a while disturbs them all."""

import pytest

from veltair.bench.turns import LEAST_ROUNDS, MOST_ROUNDS, MOST_RUNS, Clock, Turn, in_turns, middle


class World:
    """A clock that only runs and pauses move, and contenders that take as long as they are told."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.calls: list[tuple[str, int]] = []
        self.begun: list[str] = []

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self.now_s, self.pause)

    def pause(self, seconds: float) -> None:
        self.now_s += seconds

    def contender(self, name: str, seconds: float, drift: float = 0.0) -> Turn:
        def run(number: int) -> None:
            self.calls.append((name, number))
            self.now_s += seconds * (1 + drift * self.now_s)

        return Turn(run, lambda: self.begun.append(name))


def test_everybody_has_a_turn_in_every_round() -> None:
    world = World()
    times = in_turns([world.contender("a", 0.01), world.contender("b", 0.02)], budget_s=1.0, clock=world.clock)
    assert [len(each) for each in times] == [len(times[0])] * 2
    assert times[0] == pytest.approx([0.01] * len(times[0]))
    assert times[1] == pytest.approx([0.02] * len(times[1]))
    turns = [name for i, (name, _) in enumerate(world.calls) if i == 0 or world.calls[i - 1][0] != name]
    assert turns == ["a", "b"] * (len(turns) // 2)
    assert world.begun == turns


def test_the_first_run_of_a_turn_does_not_count() -> None:
    world = World()

    def waking(number: int) -> None:
        world.now_s += 0.09 if number < 0 else 0.01

    [times] = in_turns([Turn(waking)], budget_s=0.1, clock=world.clock)
    assert times == pytest.approx([0.01] * LEAST_ROUNDS)


def test_a_clock_that_slows_down_leaves_the_ratio_of_a_round_alone() -> None:
    world = World()
    slow, fast = world.contender("slow", 0.02, drift=0.05), world.contender("fast", 0.01, drift=0.05)
    a, b = in_turns([slow, fast], budget_s=3.0, clock=world.clock)
    assert a[-1] > 1.1 * a[0]
    assert middle([x / y for x, y in zip(a, b, strict=True)])[0] == pytest.approx(2.0, rel=0.02)


@pytest.mark.parametrize(("seconds", "rounds", "runs"), [(1e-6, MOST_ROUNDS, MOST_RUNS), (5.0, LEAST_ROUNDS, 1)])
def test_short_runs_are_not_repeated_without_end_and_long_ones_often_enough(seconds: float, rounds: int, runs: int) -> None:
    world = World()
    [times] = in_turns([world.contender("a", seconds)], budget_s=2.0, clock=world.clock)
    assert len(times) == rounds
    assert max(number for _, number in world.calls[4:]) == runs - 1


def test_the_spread_of_one_value_is_none() -> None:
    assert middle([3.0]) == (3.0, 0.0)
    assert middle([1.0, 2.0, 3.0]) == (2.0, 0.25)
