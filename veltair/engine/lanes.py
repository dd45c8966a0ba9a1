"""Lanes: the threads that run units. Each has its own TVM thread pool, and the cores of its unit while it runs one."""

import functools
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

import tvm

from veltair import turns

ONE_CORE_PER_THREAD = -2  # TVM's affinity mode for "thread i on the i-th core of this list"; 1 means "the big cores"

T = TypeVar("T")


@functools.cache
def _config_threadpool() -> Callable[..., Any]:
    config: Callable[..., Any] = tvm.get_global_func("runtime.config_threadpool")
    return config


def set_cores(cores: tuple[int, ...]) -> None:
    """Run the calling thread and its TVM pool on exactly `cores` from now on. Costs about 6 us, so it is done per unit."""
    if len(cores) > 1:
        _config_threadpool()(ONE_CORE_PER_THREAD, len(cores), [str(core) for core in cores])
    else:
        _config_threadpool()(1, 1)
    # Last, since TVM spreads the calling thread over all cores when a pool that once was wide becomes narrow.
    os.sched_setaffinity(0, cores)  # 0 is the calling thread, not the process


def hold_cores(cores: tuple[int, ...]) -> None:
    """As `set_cores`, with the calling thread on the first of `cores`: for a thread that does nothing but run units there.

    Free to choose among several it may sit down on the core of a thread of its pool, which cannot move, and stay there while
    another core idles: a kernel on two cores then took 264 us in place of 132. Threads it starts inherit that one core.
    """
    set_cores(cores)
    if len(cores) > 1:
        os.sched_setaffinity(0, cores[:1])


class ThisThread:
    """The thread that receives requests, lent to a unit too short to be handed over.

    It stays where it runs: moving it to the leased core and back would cost more than the unit takes.
    """

    def __init__(self) -> None:
        self._alone = False

    def take_cores(self, cores: tuple[int, ...]) -> None:
        if not self._alone:  # a pool of one thread, once
            _config_threadpool()(1, 1)
            self._alone = True


class Lane(threading.Thread, Generic[T]):
    """Runs one task after the other. `work` returns the lane's next task, or None to wait until one is given.

    An error of `work` is a bug, not a failed kernel: it ends the lane and is handed to `broken`.
    """

    def __init__(self, number: int, work: "Callable[[Lane[T], T], T | None]", broken: Callable[[Exception], None]) -> None:
        super().__init__(name=f"lane-{number}", daemon=True)  # a kernel cannot be interrupted; it must not hold up the exit
        self.cores: tuple[int, ...] = ()
        self._work = work
        self._broken = broken
        self._given: SimpleQueue[T] = SimpleQueue()

    def give(self, task: T) -> None:
        """Only to a lane that waits."""
        self._given.put(task)

    def take_cores(self, cores: tuple[int, ...]) -> None:
        if cores != self.cores:
            hold_cores(cores)
            self.cores = cores

    def run(self) -> None:
        turns.compute()
        try:
            task: T | None = None
            while True:
                task = self._work(self, self._given.get() if task is None else task)
        except Exception as error:  # the process cannot go on; who watches it is told and starts another
            self._broken(error)
