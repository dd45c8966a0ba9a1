"""Who is compared at the same arrivals: policies on the engine with the same bundles, and the servers that users have.

Names: a policy of the registry, or one with "-bf16" behind it, for tenants that permit bf16; "onnxruntime", "openvino" and
"openvino-bf16", each a FIFO server.
"""

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Protocol

import msgspec

from veltair.bench.fifo import FifoServer
from veltair.bench.inputs import inputs_of
from veltair.bench.openloop import Outcomes, Transport, drive
from veltair.bench.peers import Peer, onnx_runtime, openvino
from veltair.bench.result import PolicyResult, policy_result
from veltair.bench.scenario import Scenario, arrivals_of
from veltair.bench.server import running_server
from veltair.bench.transport import MonotonicClock, WireTransport
from veltair.bundle.store import read_manifest
from veltair.core.policies import POLICIES
from veltair.core.values import Precision
from veltair.errors import ConfigError, ServerError
from veltair.wire.messages import ModelInfo, Port

BF16 = "-bf16"
LEAST_GRACE_US = 500_000
WARM_ROUNDS, WARM_AT_ONCE, WARM_BUDGET_US = 4, 4, 20_000_000
HOPELESS = 0.2  # of a tenant's requests missed: the load is not carried, however the rest would go


@dataclass(frozen=True, slots=True)
class Contender:
    """A policy of ours, or a peer's FIFO server. `precision` is the coarsest that it may use."""

    name: str
    label: str
    precision: Precision
    policy: str | None

    @property
    def ours(self) -> bool:
        return self.policy is not None


PEERS = {
    "onnxruntime": Contender("onnxruntime", "ONNX Runtime fp32", "fp32", None),
    "openvino": Contender("openvino", "OpenVINO fp32", "fp32", None),
    "openvino-bf16": Contender("openvino-bf16", "OpenVINO bf16", "bf16", None),
}


def known() -> dict[str, Contender]:
    """All contenders by name."""
    exact = {policy: Contender(policy, policy, "fp32", policy) for policy in POLICIES}
    coarse = {policy + BF16: Contender(policy + BF16, f"{policy} bf16", "bf16", policy) for policy in POLICIES}
    return {**exact, **coarse, **PEERS}


def contenders(names: Iterable[str]) -> list[Contender]:
    """Raises ConfigError that names what is not known, and what is."""
    found, wanted = known(), list(dict.fromkeys(names))
    if strangers := [name for name in wanted if name not in found]:
        raise ConfigError(f"contender {', '.join(strangers)} is not known; choose from {', '.join(found)}")
    return [found[name] for name in wanted]


class Server(Protocol):
    """A contender that is up. It begins every probe idle."""

    def probe(self, scenario: Scenario) -> PolicyResult: ...
    def close(self) -> None: ...


class EngineServer:
    """Our server as a process of its own, over its sockets. One that is still busy after a probe is replaced by a fresh one."""

    def __init__(self, contender: Contender, scenario: Scenario, bundles: Path, source: str = "off", times: bool = True) -> None:
        """`source` and `times` are as in `config_text`."""
        assert contender.policy is not None
        self._name, self._policy, self._bundles = contender.name, contender.policy, bundles
        self._interference = source, times
        self._promised = permitting(scenario, contender.precision)
        self._up = ExitStack()
        self._transport = self._start()

    def probe(self, scenario: Scenario) -> PolicyResult:
        result, outcomes = _probe(self._name, scenario, self._transport)
        if outcomes.unanswered:
            self._up.close()
            self._transport = self._start()
        return result

    def close(self) -> None:
        self._up.close()

    def _start(self) -> WireTransport:
        folder = Path(self._up.enter_context(tempfile.TemporaryDirectory(prefix="veltair-bench-")))
        server = running_server(self._promised, self._bundles, self._policy, folder, *self._interference)
        endpoint, _ = self._up.enter_context(server)
        transport = self._up.enter_context(WireTransport(self._promised, endpoint))
        warm(transport, len(self._promised.tenant))
        return transport


