"""What the operating system says of this machine: which CPUs we may use, where they stand, and how much of their time we get.

Linux says it in files. Readers take the root they lie under, so that the trees of other machines can be read, too. What is
not there is not known, and nothing is made up: no places, no quota.
"""

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from math import floor
from pathlib import Path

from veltair.core.topology import choose_cores
from veltair.core.values import CoreId, Place

ROOT = Path("/")
CPUS = "sys/devices/system/cpu"


def usable_cores() -> tuple[CoreId, ...]:
    """The CPUs this process may run on (taskset, cpuset), ascending."""
    return tuple(CoreId(core) for core in sorted(os.sched_getaffinity(0)))


def default_cores(usable: Sequence[CoreId], places: Mapping[CoreId, Place], quota: float | None) -> tuple[CoreId, ...]:
    """All that may be used, but no more than the quota pays for in full (one at least); a thread of every core before siblings.

    More runnable threads than the quota pays for would use it up early in each period and then all stand still together.
    """
    count = len(usable) if quota is None else min(len(usable), max(1, floor(quota)))
    threads: dict[int, list[CoreId]] = defaultdict(list)  # of each physical core
    for core in usable:
        threads[places[core].core if places else core].append(core)
    chosen: list[CoreId] = []
    for turn in zip_longest(*threads.values()):  # the first thread of every core, then the second
        pool = sorted(core for core in turn if core is not None)
        there = {core: places[core] for core in pool} if places else {}
        chosen += choose_cores(pool, min(len(pool), count - len(chosen)), there)
    return tuple(chosen)


def quota_note(cores: Sequence[CoreId], usable: Sequence[CoreId], quota: float | None, chosen: bool) -> str | None:
    """What an operator should know of `cores` under the quota. `chosen` are cores that were configured, not the default."""
    if quota is None:
        return None
    if chosen and len(cores) > quota:
        fitting = max(1, floor(quota))
        return (
            f"cores = {list(cores)} are more than the CPU quota of {quota:g} (cgroup) pays for: all of them stand still for a "
            f"part of each period; raise the quota to {len(cores)} or configure {fitting} core{'s' * (fitting > 1)}"
        )
    if not chosen and len(cores) < len(usable):
        return f"{len(cores)} of {len(usable)} cores are used: the CPU quota (cgroup) is {quota:g}; raise it to use more"
    return None


def read_places(cores: Sequence[CoreId], root: Path = ROOT) -> dict[CoreId, Place]:
    """Where each core stands. {} where the system does not say it of all, or where they all stand alike."""
    places = {core: place for core in cores if (place := _place(root / CPUS / f"cpu{core}")) is not None}
    groups, physical = {(place.cache, place.node) for place in places.values()}, {place.core for place in places.values()}
    alike = len(groups) == 1 and len(physical) == len(places)
    return {} if alike or len(places) < len(cores) else places


def _place(cpu: Path) -> Place | None:
    siblings = read_cpu_list(cpu / "topology" / "thread_siblings_list")
    if siblings is None:
        return None
    node = min((int(entry.name.removeprefix("node")) for entry in cpu.glob("node[0-9]*")), default=0)
    return Place(min(siblings), _last_level_cache(cpu, node), node)


def _last_level_cache(cpu: Path, node: int) -> int:
    """Named by the lowest CPU that shares it. Where caches are not told (some virtual machines), one a node."""
    found = []
    for index in (cpu / "cache").glob("index[0-9]*"):
        level, kind, sharing = read_text(index / "level"), read_text(index / "type"), read_cpu_list(index / "shared_cpu_list")
        if level is not None and kind != "Instruction" and sharing:
            found.append((int(level), min(sharing)))
    return max(found)[1] if found else node


def read_cpu_list(path: Path) -> list[int] | None:
    """`0-1,16` → [0, 1, 16]; None where there is no such file."""
    text = read_text(path)
    if not text:
        return None
    ends = [part.partition("-") for part in text.split(",")]
    return [cpu for first, _, last in ends for cpu in range(int(first), int(last or first) + 1)]


def read_quota(root: Path = ROOT) -> float | None:
    """CPUs' worth of time that this process's cgroups allow it, the tightest of nested ones; None: no limit."""
    cgroups, mounts = read_text(root / "proc/self/cgroup"), read_text(root / "proc/self/mountinfo")
    if cgroups is None or mounts is None:
        return None
    quotas = (_quota_of(root / folder) for folder in cpu_cgroups(cgroups, mounts))
    return min((quota for quota in quotas if quota is not None), default=None)


def cpu_cgroups(cgroups: str, mounts: str) -> Iterator[str]:
    """The folders that may limit our CPU time, relative to the root: our group and those around it, in v2 and in v1.

    `cgroups` and `mounts` are the texts of /proc/self/cgroup and /proc/self/mountinfo. A container sees its group mounted as
    the top, so the path of the group counts from the part of the hierarchy that is mounted.
    """
    groups = {}  # "" is v2
    for line in cgroups.splitlines():
        _, controllers, path = line.split(":", 2)
        groups.update(dict.fromkeys(controllers.split(","), path))
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        mounted, point = before.split()[3:5]
        kind, _, options = after.split(maxsplit=2)
        is_v1 = kind == "cgroup" and "cpu" in options.split(",")
        group = groups.get("cpu" if is_v1 else "")
        if group is not None and (is_v1 or kind == "cgroup2"):
            yield from _around(point.lstrip("/"), _below(group, mounted))


def _below(path: str, mounted: str) -> list[str]:
    """The parts of a group's path below what is mounted; none where it lies elsewhere."""
    parts, top = [p for p in path.split("/") if p], [p for p in mounted.split("/") if p]
    return [] if ".." in parts or parts[: len(top)] != top else parts[len(top) :]


def _around(point: str, parts: list[str]) -> Iterator[str]:
    for depth in range(len(parts), -1, -1):
        yield "/".join([point, *parts[:depth]])


def _quota_of(group: Path) -> float | None:
    text = read_text(group / "cpu.max")
    if text is not None:  # v2: "150000 100000", or "max 100000"
        quota, period = text.split()
    else:
        quota, period = read_text(group / "cpu.cfs_quota_us") or "-1", read_text(group / "cpu.cfs_period_us") or "0"
    return int(quota) / int(period) if quota.isdecimal() and int(period) > 0 else None


def read_text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
