"""A workload made ready: models with times for this machine, what it can carry at most, and one run of it at some load."""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from veltair.core.cores import fewest_cores
from veltair.core.events import Event, ModelLoaded, PressureChanged
from veltair.core.policies import make_policy
from veltair.core.policies.protocol import Policy
from veltair.core.predict import ModelCosts, costs_by_precision
from veltair.core.scheduler import Scheduler
from veltair.core.values import CoreId, LatencyTable, Machine, Model, ModelName, Place, Precision
from veltair.errors import ConfigError
from veltair.simulate.arrivals import ClosedLoop, Tickets, read_recorded, times_s
from veltair.simulate.costs import Known, read_models
from veltair.simulate.result import MachineInfo, ModelInfo, Scenario, TenantInfo
from veltair.simulate.virtual import Outcome, Run, Span, Step, play
from veltair.simulate.workload import Closed, MachineSpec, Replay, Tenant, Workload
from veltair.simulate.world import Contended

USUAL_LOAD = 0.7  # of capacity, where neither the workload nor the user says at which load to look closely
MOST_SUMS = 256  # kept at a time: some megabytes


@dataclass(frozen=True, slots=True)
class Setting:
    """`shares` of all requests are in the order of the tenants. A pure value: worker processes get a copy."""

    workload: Workload
    machine: Machine
    models: dict[str, Model]  # of tenants with copies, the one they are copies of
    told: dict[str, Model]  # the same as the scheduler knows them
    known: dict[str, Known]
    shares: tuple[float, ...]
    base_per_s: float | None  # as the workload states its rates; None: it states shares
    capacity_per_s: float

    @property
    def folder(self) -> Path:
        return Path(self.workload.folder)

    def seconds(self, per_s: float) -> float:
        """How long arrivals come at this load."""
        return self.workload.requests / per_s

    def counted_from_us(self, per_s: float) -> int:
        """Who comes earlier belongs to the warm-up."""
        return round(self.workload.warmup * self.seconds(per_s) * 1e6)


def prepare(workload: Workload) -> Setting:
    """Raises ConfigError where times are missing or a target cannot be met even alone."""
    spec = workload.machine
    machine = _machine(spec)
    if crowds := [step for step in workload.outside.told if step.cores > spec.cores]:
        raise ConfigError(
            f"outside: from {crowds[0].at_s:g} s on outsiders hold {crowds[0].cores} cores, the machine has {spec.cores}; "
            "let them hold fewer"
        )
    sources = {source.name: source for source in workload.model}
    names = {tenant.model for tenant in workload.tenant}
    known = read_models(names, workload.costs, sources, Path(workload.folder), spec.cores)
    load_bytes_per_us = spec.load_gb_per_s * 1000
    models = {
        name: replace(each.model, load_us=math.ceil(each.model.weights_bytes / load_bytes_per_us)) for name, each in known.items()
    }
    budget = machine.weights_budget_bytes
    if budget is not None and (heaviest := max(models.values(), key=lambda m: m.weights_bytes)).weights_bytes > budget:
        mb = heaviest.weights_bytes / 1e6
        raise ConfigError(
            f"model {heaviest.name!r} has {mb:.0f} MB of weights, weights_budget_mb is {budget / 1e6:.0f}; raise it"
        )
    alone = [_alone(tenant, models[tenant.model], spec.cores) for tenant in workload.tenant]
    own_per_s = [_own_rate(tenant, us, Path(workload.folder)) for tenant, (_, us) in zip(workload.tenant, alone, strict=True)]
    if any(tenant.share is not None for tenant in workload.tenant):
        if any(isinstance(tenant.process, Closed) for tenant in workload.tenant):
            raise ConfigError("a closed loop's clients have no share; give the other tenants rate_per_s in place of share")
        rates, base = [tenant.share or 0.0 for tenant in workload.tenant], None
    else:
        rates = [tenant.rate_per_s or own or 0.0 for tenant, own in zip(workload.tenant, own_per_s, strict=True)]
        base = sum(rates)
    shares = tuple(rate / sum(rates) for rate in rates)
    core_us = sum(share * cores * us for share, (cores, us) in zip(shares, alone, strict=True))
    told = models if workload.aware else {name: _quiet(model) for name, model in models.items()}
    return Setting(workload, machine, models, told, known, shares, base, spec.cores * 1e6 / core_us)


