"""`veltair models`: what can be compiled by name."""

import json

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from veltair.models import MODELS


@click.command(epilog="Example: veltair models --json")
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
def models(as_json: bool) -> None:
    """List the models that come by name. Compile one with `veltair compile models.NAME`.

    Those with real weights answer as trained; the others are the networks of the paper's evaluation with weights from a seed.
    """
    rows = [
        {
            "name": name,
            "inputs": {port: list(shape) for port, shape in source.input_shapes.items()},
            "weights": source.weights,
            "qos_ms": source.qos_ms,
            "missing": [f"{need.package}: {need.remedy}" for need in source.missing()],
        }
        for name, source in MODELS.items()
    ]
    if as_json:
        click.echo(json.dumps(rows))
        return
    table = Table(box=SIMPLE_HEAD)
    for column in ("name", "weights", "inputs", "QoS ms", "missing here"):
        table.add_column(column)
    for row in rows:
        inputs = row["inputs"]
        assert isinstance(inputs, dict)
        shapes = "\n".join(f"{port} {'x'.join(map(str, shape))}" for port, shape in inputs.items())
        missing = row["missing"]
        assert isinstance(missing, list)
        table.add_row(str(row["name"]), str(row["weights"]), shapes, str(row["qos_ms"]), escape("\n".join(missing)) or "nothing")
    Console().print(table)
