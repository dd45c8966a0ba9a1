"""Sources that see how much CPU others use, on files of machines that are not this one."""

import random
from pathlib import Path

import pytest

from veltair.errors import SourceUnavailable
from veltair.interference.sources import Own, Used
from veltair.interference.sources.psi import Psi
from veltair.interference.sources.runqueue import RunQueue
from veltair.interference.sources.steal import Steal

from .trees import write_pressure, write_stat

LOOK_US = 20_000
ZEROS = "0 0 0 0 0 0 0 0 0 0"


def own(cpu_us: int = 0) -> Own:
    return Own(cpu_us * 1000, 0.0, 0)


def cores(reading: Used | None) -> float:
    assert reading is not None
    return reading.cores


def run(source: RunQueue, root: Path, looks: int, *, others: float, ours: float, iowait: float = 0.0, steal: float = 0.0) -> Used:
    """Two CPUs, from a whole second after boot on; shares of one CPU."""
    for look in range(looks + 1):
        now_us = 1_000_000 + look * LOOK_US
        busy = (others + ours) * now_us
        idle_us = 2 * now_us - busy - (iowait + steal) * now_us
        write_stat(root, busy_us=int(busy), idle_us=int(idle_us), iowait_us=int(iowait * now_us), stolen_us=int(steal * now_us))
        reading = source.read(now_us, own(int(ours * now_us)))
    assert reading is not None
    return reading


@pytest.mark.parametrize("others", [0.0, 0.5, 1.0, 1.5])
@pytest.mark.parametrize("ours", [0.0, 0.4])
def test_what_others_use_is_what_is_neither_idle_nor_ours(tmp_path: Path, others: float, ours: float) -> None:
    write_stat(tmp_path, busy_us=10_000)
    source = RunQueue(tmp_path)
    assert cores(run(source, tmp_path, 10, others=others, ours=ours)) == pytest.approx(others, abs=0.25)


def test_which_cpus_others_are_on_is_told_where_they_use_enough_to_matter(tmp_path: Path) -> None:
    """Our own threads that compute have a niceness: what CPU 0 does for them is nobody else's."""
    write_stat(tmp_path, busy_us=10_000)
    source = RunQueue(tmp_path)
    for others, expected in ((0.05, {}), (1.0, {0: 0.0, 1: 1.0})):
        for look in range(20):
            now_us = 1_000_000 + look * LOOK_US
            each = [(0, now_us), (round(others * now_us), 0)]
            write_stat(tmp_path, busy_us=round((1 + others) * now_us), idle_us=round((1 - others) * now_us), each=each)
            reading = source.read(now_us, own(now_us))
        assert reading is not None
        assert reading.spread is not None
        assert reading.spread.of_each == pytest.approx(expected, abs=0.01)


def test_of_hundreds_of_cpus_each_is_read(tmp_path: Path) -> None:
    write_stat(tmp_path, busy_us=10_000, each=[(0, 0)] * 300)
    source = RunQueue(tmp_path)
    for look in range(10):
        now_us = look * LOOK_US
        each = [(0, 0)] * 299 + [(now_us, 0)]
        write_stat(tmp_path, busy_us=10_000 + now_us, idle_us=299 * now_us, each=each)
        reading = source.read(now_us, own())
    assert reading is not None
    assert reading.spread is not None
    assert [cpu for cpu, share in reading.spread.of_each.items() if share > 0.5] == [299]


def test_where_others_are_is_told_once_ticks_are_enough(tmp_path: Path) -> None:
    write_stat(tmp_path, busy_us=10_000)
    source = RunQueue(tmp_path)
    told = []
    for look in range(8):
        write_stat(tmp_path, busy_us=look * LOOK_US, idle_us=look * LOOK_US, each=[(look * LOOK_US, 0), (0, 0)])
        reading = source.read(look * LOOK_US, own())
        told.append(reading is not None and reading.spread is not None)
    assert told == [False] * 4 + [True] * 4


def test_a_cpu_that_goes_offline_is_used_by_nobody(tmp_path: Path) -> None:
    write_stat(tmp_path, busy_us=10_000, each=[(0, 0)] * 4)
    source = RunQueue(tmp_path)
    idle_us, readings = 0, []
    for look in range(20):
        cpus = 4 if look < 10 else 3
        idle_us += cpus * LOOK_US
        write_stat(tmp_path, busy_us=10_000, idle_us=idle_us, each=[(0, 0)] * cpus)
        readings.append(source.read(look * LOOK_US, own()))
    assert max(reading.cores for reading in readings if reading is not None) < 0.25


def test_a_cpu_that_waits_for_a_disk_or_was_stolen_is_used_by_nobody_here(tmp_path: Path) -> None:
    write_stat(tmp_path, busy_us=10_000)
    source = RunQueue(tmp_path)
    assert cores(run(source, tmp_path, 10, others=0.0, ours=0.5, iowait=0.6, steal=0.5)) < 0.25


