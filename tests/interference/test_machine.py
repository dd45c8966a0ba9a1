"""A machine by its files: trees as servers, virtual machines and containers have them."""

from pathlib import Path

import pytest

from veltair.host import CPUS
from veltair.interference.machine import Cache, this_machine

from .profiles import machine

CPUINFO = """processor	: 0
vendor_id	: AuthenticAMD
cpu family	: 25
model		: 17
model name	: AMD EPYC
stepping	: 1
cpu MHz		: {mhz}
flags		: fpu avx512f

processor	: 1
model name	: AMD EPYC
"""


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


def write_cache(root: Path, cpu: int, index: int, level: int, kind: str, size: str, shared: str) -> None:
    files = {"level": str(level), "type": kind, "size": size, "shared_cpu_list": shared}
    write(root / CPUS / f"cpu{cpu}/cache/index{index}", files)


@pytest.fixture
def server(tmp_path: Path) -> Path:
    """Two sockets of two cores of two threads; siblings are numbered behind all cores."""
    write(tmp_path, {"proc/cpuinfo": CPUINFO.format(mhz=2600), "proc/sys/kernel/osrelease": "6.18.44", f"{CPUS}/online": "0-7"})
    for cpu in range(8):
        own, node = f"{cpu % 4},{cpu % 4 + 4}", cpu % 4 // 2
        write(tmp_path / CPUS / f"cpu{cpu}", {"topology/thread_siblings_list": own, f"node{node}/meminfo": ""})
        write_cache(tmp_path, cpu, 0, 1, "Data", "32K", own)
        write_cache(tmp_path, cpu, 1, 1, "Instruction", "32K", own)
        write_cache(tmp_path, cpu, 2, 2, "Unified", "1024K", own)
        write_cache(tmp_path, cpu, 3, 3, "Unified", "32M", f"{2 * node}-{2 * node + 1},{2 * node + 4}-{2 * node + 5}")
    return tmp_path


def test_a_server_tells_its_threads_nodes_and_caches(server: Path) -> None:
    found = this_machine(server, range(8))
    assert found.cpu == "AMD EPYC (family 25, model 17, stepping 1)"
    assert (found.kernel, found.cpus) == ("6.18.44", 8)
    assert found.siblings == ((0, 4), (1, 5), (2, 6), (3, 7))
    assert found.physical_cores == (0, 1, 2, 3)
    assert found.nodes == ((0, 1, 4, 5), (2, 3, 6, 7))
    assert [cache for cache in found.caches if cache.level == 3] == [
        Cache(3, 32 << 20, (0, 1, 4, 5)),
        Cache(3, 32 << 20, (2, 3, 6, 7)),
    ]
    assert sum(cache.level == 1 for cache in found.caches) == 4  # instructions are no data
    assert (found.l2_bytes, found.last_level_cache_bytes) == (1 << 20, 32 << 20)


def test_only_what_we_may_use_counts(server: Path) -> None:
    found = this_machine(server, (5, 1))
    assert (found.cores, found.siblings, found.nodes) == ((1, 5), ((1, 5),), ((1, 5),))
    assert found.cpus == 8
    assert {cache.cores for cache in found.caches} == {(1, 5)}


def test_a_quota_is_part_of_the_machine(server: Path) -> None:
    mount = "1178 1170 0:28 / /sys/fs/cgroup ro - cgroup2 cgroup rw"
    write(server, {"proc/self/cgroup": "0::/", "proc/self/mountinfo": mount, "sys/fs/cgroup/cpu.max": "150000 100000"})
    assert this_machine(server, (0, 1)).quota == 1.5


def test_where_nothing_is_told_cores_are_taken_to_stand_alone(tmp_path: Path) -> None:
    found = this_machine(tmp_path, (0, 1))
    assert (found.cpu, found.cpus, found.siblings, found.nodes, found.caches) == ("unknown CPU", 2, ((0,), (1,)), ((0, 1),), ())
    assert found.last_level_cache_bytes > found.l2_bytes > 0


def test_a_fingerprint_outlives_a_restart_and_not_a_change(server: Path) -> None:
    before = this_machine(server, range(8)).fingerprint
    write(server, {"proc/cpuinfo": CPUINFO.format(mhz=3700)})  # what a clock says differs from moment to moment
    assert this_machine(server, range(8)).fingerprint == before
    assert this_machine(server, range(7)).fingerprint != before


def test_how_many_share_a_last_level_cache(server: Path) -> None:
    found = this_machine(server, range(8))
    assert found.sharing_last_level((1, 2, 3)) == 2
    assert found.sharing_last_level(()) == 1
    assert machine(caches=()).sharing_last_level((0, 1)) == 2


def test_this_very_machine_can_be_told() -> None:
    found = this_machine()
    assert found == this_machine()
    assert {core for group in found.siblings for core in group} == {*found.cores}
