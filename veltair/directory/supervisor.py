"""One engine process, kept alive: started, watched through its standard output, restarted with a growing pause."""

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import IO

import msgspec

from veltair import errors
from veltair.config import EngineSettings
from veltair.errors import ServerError, VeltairError

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 10.0
STEADY_AFTER_S = 30.0  # an engine that ran this long was healthy: the next pause is short again

_logger = logging.getLogger(__name__)


class Supervisor:
    """Told of the time and of output, it says where the engine is. Only this class starts, signals and reaps it.

    States: starting → serving (it told its endpoint) → down (it ended; another is started after a pause) → starting ...
    """

    def __init__(self, settings: EngineSettings, command: Sequence[str] = (sys.executable, "-m", "veltair.engine")) -> None:
        self._settings = settings
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._started_s = 0.0
        self._start_again_s: float | None = None
        self._pause_s = FIRST_PAUSE_S
        self._ever_served = False
        self._stopping = False
        self._refusal: VeltairError | None = None
        self.state = "down"
        self.endpoint = ""
        self.local = ""
        self.outside = ""  # how it learns of processes that are not ours
        self.restarts = 0

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    @property
    def output(self) -> IO[bytes] | None:
        """Readable when the engine says something, and at its end."""
        return self._process.stdout if self._process is not None else None

    def start(self, now_s: float) -> None:
        process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin is not None
        try:
            process.stdin.write(msgspec.json.encode(self._settings))
            process.stdin.close()
        except BrokenPipeError:
            _logger.warning("engine %d ended before it read its settings", process.pid)
        self._process, self._started_s, self._start_again_s = process, now_s, None
        self.state = "starting"

    def heard(self, now_s: float) -> None:
        """Its output is readable: it serves, it refuses to, or it has ended. Raises VeltairError if it can never serve."""
        process = self._process
        assert process is not None
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            self._ended(now_s)
            return
        said = json.loads(line)
        if "endpoint" in said:
            self.state, self.endpoint, self._ever_served = "serving", said["endpoint"], True
            self.local, self.outside = said.get("local", ""), said.get("outside", "")
        else:
            self._refusal = _error_of(said["code"], said["message"])

    def tick(self, now_s: float) -> None:
        if self._start_again_s is not None and now_s >= self._start_again_s:
            self.restarts += 1
            self.start(now_s)

    def next_tick_s(self) -> float | None:
        return self._start_again_s

    def stop(self) -> None:
        """Ask it to drain; asked twice it ends at once. None is started after this one."""
        self._start_again_s, self._stopping = None, True
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _ended(self, now_s: float) -> None:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        process.stdout.close()
        code = process.wait()
        self._process, self.state, self.endpoint = None, "down", ""
        if self._stopping:
            return
        if not self._ever_served:  # another try would end the same way
            raise self._refusal or ServerError(f"the engine ended with code {code} before it served; see its messages above")
        if now_s - self._started_s >= STEADY_AFTER_S:
            self._pause_s = FIRST_PAUSE_S
        self._start_again_s = now_s + self._pause_s
        _logger.warning("engine %d ended with code %d, starting another in %.1f s", process.pid, code, self._pause_s)
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)


def _error_of(code: str, message: str) -> VeltairError:
    """The error an engine told us, as the class it was."""
    kinds: list[Callable[[str], VeltairError]] = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, VeltairError) and kind.code == code
    ]
    return (kinds[0] if kinds else ServerError)(message)
