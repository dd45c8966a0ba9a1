"""The scheduler: facts in, decisions out.

Rules of this file
- Pure. No socket, file, clock or randomness: time is an argument, ties are broken by order of arrival. The engine, the
  tests and the simulator run this same code, and a log of events replays to the same decisions.
- What happened is decided here, what to do about it in `policies/`. Whatever the policy, the invariants below hold.

Theory of operation
A request arrives and is refused, or accepted and then a `Job`. A job either waits for cores or has one unit in flight;
it never has two. Jobs that begin together as a batch run as one, the first of them, and are answered one by one. `handle`
lets the event change the ledger, gives up what the policy calls hopeless, and then hands out idle cores one unit at a time
until the policy has none to start. A unit cannot be interrupted: a job that is set aside is one that was not picked when
its unit ended, and it goes on with its next block later.

    arrived ──▶ refused
       │
       ▼                 Dispatch
    waiting ───────────────────────────▶ running ──▶ completed     (its last block has run)
       │   ◀─────────────────────────────   │  │
       │          UnitFinished, blocks left │  └──▶ dropped         (UnitFailed)
       └──▶ dropped  (hopeless, cancelled)  └─────▶ dropped, its cores still busy   (cancelled)

Invariants, each proved by a property test over random events
- No core is leased twice; leased, idle and withheld cores together are all cores.
- An accepted request is answered by exactly one Complete or Drop, a refused one by exactly one Refuse.
- No unit starts for a request that was answered or cancelled.
- Work-conserving (where the policy is): after `handle`, no job waits that could run on the idle cores, unless one keeps them
  for the moment until there are as many as it was promised.
- No unit starts on a core that is withheld, and one core at least never is.
- No block runs as a variant of a coarser precision than the request's tenant permits, whatever the pressure.

What the shell owes: a request id is not used again while it is under way; each lease it was given ends in exactly one
UnitFinished or UnitFailed; calls are serialised; TimerFired comes when `wake_us` passes and nothing else came before.
Cancelling what is unknown is no error, since it races with the answer.
"""

from typing import assert_never

from veltair.core.actions import Action, Alarm, Complete, Dispatch, Drop, Refuse
from veltair.core.events import (
    DrainStarted,
    Event,
    ModelLoaded,
    ModelUnloaded,
    PressureChanged,
    RequestArrived,
    RequestCancelled,
    TimerFired,
    UnitFailed,
    UnitFinished,
    WeightsLoaded,
)
from veltair.core.layers import as_begun
from veltair.core.plans import Refused, UnitPlan
from veltair.core.policies.protocol import Policy
from veltair.core.predict import CostsOf, costs_by_precision
from veltair.core.promises import Promises
from veltair.core.residency import Residency
from veltair.core.state import Job, Ledger, Unit
from veltair.core.values import CoreId, LeaseId, Machine, ModelName, Request, RequestId


