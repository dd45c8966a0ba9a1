"""What engine and client add to a model's latency: requests one after the other, held against the log of the engine.

The kernels' time is that of the very same requests (`measured_us` of their units), so a drifting clock cancels out.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from veltair.bench.scenario import Scenario, TenantLoad
from veltair.bench.server import running_server
from veltair.client import Client
from veltair.errors import LogError
from veltair.models.source import Tensors
from veltair.observe.read import Run, read_log
from veltair.observe.records import Completed, Finished

TENANT = "bench"
QOS_MS = 1000.0  # nothing is refused, nobody is in a hurry


@dataclass(frozen=True, slots=True)
class Added:
    """One request's latency as the client saw it, in parts: `kernels_us + engine_us + way_us`.

    `engine_us` is from receipt to the last decision, without the kernels; `way_us` all else: client, sockets, copies.
    """

    kernels_us: int
    engine_us: int
    way_us: int

    @property
    def us(self) -> int:
        return self.engine_us + self.way_us


def added(observed_us: Sequence[int], run: Run) -> list[Added]:
    """`observed_us` are the client's latencies of all requests of `run`, one after the other. Raises LogError."""
    kernels: Counter[str] = Counter()
    completed = []
    for record in run.records:
        match record:
            case Finished():
                kernels[record.request] += record.measured_us
            case Completed():
                completed.append(record)
    if len(completed) != len(observed_us) or run.lost_records:
        raise LogError(
            f"the log tells of {len(completed)} answers and {run.lost_records} lost records, the client of {len(observed_us)} "
            "answers; run it again with more room on the disk and fewer requests"
        )
    return [
        Added(kernels[record.request], record.latency_us - kernels[record.request], seen_us - record.latency_us)
        for seen_us, record in zip(observed_us, completed, strict=True)
    ]


def measure_added(
    bundles: Path, model: str, inputs: Sequence[Tensors], folder: Path, *, requests: int, warmup: int, policy: str = "veltair"
) -> list[Added]:
    """A server of our own, one client that waits for each answer; the warm-up's requests are left out."""
    scenario = Scenario("overhead", 1.0, (TenantLoad(TENANT, model, 1.0, QOS_MS),))
    observed_us = []
    with running_server(scenario, bundles, policy, folder) as (endpoint, log), Client(endpoint, tenant=TENANT) as client:
        for number in range(warmup + requests):
            start_ns = time.perf_counter_ns()
            client.infer(model, inputs[number % len(inputs)])
            observed_us.append((time.perf_counter_ns() - start_ns) // 1000)
    return added(observed_us, read_log(log).runs[-1])[warmup:]
