"""`veltair serve`: parse, call `veltair.directory.serve`, say one line."""

import dataclasses
import json
import logging
from pathlib import Path

import click

from veltair.config import DEFAULT_ENDPOINT, ServeConfig, load_config, parse_cores, with_options
from veltair.directory import Ready
from veltair.directory import serve as serve_bundles
from veltair.errors import VeltairError


@click.command(
    epilog="""
    Examples:

    \b
      veltair serve artifacts/
      veltair serve artifacts/ --config veltair.toml --log decisions.jsonl
      veltair serve artifacts/ --policy fcfs --cores 0,1 --port 7500
    """
)
@click.argument("artifacts", type=click.Path(path_type=Path))
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="TOML file with tenants and settings.")
@click.option("--policy", help="Scheduling policy: veltair (default) or a baseline.")
@click.option("--cores", help="CPU cores to use, like 0,2-4. Default: all that this process may use and its CPU quota pays for.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port on 127.0.0.1; short for --endpoint tcp://127.0.0.1:PORT.")
@click.option("--endpoint", help=f"Where clients ask. Default: {DEFAULT_ENDPOINT}; ipc://PATH works too.")
@click.option("--log", type=click.Path(path_type=Path), help="Append every decision to this file (JSON lines).")
@click.option("--drain-timeout-s", type=float, help="Longest wait for accepted requests on SIGTERM. Default: 10.")
@click.option("--json", "as_json", is_flag=True, help="Print the line that tells it is ready as JSON.")
def serve(
    artifacts: Path,
    config_file: Path | None,
    policy: str | None,
    cores: str | None,
    port: int | None,
    endpoint: str | None,
    log: Path | None,
    drain_timeout_s: float | None,
    as_json: bool,
) -> None:
    """Serve the bundles in ARTIFACTS until SIGTERM or Ctrl-C, then answer what was accepted and exit.

    Without --config, every model is served to the tenant "default" with the latency target it was compiled for.
    """
    if port is not None and endpoint is not None:
        raise click.UsageError("--port and --endpoint exclude each other; give one of them")
    logging.basicConfig(format="veltair: %(message)s")
    try:
        config = with_options(
            load_config(config_file) if config_file is not None else ServeConfig(),
            policy=policy,
            cores=parse_cores(cores) if cores is not None else None,
            endpoint=f"tcp://127.0.0.1:{port}" if port is not None else endpoint,
            log=log,
            drain_timeout_s=drain_timeout_s,
        )
        serve_bundles(artifacts, config, on_ready=lambda ready: click.echo(_line(ready, as_json)))
    except VeltairError as error:
        raise click.ClickException(str(error)) from error


def _line(ready: Ready, as_json: bool) -> str:
    if as_json:
        return json.dumps(dataclasses.asdict(ready))
    models = f"{len(ready.models)} model{'s' if len(ready.models) != 1 else ''}"
    cores = ",".join(map(str, ready.cores))
    serving = f"veltair: serving {models} on {ready.endpoint} (policy {ready.policy}, cores {cores})"
    return f"{serving}\nveltair: pressure of other processes: {ready.outside}"
