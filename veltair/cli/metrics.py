"""`veltair metrics`: a server's figures for Prometheus and whoever reads its format."""

import threading
import time
from collections.abc import Iterator

import click
from prometheus_client import CollectorRegistry, Metric, generate_latest, start_http_server
from prometheus_client.registry import Collector

from veltair.cli.prometheus import of_server, of_tenants
from veltair.client import Client
from veltair.config import DEFAULT_ENDPOINT, parse_config
from veltair.errors import LogError, VeltairError
from veltair.observe.follow import Follower
from veltair.observe.live import Followed, Now


@click.command(epilog="Example: veltair metrics --listen 9464")
@click.argument("endpoint", default=DEFAULT_ENDPOINT)
@click.option("--listen", metavar="[ADDRESS:]PORT", help="Answer scrapes over HTTP until Ctrl-C. Address: 127.0.0.1 by default.")
@click.option("--window", "window_s", type=click.FloatRange(0, min_open=True), default=10.0, show_default=True, help="Seconds.")
@click.option("--timeout-ms", type=float, default=2000.0, show_default=True, help="Longest wait for the server's answer.")
def metrics(endpoint: str, listen: str | None, window_s: float, timeout_ms: float) -> None:
    """Print a server's figures in the text format of Prometheus, once, or answer scrapes.

    veltair_up, what waits and runs, models adrift and what other processes do are asked of the server. Each tenant's share in
    time, latency and losses over the last seconds are read from its decision log, where it writes one on this machine (veltair
    serve --log). Printed once, exit status 0 only if it serves; to scrapes, a server that does not answer is veltair_up 0.
    """
    try:
        server = _Server(endpoint, window_s, timeout_ms)
    except VeltairError as error:
        raise click.ClickException(f"{error} [{error.code}]") from error
    registry = CollectorRegistry()
    registry.register(server)
    try:
        if listen is None:
            serves = server.serves()
            click.echo(generate_latest(registry), nl=False)
            click.get_current_context().exit(0 if serves else 1)
        address, _, port = listen.rpartition(":")
        if not port.isdecimal() or not 0 < int(port) < 65536:
            raise click.BadParameter(f"{listen!r} is no port; write one like 9464 or 0.0.0.0:9464", param_hint="--listen")
        try:
            start_http_server(int(port), address or "127.0.0.1", registry)
        except OSError as error:
            raise click.ClickException(f"cannot listen at {listen}: {error.strerror or error}; choose another port") from error
        click.echo(f"http://{address or '127.0.0.1'}:{port}/metrics of {endpoint}; Ctrl-C ends", err=True)
        while True:
            time.sleep(3600)
    except VeltairError as error:
        raise click.ClickException(f"{error} [{error.code}]") from error
    except KeyboardInterrupt:
        return
    finally:
        server.close()


class _Server(Collector):
    """Asked anew for every scrape; its log is followed from one to the next."""

    def __init__(self, endpoint: str, window_s: float, timeout_ms: float) -> None:
        """Raises ConfigError for what is no endpoint."""
        self._endpoint = parse_config({"endpoint": endpoint}).endpoint
        self._window_us, self._timeout_ms = round(window_s * 1e6), timeout_ms
        self._scrape = threading.Lock()  # each has a thread of its own
        self._log: str | None = None  # that is followed
        self._follower: Follower | None = None
        self._followed: Followed | None = None

    def serves(self) -> bool:
        """Raises VeltairError where it does not answer."""
        with Client(self._endpoint, timeout_ms=self._timeout_ms) as client:
            return client.health().state == "serving"

    def describe(self) -> list[Metric]:
        """Nothing is asked before the first scrape."""
        return []

    def collect(self) -> Iterator[Metric]:
        with self._scrape:
            found = list(self._found())
        yield from found

    def close(self) -> None:
        with self._scrape:
            self._unfollow()

    def _found(self) -> Iterator[Metric]:
        try:
            with Client(self._endpoint, timeout_ms=self._timeout_ms) as client:
                health, models = client.health(), [model.name for model in client.models()]
        except VeltairError:  # the log is followed on when it answers again
            yield from of_server(None, ())
            return
        yield from of_server(health, models)
        try:
            now = self._now(health.log)
        except LogError:  # on another machine, or damaged
            self._unfollow()
            return
        if now is not None:
            yield from of_tenants(now)

    def _now(self, log: str) -> Now | None:
        """None where none is written."""
        if log != self._log:
            self._unfollow()
        if log and self._followed is None:
            self._follower = Follower(log)
            self._followed, self._log = Followed(self._follower, self._window_us), log
        return None if self._followed is None else self._followed.look(until_now=True)

    def _unfollow(self) -> None:
        if self._follower is not None:
            self._follower.close()
        self._log = self._follower = self._followed = None
