"""What is under way in the engine: requests as clients asked for them, and the rides in which they run.

Entries of the stage's ledger and what is told of them; the stage says who may touch them when.
"""

from dataclasses import dataclass

from veltair.core.actions import Complete, Dispatch
from veltair.core.values import Request, RequestId
from veltair.engine.program import Arena, Program
from veltair.observe import records
from veltair.wire.frames import Array, Buffer, frames_of
from veltair.wire.messages import Failure, InferReply


@dataclass(slots=True, eq=False)
class Flight:
    """One accepted request on its way through the engine."""

    request: Request
    client: bytes  # the ROUTER's name of the peer
    wire_id: str
    program: Program  # for one request at a time
    inputs: dict[str, Array]  # until its ride's first unit writes them into the arena
    ride: "Ride | None" = None  # from its first dispatch on
    answered: bool = False


@dataclass(slots=True, eq=False)
class Ride:
    """A request alone, or a batch that runs as one: from its first unit until all of its members are answered."""

    program: Program  # for as many requests at once as it has members
    members: tuple[Flight, ...]  # in the order of the batch; the core calls it by the first one's id
    first_run_us: int
    variants: list[str]
    arena: Arena | None = None
    units: int = 0
    cores: int = 0
    running: bool = False

    @property
    def id(self) -> RequestId:
        return self.members[0].request.id

    @property
    def over(self) -> bool:
        """Nobody waits for it."""
        return all(member.answered for member in self.members)

    def board(self) -> Arena:
        """Bring the inputs of all into an arena side by side, those of members that were answered meanwhile too: what an
        arena held before could make a kernel read out of bounds. Not on arrival: who only waits holds its inputs and no more.
        """
        if self.arena is None:
            self.arena = self.program.new_arena()
            for place, member in enumerate(self.members):
                self.program.write_inputs(self.arena, member.inputs, place)
                member.inputs = {}
        return self.arena

    def leave(self) -> None:
        """The arena goes back to its program's pool."""
        if self.arena is not None:
            self.program.release(self.arena)
            self.arena = None


@dataclass(frozen=True, slots=True)
class Task:
    """A unit on its way to a lane."""

    ride: Ride
    dispatch: Dispatch
    decided_us: int


@dataclass(frozen=True, slots=True)
class Answer:
    client: bytes
    frames: list[Buffer]


def ride_of(flights: tuple[Flight, ...], now_us: int) -> Ride:
    """The flights as one ride, about to begin."""
    program = flights[0].program
    if len(flights) > 1:
        program = program.batches[len(flights)]
    ride = Ride(program, flights, now_us, [""] * len(program.bundle.manifest.blocks))
    for flight in flights:
        flight.ride = ride
    return ride


def set_off(ride: Ride, dispatch: Dispatch, now_us: int, waiting: int) -> records.Dispatched:
    """Count a unit of the ride that starts now; what the log says of it."""
    blocks = ride.program.bundle.manifest.blocks[dispatch.first_block : dispatch.end_block]
    names = tuple(block.variants[number].name for block, number in zip(blocks, dispatch.variants, strict=True))
    ride.variants[dispatch.first_block : dispatch.end_block] = names
    ride.units += 1
    ride.cores = max(ride.cores, len(dispatch.lease.cores))
    ride.running = True
    request = ride.members[0].request
    return records.Dispatched(
        now_us,
        request.id,
        request.tenant,
        request.model,
        dispatch.lease.id,
        dispatch.lease.cores,
        dispatch.first_block,
        dispatch.end_block,
        names,
        dispatch.predicted_us,
        dispatch.pressure,
        dispatch.reason,
        tuple(records.RejectedChoice(choice.what, choice.why) for choice in dispatch.rejected),
        waiting,
        dispatch.riders,
    )


def completed(flight: Flight, complete: Complete, now_us: int) -> records.Completed:
    request = flight.request
    return records.Completed(
        now_us,
        request.id,
        request.tenant,
        request.model,
        now_us - request.arrived_us,
        complete.predicted_us,
        request.deadline_us,
        complete.low_us,
        complete.high_us,
    )


def reply_of(flight: Flight, ride: Ride, complete: Complete, now_us: int) -> InferReply:
    return InferReply(
        flight.wire_id,
        flight.program.output_headers,
        complete.predicted_us,
        now_us - flight.request.arrived_us,
        ride.first_run_us - flight.request.arrived_us,
        ride.units,
        tuple(ride.variants),
        ride.cores,
        complete.low_us,
        complete.high_us,
    )


def failure_of(flight: Flight, code: str, message: str, earliest_us: int | None = None) -> Answer:
    return Answer(flight.client, frames_of(Failure(flight.wire_id, code, message, earliest_us), {}))
