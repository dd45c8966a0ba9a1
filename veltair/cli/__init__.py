"""The `veltair` command: one file a subcommand, imported when it is asked for."""

from importlib import import_module

import click

_COMMANDS = {
    "compile": ("veltair.cli.compile", "compile_command", "Compile an ONNX model into a bundle."),
    "serve": ("veltair.cli.serve", "serve", "Serve bundles to tenants."),
    "calibrate": ("veltair.cli.calibrate", "calibrate", "Measure this host, for the model of interference."),
    "bench": ("veltair.cli.bench", "bench", "Send open-loop load and report what each tenant got."),
    "simulate": ("veltair.cli.simulate", "simulate", "Try tenants, machines and policies on a virtual clock."),
    "dashboard": ("veltair.cli.dashboard", "dashboard", "Turn decision logs into one HTML page."),
    "trace": ("veltair.cli.trace", "trace", "Turn a decision log into a trace for Perfetto."),
    "models": ("veltair.cli.models", "models", "List the models that can be compiled by name."),
    "metrics": ("veltair.cli.metrics", "metrics", "Figures of a server for Prometheus."),
    "top": ("veltair.cli.top", "top", "Watch tenants: who gets what, and who slows whom."),
    "health": ("veltair.cli.health", "health", "Ask a server how it is and what it serves."),
}


class _Lazy(click.Group):
    """Knows every subcommand by name and help; loads only the one that runs, since some bring a compiler along."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, attribute, _ = _COMMANDS[cmd_name]
        try:
            command: click.Command = getattr(import_module(module), attribute)
        except ModuleNotFoundError as error:
            if error.name and error.name.split(".")[0] == "veltair":
                raise
            extra = cmd_name if cmd_name in ("compile", "metrics") else "engine"
            raise click.ClickException(f'{error.name} is not installed; run: pip install "veltair[{extra}]"') from error
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in _COMMANDS.items()])


@click.command(
    cls=_Lazy,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""
    Examples:

    \b
      veltair models
      veltair compile model.onnx --name ocr-det --input x=1x3x320x320 --qos 60ms -o artifacts/
      veltair calibrate
      veltair serve artifacts/ --config veltair.toml --log decisions.jsonl
      veltair bench --scenario mixed.toml --endpoint tcp://127.0.0.1:7400
      veltair dashboard decisions.jsonl -o page.html
      veltair simulate --cores 64 --workload mixed --policy veltair,fcfs

    \b
    Shell completion (bash; zsh and fish likewise):
      eval "$(_VELTAIR_COMPLETE=bash_source veltair)"
    """,
)
@click.version_option(package_name="veltair")
def main() -> None:
    """Many tenants' neural networks on one machine, each answered within its latency target."""
