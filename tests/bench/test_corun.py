"""Co-runs of real kernels: who is timed, what is kept, and that a failure ends them."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tests.interference.profiles import machine
from veltair.bench.corun import Timer
from veltair.bundle.store import open_bundle
from veltair.interference.corun import MOST_INTRUDED, MOST_WAITED, Outsider, Unit

CORE = min(os.sched_getaffinity(0))


@pytest.fixture
def timer(artifacts: Path) -> Timer:
    """Of the bundle `tiny`, on a machine that has the same core twice: all that a test may count on."""
    return Timer([open_bundle(artifacts / "tiny")], machine(cores=(CORE, CORE), siblings=((CORE,), (CORE,))), seed="0")


def whole(timer: Timer, variant: int = 0) -> Unit:
    return timer.subjects["tiny"].whole(variant, 1)


def test_of_two_whole_models_each_is_the_other_s_victim(timer: Timer) -> None:
    one, other = whole(timer), whole(timer, variant=1)
    there, back = timer.time((one, other))
    assert (there.victim, there.beside, back.victim, back.beside) == (one, other, other, one)
    for run in (there, back):
        assert len(run.block_us) == 2
        assert min(len(times) for times in run.block_us) >= 5


def test_a_range_of_blocks_is_beside_a_victim_and_none_itself(timer: Timer) -> None:
    part = msgspec.structs.replace(whole(timer), first_block=1)
    [run] = timer.time((whole(timer), part))
    assert run.beside == part


def test_lanes_that_share_a_core_are_found_to_have_waited(timer: Timer) -> None:
    assert all(run.waited > MOST_WAITED for run in timer.time((whole(timer), whole(timer))))


@pytest.mark.skipif(os.cpu_count() == 1, reason="needs a second core")
def test_somebody_else_on_a_core_that_was_to_be_idle_is_found(artifacts: Path) -> None:
    other = 1 if CORE == 0 else 0
    two = Timer([open_bundle(artifacts / "tiny")], machine(cores=(CORE, other), siblings=((CORE,), (other,))), seed="0")
    with subprocess.Popen([sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE) as spinning:
        os.sched_setaffinity(spinning.pid, {other})
        assert spinning.stdout is not None
        spinning.stdout.readline()
        [run] = two.time((whole(two), None))
        spinning.kill()
    assert run.intruded > MOST_INTRUDED


def test_every_variant_runs_alone_on_every_number_of_cores(timer: Timer) -> None:
    assert {(run.victim.variant, run.victim.cores, run.beside) for run in timer.each_alone()} == {
        (variant, cores, None) for variant in (0, 1) for cores in (1, 2)
    }


def test_at_random_models_run_alone_beside_each_other_and_beside_outsiders(timer: Timer) -> None:
    told: list[float] = []
    kinds = {type(run.beside) for run in timer.at_random(0.01, told.append)}  # one batch
    assert kinds == {type(None), Unit, Outsider}
    assert told[0] < 1.0


def test_a_failure_on_one_lane_ends_the_other(timer: Timer) -> None:
    with pytest.raises(ValueError, match="no unit of blocks"):
        list(timer.time((whole(timer), msgspec.structs.replace(whole(timer), first_block=7, end_block=9))))
