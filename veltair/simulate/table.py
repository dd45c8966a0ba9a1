"""A simulation's result as tables for people."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from veltair.simulate.result import Detail, ModelInfo, PolicyResult, Result, TenantInfo, TenantOutcome
from veltair.simulate.workload import OutsideStep


def print_result(result: Result, console: Console) -> None:
    scene = result.scenario
    machine = scene.machine
    console.print(
        f"{scene.name}: {machine.cores} cores ({machine.places}), {machine.bandwidth_bytes_per_us / 1000:g} GB/s, capacity "
        f"{scene.capacity_per_s:.0f} requests/s; {scene.requests} requests a run, seeds {', '.join(map(str, scene.seeds))}",
        markup=False,
        highlight=False,
    )
    if scene.outside:
        steps = ", ".join(map(_outside, scene.outside))
        console.print(f"  outsiders press with {steps}", markup=False, highlight=False)
    if not scene.aware:
        console.print("  the scheduler knows nothing of pressure", markup=False, highlight=False)
    for model in scene.models:
        console.print(_said(model), markup=False, highlight=False)
    console.print(_largest_loads(result))
    for title, details in _looks(result):
        console.print(_tenants(title, result, details))


def _outside(step: OutsideStep) -> str:
    holding = f" and hold {step.cores} core{'s' * (step.cores > 1)}" if step.cores else ""
    return f"{step.pressure:g}{holding} from {step.at_s:g} s on"


def _said(model: ModelInfo) -> str:
    modelled = f", modelled for {_ranges(model.modelled_cores)}" if model.modelled_cores else ""
    return f"  {model.name}: {model.source}; measured for {_ranges(model.measured_cores)} cores{modelled}"


def _ranges(counts: tuple[int, ...]) -> str:
    return f"{counts[0]} to {counts[-1]}" if len(counts) > 2 else " and ".join(map(str, counts))


def _largest_loads(result: Result) -> Table:
    table = _table("Largest load at which every tenant keeps its percentile in QoS")
    table.add_column("policy", no_wrap=True)
    headings = ("requests/s", "95 % interval", "of capacity", f"x {result.policies[-1].name}", "attained", "mean ms", "core use")
    for heading in (*headings, "conflicts"):
        table.add_column(heading, justify="right", no_wrap=True)
    baseline = result.policies[-1].largest.per_s
    for policy in result.policies:
        largest, look = policy.largest, policy.at_largest
        ratio = f"{largest.per_s / baseline:.2f}" if baseline else "-"
        interval = f"{largest.low_per_s:.0f}..{largest.high_per_s:.0f}" if len(largest.per_seed_per_s) > 1 else "one seed"
        table.add_row(
            policy.name,
            f"{largest.per_s:.1f}",
            interval,
            f"{largest.of_capacity:.2f}",
            ratio,
            *(_shares(look) if look else "----"),
        )
    return table


def _shares(look: Detail) -> tuple[str, str, str, str]:
    return f"{look.attainment:.1%}", f"{look.mean_latency_us / 1000:.2f}", f"{look.core_use:.0%}", f"{look.conflict_rate:.1%}"


def _looks(result: Result) -> list[tuple[str, list[tuple[PolicyResult, Detail]]]]:
    same = [(policy, policy.at_load) for policy in result.policies]
    load = same[0][1]
    return [(f"All at {load.per_s:.1f} requests/s, {load.of_capacity:.2f} of capacity", same)]


def _tenants(title: str, result: Result, details: list[tuple[PolicyResult, Detail]]) -> Table:
    table = _table(title)
    for heading in ("policy", "tenant"):
        table.add_column(heading, no_wrap=True)
    headings = ("QoS ms", "asked", "in QoS", "late", "refused", "dropped", "mean ms", "p50", "p95", "p99", "queued")
    for heading in (*headings, "units", "cores", "foretold"):
        table.add_column(heading, justify="right", no_wrap=True)
    infos = {info.name: info for info in result.scenario.tenants}
    for policy, detail in details:
        for number, tenant in enumerate(detail.tenants):
            last = number == len(detail.tenants) - 1
            table.add_row(policy.name if number == 0 else "", *_cells(tenant, infos[tenant.name]), end_section=last)
    return table


def _cells(tenant: TenantOutcome, info: TenantInfo) -> list[str]:
    colour = "green" if tenant.attainment >= info.percentile else "red"
    latency = tenant.latency
    times = ["-"] * 4
    if latency is not None:
        times = [f"{us / 1000:.2f}" for us in (latency.mean_us, latency.p50_us, latency.p95_us, latency.p99_us)]
    return [
        escape(tenant.name),
        f"{info.qos_us / 1000:g}",
        str(tenant.asked),
        f"[{colour}]{tenant.attainment:.1%}[/]",
        *(str(count) for count in (tenant.late, tenant.refused, tenant.dropped)),
        *times,
        f"{tenant.queued_mean_us / 1000:.2f}",
        f"{tenant.units_per_request:.1f}",
        f"{tenant.cores_per_unit:.1f}",
        "-" if tenant.coverage is None else f"{tenant.coverage:.0%}",
    ]


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
