"""Every message on every socket, as tagged structs. Tensors follow a header as raw frames, in the order it names them.

A message is a list of frames: one msgpack header, then one frame a tensor (C order, little endian). New fields get
defaults, so that an older peer still decodes. Nothing here is pickled.
"""

import msgspec


class TensorHeader(msgspec.Struct, frozen=True):
    name: str
    dtype: str
    shape: tuple[int, ...]


class Infer(msgspec.Struct, frozen=True, tag="infer"):
    """Client to engine. `budget_us` counts from receipt: client and server share no clock; None means the tenant's QoS."""

    request_id: str
    tenant: str
    model: str
    tensors: tuple[TensorHeader, ...]
    budget_us: int | None = None


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    request_id: str


class Locate(msgspec.Struct, frozen=True, tag="locate"):
    """Client to directory: which engine serves this model?"""

    request_id: str
    tenant: str
    model: str


class ListModels(msgspec.Struct, frozen=True, tag="list_models"):
    request_id: str


class GetHealth(msgspec.Struct, frozen=True, tag="get_health"):
    request_id: str


class InferReply(msgspec.Struct, frozen=True, tag="infer_reply"):
    """Engine to client, followed by the output tensors. Times count from receipt by the engine."""

    request_id: str
    tensors: tuple[TensorHeader, ...]
    predicted_us: int
    latency_us: int
    queued_us: int
    units: int
    variants: tuple[str, ...]  # by block
    cores: int  # the most it held at once
    low_us: int | None = None  # of the latency foretold on arrival: it lies within nine times out of ten
    high_us: int | None = None


class Failure(msgspec.Struct, frozen=True, tag="failure"):
    """`code` is that of a RequestError; `request_id` is "" where the request could not be decoded."""

    request_id: str
    code: str
    message: str
    earliest_us: int | None = None  # soonest budget, from now, that could be met


class Location(msgspec.Struct, frozen=True, tag="location"):
    """`local` is a shorter way to the same engine for who shares its machine, "" where there is none."""

    request_id: str
    endpoint: str
    local: str = ""


class Port(msgspec.Struct, frozen=True):
    name: str
    dtype: str
    shape: tuple[int, ...]


class ModelInfo(msgspec.Struct, frozen=True):
    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    blocks: int
    qos_ms: float | None
    tenants: tuple[str, ...]


class Models(msgspec.Struct, frozen=True, tag="models"):
    request_id: str
    models: tuple[ModelInfo, ...]


class OutsideHealth(msgspec.Struct, frozen=True):
    """What an engine knows of processes that are not its own."""

    pressure: float  # on the memory path, as its scheduler was told, 0..1
    error: float  # one standard deviation
    cores: float  # of CPU time that they use
    sources: tuple[str, ...]  # that are read, first those that measure the memory path; none: nobody looks
    refused: tuple[str, ...] = ()  # those that would have been better, and why not
    discarded: int = 0  # readings that could not be true
    held: tuple[int, ...] = ()  # CPUs that they have most of


class EngineHealth(msgspec.Struct, frozen=True):
    endpoint: str
    state: str  # "starting" | "serving" | "draining" | "down"
    waiting: int = 0
    running: int = 0
    restarts: int = 0
    pid: int = 0
    outside: OutsideHealth | None = None
    adrift: tuple[str, ...] = ()  # models whose times are far from their tables
    absurd: int = 0  # measured times that cannot be true: nothing was learnt from them


class Health(msgspec.Struct, frozen=True, tag="health"):
    request_id: str
    state: str  # "serving" once every engine serves; else "starting" | "degraded" | "draining"
    version: str
    policy: str
    engines: tuple[EngineHealth, ...]
    notes: tuple[str, ...] = ()  # what an operator should know
    log: str = ""  # the decision log, by its path on the server's machine; "" where none is written


ClientMessage = Infer | Cancel | Locate | ListModels | GetHealth
ServerMessage = InferReply | Failure | Location | Models | Health

encode = msgspec.msgpack.Encoder().encode
decode_client_message = msgspec.msgpack.Decoder(ClientMessage).decode
decode_server_message = msgspec.msgpack.Decoder(ServerMessage).decode
