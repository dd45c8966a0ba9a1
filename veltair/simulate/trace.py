"""A run as a Chrome trace: open the file at ui.perfetto.dev or chrome://tracing. One writer, two sources: simulation and log.

What is in it (the "Trace Event Format" of Chromium's catapult project, JSON object form):
- a track per core with the units that held it; the first core of a unit carries the whole decision as arguments, the
  others name its lease; arrows lead from a request's unit to its next one
- a span per request, arrival to answer, and its fate; refusals and drops also as instants on a track of their own
- weights on their way in, and evictions
- counters: waiting requests, idle cores, pressure

The file is written as records come in: what is held is what is under way, so a million events cost no memory.
"""

import gzip
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedWriter
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from veltair.core.values import Machine
from veltair.errors import LogError
from veltair.observe import records
from veltair.observe.read import Run
from veltair.simulate.trace_steps import StepRecords
from veltair.simulate.virtual import Step

MACHINE, REQUESTS = 1, 2  # process ids
REFUSALS, WEIGHTS = 1_000_001, 1_000_002  # thread ids, beyond those of any core
CHUNK_EVENTS = 1024  # encoded together: some 300 KB a write

Event = dict[str, Any]


@dataclass(slots=True, eq=False)
class _Unit:
    """In flight, or the last one of a request that waits for its next."""

    record: records.Dispatched
    before: "_Unit | None"  # of the same request


@dataclass(slots=True, eq=False)
class _Open:
    """A request under way."""

    number: int
    arrived: records.Arrived
    running: bool = False
    last_unit: _Unit | None = None


