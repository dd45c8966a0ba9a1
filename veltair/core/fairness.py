"""Who is owed something: tenants that fared worse than others, that were refused too long, or that ask more than their share.

A tenant is within its share if it asks no more core time than a weighted max-min fair division would give it (water-filling:
whoever asks less than an equal part gets all of it, the rest is divided among the others). Nobody needs to leave room for
what a tenant asks beyond that, so a flood drowns its own sender and not its neighbours.

The bound on starvation: a kind of request that an idle machine could meet, of a tenant within its share that asks at least
every `OFTEN_US`, is refused for no longer than `STARVED_US`, the longest deadline accepted, one unit, and the time until it
asks again; for each of its priority or above that was refused longer, as much as that one has still to wait. For after that
time nobody else is let in: what was accepted is over by its deadline or a unit later, and then the machine is idle when it
asks. Half of that time before, others must already leave a place for it, which does as long as units are short.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from veltair.core.state import Job, Kind
from veltair.core.values import TenantId

FARE_GAIN = 0.005  # about the last two hundred requests of a kind: of fewer, chance decides who fared worse
FARE_MEMORY_US = 2_000_000  # who has been away that long needs no room
UNLIKE_BY = 0.005  # a refusal of those: accepted shares closer than this are chance
YOUNGEST_US = 100_000  # a tenant's demand is not known sooner
STARVED_US = 500_000  # of nothing but refusals, after which nobody else may come first
PRESSED_US = STARVED_US // 2  # after which others must leave a place
OFTEN_US = 100_000  # who asks less often is not waited for with idle cores: a fifth of the machine at most is spent on it
DIVIDE_EVERY_US = 50_000
DEMAND_MEMORY_US = 1_000_000  # half of it forgotten in that time
MEMORY_US = DEMAND_MEMORY_US / 0.6931  # the integral of the fading: what a steady demand adds up to
LET_IN = 0.9  # of its share, for a tenant that asks for more: what fills the machine to the last leaves no slack for others
CROWDED = 1.0  # demand over capacity from which on shares matter


@dataclass(frozen=True, slots=True)
class Guest:
    """A request that might come: whoever is let in leaves its place, if it has one; for a `starved` one, at any price."""

    like: Job
    starved: bool
    alone: bool = False  # nobody comes before it, place or not


@dataclass(slots=True)
class _Fare:
    accepted: float  # share of the last requests
    like: Job  # its last request
    seen_us: int
    refused_since_us: int | None = None


@dataclass(slots=True)
class _Demand:
    weight: float
    core_us: float = 0.0  # asked for, fading
    at_us: int = 0
    let_in_us: float = 0.0  # the same for what was accepted
    let_in_at_us: int = 0
    share: float | None = None  # in cores; None: there is nobody to leave the rest to
    priority: int = 0
    since_us: int = 0  # its first request

    def memory_us(self, now_us: int) -> float:
        """What a steady demand of one core adds up to, since it began."""
        return MEMORY_US * (1 - _fading(max(YOUNGEST_US, now_us - self.since_us)))

    def faded(self, now_us: int) -> float:
        return self.core_us * _fading(now_us - self.at_us)

    def let_in(self, now_us: int) -> float:
        return self.let_in_us * _fading(now_us - self.let_in_at_us)


@dataclass(slots=True)
class Fairness:
    """Told of every request that could be met on an idle machine, and of its fate."""

    cores: int
    _fares: dict[Kind, _Fare] = field(default_factory=dict)
    _demands: dict[TenantId, _Demand] = field(default_factory=dict)
    _over: frozenset[TenantId] = frozenset()  # tenants that ask more than their share
    _worst: tuple[Kind, _Fare] | None = None  # within its share
    _starved: _Fare | None = None
    _since_us: int = 0
    _divided_us: int = -DIVIDE_EVERY_US

    def asked(self, job: Job, now_us: int) -> None:
        request = job.request
        demand = self._demands.setdefault(request.tenant, _Demand(request.weight, since_us=now_us))
        demand.core_us = demand.faded(now_us) + job.costs.least_core_us
        demand.weight, demand.priority, demand.at_us = request.weight, request.priority, now_us

    def look(self, now_us: int) -> None:
        """Before a newcomer is judged, so that one who asks again at once finds the same."""
        if now_us - self._divided_us >= DIVIDE_EVERY_US:
            self._divide(now_us)

    def fared(self, job: Job, accepted: bool, now_us: int) -> None:
        fare = self._fares.setdefault(job.kind, _Fare(1.0, job, now_us))
        fare.accepted += FARE_GAIN * (accepted - fare.accepted)
        fare.like, fare.seen_us = job, now_us
        if accepted:
            demand = self._demands[job.request.tenant]
            demand.let_in_us, demand.let_in_at_us = demand.let_in(now_us) + job.costs.least_core_us, now_us
            fare.refused_since_us = None
        elif fare.refused_since_us is None:
            fare.refused_since_us = now_us
        if job.request.tenant in self._over:
            return
        if self._worst is None or fare.accepted < self._worst[1].accepted:
            self._worst = job.kind, fare
        if (accepted and self._starved is fare) or (self._starved is None and _is_starved(fare, now_us)):
            self._find_worst(now_us)  # whoever is next must not wait for the next division

    def guest(self, job: Job, now_us: int) -> Guest | None:
        """Like whom one more should still fit beside this newcomer: of who is starved, else of who fared worse than it."""
        starved = self._starved_besides(job, now_us)
        if starved is not None:
            return starved
        if self._worst is None or job.kind == self._worst[0] or _is_below(self._worst[1], job):
            return None
        mine, worst = self._fares.get(job.kind), self._worst[1]
        if job.request.tenant in self._over:  # beyond its share it gets what others leave
            return Guest(worst.like, starved=True)
        if mine is not None and _is_starved(mine, now_us):  # it has made way for long enough
            return None
        ahead = (1.0 if mine is None else mine.accepted) - worst.accepted
        return Guest(worst.like, starved=False) if ahead > UNLIKE_BY else None

    def _starved_besides(self, job: Job, now_us: int) -> Guest | None:
        fare = self._starved
        if fare is None or fare.like.kind == job.kind or fare.refused_since_us is None or _is_below(fare, job):
            return None
        if now_us - fare.seen_us >= FARE_MEMORY_US:
            return None
        return Guest(fare.like, starved=True, alone=_is_due(fare, now_us))

    def is_over(self, tenant: TenantId) -> bool:
        """Whether it asks more than its share of a crowded machine."""
        return tenant in self._over

    def exceeds(self, job: Job, now_us: int) -> bool:
        """Whether its tenant, which asks more than its share, was let in as often as that share allows."""
        if job.request.tenant not in self._over:
            return False
        demand = self._demands[job.request.tenant]
        if demand.share is None:
            return False
        return demand.let_in(now_us) + job.costs.least_core_us > max(
            LET_IN * demand.share * demand.memory_us(now_us), job.costs.least_core_us
        )

    def _divide(self, now_us: int) -> None:
        """Weighted max-min, and everything that follows from who is within its share."""
        self._divided_us = now_us
        asked = {tenant: demand.faded(now_us) / demand.memory_us(now_us) for tenant, demand in self._demands.items()}
        for tenant in [tenant for tenant, cores in asked.items() if cores < 1e-6]:
            del self._demands[tenant], asked[tenant]
        weights = {tenant: demand.weight for tenant, demand in self._demands.items()}
        self._over = frozenset(over_share(asked, weights, self.cores * CROWDED))
        left = self.cores * CROWDED - sum(asked[tenant] for tenant in asked if tenant not in self._over)
        within = [self._demands[tenant].priority for tenant in asked if tenant not in self._over]
        for tenant in self._over:
            share = left * weights[tenant] / sum(weights[t] for t in sorted(self._over))
            self._demands[tenant].share = share if any(p >= self._demands[tenant].priority for p in within) else None
        self._fares = {kind: fare for kind, fare in self._fares.items() if now_us - fare.seen_us < FARE_MEMORY_US}
        self._find_worst(now_us)

    def _find_worst(self, now_us: int) -> None:
        within = [(kind, fare) for kind, fare in self._fares.items() if kind[0] not in self._over]
        self._worst = min(within, key=lambda kf: (kf[1].accepted, kf[0]), default=None)
        starved = [
            (-fare.like.request.priority, not _is_due(fare, now_us), fare.refused_since_us or 0, kind, fare)
            for kind, fare in within
            if _is_starved(fare, now_us)
        ]
        self._starved = min(starved, key=lambda s: s[:4], default=(0, False, 0, None, None))[4]


def _fading(since_us: int) -> float:
    return float(0.5 ** (since_us / DEMAND_MEMORY_US))


def _is_below(fare: _Fare, job: Job) -> bool:
    """Nobody makes way for a lower priority."""
    return fare.like.request.priority < job.request.priority


def _is_starved(fare: _Fare, now_us: int) -> bool:
    return fare.refused_since_us is not None and now_us - fare.refused_since_us >= PRESSED_US


def _is_due(fare: _Fare, now_us: int) -> bool:
    """Starved for so long that nobody else may come, and expected soon."""
    return (
        fare.refused_since_us is not None and now_us - fare.refused_since_us >= STARVED_US and now_us - fare.seen_us <= OFTEN_US
    )


def over_share(asked: Mapping[TenantId, float], weights: Mapping[TenantId, float], capacity: float) -> set[TenantId]:
    """Who asks more than weighted max-min fairness gives, largest excess included; empty where there is enough for all."""
    left, weight = capacity, sum(weights[t] for t in asked)
    waiting = sorted(asked, key=lambda t: (asked[t] / weights[t], t))
    for i, tenant in enumerate(waiting):
        if asked[tenant] > left * weights[tenant] / weight:
            return set(waiting[i:])
        left -= asked[tenant]
        weight -= weights[tenant]
    return set()
