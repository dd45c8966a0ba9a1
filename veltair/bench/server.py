"""A server of our own for the time of one run: `python -m veltair serve` as a child process."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from veltair.bench.scenario import Scenario
from veltair.errors import ServerError

START_TIMEOUT_S = 60.0
DRAIN_TIMEOUT_S = 20.0
POLL_S = 0.02


def config_text(scenario: Scenario, endpoint: str, source: str = "off", times: bool = True) -> str:
    """The server's configuration that promises each tenant what the scenario asks for.

    `source` is that of outside pressure; `times` says whether those of this host stand in for the bundles' own.
    """
    lines = [f"endpoint = {_quoted(endpoint)}", "", "[interference]", f"source = {_quoted(source)}"]
    lines.append(f"times = {json.dumps(times)}")
    for tenant in scenario.tenant:
        lines += [
            "",
            f"[tenants.{_quoted(tenant.name)}.models.{_quoted(tenant.model)}]",
            f"qos_ms = {float(tenant.qos_ms)}",
            f"percentile = {float(tenant.percentile)}",
            f"precision = {_quoted(tenant.precision)}",
        ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return json.dumps(text)  # a basic TOML string escapes as JSON does


@contextmanager
def running_server(
    scenario: Scenario, bundles: Path, policy: str, folder: Path, source: str = "off", times: bool = True
) -> Iterator[tuple[str, Path]]:
    """Yields (endpoint, decision log); drains the server afterwards. Raises ServerError with what the server said."""
    folder.mkdir(parents=True, exist_ok=True)
    config, log, output = folder / f"{policy}.toml", folder / f"{policy}.jsonl", folder / f"{policy}.output.txt"
    config.write_text(config_text(scenario, f"tcp://127.0.0.1:{_free_port()}", source, times), encoding="utf-8")
    log.unlink(missing_ok=True)  # a log is continued otherwise, and this run is a new one
    command = [sys.executable, "-m", "veltair", "serve", str(bundles), "--config", str(config), "--json"]
    with output.open("wb") as out:  # a file, not a pipe: nobody has to read while the load runs
        server = subprocess.Popen(
            [*command, "--policy", policy, "--log", str(log)],
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,  # Ctrl-C reaches us alone, and we drain the server
        )
    try:
        yield _wait_until_ready(server, policy, output), log
    finally:
        _drain(server)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(server: subprocess.Popen[bytes], policy: str, output: Path) -> str:
    """The endpoint that the server's ready line names."""
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        status = server.poll()
        said = output.read_text(encoding="utf-8", errors="replace")
        for line in said.splitlines():
            if (endpoint := _endpoint_in(line)) is not None:
                return endpoint
        if status is not None:
            last = (said.strip().splitlines() or ["it said nothing"])[-1]
            raise ServerError(f"server for policy {policy!r} ended with status {status} before it was ready: {last}")
        time.sleep(POLL_S)
    raise ServerError(
        f"server for policy {policy!r} was not ready within {START_TIMEOUT_S:g} s; what it said is in {str(output)!r}"
    )


def _endpoint_in(line: str) -> str | None:
    """None for a line that is not the ready line, or not yet whole."""
    try:
        content = json.loads(line)
    except ValueError:
        return None
    return content.get("endpoint") if isinstance(content, dict) else None


def _drain(server: subprocess.Popen[bytes]) -> None:
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(timeout=DRAIN_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
