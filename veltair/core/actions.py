"""Imperatives the scheduler returns. The shell performs them in order; each carries why it was chosen."""

from dataclasses import dataclass

from veltair.core.values import Lease, RequestId


@dataclass(frozen=True, slots=True)
class Alternative:
    """What was not chosen, and why: the decision log keeps both."""

    what: str
    why: str


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Run blocks `first_block <= i < end_block` of a request in one go, block i as variant `variants[i - first_block]`."""

    request_id: RequestId
    lease: Lease
    first_block: int
    end_block: int
    variants: tuple[int, ...]
    predicted_us: int
    pressure: float
    reason: str
    rejected: tuple[Alternative, ...] = ()


@dataclass(frozen=True, slots=True)
class Complete:
    """The last block has run: answer with the outputs. `predicted_us` was the finish foretold on arrival, from arrival."""

    request_id: RequestId
    predicted_us: int


@dataclass(frozen=True, slots=True)
class Refuse:
    """Never accepted. `code` is the code of a RequestError; `earliest_deadline_us` (absolute) could have been met."""

    request_id: RequestId
    code: str
    reason: str
    earliest_deadline_us: int | None = None


@dataclass(frozen=True, slots=True)
class Drop:
    """Was accepted, is given up: its deadline can no longer be met, it was cancelled, or its unit failed."""

    request_id: RequestId
    code: str
    reason: str


Action = Dispatch | Complete | Refuse | Drop
