"""Puts data, style and scripts into one file. Nothing in it is fetched: it opens from a disk, offline, years later."""

import html
import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import msgspec

from veltair.errors import LogError
from veltair.observe.dashboard.data import run_data
from veltair.observe.read import Log, read_log
from veltair.observe.story import tell

_SCRIPTS = ("base.js", "chart.js", "timeline.js", "matrix.js", "disturbed.js", "run.js", "page.js")


def render_page(logs: Sequence[Log]) -> str:
    """All runs of all logs, each in a tab of its own, with a comparison where there are several."""
    runs = [(log, number, run) for log in logs for number, run in enumerate(log.runs, start=1)]
    policies = [run.started.policy for _, _, run in runs]
    content = {
        "runs": [
            run_data(tell(run), _label(run.started.policy, policies, log, number), log.path.name) for log, number, run in runs
        ],
        "torn": sum(log.torn_lines for log in logs),
    }
    parts = {
        "{{title}}": html.escape("veltair: " + ", ".join(dict.fromkeys(policies))),
        "{{style}}": _asset("page.css"),
        # "<" never appears inside: no string of a log can end the script element it travels in.
        "{{data}}": msgspec.json.encode(content).decode().replace("<", "\\u003c"),
        "{{script}}": "\n".join(_asset(name) for name in _SCRIPTS),
    }
    page = _asset("page.html")
    pieces = []
    for mark, part in parts.items():  # in order of appearance; what was put in is not searched again
        before, _, page = page.partition(mark)
        pieces += [before, part]
    return "".join([*pieces, page])


def write_page(logs: Sequence[str | Path], output: str | Path) -> Path:
    """Raises LogError for a log that cannot be read or a page that cannot be written."""
    page = render_page([read_log(path) for path in logs])
    output = Path(output)
    part = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(page, encoding="utf-8")
        part.replace(output)
    except OSError as e:
        part.unlink(missing_ok=True)
        raise LogError(f"page {str(output)!r} cannot be written: {e.strerror}; name a writable file with -o") from e
    return output


def _label(policy: str, policies: Sequence[str], log: Log, number: int) -> str:
    if policies.count(policy) == 1:
        return policy
    return f"{policy} · {log.path.stem}" + (f" #{number}" if len(log.runs) > 1 else "")


def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
