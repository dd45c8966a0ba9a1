"""Small constructors of records, and a log that looks like a minute of a real engine."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from veltair.observe.log import DecisionLog
from veltair.observe.records import (
    Arrived,
    BlockInfo,
    Completed,
    Dispatched,
    Dropped,
    Finished,
    ModelRecord,
    Record,
    Refused,
    RejectedChoice,
    Started,
    TenantRecord,
)

MS = 1000


def started(*tenants: TenantRecord, policy: str = "veltair", cores: tuple[int, ...] = (0, 1)) -> Started:
    models = tuple(ModelRecord(t.model, (BlockInfo("stem", ("wide", "lean")),)) for t in tenants)
    return Started(0, 1_700_000_000.0, "0.1.0", policy, "Test CPU, 2 cores", cores, models, tenants)


def tenant(name: str, qos_ms: int = 10, model: str = "tiny") -> TenantRecord:
    return TenantRecord(name, model, qos_ms * MS, 0.95)


def arrived(request: str, at_us: int, *, who: str = "ads", deadline_ms: int = 10, model: str = "tiny") -> Arrived:
    return Arrived(at_us, request, who, model, at_us + deadline_ms * MS)


def dispatched(
    request: str,
    at_us: int,
    lease: int,
    *,
    who: str = "ads",
    cores: tuple[int, ...] = (0,),
    predicted_us: int = MS,
    first: int = 0,
    riders: tuple[str, ...] = (),
) -> Dispatched:
    why = "fewest cores that keep"
    return Dispatched(
        at_us, request, who, "tiny", lease, cores, first, first + 1, ("wide",), predicted_us, 0.0, why, riders=riders
    )


def finished(request: str, at_us: int, lease: int, measured_us: int) -> Finished:
    return Finished(at_us, lease, request, measured_us)


def completed(
    request: str,
    at_us: int,
    latency_us: int,
    *,
    who: str = "ads",
    deadline_ms: int = 10,
    interval_us: tuple[int, int] | tuple[None, None] = (None, None),
) -> Completed:
    return Completed(at_us, request, who, "tiny", latency_us, MS, at_us - latency_us + deadline_ms * MS, *interval_us)


def refused(request: str, at_us: int, *, who: str = "ads") -> Refused:
    return Refused(at_us, request, who, "tiny", "deadline_unmeetable", "the queue is too long")


def dropped(request: str, at_us: int, *, who: str = "ads") -> Dropped:
    return Dropped(at_us, request, who, "tiny", "deadline_missed", "its deadline passed while it waited")


def written(path: Path, records: Iterable[Record]) -> Path:
    with DecisionLog(path, capacity_records=10_000_000) as log:
        for record in records:
            log.write(record)
    return path


_TENANTS = (
    # name, model, blocks, solo us, qos ms, arrivals a second
    ("search", "minilm", 12, 9_000, 40, 22.0),
    ("documents", "ocr-det", 16, 38_000, 160, 8.0),
    ("receipts", "ocr-rec", 10, 14_000, 70, 14.0),
    ("uploads", "magika", 4, 700, 8, 90.0),
)


def lifelike(policy: str = "veltair", seed: int = 1, duration_s: float = 20.0, cores: int = 2, load: float = 1.0) -> list[Record]:
    """A crude list scheduler over random arrivals: `fcfs` runs whole models, everything else a few blocks at a time."""
    rng = np.random.default_rng(seed)
    blocks = {m: tuple(BlockInfo(f"{m}.block{i}", ("wide", "lean", "bf16")) for i in range(n)) for _, m, n, *_ in _TENANTS}
    records: list[Record] = [
        Started(
            0,
            1_700_000_000.0,
            "0.1.0",
            policy,
            f"AMD EPYC 9R14, {cores} cores",
            tuple(range(cores)),
            tuple(ModelRecord(m, b) for m, b in blocks.items()),
            tuple(TenantRecord(name, model, qos * MS, 0.95) for name, model, _, _, qos, _ in _TENANTS),
        )
    ]
    waiting: list[tuple[int, str, str, str, int, int, float]] = []  # deadline, id, tenant, model, next block, arrival, solo
    arrivals = sorted(
        (at, name, model, solo, qos)
        for name, model, _, solo, qos, rate in _TENANTS
        for at in np.cumsum(rng.exponential(1e6 / (rate * load), int(rate * load * duration_s * 1.3))).astype(int).tolist()
        if at < duration_s * 1e6
    )
    free_at = [0] * cores
    lease = 0
    pending = list(enumerate(arrivals))
    while pending or waiting:
        core = min(range(cores), key=lambda c: free_at[c])
        now = max(free_at[core], 0)
        if not waiting and pending:
            now = max(now, pending[0][1][0])
        while pending and pending[0][1][0] <= now:
            number, (at, name, model, solo, qos) = pending.pop(0)
            records.append(Arrived(at, f"r{number}", name, model, at + qos * MS))
            if len(waiting) > 9 and rng.random() < 0.4:
                records.append(
                    Refused(
                        at + 40, f"r{number}", name, model, "deadline_unmeetable", "9 requests wait ahead of it", qos * 3 * MS
                    )
                )
            else:
                waiting.append((at + qos * MS, f"r{number}", name, model, 0, at, solo * (0.95 + 0.1 * rng.random())))
        if not waiting:
            continue
        waiting.sort(key=(lambda w: w[5]) if policy == "fcfs" else (lambda w: w[0]))
        deadline, rid, name, model, first, arrival, solo = waiting.pop(0)
        if now > deadline and policy != "fcfs":
            records.append(Dropped(now, rid, name, model, "deadline_missed", "its deadline passed while it waited"))
            continue
        count = len(blocks[model])
        end = count if policy == "fcfs" or not waiting else min(count, first + int(rng.integers(2, 5)))
        pressure = float(min(1.0, 0.08 * len(waiting) + 0.25 * sum(f > now for f in free_at) / cores + 0.1 * rng.random()))
        both = bool(cores > 1 and not waiting and rng.random() < 0.35 and all(f <= now for f in free_at))
        used = tuple(range(cores)) if both else (core,)
        predicted = max(30, round(solo * (end - first) / count / (1.7 if both else 1.0)))
        measured = max(25, round(predicted * (1 + 0.35 * pressure) * float(rng.lognormal(0, 0.06))))
        lease += 1
        variant = "lean" if pressure > 0.35 else "bf16" if rng.random() < 0.1 else "wide"
        records.append(
            Dispatched(
                now, rid, name, model, lease, used, first, end, (variant,) * (end - first), predicted, round(pressure, 3),
                "least slack; fewest cores that keep its share of the deadline",
                (RejectedChoice("2 cores", "1 core keeps the deadline"), RejectedChoice("wide", "costs ocr-det its slack")),
                len(waiting),
            )
        )  # fmt: skip
        done = now + measured + 15
        for c in used:
            free_at[c] = done
        records.append(Finished(done, lease, rid, measured))
        if end == count:
            records.append(Completed(done + 5, rid, name, model, done + 5 - arrival, round(solo * 1.3), deadline))
        else:
            waiting.append((deadline, rid, name, model, end, arrival, solo))
    return [records[0], *sorted(records[1:], key=lambda record: record.at_us)]
