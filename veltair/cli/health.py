"""`veltair health`: how a server is, for people and for probes."""

import json

import click
import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from veltair.client import Client
from veltair.config import DEFAULT_ENDPOINT
from veltair.errors import VeltairError
from veltair.wire.messages import OutsideHealth


@click.command(epilog="Example: veltair health --endpoint tcp://127.0.0.1:7400 --json")
@click.option("--endpoint", default=DEFAULT_ENDPOINT, show_default=True, help="Where the server answers.")
@click.option("--timeout-ms", default=2000.0, show_default=True, help="Longest wait.")
@click.option("--json", "as_json", is_flag=True, help="Print state and models as JSON.")
def health(endpoint: str, timeout_ms: float, as_json: bool) -> None:
    """Ask a server how it is and what it serves. Exit status 0 only if it serves."""
    try:
        with Client(endpoint, timeout_ms=timeout_ms) as client:
            state, served = client.health(), client.models()
    except VeltairError as error:
        raise click.ClickException(f"{error} [{error.code}]") from error
    if as_json:
        click.echo(json.dumps({"health": msgspec.to_builtins(state), "models": msgspec.to_builtins(served)}))
    else:
        engines = ", ".join(f"{e.endpoint} {e.state}, {e.running} running, {e.waiting} waiting" for e in state.engines)
        click.echo(f"{state.state}, policy {state.policy}, veltair {state.version}; engines: {engines or 'none'}")
        for engine in state.engines:
            if engine.outside is not None:
                click.echo(_outside(engine.outside))
            if engine.adrift:
                click.echo(f"far from their tables: {', '.join(engine.adrift)} (the server's messages say what to do)")
            if engine.absurd:
                click.echo(f"{engine.absurd} measured times discarded: they cannot be true")
        for note in state.notes:
            click.echo(f"note: {note}")
        table = Table(box=SIMPLE_HEAD)
        for column in ("model", "inputs", "outputs", "blocks", "QoS ms", "tenants"):
            table.add_column(column)
        for model in served:
            ports = [
                "\n".join(f"{p.name} {p.dtype} {'x'.join(map(str, p.shape))}" for p in group)
                for group in (model.inputs, model.outputs)
            ]
            table.add_row(model.name, *ports, str(model.blocks), str(model.qos_ms or "-"), ", ".join(model.tenants))
        Console().print(table)
    if state.state != "serving":
        click.get_current_context().exit(1)


def _outside(outside: OutsideHealth) -> str:
    known = f"pressure {outside.pressure:.2f} ±{outside.error:.2f}, {outside.cores:.1f} cores"
    if outside.held:
        known += f", hold {', '.join(f'CPU {core}' for core in outside.held)}"
    refused = "".join(f"\n  not {refusal}" for refusal in outside.refused)
    return f"other processes: {known}, by {', '.join(outside.sources)}; {outside.discarded} readings discarded{refused}"
