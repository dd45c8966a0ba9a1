"""Imperatives the scheduler returns. The shell performs them in order; each carries why it was chosen."""

from dataclasses import dataclass

from veltair.core.values import Lease, ModelName, RequestId


@dataclass(frozen=True, slots=True)
class Alternative:
    """What was not chosen, and why: the decision log keeps both."""

    what: str
    why: str


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Run blocks `first_block <= i < end_block` of a request in one go, block i as variant `variants[i - first_block]`.

    With `riders` it is a batch, in the order of the batch, `request_id` first: blocks and variants are then those of
    `Model.batches[1 + len(riders)]`. A batch stays together under the first one's id until its last block, even where some of
    it have been answered meanwhile (given up or cancelled).
    """

    request_id: RequestId
    lease: Lease
    first_block: int
    end_block: int
    variants: tuple[int, ...]
    predicted_us: int
    pressure: float
    reason: str
    rejected: tuple[Alternative, ...] = ()
    riders: tuple[RequestId, ...] = ()


@dataclass(frozen=True, slots=True)
class Complete:
    """The last block has run: answer with the outputs.

    `predicted_us` was the finish foretold on arrival, counted from arrival, `low_us`..`high_us` the interval it was said to lie
    in nine times out of ten.
    """

    request_id: RequestId
    predicted_us: int
    low_us: int
    high_us: int


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


@dataclass(frozen=True, slots=True)
class LoadWeights:
    """Bring a model's weights in; WeightsLoaded tells when. One load at a time is under way."""

    model: ModelName


@dataclass(frozen=True, slots=True)
class EvictWeights:
    """Nothing runs or waits that needs them: let them go."""

    model: ModelName


@dataclass(frozen=True, slots=True)
class Alarm:
    """The times of a model's units have drifted far from its tables, or (`over`) are near them again."""

    model: ModelName
    over: bool
    ratio: float  # measured over predicted, lately


Action = Dispatch | Complete | Refuse | Drop | LoadWeights | EvictWeights | Alarm
