"""`veltair dashboard`: decision logs in, one self-contained HTML page out."""

import webbrowser
from pathlib import Path

import click

from veltair.errors import VeltairError
from veltair.observe.dashboard import write_page


@click.command(epilog="Example: veltair dashboard logs/veltair.jsonl logs/fcfs.jsonl -o page.html")
@click.argument("logs", nargs=-1, required=True, metavar="LOG...", type=click.Path(path_type=Path))
@click.option("-o", "--output", default=Path("page.html"), show_default=True, type=click.Path(path_type=Path), help="The page.")
@click.option("--open", "open_page", is_flag=True, help="Show it in the web browser.")
def dashboard(logs: tuple[Path, ...], output: Path, open_page: bool) -> None:
    """Make one HTML page of what the scheduler did: targets met, core occupancy, predictions, pressure.

    The page fetches nothing and needs no server. Several logs become tabs of one page, compared side by side.
    """
    try:
        page = write_page(logs, output)
    except VeltairError as e:
        raise click.ClickException(str(e)) from e
    click.echo(f"{page} ({page.stat().st_size / 1e6:.1f} MB)")
    if open_page:
        webbrowser.open(page.resolve().as_uri())
