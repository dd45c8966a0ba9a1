"""What a load run gave each tenant, as a table for people."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from veltair.bench.result import LATENESS_LIMIT_US, BenchResult, TenantResult


def print_result(result: BenchResult, console: Console) -> None:
    load = result.scenario
    title = f"{escape(load.name)}: {load.duration_s:g} s after {load.warmup_s:g} s of warm-up, seed {load.seed}, {result.machine}"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("policy", "tenant", "model"):
        table.add_column(heading, no_wrap=True)
    for heading in ("QoS ms", "sent", "in QoS", "p50 ms", "p95 ms", "p99 ms", "refused", "dropped", "errors"):
        table.add_column(heading, justify="right", no_wrap=True)
    for run in result.policies:
        for number, tenant in enumerate(run.tenants):
            table.add_row(run.policy if number == 0 else "", *_cells(tenant), end_section=number == len(run.tenants) - 1)
    console.print(table)
    for run in result.policies:
        for tenant in run.tenants:
            for code, count in sorted(tenant.errors.items()):
                console.print(f"{run.policy}: {tenant.name}: {count} x {code}", markup=False)
        if run.generator_was_late:
            console.print(
                f"[yellow]{run.policy}: the generator itself was late (p99 {run.lateness_p99_us / 1000:.1f} ms, limit "
                f"{LATENESS_LIMIT_US / 1000:g} ms): the machine is too busy for these latencies to be the server's alone[/]"
            )
        else:
            console.print(f"{run.policy}: the generator sent within {run.lateness_p99_us / 1000:.2f} ms of due (p99)")
        if run.log is not None:
            console.print(f"{run.policy}: decision log {run.log}", markup=False)


def _cells(tenant: TenantResult) -> list[str]:
    share = "-" if tenant.in_qos is None else f"[{'green' if tenant.met else 'red'}]{tenant.in_qos:.1%}[/]"
    times = ["-" if ms is None else f"{ms:.2f}" for ms in (tenant.p50_ms, tenant.p95_ms, tenant.p99_ms)]
    errors = str(sum(tenant.errors.values()))
    return [
        escape(tenant.name),
        escape(tenant.model),
        f"{tenant.qos_ms:g}",
        str(tenant.sent),
        share,
        *times,
        str(tenant.refused),
        str(tenant.dropped),
        errors,
    ]
