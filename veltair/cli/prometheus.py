"""What a monitoring system asks of a server, by the names and units that Prometheus recommends.

From the server's own word: whether it serves, what waits and runs, what it knows of other processes, models whose times are far
from their tables, measurements that were discarded. From the last seconds of its decision log: what each tenant got.
"""

from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from veltair.observe.live import Now, TenantNow
from veltair.wire.messages import Health

Sample = tuple[Sequence[str], float | None]  # values of labels, and the number; None: nothing tells


def of_server(health: Health | None, models: Iterable[str]) -> Iterator[Metric]:
    """`health` is None where nobody answers; `models` are those that are served."""
    up = health is not None and health.state == "serving"
    yield _gauge("veltair_up", "1 while the server serves", (), [((), float(up))])
    if health is None:
        return
    known = [((health.version, health.policy), 1.0)]
    yield _gauge("veltair_server_info", "Version and scheduling policy", ("version", "policy"), known)
    engines, of = health.engines, ("engine",)
    serving = [((e.endpoint,), float(e.state == "serving")) for e in engines]
    yield _gauge("veltair_engine_up", "1 while the engine serves", of, serving)
    yield _gauge(
        "veltair_requests_waiting", "Accepted requests that hold no core", of, [((e.endpoint,), e.waiting) for e in engines]
    )
    yield _gauge("veltair_units_running", "Units in flight", of, [((e.endpoint,), e.running) for e in engines])
    yield _counter("veltair_engine_restarts", "Engines started again", of, [((e.endpoint,), e.restarts) for e in engines])
    absurd = [((e.endpoint,), e.absurd) for e in engines]
    yield _counter("veltair_times_discarded", "Measured times of units that cannot be true", of, absurd)
    outside = [(e.endpoint, e.outside) for e in engines if e.outside is not None]
    pressure = [((endpoint,), o.pressure) for endpoint, o in outside]
    yield _gauge("veltair_outside_pressure_ratio", "Pressure of other processes on the memory path", of, pressure)
    yield _gauge(
        "veltair_outside_cores", "CPUs that other processes use", of, [((endpoint,), o.cores) for endpoint, o in outside]
    )
    held = [((endpoint,), len(o.held)) for endpoint, o in outside]
    yield _gauge("veltair_outside_held_cpus", "CPUs left to other processes, who have most of them", of, held)
    discarded = [((endpoint,), o.discarded) for endpoint, o in outside]
    yield _counter("veltair_outside_readings_discarded", "Readings of sources that cannot be true", of, discarded)
    adrift = {model for engine in engines for model in engine.adrift}
    drifted = [((model,), float(model in adrift)) for model in sorted(adrift.union(models))]
    yield _gauge(
        "veltair_model_adrift", "1 while the times of most of the model's units are far from its tables", ("model",), drifted
    )


def of_tenants(now: Now) -> Iterator[Metric]:
    """Over the window of `now`."""
    yield _gauge("veltair_window_seconds", "What the figures by tenant are over", (), [((), now.window_us / 1e6)])
    yield _gauge("veltair_cores_leased", "Mean over the window", (), [((), now.busy)])
    yield _gauge("veltair_cores", "Cores of the engine", (), [((), now.cores)])

    def by_tenant(name: str, what: str, samples: Iterable[tuple[TenantNow, Sequence[str], float | None]], *more: str) -> Metric:
        return _gauge(name, what, ("tenant", "model", *more), [((t.tenant, t.model, *labels), v) for t, labels, v in samples])

    def each(name: str, what: str, values: Iterable[float | None]) -> Metric:
        return by_tenant(name, what, ((t, (), v) for t, v in zip(now.tenants, values, strict=True)))

    tenants = now.tenants
    yield each("veltair_tenant_target_seconds", "Promised latency", (_seconds(t.qos_us) for t in tenants))
    yield each("veltair_tenant_target_ratio", "Share of requests that it was promised for", (t.percentile for t in tenants))
    yield each(
        "veltair_tenant_in_time_ratio", "Requests answered within the target, of those that ended", (t.in_qos for t in tenants)
    )
    yield each("veltair_tenant_requests_per_second", "Arrivals", (t.rate_per_s for t in tenants))
    lost = [(t, (how,), n) for t in tenants for how, n in (("refused", t.refused), ("dropped", t.dropped))]
    yield by_tenant("veltair_tenant_lost_requests", "Requests refused on arrival or dropped later", lost, "how")
    quantiles = [(t, (q,), _seconds(us)) for t in tenants for q, us in (("0.5", t.p50_us), ("0.95", t.p95_us))]
    yield by_tenant("veltair_tenant_latency_seconds", "Latency of answers", quantiles, "quantile")
    yield each("veltair_tenant_cores", "Cores held, mean", (t.cores for t in tenants))
    cost = [(t, (t.noisiest,), t.noisiest_us / 1e6) for t in tenants if t.noisiest is not None]
    yield by_tenant(
        "veltair_tenant_noisiest_seconds", "What the neighbour that cost it most added to an answer", cost, "neighbour"
    )


def _gauge(name: str, what: str, labels: Sequence[str], samples: Iterable[Sample]) -> Metric:
    return _filled(GaugeMetricFamily(name, what, labels=labels), samples)


def _counter(name: str, what: str, labels: Sequence[str], samples: Iterable[Sample]) -> Metric:
    return _filled(CounterMetricFamily(name, what, labels=labels), samples)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, samples: Iterable[Sample]) -> Metric:
    for labels, value in samples:
        if value is not None:
            family.add_metric(labels, value)
    return family


def _seconds(us: int | None) -> float | None:
    return None if us is None else us / 1e6