def warm(transport: Transport, tenants: int) -> None:
    """Everybody's model a few times, several at once: a server is to be measured as it serves, not as it starts.

    Raises ServerError where not all are answered.
    """
    clock, tickets = MonotonicClock(), count()
    for _ in range(WARM_ROUNDS):
        open_tickets = set()
        for tenant in [number for number in range(tenants) for _ in range(WARM_AT_ONCE)]:
            ticket = next(tickets)
            transport.send(ticket, tenant, WARM_BUDGET_US)
            open_tickets.add(ticket)
        until_us = clock.now_us() + WARM_BUDGET_US
        while open_tickets and (left_us := until_us - clock.now_us()) > 0:
            open_tickets -= {answer.ticket for answer in transport.receive(left_us)}
        if open_tickets:
            raise ServerError(f"{len(open_tickets)} of the first requests had no answer within {WARM_BUDGET_US / 1e6:g} s")


class PeerServer:
    """A peer behind a FIFO queue, in this process. `files` has the ONNX file of each model."""

    def __init__(
        self, contender: Contender, scenario: Scenario, bundles: Path, files: Mapping[str, Path], cores: Sequence[int]
    ) -> None:
        self._name = contender.name
        models = [tenant.model for tenant in scenario.tenant]

        def load() -> list[Callable[..., object]]:
            by_model = {model: _peer(contender, files[model]) for model in dict.fromkeys(models)}
            return [by_model[model].run for model in models]

        self._fifo = FifoServer(cores, load, inputs_of(scenario, [served(bundles / model) for model in dict.fromkeys(models)]))
        self.solo_us = self._fifo.solo_us

    def probe(self, scenario: Scenario) -> PolicyResult:
        result, outcomes = _probe(self._name, scenario, self._fifo)
        if outcomes.unanswered:
            self._fifo.forget()
        return result

    def close(self) -> None:
        self._fifo.close()


def permitting(scenario: Scenario, precision: Precision) -> Scenario:
    """The scenario with every tenant permitting `precision`; arrivals stay as they are."""
    tenants = tuple(msgspec.structs.replace(tenant, precision=precision) for tenant in scenario.tenant)
    return msgspec.structs.replace(scenario, tenant=tenants)


def alone(scenario: Scenario) -> list[Scenario]:
    """One scenario for each tenant, with nobody else in it."""
    return [
        msgspec.structs.replace(scenario, name=f"{scenario.name}, {tenant.name} {tenant.model} alone", tenant=(tenant,))
        for tenant in scenario.tenant
    ]


def total_per_s(scenario: Scenario) -> float:
    """Requests a second of all tenants but the background."""
    return sum(tenant.rate_per_s for tenant in scenario.tenant if not tenant.background)


def served(bundle: Path) -> ModelInfo:
    """What a server would tell of the bundle, without a server."""
    manifest = read_manifest(bundle)
    inputs, outputs = (
        tuple(Port(port.name, port.dtype, port.shape) for port in ports) for ports in (manifest.inputs, manifest.outputs)
    )
    return ModelInfo(manifest.name, inputs, outputs, len(manifest.blocks), None, ())


def _peer(contender: Contender, file: Path) -> Peer:
    return onnx_runtime(file, 1) if contender.name == "onnxruntime" else openvino(file, 1, contender.precision)


def _probe(name: str, scenario: Scenario, transport: Transport) -> tuple[PolicyResult, Outcomes]:
    arrivals = arrivals_of(scenario)
    grace_us = max(LEAST_GRACE_US, *(round(tenant.qos_ms * 2000) for tenant in scenario.tenant))
    outcomes = drive(scenario, arrivals, transport, MonotonicClock(), grace_us=grace_us, most_missed=HOPELESS)
    return policy_result(name, scenario, arrivals, outcomes), outcomes
