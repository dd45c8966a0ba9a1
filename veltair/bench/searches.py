"""Searches for the largest simulated load, in this process or in several: the same figures either way."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from multiprocessing import get_context

import msgspec

from veltair.core.policies.fcfs import Fcfs
from veltair.core.policies.protocol import Policy
from veltair.simulate.search import find
from veltair.simulate.setting import Setting, prepare
from veltair.simulate.workload import read_workload


@dataclass(frozen=True, slots=True)
class Search:
    workload: str  # the name of one that comes along, or a file
    requests: int
    policy: str
    seed: int
    fcfs_share: float | None = None  # in place of `policy`: fcfs with the fewest cores that take this share of the QoS alone

    @property
    def name(self) -> str:
        return self.policy if self.fcfs_share is None else f"fcfs with cores for {self.fcfs_share:.0%} of the QoS"


def run(search: Search) -> float:
    """Requests a second."""
    fcfs: Callable[[float], Policy] = Fcfs
    policy = search.policy if search.fcfs_share is None else partial(fcfs, search.fcfs_share)
    return find(prepared(search.workload, search.requests), policy, search.seed).largest_per_s


def run_all(searches: Sequence[Search], jobs: int) -> Iterator[float]:
    """In the order of `searches`, each as soon as it and those before it are done."""
    if jobs == 1:
        yield from map(run, searches)
        return
    # A fresh interpreter, not a fork: whoever calls may have threads.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        yield from pool.map(run, searches)


@lru_cache(maxsize=1)  # searches come workload by workload
def prepared(workload: str, requests: int) -> Setting:
    return prepare(msgspec.structs.replace(read_workload(workload), requests=requests))
