"""`veltair top`: who gets what just now, and who slows whom."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live as Screen
from rich.markup import escape
from rich.table import Table

from veltair.client import Client
from veltair.config import DEFAULT_ENDPOINT, parse_config
from veltair.errors import LogError, VeltairError
from veltair.observe.follow import Follower
from veltair.observe.live import Followed, Now, TenantNow

_WORDS = ("tenant", "model")
_NUMBERS = ("target", "rate/s", "in QoS", "p95", "lost", "cores", "pressure", "excess")
WIDTH_IN_FILES = 170


@click.command(epilog="Example: veltair top decisions.jsonl --once --json")
@click.argument("source", default=DEFAULT_ENDPOINT, metavar="[LOG|ENDPOINT]")
@click.option(
    "--once", is_flag=True, help="Print one table and end. Of a log, its last seconds; of a server, the last until now."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON in place of a table, one line a look.")
@click.option("--window", "window_s", type=click.FloatRange(0, min_open=True), default=10.0, show_default=True, help="Seconds.")
@click.option(
    "--interval", "interval_s", type=click.FloatRange(0.1), default=1.0, show_default=True, help="Seconds between looks."
)
@click.option("--timeout-ms", type=float, default=2000.0, show_default=True, help="Longest wait for a server's answer.")
def top(source: str, once: bool, as_json: bool, window_s: float, interval_s: float, timeout_ms: float) -> None:
    """Watch tenants: their rate, share in time, latency, cores and pressure, and each one's noisiest neighbour.

    All of it is read from the decision log: name the file, or a server on this machine that writes one (veltair serve --log).
    The excess of a request is its latency less what it would have taken alone; the noisiest neighbour is the other tenant that
    caused most of it, by holding the cores that were waited for or by running beside: what he cost each answer, and how much
    of the excess that is. Refused and dropped requests are lost ones. Ctrl-C ends.
    """
    try:
        is_server = "://" in source
        path = _log_of(source, timeout_ms) if is_server else Path(source)
        with Follower(path) as follower:
            looks = _looks(Followed(follower, round(window_s * 1e6)), interval_s, until_now=is_server or not once)
            if once:
                _print(next(looks), as_json)
            elif as_json:
                for now in looks:
                    _print(now, as_json)
            else:
                _show(looks)
    except VeltairError as error:
        raise click.ClickException(f"{error} [{error.code}]") from error
    except KeyboardInterrupt:
        return


def _log_of(endpoint: str, timeout_ms: float) -> Path:
    """Where the server writes its decisions. Raises LogError where it writes none, or not on this machine."""
    endpoint = parse_config({"endpoint": endpoint}).endpoint
    with Client(endpoint, timeout_ms=timeout_ms) as client:
        log = client.health().log
    if not log:
        raise LogError(f"the server at {endpoint} writes no decision log; start it with `veltair serve --log FILE`")
    if not Path(log).is_file():
        raise LogError(f"the server at {endpoint} writes its log to {log!r}, which is not on this machine; run veltair top there")
    return Path(log)


def _looks(followed: Followed, interval_s: float, *, until_now: bool) -> Iterator[Now]:
    """Endless."""
    while True:
        if (now := followed.look(until_now=until_now)) is not None:
            yield now
        time.sleep(interval_s)


def _show(looks: Iterator[Now]) -> None:
    with Screen(console=Console(), auto_refresh=False, screen=False) as screen:
        for now in looks:
            screen.update(_rendered(now), refresh=True)


def _print(now: Now, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.encode(_plain(now)))
        return
    console = Console()
    (console if console.is_terminal else Console(width=max(console.width, WIDTH_IN_FILES))).print(_rendered(now))


def _plain(now: Now) -> dict[str, object]:
    """Times in microseconds; `costs` are sums over the answers in the window, which the causes add up to exactly."""
    said: dict[str, object] = msgspec.to_builtins(now)
    said["tenants"] = [msgspec.to_builtins(tenant) | {"noisiest_share": tenant.noisiest_share} for tenant in now.tenants]
    return said


def _rendered(now: Now) -> RenderableType:
    at = datetime.fromtimestamp(now.wall_time_s, UTC).strftime("%Y-%m-%d %H:%M:%S")
    head = (
        f"{at} UTC, last {now.window_us / 1e6:.3g} s; policy {now.policy}; {now.busy:.1f} of {now.cores} cores leased, "
        f"{now.running} units running, {now.waiting} requests waiting{_outside(now)}"
    )
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in _WORDS:
        table.add_column(column, no_wrap=True)
    for column in _NUMBERS:
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("noisiest neighbour")
    for tenant in now.tenants:
        table.add_row(*_cells(tenant))
    drift = [f"far from their tables: {', '.join(now.adrift)}"] if now.adrift else []
    return Group(escape(head), *map(escape, drift), table)


def _outside(now: Now) -> str:
    """Nothing where nobody looked for other processes; in a simulated run those of the workload are known without a source."""
    if not (now.sources or now.outside_pressure or now.outside_cores):
        return ""
    held = ", ".join(f"CPU {core}" for core in now.outside_held)
    if not held:
        return f"; others press {_percent(now.outside_pressure)} and use {now.outside_cores:.1f} cores"
    return f"; others press {_percent(now.outside_pressure)}, use {now.outside_cores:.1f} cores, hold {held}"


def _cells(now: TenantNow) -> tuple[str, ...]:
    answered = now.costs.requests
    met = {None: "", True: " ok", False: " MISSED"}[now.met]
    return (
        escape(now.tenant),
        escape(now.model),
        "-" if now.qos_us is None or now.percentile is None else f"{_percent(now.percentile)} in {_ms(now.qos_us)}",
        f"{now.rate_per_s:.1f}",
        "-" if now.in_qos is None else f"{_percent(now.in_qos)}{met}",
        _ms(now.p95_us),
        str(now.refused + now.dropped),
        f"{now.cores:.2f}",
        "-" if now.pressure is None else _percent(now.pressure),
        _ms(now.costs.excess_us // answered if answered else None),
        _neighbour(now),
    )


def _neighbour(now: TenantNow) -> str:
    """Who, what he cost each answer on average, and how much that is of the excess."""
    if now.noisiest is None:
        return "none" if now.costs.requests else "-"
    share = now.noisiest_share
    return f"{escape(now.noisiest)} {_ms(now.noisiest_us)}" + ("" if share is None else f" ({_percent(min(share, 1.0))})")


def _percent(share: float) -> str:
    return f"{share * 100:.3g} %"


def _ms(us: int | None) -> str:
    return "-" if us is None else f"{us / 1000:.3g} ms" if us < 1_000_000 else f"{us / 1000:.0f} ms"
