"""Lanes: the threads that run units. Each has its own TVM thread pool, and the cores of its unit while it runs one."""

import functools
import os
from collections.abc import Callable
from typing import Any

import tvm

ONE_CORE_PER_THREAD = -2  # TVM's affinity mode for "thread i on the i-th core of this list"; 1 means "the big cores"


@functools.cache
def _config_threadpool() -> Callable[..., Any]:
    config: Callable[..., Any] = tvm.get_global_func("runtime.config_threadpool")
    return config


def set_cores(cores: tuple[int, ...]) -> None:
    """Run the calling thread and its TVM pool on exactly `cores` from now on. Costs about 6 us, so it is done per unit."""
    os.sched_setaffinity(0, cores)  # 0 is the calling thread, not the process
    if len(cores) > 1:
        _config_threadpool()(ONE_CORE_PER_THREAD, len(cores), [str(core) for core in cores])
    else:
        _config_threadpool()(1, 1)
