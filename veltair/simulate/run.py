"""A whole simulation: every policy with every seed, in this process or in several, and the same result either way."""

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from veltair.core.policies import make_policy
from veltair.simulate.record import watch_log
from veltair.simulate.result import Detail, LargestLoad, LoadPoint, PolicyResult, Result
from veltair.simulate.search import LADDER, Found, combine, find, is_kept
from veltair.simulate.setting import Setting, compare_at, prepare, scenario, serve
from veltair.simulate.tally import look
from veltair.simulate.trace import watch_trace
from veltair.simulate.workload import Workload

Shown = Callable[[str, float], None]
"""Told of a policy's name and the share of its work that is done."""

SEARCH_SHARE = 0.85  # of a policy's time; the rest is the close look


def simulate(
    workload: Workload,
    policies: Sequence[str],
    *,
    seeds: Sequence[int],
    jobs: int = 1,
    on_progress: Shown = lambda policy, share: None,
) -> Result:
    """Raises ConfigError for a policy or a model that is none, before anything runs.

    Each search is a function of (workload, policy, seed) alone, so `jobs` (worker processes) changes nothing but the time.
    """
    for name in policies:
        make_policy(name)
    setting = prepare(workload)
    if jobs == 1:
        found = {
            (name, seed): find(setting, name, seed, _searching(on_progress, name, number, len(seeds)))
            for name in policies
            for number, seed in enumerate(seeds)
        }
        results = []
        for name in policies:
            results.append(_policy(setting, name, seeds, [found[name, seed] for seed in seeds]))
            on_progress(name, 1.0)
    else:
        results = _in_processes(setting, policies, seeds, jobs, on_progress)
    return Result(scenario=scenario(setting, tuple(seeds)), policies=tuple(results))


def trace(workload: Workload, policy: str, seed: int, path: Path) -> None:
    """Write one run, at the load of the close look, for Perfetto."""
    setting = prepare(workload)
    about = {"policy": policy, "workload": workload.name, "seed": str(seed)}
    with watch_trace(path, setting.machine, about) as watch:
        serve(setting, policy, compare_at(setting), seed, watch=watch)


def record(workload: Workload, policy: str, seed: int, path: Path) -> None:
    """Write the same run as a decision log."""
    setting = prepare(workload)
    with watch_log(path, workload, setting.machine, policy) as watch:
        serve(setting, policy, compare_at(setting), seed, watch=watch)


def _searching(on_progress: Shown, policy: str, number: int, seeds: int) -> Callable[[float], None]:
    return lambda share: on_progress(policy, SEARCH_SHARE * (number + share) / seeds)


def _policy(setting: Setting, name: str, seeds: Sequence[int], found: Sequence[Found]) -> PolicyResult:
    largest = combine(setting, [each.largest_per_s for each in found])
    at_load, at_largest = (_look(task) for task in _looks(setting, name, seeds, largest))
    return _result(setting, name, found, largest, at_load, at_largest)


@dataclass(frozen=True, slots=True)
class _Look:
    setting: Setting
    policy: str
    per_s: float
    seeds: tuple[int, ...]


def _looks(setting: Setting, name: str, seeds: Sequence[int], largest: LargestLoad) -> tuple[_Look, _Look]:
    return _Look(setting, name, compare_at(setting), tuple(seeds)), _Look(setting, name, largest.per_s, tuple(seeds))


def _look(task: _Look) -> Detail | None:
    return look(task.setting, task.policy, task.per_s, task.seeds) if task.per_s > 0 else None


def _result(
    setting: Setting, name: str, found: Sequence[Found], largest: LargestLoad, at_load: Detail | None, at_largest: Detail | None
) -> PolicyResult:
    curve = tuple(
        LoadPoint(
            per_s=share * setting.capacity_per_s,
            of_capacity=share,
            attainment={t.name: tuple(each.rungs[share][t.name] for each in found) for t in setting.workload.tenant},
            kept=tuple(is_kept(setting, each.rungs[share]) for each in found),
        )
        for share in LADDER
    )
    assert at_load is not None, "the load to compare at is above nought"
    return PolicyResult(name=name, curve=curve, largest=largest, at_load=at_load, at_largest=at_largest)


def _in_processes(
    setting: Setting, policies: Sequence[str], seeds: Sequence[int], jobs: int, on_progress: Shown
) -> list[PolicyResult]:
    """Searches first; a policy's close looks begin when all of its seeds are searched."""
    found: dict[tuple[str, int], Found] = {}
    largest: dict[str, LargestLoad] = {}
    details: dict[tuple[str, int], Detail | None] = {}
    # A fresh interpreter, not a fork: whoever calls may have threads.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        pending: dict[Future[Any], tuple[str, str, int]] = {
            pool.submit(find, setting, name, seed): ("found", name, seed) for name in policies for seed in seeds
        }
        while pending:
            done, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                what, name, number = pending.pop(future)
                if what == "look":
                    details[name, number] = future.result()
                    continue
                found[name, number] = future.result()
                ready = [found[name, seed] for seed in seeds if (name, seed) in found]
                on_progress(name, SEARCH_SHARE * len(ready) / len(seeds))
                if len(ready) == len(seeds):
                    largest[name] = combine(setting, [each.largest_per_s for each in ready])
                    for i, task in enumerate(_looks(setting, name, seeds, largest[name])):
                        pending[pool.submit(_look, task)] = ("look", name, i)
            for name in policies:
                if (name, 0) in details and (name, 1) in details:
                    on_progress(name, 1.0)
    return [
        _result(setting, name, [found[name, seed] for seed in seeds], largest[name], details[name, 0], details[name, 1])
        for name in policies
    ]
