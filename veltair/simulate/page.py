"""One self-contained HTML page out of a simulation. Nothing in it is fetched: it opens from a disk, offline, years later.

Looks and helpers are the dashboard's (`veltair.observe.dashboard`); what only a simulation has stands in `page_*.js` beside this.
"""

import html
import os
from importlib.resources import files
from pathlib import Path

import msgspec

from veltair.errors import LogError
from veltair.simulate.page_data import page_data
from veltair.simulate.result import Result

_SHARED = "veltair.observe.dashboard"
_SCRIPTS = ("page_plot.js", "page_summary.js", "page_charts.js", "page_timeline.js", "page_tables.js", "page_main.js")


def render_page(result: Result) -> str:
    """HTML that draws everything `result` holds, with no reference to anything outside of it."""
    parts = {
        "{{title}}": html.escape(f"veltair simulation: {result.scenario.name}"),
        "{{style}}": _asset("page.css", _SHARED) + _asset("page.css"),
        # "<" never appears inside: no name can end the script element it travels in.
        "{{data}}": msgspec.json.encode(page_data(result)).decode().replace("<", "\\u003c"),
        "{{script}}": "\n".join([_asset("base.js", _SHARED), *(_asset(name) for name in _SCRIPTS)]),
    }
    page = _asset("page.html")
    pieces = []
    for mark, part in parts.items():  # in order of appearance; what was put in is not searched again
        before, _, page = page.partition(mark)
        pieces += [before, part]
    return "".join([*pieces, page])


def write_page(result: Result, path: str | Path) -> Path:
    """The page appears whole or not at all. Same result, same bytes. Raises LogError where it cannot be written."""
    page, output = render_page(result), Path(path)
    part = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(page, encoding="utf-8")
        part.replace(output)
    except OSError as e:
        part.unlink(missing_ok=True)
        raise LogError(f"page {str(output)!r} cannot be written: {e.strerror}; name a writable file") from e
    return output


def _asset(name: str, package: str | None = None) -> str:
    return files(package or __package__).joinpath(name).read_text(encoding="utf-8")
