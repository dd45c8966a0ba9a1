"""What a policy is asked, and what it answers. A new policy is one file with these four methods."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from veltair.core.actions import Alternative
from veltair.core.state import Job, Ledger, Unit


@dataclass(frozen=True, slots=True)
class Accepted:
    finish_us: int  # absolute, foretold


@dataclass(frozen=True, slots=True)
class Refused:
    reason: str
    earliest_deadline_us: int  # asked again with this deadline, and with no new load, the answer is Accepted


@dataclass(frozen=True, slots=True)
class UnitPlan:
    """The next unit. `wanted_cores` may exceed `cores`: that is a conflict."""

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


class Policy(Protocol):
    """Strategy behind the scheduler. Holds its own queue and nothing else; all state of requests is in the ledger."""

    @property
    def name(self) -> str: ...

    def admit(self, job: Job, ledger: Ledger, now_us: int) -> Accepted | Refused:
        """Judge a newcomer. It does not wait yet."""
        ...

    def wait(self, job: Job, ledger: Ledger, now_us: int, after: Unit | None) -> None:
        """`job` waits for cores from now on: just accepted, or back from the unit `after`."""
        ...

    def hopeless(self, ledger: Ledger, now_us: int) -> Iterable[tuple[Job, str]]:
        """Waiting jobs to give up now, with the reason. Each is dropped."""
        ...

    def next_unit(self, ledger: Ledger, now_us: int) -> UnitPlan | None:
        """What to start on the idle cores; at least one core is idle. None only if no job waits."""
        ...
