"""What a policy is asked. A new policy is one file: admit, wait and next_unit, the rest if it cares."""

from collections.abc import Iterable
from typing import Protocol

from veltair.core.plans import Accepted, Refused, UnitPlan
from veltair.core.state import Job, Ledger, Unit


class Policy(Protocol):
    """Strategy behind the scheduler. Holds its own queue and nothing else; all state of requests is in the ledger."""

    name: str
    # Unless the idle cores are kept for someone, next_unit is never None while a job waits that could run on them.
    work_conserving: bool = True
    # Whether cores that outsiders hold are kept from it. Whose authors knew of no outsiders gets them as any other.
    withholds: bool = False

    def admit(self, job: Job, ledger: Ledger, now_us: int) -> Accepted | Refused:
        """Judge a newcomer. It does not wait yet."""
        ...

    def wait(self, job: Job, ledger: Ledger, now_us: int, after: Unit | None) -> None:
        """`job` waits for cores from now on: just accepted, or back from the unit `after`."""
        ...

    def end(self, unit: Unit, ledger: Ledger, now_us: int) -> None:
        """A unit is over and its cores are idle; `wait` or `leave` follow, unless its job was over before."""

    def leave(self, job: Job, ledger: Ledger, now_us: int) -> None:
        """`job`, which was accepted, is over, waiting or not: answered or given up. A unit of it may still run."""

    def hopeless(self, ledger: Ledger, now_us: int) -> Iterable[tuple[Job, str]]:
        """Waiting jobs to give up now, with the reason. Each is dropped."""
        return ()

    def next_unit(self, ledger: Ledger, now_us: int) -> UnitPlan | None:
        """What to start on the idle cores; at least one core is idle. None: nothing now."""
        ...

    def cores_changed(self, ledger: Ledger, now_us: int) -> None:
        """Other cores are withheld than before: `ledger.cores` may be leased now."""

    def kept_for(self, ledger: Ledger) -> Job | None:
        """Who waits with the idle cores, for a moment, until there are as many as it was promised."""
        return None

    def wake_us(self, ledger: Ledger) -> int | None:
        """When it wants to be asked again although nothing happens, absolute. None: only when something does."""
        return None
