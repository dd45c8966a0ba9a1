"""A real server for tests: the command line's own code in a process of its own, on a port that nobody uses."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMAND = [sys.executable, "-c", "from veltair.cli.serve import serve; serve()"]
END_WITHIN_S = 20.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    process: subprocess.Popen[str]
    endpoint: str
    said: dict[str, Any]

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def exit_code(self) -> int:
        return self.process.wait(END_WITHIN_S)


@contextmanager
def running(artifacts: Path, *options: str) -> Iterator[Server]:
    """Serves once entered; ended at the end whatever happens. What this host is calibrated for and what else runs on it is left
    aside, where no other configuration is given."""
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    if "--config" not in options:
        options = (*options, "--config", str(Path(__file__).parent / "alone.toml"))
    command = [*COMMAND, str(artifacts), "--endpoint", endpoint, "--json", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, f"the server ended with code {process.wait(END_WITHIN_S)} before it was ready"
            yield Server(process, endpoint, json.loads(line))
        finally:
            process.terminate()
            try:
                process.wait(END_WITHIN_S)
            finally:
                process.kill()


def refused(artifacts: Path, *options: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """A server that should not start."""
    command = [*COMMAND, str(artifacts), *options]
    environment = {**os.environ, **(environment or {})}
    return subprocess.run(command, capture_output=True, text=True, timeout=END_WITHIN_S, env=environment, check=False)


def log_of(path: Path) -> Sequence[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
