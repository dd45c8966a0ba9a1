"""A function in a process of its own: what it loads and allocates is gone with it, and another core may do it meanwhile.

PyTorch is why. It takes seconds to import and keeps the weights it has written; the compiler needs neither.
"""

import contextlib
import ctypes
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Generic, TypeVar

from veltair.errors import CompileError, VeltairError

T = TypeVar("T")
PR_SET_PDEATHSIG = 1
_PROGRAM = "from veltair.compiler.apart import main; main()"


class Apart(Generic[T]):
    """Runs `function(*arguments)` from `with` on; both must be picklable, and so must what comes back.

    Not multiprocessing's way of starting processes, which runs the caller's main module a second time. Whoever leaves the
    block early ends the process.
    """

    def __init__(self, function: Callable[..., T], *arguments: Any) -> None:
        self._job = (function, arguments)

    def __enter__(self) -> "Apart[T]":
        self._connection, theirs = Pipe()
        with theirs:
            command = [sys.executable, "-c", _PROGRAM, str(theirs.fileno())]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
        with contextlib.suppress(OSError):  # it has ended already; `result` tells
            self._connection.send(self._job)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._connection.close()
        self._process.kill()
        self._process.wait()

    def result(self) -> T:
        """Waits. Raises the VeltairError or OSError that the function raised, or CompileError where it ended otherwise."""
        try:
            outcome: T | Exception = self._connection.recv()
        except (EOFError, OSError) as error:
            code = self._process.wait()
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
            what = getattr(self._job[0], "__qualname__", "its work")
            raise CompileError(f"the process of {what} {how}; its messages stand above; is there memory enough?") from error
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def main() -> None:
    """The program. Its argument is the connection's file descriptor."""
    connection = Connection(int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides what becomes of this one
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    function, arguments = connection.recv()
    try:
        connection.send(function(*arguments))
    except (VeltairError, OSError) as error:
        connection.send(error)
    except Exception:
        traceback.print_exc()
        sys.exit(1)
