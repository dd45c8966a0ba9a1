"""What came from elsewhere in a run: times that drifted from their tables, and processes that are not ours."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from veltair.observe.read import Run
from veltair.observe.records import Drifted, PressureTold


def drifts(run: Run) -> list[dict[str, Any]]:
    """The alarms, in order. `over`: its times are near the tables again."""
    found = (record for record in run.records if isinstance(record, Drifted))
    return [{"at": each.at_us, "model": each.model, "over": each.over, "ratio": each.ratio} for each in found]


def outsiders(run: Run, begin_us: int) -> dict[str, Any]:
    """What the scheduler was told of them, change by change, and what that was over the time from `begin_us` to the end.

    `sources` are those that were read: without one, and without a word in the log, nobody looked.
    """
    told = [record for record in run.records if isinstance(record, PressureTold)]
    spans = _spans_us(told, begin_us, run.end_us)
    whole_us = max(run.end_us - begin_us, 1)
    held_us: Counter[int] = Counter()
    for each, us in zip(told, spans, strict=True):
        held_us.update(dict.fromkeys(each.held, us))
    return {
        "sources": list(run.started.sources),
        "at": [each.at_us for each in told],
        "pressure": [each.pressure for each in told],
        "held": [list(each.held) for each in told],
        "mean_pressure": sum(each.pressure * us for each, us in zip(told, spans, strict=True)) / whole_us,
        "most_pressure": max((each.pressure for each, us in zip(told, spans, strict=True) if us), default=0.0),
        "held_share": {core: us / whole_us for core, us in sorted(held_us.items()) if us},
    }


def _spans_us(told: Sequence[PressureTold], begin_us: int, end_us: int) -> list[int]:
    """How long each held within the time that is drawn."""
    until_us = [*(each.at_us for each in told), end_us][1:]
    return [max(0, until - max(each.at_us, begin_us)) for each, until in zip(told, until_us, strict=True)]
