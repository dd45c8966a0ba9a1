"""How soon a thread gets a core that others keep busy: who passes messages goes before who computes.

Linux's scheduler (EEVDF) lets who runs finish his turn, some 3 ms, before one that wakes up goes first, unless the turns of the
one that wakes are shorter (since 6.12). So threads that pass messages ask for short turns, and those that compute step back
behind them by niceness. Neither needs a privilege or changes what others get: niceness counts within a group (a container, a
service, a session), and there the engine is alone or among its own.
"""

import ctypes
import os
import platform
import threading

SHORT_US = 100  # the least there is
USUAL_US = 0  # whatever the system thinks right
BEHIND = 19  # niceness of threads that compute

_SYSCALLS = {"x86_64": (314, 315), "aarch64": (274, 275)}  # sched_setattr, sched_getattr
_libc = ctypes.CDLL(None, use_errno=True)


class _Attributes(ctypes.Structure):
    """struct sched_attr, its first version."""

    _fields_ = [
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("turn_ns", ctypes.c_uint64),  # of an ordinary thread; of others, their runtime
        ("deadline_ns", ctypes.c_uint64),
        ("period_ns", ctypes.c_uint64),
    ]


def pass_messages() -> None:
    """The calling thread and those it starts from now on take short turns, where the system knows of such."""
    _set_turn(SHORT_US)


def compute() -> None:
    """The calling thread and those it starts from now on step back behind those that pass messages, for good."""
    _set_turn(USUAL_US)
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), BEHIND)


def turn_us() -> int | None:
    """Of the calling thread; None where the system does not say."""
    attributes = _attributes()
    return None if attributes is None else int(attributes.turn_ns) // 1000


def _set_turn(us: int) -> None:
    attributes = _attributes()
    if attributes is not None:
        attributes.turn_ns = us * 1000
        _libc.syscall(_SYSCALLS[platform.machine()][0], 0, ctypes.byref(attributes), 0)


def _attributes() -> _Attributes | None:
    numbers = _SYSCALLS.get(platform.machine())
    attributes = _Attributes(size=ctypes.sizeof(_Attributes))
    if numbers is None or _libc.syscall(numbers[1], 0, ctypes.byref(attributes), attributes.size, 0):
        return None
    return attributes
