"""The generator over real sockets, against a server of twenty lines that answers by the wire's contract."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from click.testing import CliRunner

from veltair.bench.run import run_scenario
from veltair.bench.scenario import Scenario, TenantLoad
from veltair.cli.bench import bench
from veltair.errors import UnknownModel, UnknownTenant
from veltair.wire.messages import (
    Failure,
    Infer,
    InferReply,
    ListModels,
    Locate,
    Location,
    ModelInfo,
    Models,
    Port,
    decode_client_message,
    encode,
)

TINY = ModelInfo("tiny", (Port("x", "float32", (1, 8)), Port("ids", "int64", (4,))), (), 1, 10.0, ("ads",))


class SmallServer:
    """Directory and engine in one. Answers tenant "ads", refuses "shop", knows nobody else; keeps what it was sent."""

    def __init__(self) -> None:
        self.context = zmq.Context()
        self.router = self.context.socket(zmq.ROUTER)
        self.endpoint = f"tcp://127.0.0.1:{self.router.bind_to_random_port('tcp://127.0.0.1')}"
        self.requests: list[tuple[Infer, list[bytes]]] = []
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        with self.router:
            while True:
                client, header, *tensors = self.router.recv_multipart()
                if header == b"stop":
                    return
                message = decode_client_message(header)
                self.router.send_multipart([client, encode(self.answer(message, tensors))])

    def answer(self, message: object, tensors: list[bytes]) -> object:
        match message:
            case ListModels():
                return Models(message.request_id, (TINY,))
            case Locate() if message.tenant in ("ads", "shop"):
                return Location(message.request_id, self.endpoint)
            case Infer():
                self.requests.append((message, tensors))
                if message.tenant == "shop":
                    return Failure(message.request_id, "deadline_unmeetable", "too busy")
                return InferReply(message.request_id, (), 1, 1, 0, 1, ("v",), 1)
            case Locate():
                return Failure(message.request_id, "unknown_tenant", f"tenant {message.tenant!r} is not configured")
        raise AssertionError(message)

    def close(self) -> None:
        with self.context.socket(zmq.DEALER) as stop:
            stop.connect(self.endpoint)
            stop.send(b"stop")
            self.thread.join()
        self.context.term()


@pytest.fixture
def server() -> Iterator[SmallServer]:
    small = SmallServer()
    yield small
    small.close()


def scenario(*names: str, model: str = "tiny") -> Scenario:
    tenants = tuple(TenantLoad(name, model, 200.0, 100.0, arrivals="uniform") for name in names)
    return Scenario("small", 0.1, tenants, seed=1, warmup_s=0.0)


def test_every_request_of_the_scenario_is_sent_whole_and_its_answer_counted(server: SmallServer) -> None:
    shares = []
    result = run_scenario(scenario("ads", "shop"), server.endpoint, on_progress=lambda _, share: shares.append(share))
    ads, shop = result.tenants
    assert (ads.sent, ads.in_qos, dict(ads.errors)) == (20, 1.0, {})
    assert (shop.sent, shop.in_qos, shop.refused) == (20, 0.0, 20)
    assert shares[-1] == 1.0
    sent, tensors = server.requests[0]
    assert [(header.name, header.dtype, header.shape) for header in sent.tensors] == [
        ("x", "float32", (1, 8)),
        ("ids", "int64", (4,)),
    ]
    assert [len(tensor) for tensor in tensors] == [32, 32]
    assert sent.budget_us is not None
    assert 0 < sent.budget_us <= 100_000
    assert len({infer.request_id for infer, _ in server.requests}) == 40


def test_the_same_seed_sends_the_same_tensors(server: SmallServer) -> None:
    run_scenario(scenario("ads"), server.endpoint)
    run_scenario(scenario("ads"), server.endpoint)
    first, again = server.requests[:20], server.requests[20:]
    assert [tensors for _, tensors in first] == [tensors for _, tensors in again]


def test_a_model_or_tenant_the_server_does_not_know_is_named_before_any_load(server: SmallServer) -> None:
    with pytest.raises(UnknownModel, match=r"model 'large' of tenant 'ads' is not served; served: tiny"):
        run_scenario(scenario("ads", model="large"), server.endpoint)
    with pytest.raises(UnknownTenant, match="tenant 'nobody' is not configured"):
        run_scenario(scenario("nobody"), server.endpoint)
    assert server.requests == []


SCENARIO = """
duration_s = 0.05
warmup_s = 0
[[tenant]]
name = "{tenant}"
model = "tiny"
rate_per_s = 200
qos_ms = 100
"""


@pytest.mark.parametrize(("tenant", "status"), [("ads", 0), ("shop", 3), ("nobody", 1)])
def test_the_command_tells_by_its_status_what_happened(tmp_path: Path, server: SmallServer, tenant: str, status: int) -> None:
    path = tmp_path / "small.toml"
    path.write_text(SCENARIO.format(tenant=tenant))
    rows = tmp_path / "rows.json"
    arguments = ["--scenario", str(path), "--endpoint", server.endpoint, "--fail-under", "0.9", "--json", str(rows)]
    result = CliRunner().invoke(bench, arguments)
    assert result.exit_code == status, result.output
    assert rows.exists() == (status != 1)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--endpoint", "tcp://127.0.0.1:1", "--bundles", "b"], 2, "either a running server"),
        ([], 2, "either a running server"),
        (["--bundles", "b", "--policy", "fcfs,fcfs"], 2, "name each policy once"),
        (["--endpoint", "nonsense"], 1, "endpoint 'nonsense' is not an address"),
        (["--endpoint", "tcp://127.0.0.1:1", "--scale", "0"], 1, "scale must be above 0"),
    ],
)
def test_wrong_usage_and_wrong_values_are_told_apart(tmp_path: Path, arguments: list[str], status: int, message: str) -> None:
    path = tmp_path / "small.toml"
    path.write_text(SCENARIO.format(tenant="ads"))
    result = CliRunner().invoke(bench, ["--scenario", str(path), *arguments])
    assert (result.exit_code, message in result.output) == (status, True), result.output
