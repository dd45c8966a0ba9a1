"""Past-tense facts the shells tell the scheduler. Each is handed to `Scheduler.handle(event, now_us)`."""

from dataclasses import dataclass

from veltair.core.values import CoreId, LeaseId, Model, ModelName, Request, RequestId


@dataclass(frozen=True, slots=True)
class ModelLoaded:
    model: Model


@dataclass(frozen=True, slots=True)
class ModelUnloaded:
    name: ModelName


@dataclass(frozen=True, slots=True)
class RequestArrived:
    request: Request


@dataclass(frozen=True, slots=True)
class RequestCancelled:
    request_id: RequestId


@dataclass(frozen=True, slots=True)
class UnitFinished:
    lease_id: LeaseId
    measured_us: int


@dataclass(frozen=True, slots=True)
class UnitFailed:
    lease_id: LeaseId
    message: str


@dataclass(frozen=True, slots=True)
class PressureChanged:
    """By processes that are not ours: how hard they press, 0..1, and which cores they hold, the most occupied first."""

    pressure: float
    held: tuple[CoreId, ...] = ()


@dataclass(frozen=True, slots=True)
class DrainStarted:
    """No new request is accepted from now on; accepted ones are answered."""


@dataclass(frozen=True, slots=True)
class TimerFired:
    """Nothing happened until `Scheduler.wake_us`."""


@dataclass(frozen=True, slots=True)
class WeightsLoaded:
    model: ModelName


Event = (
    ModelLoaded
    | ModelUnloaded
    | RequestArrived
    | RequestCancelled
    | UnitFinished
    | UnitFailed
    | PressureChanged
    | DrainStarted
    | TimerFired
    | WeightsLoaded
)
