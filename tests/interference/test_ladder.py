"""Antagonists are real processes: what they do to the machine, and that they never outlive their use."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice

import psutil
import pytest

from veltair.errors import ProfileError
from veltair.interference.ladder import LADDER, Antagonists, Work, _Arrays, _order

from .profiles import machine

CORE = max(os.sched_getaffinity(0))
SMALL = machine(caches=())
MIB = 1 << 20

ORPHANS = """
import os, psutil
from veltair.interference.ladder import Antagonists
from veltair.interference.machine import this_machine
machine = this_machine()
with Antagonists(machine.cores[:1], machine):
    print(psutil.Process().children()[0].pid, flush=True)
    os._exit(1)
"""


def moves(antagonists: Antagonists) -> bool:
    """Within the seconds that a process on a crowded core may need to hear of it."""
    before, end = antagonists.moved_bytes(), time.monotonic() + 5.0
    while time.monotonic() < end:
        if antagonists.moved_bytes() > before:
            return True
    return False


@pytest.fixture(scope="module")
def antagonists() -> Iterator[Antagonists]:
    with Antagonists([CORE], SMALL) as running:
        yield running


@pytest.mark.parametrize("work", ["stream", "cache", "read"])
def test_what_moves_bytes_tells_how_many(antagonists: Antagonists, work: Work) -> None:
    antagonists.press("rest")
    antagonists.press(work, 0.5)
    assert moves(antagonists)


def test_at_level_zero_one_rests(antagonists: Antagonists) -> None:
    antagonists.press("stream", 0.0)
    assert antagonists._memory[0] == _order("rest", 0.0)


@pytest.mark.parametrize(
    ("work", "level", "once", "longest"),
    [
        ("stream", 1.0, 8 * MIB, MIB // 4),
        ("cache", 1.0, 4 * MIB, MIB // 8),
        ("cache", 0.5, 2 * MIB, MIB // 8),
        ("read", 1.0, 4 * MIB, 2 * MIB),
    ],
)
def test_a_turn_is_short_and_some_turns_go_once_through_the_array(work: Work, level: float, once: int, longest: int) -> None:
    turns = list(islice(_Arrays(4 * MIB, 4 * MIB).turns(work, level), once // longest))
    assert turns == [longest] * len(turns)


def test_a_product_moves_nothing() -> None:
    assert list(islice(_Arrays(MIB, MIB).turns("compute", 1.0), 3)) == [0, 0, 0]


def test_every_kind_climbs_to_the_full_level() -> None:
    tops = {kind: max(level for k, level in LADDER if k == kind) for kind, _ in LADDER}
    assert tops == {"cache": 1.0, "stream": 1.0, "compute": 1.0}


def test_an_antagonist_keeps_to_its_core_and_ends_with_its_context() -> None:
    before = {child.pid for child in psutil.Process().children()}
    with Antagonists([CORE], SMALL):
        [child] = [child for child in psutil.Process().children() if child.pid not in before]
        assert child.cpu_affinity() == [CORE]
    assert not child.is_running()


def test_an_orphan_ends_by_itself() -> None:
    started = subprocess.run([sys.executable, "-c", ORPHANS], capture_output=True, text=True, check=False)
    pid = int(started.stdout)
    if psutil.pid_exists(pid):
        psutil.Process(pid).wait(timeout=10.0)


def test_an_antagonist_that_cannot_run_is_told_with_its_core_and_leaves_none_behind() -> None:
    before = psutil.Process().children()
    with pytest.raises(
        ProfileError, match=r"the antagonist on core 4095 ended before it began: OSError: .*Invalid argument.*taskset"
    ):
        Antagonists([CORE, 4095], SMALL).__enter__()
    assert psutil.Process().children() == before
