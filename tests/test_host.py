"""Cores by what the operating system says: trees as laptops, servers and containers have them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from veltair.core.values import CoreId, Place
from veltair.host import CPUS, cpu_cgroups, default_cores, quota_note, read_places, read_quota, usable_cores


def cores(*numbers: int) -> tuple[CoreId, ...]:
    return tuple(CoreId(number) for number in numbers)


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


def write_cpus(
    root: Path, count: int, siblings: Callable[[int], str], l3: Callable[[int], str], node: Callable[[int], int]
) -> None:
    """What Linux 6 has below /sys for `count` CPUs, as far as it matters here."""
    for cpu in range(count):
        own = siblings(cpu)
        caches = [("1", "Data", own), ("1", "Instruction", own), ("2", "Unified", own), ("3", "Unified", l3(cpu))]
        write(
            root / CPUS / f"cpu{cpu}",
            {"topology/thread_siblings_list": own, f"node{node(cpu)}/meminfo": ""}
            | {
                f"cache/index{number}/{name}": text
                for number, cache in enumerate(caches)
                for name, text in zip(("level", "type", "shared_cpu_list"), cache, strict=True)
            },
        )


@pytest.fixture
def laptop(tmp_path: Path) -> Path:
    """An i7-8550U: four cores of two threads, one L3."""
    write_cpus(tmp_path, 8, lambda cpu: f"{cpu % 4},{cpu % 4 + 4}", lambda _: "0-7", lambda _: 0)
    return tmp_path


@pytest.fixture
def server(tmp_path: Path) -> Path:
    """Two EPYC 7262: eight cores a socket, an L3 for every two of them, siblings numbered behind all cores."""

    def l3(cpu: int) -> str:
        first = cpu % 16 // 2 * 2
        return f"{first}-{first + 1},{first + 16}-{first + 17}"

    write_cpus(tmp_path, 32, lambda cpu: f"{cpu % 16},{cpu % 16 + 16}", l3, lambda cpu: cpu % 16 // 8)
    return tmp_path


def test_threads_of_a_laptop_are_siblings_under_one_cache(laptop: Path) -> None:
    places = read_places(cores(*range(8)), laptop)
    assert places == {CoreId(cpu): Place(core=cpu % 4, cache=0, node=0) for cpu in range(8)}


def test_cores_of_a_server_stand_by_their_cache_and_their_memory(server: Path) -> None:
    places = read_places(cores(*range(32)), server)
    assert places[CoreId(3)] == Place(core=3, cache=2, node=0)
    assert places[CoreId(19)] == Place(core=3, cache=2, node=0)
    assert places[CoreId(12)] == Place(core=12, cache=12, node=1)
    assert len({place.cache for place in places.values()}) == 8


def test_only_the_cores_that_are_asked_for_are_told_of(server: Path) -> None:
    assert set(read_places(cores(4, 20), server)) == {4, 20}


def test_without_the_files_nothing_is_said(tmp_path: Path) -> None:
    assert read_places(cores(0, 1), tmp_path) == {}


def test_a_core_that_the_system_says_nothing_of_leaves_all_unsaid(laptop: Path) -> None:
    assert read_places(cores(0, 1, 8), laptop) == {}


def test_cores_that_stand_alike_give_nothing_to_choose_by(laptop: Path) -> None:
    assert read_places(cores(0, 1, 2), laptop) == {}


def test_without_caches_the_memory_tells_who_is_near(tmp_path: Path) -> None:
    for cpu in range(4):
        write(tmp_path / CPUS / f"cpu{cpu}", {"topology/thread_siblings_list": str(cpu), f"node{cpu // 2}/x": ""})
    assert read_places(cores(0, 3), tmp_path) == {0: Place(0, 0, 0), 3: Place(3, 1, 1)}


def test_by_default_every_core_comes_before_anybodys_sibling(tmp_path: Path) -> None:
    write_cpus(tmp_path, 8, lambda cpu: f"{cpu // 2 * 2}-{cpu // 2 * 2 + 1}", lambda _: "0-7", lambda _: 0)
    usable = cores(*range(8))
    assert default_cores(usable, read_places(usable, tmp_path), None) == (0, 2, 4, 6, 1, 3, 5, 7)
    assert default_cores(usable, read_places(usable, tmp_path), 3.9) == (0, 2, 4)


def test_by_default_a_quota_takes_cores_of_one_cache(server: Path) -> None:
    usable = cores(*range(32))
    assert default_cores(usable, read_places(usable, server), 2.0) == (0, 1)
    assert default_cores(usable, read_places(usable, server), 3.0) == (0, 1, 2)  # no cache has three, but for siblings


@pytest.mark.parametrize(("quota", "expected"), [(None, (0, 1, 2, 3)), (8.0, (0, 1, 2, 3)), (1.5, (0,)), (0.2, (0,))])
def test_the_default_is_what_the_quota_pays_for_in_full(quota: float | None, expected: tuple[int, ...]) -> None:
    assert default_cores(cores(0, 1, 2, 3), {}, quota) == expected


# A container of Docker, cgroup v2 with a namespace of its own: --cpus 1.5
CONTAINER_V2 = {
    "proc/self/cgroup": "0::/",
    "proc/self/mountinfo": "1178 1170 0:28 / /sys/fs/cgroup ro,nosuid,relatime - cgroup2 cgroup rw,nsdelegate",
    "sys/fs/cgroup/cpu.max": "150000 100000",
}
# The same under cgroup v1 without a namespace: the path is the host's, the mount shows the container's part of it
CONTAINER_V1 = {
    "proc/self/cgroup": "5:memory:/docker/4f2a\n4:cpu,cpuacct:/docker/4f2a\n1:name=systemd:/docker/4f2a\n0::/docker/4f2a",
    "proc/self/mountinfo": (
        "640 639 0:33 /docker/4f2a /sys/fs/cgroup/cpu,cpuacct ro,relatime master:15 - cgroup cgroup rw,cpu,cpuacct\n"
        "641 639 0:34 /docker/4f2a /sys/fs/cgroup/memory ro,relatime master:16 - cgroup cgroup rw,memory"
    ),
    "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "150000",
    "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
}
# A service of systemd in a slice that is limited more than the service itself
NESTED = {
    "proc/self/cgroup": "0::/tenants.slice/veltair.service",
    "proc/self/mountinfo": "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate",
    "sys/fs/cgroup/tenants.slice/cpu.max": "200000 100000",
    "sys/fs/cgroup/tenants.slice/veltair.service/cpu.max": "400000 100000",
    "sys/fs/cgroup/other.slice/cpu.max": "50000 100000",
}
UNLIMITED_V1 = CONTAINER_V1 | {"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1"}
UNLIMITED_V2 = CONTAINER_V2 | {"sys/fs/cgroup/cpu.max": "max 100000"}
MOVED_OUT = CONTAINER_V2 | {"proc/self/cgroup": "0::/../../other"}


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        (CONTAINER_V2, 1.5),
        (CONTAINER_V1, 1.5),
        (NESTED, 2.0),
        (UNLIMITED_V1, None),
        (UNLIMITED_V2, None),
        (MOVED_OUT, 1.5),
        ({}, None),
    ],
    ids=["v2", "v1", "nested", "v1 without limit", "v2 without limit", "outside of its namespace", "no cgroups"],
)
def test_the_tightest_quota_around_us_counts(files: dict[str, str], quota: float | None, tmp_path: Path) -> None:
    write(tmp_path, files)
    assert read_quota(tmp_path) == quota


def test_groups_are_looked_for_from_ours_to_the_top() -> None:
    assert list(cpu_cgroups(NESTED["proc/self/cgroup"], NESTED["proc/self/mountinfo"])) == [
        "sys/fs/cgroup/tenants.slice/veltair.service",
        "sys/fs/cgroup/tenants.slice",
        "sys/fs/cgroup",
    ]


def test_an_operator_is_told_what_a_quota_does_to_his_cores() -> None:
    usable = cores(0, 1, 2)
    told = quota_note(cores(0, 1), usable, 1.5, chosen=True)
    assert told is not None
    assert "cores = [0, 1] are more than the CPU quota of 1.5" in told
    assert "raise the quota to 2 or configure 1 core" in told
    assert quota_note(cores(0), usable, 1.5, chosen=False) == (
        "1 of 3 cores are used: the CPU quota (cgroup) is 1.5; raise it to use more"
    )
    assert quota_note(cores(0), usable, 1.5, chosen=True) is None
    assert quota_note(usable, usable, None, chosen=False) is None


def test_this_machine_has_cores_to_use() -> None:
    usable = usable_cores()
    quota = read_quota()
    assert 1 <= len(default_cores(usable, read_places(usable), quota)) <= len(usable)
