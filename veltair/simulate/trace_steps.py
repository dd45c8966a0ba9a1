"""A simulated run in the words of the decision log: what reads the engine's log reads a simulation too."""

from collections.abc import Iterator
from typing import assert_never

from veltair.core.actions import Action, Alarm, Complete, Dispatch, Drop, EvictWeights, LoadWeights, Refuse
from veltair.core.events import (
    DrainStarted,
    ModelLoaded,
    PressureChanged,
    RequestArrived,
    TimerFired,
    UnitFailed,
    UnitFinished,
    WeightsLoaded,
)
from veltair.core.values import LeaseId, Model, ModelName, Request, RequestId
from veltair.observe import records
from veltair.simulate.virtual import Step


class StepRecords:
    """Turns steps, handed over in their order, into records. Holds what is under way, and nothing of what is over."""

    def __init__(self) -> None:
        self._models: dict[ModelName, Model] = {}
        self._under_way: dict[RequestId, tuple[Request, Model | None]] = {}  # and the model as it was on arrival
        self._batched: dict[RequestId, tuple[Request, Model | None]] = {}  # member to the first of its batch
        self._units: dict[LeaseId, tuple[RequestId, int]] = {}  # and the time of dispatch

    def of(self, step: Step) -> Iterator[records.Record]:
        now_us = step.now_us
        match step.event:
            case ModelLoaded(model):
                self._models[model.name] = model
            case RequestArrived(request):
                self._under_way[request.id] = request, self._models.get(request.model)
                promised = (request.precision, request.priority, request.weight)
                yield records.Arrived(now_us, request.id, request.tenant, request.model, request.deadline_us, *promised)
            case UnitFinished(lease_id, measured_us):
                request_id, _ = self._units.pop(lease_id)
                yield records.Finished(now_us, lease_id, request_id, measured_us)
            case UnitFailed(lease_id, message):
                request_id, since_us = self._units.pop(lease_id)
                yield records.Finished(now_us, lease_id, request_id, now_us - since_us, failed=message)
            case WeightsLoaded(name):
                yield records.WeightsLoaded(now_us, name)
            case PressureChanged(pressure, held):
                yield records.PressureTold(now_us, pressure, cores=float(len(held)), held=held)  # who holds one wants all of it
            case TimerFired():
                yield records.Woken(now_us)
            case DrainStarted():
                yield records.DrainBegan(now_us)
            case _:
                pass  # nothing that a log tells of
        for action in step.actions:
            yield self._decided(action, now_us)

    def _decided(self, action: Action, now_us: int) -> records.Record:
        match action:
            case Dispatch():
                return self._dispatched(action, now_us)
            case Complete(request_id, predicted_us, low_us, high_us):
                request = self._over(request_id)
                latency_us, who = now_us - request.arrived_us, (request.id, request.tenant, request.model)
                return records.Completed(now_us, *who, latency_us, predicted_us, request.deadline_us, low_us, high_us)
            case Refuse(request_id, code, reason, earliest_deadline_us):
                request = self._over(request_id)
                earliest_us = None if earliest_deadline_us is None else earliest_deadline_us - now_us
                return records.Refused(now_us, request.id, request.tenant, request.model, code, reason, earliest_us)
            case Drop(request_id, code, reason):
                request = self._over(request_id)
                return records.Dropped(now_us, request.id, request.tenant, request.model, code, reason)
            case LoadWeights(name):
                return records.WeightsAsked(now_us, name)
            case EvictWeights(name):
                return records.WeightsEvicted(now_us, name)
            case Alarm(name, over, ratio):
                return records.Drifted(now_us, name, over, ratio)
            case _:
                assert_never(action)

    def _over(self, request_id: RequestId) -> Request:
        self._batched.pop(request_id, None)
        return self._under_way.pop(request_id)[0]

    def _runs_for(self, unit: Dispatch) -> tuple[Request, Model | None]:
        """A batch goes by the name of its first, who may have been answered meanwhile; not all of its members have."""
        if not unit.riders:
            return self._under_way[unit.request_id]
        members = (unit.request_id, *unit.riders)
        first = next((self._batched[member] for member in members if member in self._batched), None)
        if first is None:  # it has just been formed
            first = self._under_way[unit.request_id]
            self._batched.update((member, first) for member in members)
        return first

    def _dispatched(self, unit: Dispatch, now_us: int) -> records.Dispatched:
        request, model = self._runs_for(unit)
        assert model is not None, f"{unit.request_id} was dispatched without a loaded model"
        if unit.riders:
            model = model.batches[1 + len(unit.riders)]
        blocks = model.blocks[unit.first_block : unit.end_block]
        self._units[unit.lease.id] = unit.request_id, now_us
        return records.Dispatched(
            at_us=now_us,
            request=request.id,
            tenant=request.tenant,
            model=request.model,
            lease=unit.lease.id,
            cores=unit.lease.cores,
            first_block=unit.first_block,
            end_block=unit.end_block,
            variants=tuple(block.variants[number].name for block, number in zip(blocks, unit.variants, strict=True)),
            predicted_us=unit.predicted_us,
            pressure=unit.pressure,
            reason=unit.reason,
            rejected=tuple(records.RejectedChoice(choice.what, choice.why) for choice in unit.rejected),
            riders=unit.riders,
        )
