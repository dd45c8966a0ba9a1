"""Which machine this is, as far as measurements depend on it: CPU, kernel, the cores we may use, caches, nodes, quota."""

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from math import floor
from pathlib import Path

import msgspec

from veltair.host import CPUS, ROOT, read_cpu_list, read_quota, read_text, usable_cores

NO_CACHE_TOLD = 16 << 20  # the last level's size where the system does not tell: some virtual machines
NO_L2_TOLD = 1 << 20

Groups = tuple[tuple[int, ...], ...]


class Cache(msgspec.Struct, frozen=True):
    """A cache that holds data, and which of our cores share it."""

    level: int
    size_bytes: int
    cores: tuple[int, ...]


class Machine(msgspec.Struct, frozen=True):
    """The same after a restart of the machine; another as soon as something that times depend on is another."""

    cpu: str  # "AMD EPYC (family 25, model 17, stepping 1)"
    kernel: str  # release
    cpus: int  # online, ours or not
    cores: tuple[int, ...]  # ours, by taskset and cpuset
    quota: float | None  # CPUs' worth of time by cgroup; None: no limit
    siblings: Groups  # our cores by physical core; a group of two shares one (SMT)
    nodes: Groups  # our cores by NUMA node
    caches: tuple[Cache, ...]  # by level; () where the system does not tell

    @property
    def fingerprint(self) -> str:
        """Twelve digits that name it, for what is kept beside a profile."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:12]

    @property
    def l2_bytes(self) -> int:
        return max((cache.size_bytes for cache in self.caches if cache.level == 2), default=NO_L2_TOLD)

    @property
    def last_level_cache_bytes(self) -> int:
        return max((cache.size_bytes for cache in self.caches), default=NO_CACHE_TOLD)

    @property
    def physical_cores(self) -> tuple[int, ...]:
        """One of our CPUs for each physical core."""
        return tuple(group[0] for group in self.siblings)

    def sharing_last_level(self, cores: Sequence[int]) -> int:
        """How many of `cores` share a last-level cache, at most; all of them where the system does not tell."""
        last = max((cache.level for cache in self.caches), default=0)
        return max((len({*cores} & {*cache.cores}) for cache in self.caches if cache.level == last), default=len(cores)) or 1

    @property
    def paid_cores(self) -> tuple[int, ...]:
        """The physical cores that the quota pays for in full; one at least."""
        return self.physical_cores[: None if self.quota is None else max(1, floor(self.quota))]


def this_machine(root: Path = ROOT, cores: Sequence[int] | None = None) -> Machine:
    """The machine whose files lie under `root`. `cores` stands in for this process's own in tests."""
    ours = tuple(sorted(usable_cores() if cores is None else cores))
    online = read_cpu_list(root / CPUS / "online")
    return Machine(
        cpu=_cpu(read_text(root / "proc/cpuinfo") or ""),
        kernel=read_text(root / "proc/sys/kernel/osrelease") or os.uname().release,
        cpus=len(online) if online else len(ours),
        cores=ours,
        quota=read_quota(root),
        siblings=_grouped((core, read_cpu_list(root / CPUS / f"cpu{core}/topology/thread_siblings_list")) for core in ours),
        nodes=_by_node(ours, root),
        caches=tuple(_caches(ours, root)),
    )


def _cpu(cpuinfo: str) -> str:
    """Of the first processor; where there is none (not x86), nothing."""
    first = dict(re.findall(r"^([\w ]+?)\s*: (.*)$", cpuinfo.split("\n\n")[0], re.MULTILINE))
    numbers = ", ".join(
        f"{name} {first[key]}"
        for name, key in {"family": "cpu family", "model": "model", "stepping": "stepping"}.items()
        if key in first
    )
    return f"{first.get('model name', 'unknown CPU')}{f' ({numbers})' * bool(numbers)}"


def _grouped(members: Iterator[tuple[int, list[int] | None]]) -> Groups:
    """Our cores by whom they are with; one of whom nothing is said is alone."""
    groups: dict[int, list[int]] = defaultdict(list)
    for core, beside in members:
        groups[min(beside) if beside else core].append(core)
    return tuple(tuple(group) for _, group in sorted(groups.items()))


def _by_node(cores: Sequence[int], root: Path) -> Groups:
    nodes: dict[int, list[int]] = defaultdict(list)
    for core in cores:
        folders = (root / CPUS / f"cpu{core}").glob("node[0-9]*")
        nodes[min((int(folder.name.removeprefix("node")) for folder in folders), default=0)].append(core)
    return tuple(tuple(group) for _, group in sorted(nodes.items()))


def _caches(cores: Sequence[int], root: Path) -> Iterator[Cache]:
    ours: dict[tuple[int, int, int], list[int]] = defaultdict(list)  # by level, lowest CPU that shares it, size
    for core in cores:
        for index in (root / CPUS / f"cpu{core}/cache").glob("index[0-9]*"):
            level, kind, sharing = read_text(index / "level"), read_text(index / "type"), read_cpu_list(index / "shared_cpu_list")
            size = re.fullmatch(r"(\d+)([KM])", read_text(index / "size") or "")
            if level and kind != "Instruction" and sharing and size:
                ours[int(level), min(sharing), int(size[1]) << (10 if size[2] == "K" else 20)].append(core)
    for (number, _, size_bytes), group in sorted(ours.items()):
        yield Cache(number, size_bytes, tuple(group))