class TraceWriter:
    """Writes the records of one run, in their order, to `path`; ending in `.gz` it is compressed, which Perfetto reads too.

    The file appears when the `with` block ends well, whole or not at all. `cores` are the tracks, `about` (machine, policy,
    seed, ...) stands in the trace's metadata. Raises LogError where the file cannot be written. Same records, same bytes.
    """

    def __init__(self, path: str | Path, cores: Sequence[int], about: dict[str, str]) -> None:
        self._path = Path(path)
        self._part = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        self._about = about
        self._cores = cores
        self._pending: list[Event] = []
        self._first = True
        self._requests = 0
        self._arrows = 0
        self._open: dict[str, _Open] = {}
        self._units: dict[int, _Unit] = {}
        self._loading: dict[str, int] = {}
        self._now_us = 0
        self._idle = len(cores)
        self._waiting = 0
        self._pressure = 0.0
        self._shown: dict[str, float] = {}  # by counters, as last written

    def __enter__(self) -> Self:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file: BufferedWriter = open(self._part, "wb")
        except OSError as e:
            raise self._unwritable(e) from e
        # Neither name nor time inside, so that the same run is the same file.
        squeezed = gzip.GzipFile("", "wb", 6, self._file, mtime=0) if self._path.suffix == ".gz" else None
        self._out: BufferedWriter | gzip.GzipFile = squeezed or self._file
        self._write_bytes(b'{"displayTimeUnit":"ms","otherData":' + msgspec.json.encode(self._about) + b',"traceEvents":[')
        self._tracks()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self._leave_off()
                self._flush()
                self._write_bytes(b"\n]}\n")
            if self._out is not self._file:
                self._out.close()
            self._file.close()
            if kind is None:
                self._part.replace(self._path)
        except OSError as e:
            raise self._unwritable(e) from e
        finally:
            self._file.close()
            self._part.unlink(missing_ok=True)

    def write(self, record: records.Record) -> None:
        """Times of records never go back but for a few microseconds between lanes."""
        if record.at_us > self._now_us:
            self._count()
            self._now_us = record.at_us
        match record:
            case records.Arrived():
                self._arrived(record)
            case records.Dispatched():
                self._dispatched(record)
            case records.Finished():
                self._finished(record)
            case records.Completed():
                in_time = record.at_us <= record.deadline_us
                known = {"latency_us": record.latency_us, "predicted_us": record.predicted_us, "in_time": in_time}
                interval = {} if record.low_us is None else {"low_us": record.low_us, "high_us": record.high_us}
                self._ended(record, "answered", known | interval)
            case records.Refused():
                earliest = {} if record.earliest_us is None else {"earliest_us": record.earliest_us}
                self._turned_away(record, "refused", {"code": record.code, "reason": record.reason, **earliest})
            case records.Dropped():
                self._turned_away(record, "dropped", {"code": record.code, "reason": record.reason})
            case records.WeightsAsked():
                self._loading[record.model] = record.at_us
            case records.WeightsLoaded():
                since_us = self._loading.pop(record.model, record.at_us)
                what = {"name": record.model, "cat": "weights", "ts": since_us, "dur": record.at_us - since_us}
                self._put({"ph": "X", "pid": MACHINE, "tid": WEIGHTS, **what})
            case records.WeightsEvicted():
                self._instant(WEIGHTS, f"evicted {record.model}", record.at_us, {})
            case records.Drifted():
                drift = f"{record.model} {'near its tables again' if record.over else 'far from its tables'}"
                self._instant(REFUSALS, drift, record.at_us, {"ratio": record.ratio})
            case records.Lost():
                self._instant(REFUSALS, f"{record.records} records lost", record.at_us, {})
            case records.Started():
                pass
        if len(self._pending) >= CHUNK_EVENTS:
            self._flush()

    def _arrived(self, record: records.Arrived) -> None:
        if record.request in self._open:  # its end is not in the log
            self._close(record.request, record.at_us, {"outcome": "open"})
        self._requests += 1
        request = self._open[record.request] = _Open(self._requests, record)
        self._waiting += 1
        budget = {"deadline_us": record.deadline_us - record.at_us}
        known = {"request": record.request, "tenant": record.tenant, "model": record.model}
        self._span("b", request, record.at_us, known | budget)

    def _dispatched(self, record: records.Dispatched) -> None:
        unit = _Unit(record, None)
        for name in (record.request, *record.riders):
            request = self._open.get(name)
            if request is not None:
                self._waiting -= not request.running
                request.running = True
                unit.before = unit.before or request.last_unit
                request.last_unit = unit
        self._units[record.lease] = unit
        self._idle -= len(record.cores)
        self._pressure = round(record.pressure * 100, 1)

    def _finished(self, record: records.Finished) -> None:
        unit = self._units.pop(record.lease, None)
        if unit is None:  # its dispatch was lost
            return
        self._idle += len(unit.record.cores)
        for name in (unit.record.request, *unit.record.riders):
            request = self._open.get(name)
            if request is not None and request.last_unit is unit:
                request.running = False
                self._waiting += 1
        outcome: Event = {"failed": record.failed} if record.failed is not None else {"measured_us": record.measured_us}
        self._slices(unit, record.at_us, outcome)

    def _slices(self, unit: _Unit, end_us: int, outcome: Event) -> None:
        """After the unit is over. Arrows come behind the slices that they join, for readers that bind them as they read."""
        what, before = unit.record, unit.before
        common = {
            "ph": "X",
            "name": _name(what),
            "cat": "unit",
            "ts": what.at_us,
            "dur": max(end_us - what.at_us, 0),
            "pid": MACHINE,
        }
        for place, core in enumerate(what.cores):
            facts = _decision(what) | outcome if place == 0 else {"lease": what.lease, "request": what.request}
            self._put({**common, "tid": core + 1, "args": facts})
        if before is not None:
            self._arrows += 1
            arrow = {"name": "next unit", "cat": "request", "id": self._arrows, "pid": MACHINE}
            self._put({"ph": "s", **arrow, "tid": before.record.cores[0] + 1, "ts": before.record.at_us})
            self._put({"ph": "f", "bp": "e", **arrow, "tid": what.cores[0] + 1, "ts": what.at_us})
            unit.before = None  # or a long request would keep all of its units

    def _turned_away(self, record: records.Refused | records.Dropped, outcome: str, why: Event) -> None:
        known = {"request": record.request, "tenant": record.tenant, "model": record.model}
        self._instant(REFUSALS, f"{outcome}: {record.code}", record.at_us, known | why)
        self._ended(record, outcome, why)

    def _ended(self, record: records.Completed | records.Refused | records.Dropped, outcome: str, facts: Event) -> None:
        if record.request not in self._open:  # its arrival is not in the log
            deadline_us = record.deadline_us if isinstance(record, records.Completed) else record.at_us
            since_us = record.at_us - record.latency_us if isinstance(record, records.Completed) else record.at_us
            self._arrived(records.Arrived(since_us, record.request, record.tenant, record.model, deadline_us))
        self._close(record.request, record.at_us, {"outcome": outcome, **facts})

    def _close(self, name: str, at_us: int, facts: Event) -> None:
        request = self._open.pop(name)
        self._waiting -= not request.running
        self._span("e", request, at_us, facts)

    def _leave_off(self) -> None:
        """The records end here: what is under way is drawn up to now."""
        self._count()
        for unit in self._units.values():
            self._slices(unit, self._now_us, {"unfinished": True})
        for request in self._open.values():
            self._span("e", request, self._now_us, {"outcome": "open"})

    def _span(self, phase: str, request: _Open, at_us: int, facts: Event) -> None:
        who = {"name": _name(request.arrived), "cat": "request", "id": str(request.number), "pid": REQUESTS, "tid": REQUESTS}
        self._put({"ph": phase, **who, "ts": at_us, "args": facts})

    def _instant(self, thread: int, name: str, at_us: int, facts: Event) -> None:
        self._put({"ph": "i", "s": "t", "name": name, "pid": MACHINE, "tid": thread, "ts": at_us, "args": facts})

    def _count(self) -> None:
        """A change is written when time moves on, so that what happens at once is one step."""
        for name, unit, value in (
            ("waiting", "requests", self._waiting),
            ("idle", "cores", self._idle),
            ("pressure", "%", self._pressure),
        ):
            if self._shown.get(name) != value:
                self._shown[name] = value
                self._put({"ph": "C", "name": name, "pid": MACHINE, "tid": REFUSALS, "ts": self._now_us, "args": {unit: value}})

    def _tracks(self) -> None:
        named = [(MACHINE, core + 1, "thread_name", f"core {core}") for core in self._cores]
        named += [(MACHINE, REFUSALS, "thread_name", "refused and dropped"), (MACHINE, WEIGHTS, "thread_name", "weights")]
        named += [(MACHINE, 0, "process_name", "machine"), (REQUESTS, 0, "process_name", "requests")]
        for process, thread, what, name in named:
            self._put({"ph": "M", "pid": process, "tid": thread, "name": what, "args": {"name": name}})
        for place, core in enumerate(self._cores):
            self._put({"ph": "M", "pid": MACHINE, "tid": core + 1, "name": "thread_sort_index", "args": {"sort_index": place}})

    def _put(self, event: Event) -> None:
        self._pending.append(event)

    def _flush(self) -> None:
        if self._pending:
            lead = b"\n" if self._first else b",\n"
            self._first = False
            self._write_bytes(lead + b",\n".join(map(msgspec.json.encode, self._pending)))
            self._pending.clear()

    def _write_bytes(self, data: bytes) -> None:
        try:
            self._out.write(data)
        except OSError as e:
            raise self._unwritable(e) from e

    def _unwritable(self, error: OSError) -> LogError:
        return LogError(f"trace {str(self._path)!r} cannot be written: {error.strerror}; name a writable file")