def scenario(setting: Setting, seeds: tuple[int, ...]) -> Scenario:
    """What the result says about what was simulated."""
    workload, machine = setting.workload, setting.machine
    return Scenario(
        name=workload.name,
        machine=MachineInfo(
            cores=len(machine.cores),
            bandwidth_bytes_per_us=machine.bandwidth_bytes_per_us,
            weights_budget_bytes=machine.weights_budget_bytes,
            places=_places_in_words(workload.machine),
        ),
        tenants=tuple(_tenant_info(t, share) for t, share in zip(workload.tenant, setting.shares, strict=True)),
        models=tuple(
            _model_info(setting.known[name], setting.models[name], len(machine.cores)) for name in sorted(setting.models)
        ),
        capacity_per_s=setting.capacity_per_s,
        requests=workload.requests,
        warmup=workload.warmup,
        seeds=seeds,
        interference=workload.interference,
        outside=workload.outside.told,
        aware=workload.aware,
        noise=workload.noise,
        handover_us=workload.handover_us,
    )


def compare_at(setting: Setting) -> float:
    """The load, in requests a second, at which policies are looked at side by side."""
    if setting.workload.load is not None:
        return setting.workload.load * setting.capacity_per_s
    return setting.base_per_s or USUAL_LOAD * setting.capacity_per_s


@dataclass(frozen=True, slots=True)
class Arriving:
    """All open-loop arrivals of a run, and the closed loops that go on by themselves."""

    events: list[tuple[int, Event]]
    loops: dict[str, ClosedLoop]
    counted: dict[str, int]  # open-loop requests behind the warm-up, by tenant


def arriving(setting: Setting, per_s: float, seed: int) -> Arriving:
    end_s, counted_from_us = setting.seconds(per_s), setting.counted_from_us(per_s)
    events: list[tuple[int, Event]] = []
    loops: dict[str, ClosedLoop] = {}
    counted: dict[str, int] = {}
    for tenant, share in zip(setting.workload.tenant, setting.shares, strict=True):
        if isinstance(tenant.process, Closed):
            clients = max(1, round(tenant.process.clients * per_s / (setting.base_per_s or per_s)))
            loop = loops[tenant.name] = ClosedLoop(tenant, tenant.process, clients, seed, round(end_s * 1e6))
            events.extend(loop.first())
            continue
        tickets = Tickets(tenant, seed)
        ats_us = [int(at_s * 1e6) for at_s in times_s(tenant, per_s * share, end_s, seed, setting.folder)]
        events.extend((at_us, tickets.next(at_us)) for at_us in ats_us)
        counted[tenant.name] = sum(at_us >= counted_from_us for at_us in ats_us)
    return Arriving(events, loops, counted)


class _Sums:
    """Tables summed up once for all runs of a process, and for all copies of a model: what they hold does not depend on a run."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, int], Mapping[Precision, ModelCosts]] = {}  # by the identity of the blocks, which they keep

    def __call__(self, model: Model, most_cores: int) -> Mapping[Precision, ModelCosts]:
        key = (id(model.blocks), most_cores)
        kept = self._kept.get(key)
        if kept is None:
            if len(self._kept) >= MOST_SUMS:
                self._kept.clear()
            kept = self._kept[key] = costs_by_precision(model, most_cores)
        if next(iter(kept.values())).model is model:
            return kept
        twins = {id(costs): costs.of_twin(model) for costs in kept.values()}  # permissions may share one
        return {precision: twins[id(costs)] for precision, costs in kept.items()}


_sums = _Sums()


def serve(
    setting: Setting,
    policy: str | Callable[[], Policy],
    per_s: float,
    seed: int,
    *,
    until: Callable[[Outcome, Arriving], bool] | None = None,
    span_ended: Callable[[Span], None] | None = None,
    watch: Callable[[Step], None] | None = None,
) -> Run:
    """One run: all models are there at 0, then the tenants' requests come at `per_s` in all until there were enough."""
    workload, come = setting.workload, arriving(setting, per_s, seed)
    names = {ModelName(name): tenant.model for tenant in workload.tenant for name in tenant.models}
    loaded = [(0, ModelLoaded(_called(setting.models[model], name))) for name, model in names.items()]
    outside = [
        (round(step.at_s * 1e6), PressureChanged(step.pressure, held_by_outsiders(step.cores, setting.machine.cores)))
        for step in workload.outside.told
        if step.at_s < setting.seconds(per_s)
    ]

    def told(event: Event) -> Event:
        match event:
            case ModelLoaded(model):
                return ModelLoaded(_called(setting.told[names[model.name]], model.name))
            case PressureChanged():
                return PressureChanged(0.0)
            case _:
                return event

    def follow_up(outcome: Outcome) -> tuple[int, Event] | None:
        loop = come.loops.get(outcome.request.tenant)
        return None if loop is None else loop.follow_up(outcome)

    world = Contended(setting.machine.bandwidth_bytes_per_us, noise=workload.noise, seed=seed, interference=workload.interference)
    return play(
        Scheduler(setting.machine, make_policy(policy) if isinstance(policy, str) else policy(), _sums),
        [*loaded, *outside, *come.events],
        world=world,
        told=None if workload.aware else told,
        handover_us=workload.handover_us,
        follow_up=follow_up if come.loops else None,
        until=None if until is None else lambda outcome: until(outcome, come),
        span_ended=span_ended,
        watch=watch,
    )


