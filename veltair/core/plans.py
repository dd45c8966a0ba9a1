"""What a policy answers: whether a newcomer is accepted, and what runs next."""

from dataclasses import dataclass

from veltair.core.actions import Alternative
from veltair.core.state import Job


@dataclass(frozen=True, slots=True)
class Accepted:
    finish_us: int  # absolute, foretold


@dataclass(frozen=True, slots=True)
class Refused:
    reason: str
    earliest_deadline_us: int | None  # asked again with this deadline, and with no new load, the answer is Accepted


@dataclass(frozen=True, slots=True)
class UnitPlan:
    """The next unit. `wanted_cores` may exceed `cores`: that is a conflict.

    With `riders` (waiting jobs of the same model and permission, nothing of any of them run yet) the job carries them from
    now on, and everything here is by the tables of `job.costs.batches[1 + len(riders)]`.
    """

    job: Job
    cores: int
    wanted_cores: int
    end_block: int
    variants: tuple[int, ...]
    table_us: int
    predicted_us: int
    traffic_bytes: int
    pressure: float
    reason: str
    rejected: tuple[Alternative, ...] = ()
    riders: tuple[Job, ...] = ()