class Scheduler:
    """`handle` is the whole interface; the properties are for people who watch."""

    def __init__(self, machine: Machine, policy: Policy, costs_of: CostsOf = costs_by_precision) -> None:
        """`costs_of` sums up a model's tables; who makes many schedulers may keep the sums."""
        self._costs_of = costs_of
        self._ledger = Ledger(machine)
        self._policy = policy
        self._residency = Residency(machine.weights_budget_bytes)
        self._loading: list[Job] = []  # accepted; their weights are on the way
        self._held: tuple[CoreId, ...] = ()  # by outsiders
        self._draining = False
        self._now_us = 0
        self._wake_us: int | None = None
        self._arrivals = 0
        self._promises = Promises()
        self.units = 0  # dispatched so far
        self.conflicts = 0  # of them, units that got fewer cores than they wanted

    @property
    def policy(self) -> str:
        return self._policy.name

    @property
    def waiting(self) -> int:
        """Accepted requests that hold no core now."""
        return self._ledger.waiting

    @property
    def running(self) -> int:
        """Units in flight, those of cancelled requests included: they hold cores."""
        return len(self._ledger.units)

    @property
    def idle_cores(self) -> int:
        return len(self._ledger.idle)

    @property
    def withheld(self) -> frozenset[CoreId]:
        """Cores that nobody gets, since processes that are not ours hold them."""
        return self._ledger.withheld

    @property
    def kept_for(self) -> RequestId | None:
        """Whose the idle cores are, if they wait for more."""
        job = self._policy.kept_for(self._ledger)
        return None if job is None else job.request.id

    @property
    def adrift(self) -> list[ModelName]:
        """Whose times are far from their tables."""
        return self._ledger.residuals.adrift

    @property
    def absurd(self) -> int:
        """Measurements that cannot be times of a unit: nothing was learnt from them."""
        return self._ledger.residuals.discarded

    @property
    def draining(self) -> bool:
        return self._draining

    @property
    def drained(self) -> bool:
        """Nothing is under way and nothing will come: the shell may exit."""
        return self._draining and not self._ledger.jobs and not self._ledger.units

    @property
    def wake_us(self) -> int | None:
        """When to hand in TimerFired if nothing else happens first. None: only when something does.

        Asked of the policy once an event: how often a shell looks must not change what is decided.
        """
        return self._wake_us

    def handle(self, event: Event, now_us: int) -> list[Action]:
        """Decide. Raises ValueError for events that break what the shell owes (see above), and then changes nothing."""
        # Lanes read the clock before they take the lock: a fact may arrive a few microseconds out of order.
        self._now_us = now_us = max(now_us, self._now_us)
        self._ledger.pass_time(now_us)
        actions: list[Action] = []
        match event:
            case ModelLoaded(model):
                costs = self._costs_of(model, len(self._ledger.machine.cores))
                self._residency.register(model)
                self._ledger.models[model.name] = costs
                self._withhold(now_us)
            case ModelUnloaded(name):
                # Accepted requests were promised an answer: they keep their tables, the shell keeps the weights till then.
                self._ledger.models.pop(name, None)
                actions += self._residency.forget(name)
                self._withhold(now_us)
            case RequestArrived(request):
                self._arrive(request, now_us, actions)
            case RequestCancelled(request_id):
                self._cancel(request_id, now_us, actions)
            case UnitFinished(lease_id, measured_us):
                self._finish(lease_id, measured_us, now_us, actions)
            case UnitFailed(lease_id, message):
                self._give_up(self._end(lease_id, now_us, actions).job, "engine_failed", message, now_us, actions)
            case PressureChanged(pressure, held):
                if not 0.0 <= pressure <= 1.0:  # also catches NaN
                    raise ValueError(f"pressure must be within 0..1, got {pressure}")
                self._ledger.outside_pressure = pressure
                self._held = tuple(core for core in held if core in self._ledger.machine.cores)
                self._withhold(now_us)
            case DrainStarted():
                self._draining = True
            case WeightsLoaded(name):
                actions += self._residency.loaded(name)
                self._loaded(name, now_us)
            case TimerFired():
                pass
            case _:
                assert_never(event)
        for job in [job for job in self._loading if job.deadline_us - job.costs.best_us < now_us]:
            self._loading.remove(job)
            self._give_up(job, "deadline_missed", "its model's weights came too late", now_us, actions)
        for job, reason in self._policy.hopeless(self._ledger, now_us):
            self._ledger.waiting -= 1
            self._give_up(job, "deadline_missed", reason, now_us, actions)
        while self._ledger.idle and self._ledger.waiting:
            plan = self._policy.next_unit(self._ledger, now_us)
            if plan is None:
                break
            actions.append(self._dispatch(as_begun(plan), now_us))
        actions += self._residency.next_load(now_us)
        self._wake_us = self._next_wake_us()
        return actions

    def _next_wake_us(self) -> int | None:
        policy_us = self._policy.wake_us(self._ledger)
        if not self._loading:
            return policy_us
        late = [job.deadline_us - job.costs.best_us + 1 for job in self._loading]
        return min([*late, policy_us] if policy_us is not None else late, default=None)

    def _arrive(self, request: Request, now_us: int, actions: list[Action]) -> None:
        if request.id in self._ledger.jobs:
            raise ValueError(f"request {request.id!r} is already under way; give every request its own id")
        if self._draining:
            actions.append(Refuse(request.id, "draining", "the server is shutting down; ask another one"))
            return
        costs = self._ledger.models.get(request.model)
        if costs is None:
            loaded = ", ".join(sorted(self._ledger.models)) or "none"
            actions.append(Refuse(request.id, "unknown_model", f"model {request.model!r} is not loaded; loaded: {loaded}"))
            return
        self._arrivals += 1
        job = Job(request, costs[request.precision], order=self._arrivals)
        job.ready_us = self._residency.ready_us(request.model, now_us)
        verdict = self._policy.admit(job, self._ledger, now_us)
        if isinstance(verdict, Refused):
            actions.append(Refuse(request.id, "deadline_unmeetable", verdict.reason, verdict.earliest_deadline_us))
            if now_us + job.costs.best_us <= job.deadline_us < job.ready_us + job.costs.best_us:
                self._residency.hope(request.model)
            return
        job.foretold_us = verdict.finish_us
        job.interval_us = self._promises.interval_us(job.kind, request.arrived_us, verdict.finish_us)
        self._ledger.jobs[request.id] = job
        self._residency.use(request.model, job.deadline_us - job.costs.best_us, job.deadline_us)
        if self._residency.is_resident(request.model):
            self._wait(job, now_us, after=None)
        else:
            job.loading = True
            self._loading.append(job)

    def _loaded(self, name: ModelName, now_us: int) -> None:
        for job in [job for job in self._loading if job.request.model == name]:
            self._loading.remove(job)
            job.loading = False
            self._wait(job, now_us, after=None)

    def _cancel(self, request_id: RequestId, now_us: int, actions: list[Action]) -> None:
        """Answered at once. Its batch goes on for the others; a unit that runs for nobody keeps its cores until it ends."""
        job = self._ledger.jobs.get(request_id)
        if job is None:
            return
        self._answer(job)
        actions.append(Drop(request_id, "cancelled", "cancelled by the client"))
        runs_for = job.carrier or job
        if all(member.answered for member in runs_for.members):
            self._ledger.waiting -= runs_for.waits
            self._close(runs_for, now_us, actions)

    def _finish(self, lease_id: LeaseId, measured_us: int, now_us: int, actions: list[Action]) -> None:
        unit = self._end(lease_id, now_us, actions)
        job = unit.job
        name = job.costs.model.name
        was_adrift = self._ledger.residuals.is_adrift(name)
        first, cores = job.next_block, len(unit.lease.cores)
        by_variant = lambda: job.costs.by_variant_us(unit.variants, first, cores)  # noqa: E731 - asked for now and then
        if not unit.caught:  # else it shared a core, which tells nothing of its tables
            self._ledger.residuals.learn(name, unit.table_us, measured_us, now_us, by_variant)
        if self._ledger.residuals.is_adrift(name) != was_adrift:
            actions.append(Alarm(name, over=was_adrift, ratio=self._ledger.residuals.ratio(name, now_us)))
        if job.closed:
            return
        job.next_block, job.last_variant = unit.end_block, unit.variants[-1]
        if job.next_block < len(job.costs.model.blocks):
            self._wait(job, now_us, after=unit)
            return
        for member in job.members:
            if not member.answered:
                self._answer(member)
                actions.append(self._completion(member, now_us))
        self._close(job, now_us, actions)

    def _completion(self, job: Job, now_us: int) -> Complete:
        arrived_us, (low_us, high_us) = job.request.arrived_us, job.interval_us
        self._promises.learn(job.kind, job.foretold_us - arrived_us, now_us - arrived_us)
        return Complete(job.request.id, job.foretold_us - arrived_us, low_us - arrived_us, high_us - arrived_us)

    def _end(self, lease_id: LeaseId, now_us: int, actions: list[Action]) -> Unit:
        """The unit is over, whatever its outcome: its cores return, and weights that only it still used."""
        unit = self._ledger.units.get(lease_id)
        if unit is None:
            raise ValueError(f"lease {lease_id} is not in flight; a unit ends once")
        self._ledger.release(unit)
        unit.job.unit = None
        self._policy.end(unit, self._ledger, now_us)
        if unit.job.closed:
            self._release_weights(unit.job, actions)
        return unit

    def _withhold(self, now_us: int) -> None:
        """A unit on a core that somebody else holds takes twice as long, behind a niceness far more, so none is put there while
        others are left.

        Where outsiders hold all cores none is better than another. What the widest of the models needs is left, too.
        """
        ledger = self._ledger
        if not self._policy.withholds or not (self._held or ledger.withheld):
            return
        here = [costs for of in ledger.models.values() for costs in of.values()]
        here += [(job.carrier or job).costs for job in ledger.jobs.values()]
        cores = len(ledger.machine.cores)
        spare = cores - max((costs.narrowest for costs in here), default=1) if len(self._held) < cores else 0
        withheld = frozenset(self._held[:spare])
        if withheld != ledger.withheld:
            ledger.withhold(withheld)
            self._policy.cores_changed(ledger, now_us)

    def _wait(self, job: Job, now_us: int, after: Unit | None) -> None:
        self._ledger.waiting += 1
        self._policy.wait(job, self._ledger, now_us, after)

    def _give_up(self, job: Job, code: str, reason: str, now_us: int, actions: list[Action]) -> None:
        """Whoever of its batch is not answered yet, now is."""
        for member in job.members:
            if not member.answered:
                self._answer(member)
                actions.append(Drop(member.request.id, code, reason))
        if not job.closed:
            self._close(job, now_us, actions)

    def _answer(self, job: Job) -> None:
        job.answered = True
        del self._ledger.jobs[job.request.id]

    def _close(self, job: Job, now_us: int, actions: list[Action]) -> None:
        job.closed = True
        if job.loading:
            self._loading = [other for other in self._loading if other is not job]
        else:
            self._policy.leave(job, self._ledger, now_us)
        if job.unit is None:
            self._release_weights(job, actions)

    def _release_weights(self, job: Job, actions: list[Action]) -> None:
        for member in job.members:
            actions += self._residency.release(member.request.model)

    def _dispatch(self, plan: UnitPlan, now_us: int) -> Dispatch:
        job = plan.job
        assert job.waits, f"policy {self._policy.name} runs {job.request.id}, which does not wait"
        if plan.riders:
            self._form_batch(job, plan.riders)
        unit = Unit(
            job=job,
            lease=self._ledger.lease(plan.cores),
            end_block=plan.end_block,
            variants=plan.variants,
            started_us=now_us,
            predicted_us=plan.predicted_us,
            table_us=plan.table_us,
            traffic_bytes=plan.traffic_bytes,
        )
        job.unit = unit
        self._ledger.hold(unit)
        self._ledger.waiting -= 1
        self.units += 1
        self.conflicts += plan.cores < plan.wanted_cores
        return Dispatch(
            request_id=job.request.id,
            lease=unit.lease,
            first_block=job.next_block,
            end_block=plan.end_block,
            variants=plan.variants,
            predicted_us=plan.predicted_us,
            pressure=plan.pressure,
            reason=plan.reason,
            rejected=plan.rejected,
            riders=tuple(rider.request.id for rider in job.riders),
        )

    def _form_batch(self, job: Job, riders: tuple[Job, ...]) -> None:
        assert job.next_block == 0, f"{job.request.id} has begun alone"
        for rider in riders:
            assert rider.waits, f"{rider.request.id} rides with {job.request.id}, but does not wait"
            assert rider.next_block == 0, f"{rider.request.id} has begun alone"
            assert rider.costs is job.costs, f"{rider.request.id} and {job.request.id} are not of one model and permission"
            rider.carrier = job
        self._ledger.waiting -= len(riders)
        job.riders, job.costs = riders, job.costs.batches[1 + len(riders)]
        job.deadline_us = min(member.request.deadline_us for member in job.members)