def held_by_outsiders(count: int, cores: Sequence[CoreId]) -> tuple[CoreId, ...]:
    """Which of the machine's cores so many are: spread evenly, every n/k-th from the first on, as a balancing kernel does it."""
    return tuple(cores[i * len(cores) // count] for i in range(count))


def _called(model: Model, name: ModelName) -> Model:
    return model if model.name == name else replace(model, name=name)


def _quiet(model: Model) -> Model:
    """With its times on a quiet machine alone."""
    blocks = tuple(
        replace(
            block,
            variants=tuple(
                replace(variant, table=LatencyTable((0.0,), {cores: row[:1] for cores, row in variant.table.rows_us.items()}))
                for variant in block.variants
            ),
        )
        for block in model.blocks
    )
    return replace(model, blocks=blocks, batches={count: _quiet(batch) for count, batch in model.batches.items()})


def _machine(spec: MachineSpec) -> Machine:
    cores = tuple(CoreId(i) for i in range(spec.cores))
    places = {}
    if spec.cores_per_cache or spec.cores_per_node or spec.threads_per_core > 1:
        for i in cores:
            core = i // spec.threads_per_core
            cache, node = core // (spec.cores_per_cache or spec.cores), core // (spec.cores_per_node or spec.cores)
            places[i] = Place(core, cache, node)
    budget = None if spec.weights_budget_mb is None else round(spec.weights_budget_mb * 1e6)
    return Machine(cores, spec.bandwidth_gb_per_s * 1000, places, budget)


def _alone(tenant: Tenant, model: Model, cores: int) -> tuple[int, int]:
    """The thriftiest core count that meets its target on the idle machine, and the time there."""
    lines = ModelCosts(model, cores, tenant.precision).by_cores(0.0)
    fitting = [(c, line.rest_us(0)) for c, line in lines if line.rest_us(0) <= tenant.qos_us]
    if not fitting:
        best_cores, best_us = fewest_cores(lines, 0, 0.0, 1.0)
        raise ConfigError(
            f"tenant {tenant.name!r}: qos_ms = {tenant.qos_ms:g} cannot be met, model {tenant.model!r} takes "
            f"{best_us / 1000:.1f} ms at best, on {best_cores} core{'s' * (best_cores > 1)}; allow more"
        )
    return min(fitting, key=lambda one: one[0] * one[1])


def _own_rate(tenant: Tenant, alone_us: int, folder: Path) -> float | None:
    """Requests a second that its process tells by itself. Raises ConfigError for a recording that cannot be read."""
    match tenant.process:
        case Closed(clients, think_ms):
            return clients / (think_ms / 1e3 + alone_us / 1e6)
        case Replay(file):
            return read_recorded(folder / file, random.Random(0)).per_s
        case _:
            return None


def _tenant_info(tenant: Tenant, share: float) -> TenantInfo:
    said = msgspec.to_builtins(tenant.process)
    kind = said.pop("kind")
    return TenantInfo(
        name=tenant.name,
        model=tenant.model if tenant.copies == 1 else f"{tenant.copies} copies of {tenant.model}",
        qos_us=tenant.qos_us,
        percentile=tenant.percentile,
        share=share,
        arrivals=" ".join([kind, *(f"{key}={value}" for key, value in said.items())]),
        priority=tenant.priority,
        weight=tenant.weight,
        precision=tenant.precision,
    )


def _model_info(known: Known, model: Model, cores: int) -> ModelInfo:
    costs = ModelCosts(model, cores)
    return ModelInfo(
        name=model.name,
        source=known.source,
        blocks=len(model.blocks),
        variants=sum(len(block.variants) for block in model.blocks),
        measured_cores=known.measured_cores,
        modelled_cores=known.modelled_cores,
        alone_us={c: line.rest_us(0) for c, line in costs.by_cores(0.0)},
        weights_bytes=model.weights_bytes,
        load_us=model.load_us,
    )


def _places_in_words(spec: MachineSpec) -> str:
    words = [
        f"{spec.threads_per_core} threads a core" if spec.threads_per_core > 1 else "",
        f"{spec.cores_per_cache} cores a cache" if spec.cores_per_cache else "",
        f"{spec.cores_per_node} cores a node" if spec.cores_per_node else "",
    ]
    return ", ".join(filter(None, words)) or "cores that share one cache"