@contextmanager
def watch_trace(path: str | Path, machine: Machine, about: dict[str, str]) -> Iterator[Callable[[Step], None]]:
    """A `watch` for `play`: `with watch_trace(path, machine, {"policy": ...}) as watch: play(..., watch=watch)`."""
    translate = StepRecords()
    with TraceWriter(path, machine.cores, about) as trace:

        def watch(step: Step) -> None:
            for record in translate.of(step):
                trace.write(record)

        yield watch


def write_trace(path: str | Path, steps: Iterable[Step], machine: Machine, about: dict[str, str] | None = None) -> Path:
    """A simulated run, step by step."""
    with watch_trace(path, machine, about or {}) as watch:
        for step in steps:
            watch(step)
    return Path(path)


def write_log_trace(path: str | Path, run: Run) -> Path:
    """One run of an engine out of its decision log."""
    started = run.started
    about = {"policy": started.policy, "machine": started.machine, "version": started.version}
    if run.lost_records:
        about["lost_records"] = str(run.lost_records)
    with TraceWriter(path, started.cores, about) as trace:
        for record in run.records:
            trace.write(record)
    return Path(path)


def _name(record: records.Arrived | records.Dispatched) -> str:
    return record.tenant if record.tenant == record.model else f"{record.tenant} · {record.model}"


def _decision(unit: records.Dispatched) -> Event:
    variants = [(name, len(list(run))) for name, run in groupby(unit.variants)]
    return {
        "request": unit.request,
        **({"with": unit.riders} if unit.riders else {}),
        "tenant": unit.tenant,
        "model": unit.model,
        "blocks": f"{unit.first_block} to {unit.end_block - 1}",
        "variants": ", ".join(name if count == 1 else f"{name} ×{count}" for name, count in variants),
        "cores": ", ".join(map(str, unit.cores)),
        "lease": unit.lease,
        "predicted_us": unit.predicted_us,
        "pressure": unit.pressure,
        "reason": unit.reason,
        "rejected": [f"{choice.what}: {choice.why}" for choice in unit.rejected],
    }