def test_what_begins_shows_in_full_after_two_looks(tmp_path: Path) -> None:
    write_stat(tmp_path, busy_us=10_000)
    source = RunQueue(tmp_path)
    run(source, tmp_path, 5, others=0.0, ours=0.0)
    seen = []
    for look in range(1, 4):
        us = look * LOOK_US
        write_stat(tmp_path, busy_us=us, idle_us=2 * (1_000_000 + 5 * LOOK_US) + us)
        seen.append(cores(source.read(1_000_000 + 5 * LOOK_US + us, own())))
    assert seen == pytest.approx([0.5, 1.0, 1.0], abs=0.01)


def test_after_a_gap_it_begins_anew(tmp_path: Path) -> None:
    """A machine that was suspended has neither idled nor worked meanwhile."""
    write_stat(tmp_path, busy_us=10_000)
    source = RunQueue(tmp_path)
    last = run(source, tmp_path, 5, others=0.0, ours=0.0)
    assert source.read(last.at_us + 60_000_000, own()) is None
    assert source.discarded == 1


@pytest.mark.parametrize("text", [f"cpu  {ZEROS}\ncpu0 {ZEROS}\n", "cpu  1 2 3\ncpu0 1 2 3\n", "", "no such thing\n"])
@pytest.mark.parametrize("kind", [RunQueue, Steal])
def test_a_sandbox_that_counts_nothing_is_refused(tmp_path: Path, text: str, kind: type[RunQueue]) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/stat").write_text(text)
    with pytest.raises(SourceUnavailable, match="choose another source"):
        kind(tmp_path)


@pytest.mark.parametrize("kind", [RunQueue, Steal, Psi])
def test_a_missing_file_is_named_with_the_remedy(tmp_path: Path, kind: type[RunQueue]) -> None:
    with pytest.raises(SourceUnavailable, match=r"/proc/.* cannot be read: No such file or directory; .*choose another source"):
        kind(tmp_path)


def test_counters_that_stand_still_are_given_up_after_a_second(tmp_path: Path) -> None:
    write_stat(tmp_path, busy_us=10_000)
    source = RunQueue(tmp_path)
    source.read(0, own())
    for look in range(1, 50):
        source.read(look * LOOK_US, own())
    with pytest.raises(SourceUnavailable, match="counts 0% of the time that passes on 2 CPUs"):
        source.read(50 * LOOK_US, own())


def test_a_file_that_is_emptied_in_mid_run_ends_the_source(tmp_path: Path) -> None:
    write_stat(tmp_path, busy_us=10_000)
    write_pressure(tmp_path)
    for source, file in ((RunQueue(tmp_path), "proc/stat"), (Psi(tmp_path), "proc/pressure/cpu")):
        source.read(0, own())
        (tmp_path / file).write_text("")
        with pytest.raises(SourceUnavailable, match="is empty"):
            source.read(LOOK_US, own())


def test_stolen_time_counts_as_cores_of_others(tmp_path: Path) -> None:
    write_stat(tmp_path, busy_us=10_000)
    source = Steal(tmp_path)
    assert source.read(0, own()) is None
    for look in range(1, 16):
        write_stat(tmp_path, busy_us=10_000, stolen_us=look * LOOK_US // 2)
        reading = source.read(look * LOOK_US, own())
    assert cores(reading) == pytest.approx(0.5)


def test_stalls_count_by_the_worst_of_cpu_and_memory(tmp_path: Path) -> None:
    write_pressure(tmp_path)
    source = Psi(tmp_path)
    assert source.read(0, own()) is None
    write_pressure(tmp_path, cpu_us=2_000, memory_us=8_000)
    assert cores(source.read(LOOK_US, own())) == pytest.approx(0.4)
    write_pressure(tmp_path, cpu_us=22_100, memory_us=8_000)  # the file is read after the clock
    assert cores(source.read(2 * LOOK_US, own())) == 1.0


def test_a_total_that_goes_back_is_discarded(tmp_path: Path) -> None:
    write_pressure(tmp_path, cpu_us=50_000)
    source = Psi(tmp_path)
    source.read(0, own())
    write_pressure(tmp_path, cpu_us=10_000)
    assert source.read(LOOK_US, own()) is None
    assert source.discarded == 1


def test_readings_jitter_by_less_than_the_least_outsider(tmp_path: Path) -> None:
    """However the cut to hundredths of a second falls, nobody is seen where nobody is."""
    write_stat(tmp_path, busy_us=10_000)
    source, chance, now_us = RunQueue(tmp_path), random.Random(1), 1_000_000
    for _ in range(500):
        now_us += chance.randint(15_000, 30_000)
        write_stat(tmp_path, idle_us=2 * now_us)
        reading = source.read(now_us, own())
        assert reading is None or reading.cores < 0.25
