"""The whole way over real sockets and processes: found, answered, refused, crashed, restarted, drained."""

import asyncio
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
from click.testing import CliRunner
from server import Server, free_port, log_of, refused, running
from tiny import tiny_answer, tiny_inputs

from veltair.cli import main
from veltair.client import AsyncClient, Client
from veltair.engine.stage import RETURN_US
from veltair.errors import (
    BadDeadline,
    BadMessage,
    BadTensor,
    Draining,
    EngineFailed,
    RequestError,
    ServerUnreachable,
    UnknownModel,
    UnknownTenant,
    request_error,
)
from veltair.wire.frames import frames_of, tensor_headers
from veltair.wire.messages import Failure, Infer, Locate, decode_server_message, encode

SLOW = {"x": np.ones(1, "float32")}


@pytest.fixture(scope="module")
def server(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("log")
    config = folder / "veltair.toml"
    config.write_text('[interference]\nsource = "auto"\nprofile = "/nowhere"\n')  # whatever the host is calibrated for
    with running(artifacts, "--log", str(folder / "decisions.jsonl"), "--config", str(config)) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.endpoint) as client:
        yield client


@pytest.fixture
def raw_engine(server: Server, client: Client) -> Iterator["zmq.Socket[bytes]"]:
    """A socket to the engine for messages that the client library would not send."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.setsockopt(zmq.RCVTIMEO, 5_000)
        dealer.connect(client.health().engines[0].endpoint)
        yield dealer


def test_it_says_what_it_serves_and_where(server: Server) -> None:
    assert server.said["endpoint"] == server.endpoint
    assert server.said["models"] == ["slow", "tiny"]
    assert server.said["policy"] == "veltair"


def test_an_answer_equals_numpys(client: Client) -> None:
    for seed in range(5):
        reply = client.infer("tiny", tiny_inputs(seed), deadline_ms=2_000)
        np.testing.assert_allclose(reply.outputs["y"], tiny_answer(**tiny_inputs(seed)), rtol=1e-5, atol=1e-5)
        assert len(reply.variants) == 2
        assert reply.cores >= 1
        assert 0 < reply.queued_ms + reply.latency_ms < 2_000


def test_models_and_health_are_told(client: Client) -> None:
    tiny = next(model for model in client.models() if model.name == "tiny")
    assert [(port.name, port.dtype, port.shape) for port in tiny.inputs] == [("x", "float32", (1, 64)), ("ids", "int32", (1,))]
    assert tiny.tenants == ("default",)
    health = client.health()
    assert health.state == "serving"
    assert [engine.restarts for engine in health.engines] == [0]


def test_how_other_processes_are_noticed_is_told_at_the_start_in_the_log_and_by_health(server: Server, client: Client) -> None:
    asked = (client.health().engines[0].outside for _ in range(1_000))  # the engine is asked as soon as it serves
    outside = next((told for told in asked if told is not None), None)
    assert outside is not None, "health tells nothing of other processes"
    assert "runqueue" in outside.sources
    assert [refusal.partition(":")[0] for refusal in outside.refused][-1] == "probe"
    assert 0.0 <= outside.pressure <= 1.0
    assert server.said["outside"].startswith("residuals ±0.50, runqueue ±0.50")
    assert "not probe: no profile of this host at /nowhere; run: veltair calibrate" in server.said["outside"]
    [started] = [record for record in log_of(Path(server.said["log"])) if record["type"] == "started"]
    assert (started["sources"], started["refused_sources"]) == (list(outside.sources), list(outside.refused))
    shown = CliRunner().invoke(main, ["health", "--endpoint", server.endpoint])
    assert "other processes: pressure " in shown.output
    assert ", by residuals, runqueue, " in shown.output
    assert "  not probe: no profile" in shown.output


def test_a_source_that_cannot_be_had_ends_the_start_where_it_was_named(artifacts: Path, tmp_path: Path) -> None:
    config = tmp_path / "veltair.toml"
    config.write_text('[interference]\nsource = "probe"\nprofile = "/nowhere"\n')
    told = refused(artifacts, "--port", str(free_port()), "--config", str(config))
    assert told.returncode == 1
    assert "source 'probe' cannot be used here: no profile of this host at /nowhere; run: veltair calibrate" in told.stderr


def test_many_requests_are_in_flight_over_one_asynchronous_client(server: Server) -> None:
    async def ask() -> list[Any]:
        async with AsyncClient(server.endpoint) as client:
            await client.infer("tiny", tiny_inputs(0))
            replies = await asyncio.gather(*(client.infer("tiny", tiny_inputs(seed), deadline_ms=4_000) for seed in range(50)))
        return [reply.outputs["y"] for reply in replies]

    for seed, y in enumerate(asyncio.run(ask())):
        np.testing.assert_allclose(y, tiny_answer(**tiny_inputs(seed)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "inputs", "error"),
    [
        ("none", tiny_inputs(), UnknownModel),
        ("tiny", tiny_inputs() | {"x": np.zeros((1, 64), "float64")}, BadTensor),
        ("tiny", tiny_inputs() | {"x": np.zeros((1, 63), "float32")}, BadTensor),
        ("tiny", tiny_inputs() | {"ids": np.array([16], "int32")}, BadTensor),
        ("tiny", {}, BadTensor),
    ],
)
def test_a_bad_request_is_refused_and_the_next_good_one_answered(
    client: Client, model: str, inputs: dict[str, Any], error: type[RequestError]
) -> None:
    with pytest.raises(error):
        client.infer(model, inputs)
    client.infer("tiny", tiny_inputs())


def test_an_unknown_tenant_is_refused(server: Server) -> None:
    with Client(server.endpoint, tenant="nobody") as client, pytest.raises(UnknownTenant, match="'nobody'"):
        client.infer("tiny", tiny_inputs())


@pytest.mark.parametrize("deadline_ms", [float("nan"), float("inf"), -5.0, 0.0])
def test_a_deadline_that_is_none_is_refused(client: Client, deadline_ms: float) -> None:
    with pytest.raises(BadDeadline):
        client.infer("tiny", tiny_inputs(), deadline_ms=deadline_ms)


def infer_frames(request_id: str = "r", **changed: Any) -> list[Any]:
    inputs = tiny_inputs()
    fields = {"request_id": request_id, "tenant": "default", "model": "tiny", "tensors": tensor_headers(inputs), **changed}
    return frames_of(Infer(**fields), inputs)


@pytest.mark.parametrize(
    ("frames", "request_id", "error"),
    [
        ([b"\xc1 no message"], "", BadMessage),
        ([b""], "", BadMessage),
        ([encode({"type": "infer", "request_id": "7", "tenant": 5})], "7", BadMessage),
        ([encode({"type": "from the future", "request_id": "7"})], "7", BadMessage),
        ([encode(Locate("7", "default", "tiny"))], "7", BadMessage),
        (infer_frames(budget_us=float("nan")), "r", BadMessage),
        (infer_frames(budget_us=-1), "r", BadDeadline),
        (infer_frames(budget_us=1 << 62), "r", BadDeadline),
        (infer_frames()[:-1], "r", BadTensor),
        ([*infer_frames()[:-1], bytes(3)], "r", BadTensor),
        (infer_frames(tenant="nobody"), "r", UnknownTenant),
        (infer_frames(model="none"), "r", UnknownModel),
    ],
)
def test_what_the_client_library_would_never_send_is_refused_by_type(
    raw_engine: "zmq.Socket[bytes]", frames: list[Any], request_id: str, error: type[RequestError]
) -> None:
    raw_engine.send_multipart(frames)
    failure = decode_server_message(raw_engine.recv())
    assert isinstance(failure, Failure)
    assert failure.request_id == request_id
    assert type(request_error(failure.code, failure.message)) is error


def test_a_request_id_that_is_under_way_is_not_taken_twice(raw_engine: "zmq.Socket[bytes]") -> None:
    slow = frames_of(Infer("twin", "default", "slow", tensor_headers(SLOW)), SLOW)
    raw_engine.send_multipart(slow)
    raw_engine.send_multipart(slow)
    assert "already under way" in decode_server_message(raw_engine.recv_multipart()[0]).message
    assert decode_server_message(raw_engine.recv_multipart()[0]).request_id == "twin"


def test_a_directory_refuses_frames_that_do_not_decode(server: Server) -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.setsockopt(zmq.RCVTIMEO, 5_000)
        dealer.connect(server.endpoint)
        for frames in ([b"\xc1"], infer_frames()):
            dealer.send_multipart(frames)
            assert decode_server_message(dealer.recv()).code == "bad_message"


def test_a_cancelled_call_is_cancelled_on_the_server(server: Server) -> None:
    async def give_up() -> None:
        async with AsyncClient(server.endpoint) as client:
            await client.infer("tiny", tiny_inputs())
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await client.infer("slow", SLOW)
            await client.infer("tiny", tiny_inputs())

    asyncio.run(give_up())


def test_a_second_server_on_the_port_is_refused_and_the_first_serves_on(server: Server, artifacts: Path, client: Client) -> None:
    told = refused(artifacts, "--endpoint", server.endpoint)
    assert told.returncode == 1
    assert f"{server.endpoint} is in use by another server; stop that one or choose another --port" in told.stderr
    client.infer("tiny", tiny_inputs())


def test_nobody_there_is_told_within_the_timeout() -> None:
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    with Client(endpoint, timeout_ms=100) as client, pytest.raises(ServerUnreachable, match=r"nothing answers .* within 100 ms"):
        client.infer("tiny", tiny_inputs())


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--policy", "nice"], "policy 'nice' is unknown; choose one of"),
        (["--cores", "4000"], r"may not use [4000]; choose from"),
        (["--endpoint", "nowhere"], "endpoint = 'nowhere' is no endpoint"),
    ],
)
def test_a_bad_option_stops_the_start(artifacts: Path, options: list[str], complaint: str) -> None:
    told = refused(artifacts, *options)
    assert told.returncode == 1
    assert complaint in told.stderr


def test_a_bundle_with_a_changed_byte_stops_the_start(artifacts: Path, tmp_path: Path) -> None:
    shutil.copytree(artifacts / "tiny", tmp_path / "tiny")
    weights = bytearray((tmp_path / "tiny" / "weights.bin").read_bytes())
    weights[0] ^= 1
    (tmp_path / "tiny" / "weights.bin").write_bytes(weights)
    told = refused(tmp_path, "--port", str(free_port()))
    assert told.returncode == 1
    assert "weights.bin: its sha256 differs from the manifest's" in told.stderr


def test_tenants_have_their_own_models_and_targets(artifacts: Path, tmp_path: Path) -> None:
    config = tmp_path / "veltair.toml"
    config.write_text("[tenants.shop.models.tiny]\nqos_ms = 900\n[tenants.bank.models.slow]\n")
    log = tmp_path / "log.jsonl"
    with running(artifacts, "--config", str(config), "--log", str(log)) as server:
        with Client(server.endpoint, tenant="shop") as client:
            client.infer("tiny", tiny_inputs())
            with pytest.raises(UnknownModel, match="served: tiny"):
                client.infer("slow", SLOW)
        server.terminate()
        assert server.exit_code() == 0
    started, *records = log_of(log)
    assert started["type"] == "started"
    assert [(t["name"], t["model"], t["qos_us"]) for t in started["tenants"]] == [
        ("shop", "tiny", 900_000),
        ("bank", "slow", 60_000_000),
    ]
    records = [record for record in records if record["type"] != "pressure"]  # other processes may come and go meanwhile
    kinds = [record["type"] for record in records]
    assert kinds.pop() == "drain_began"
    assert kinds[0] == "arrived"
    assert kinds[-1] == "completed"
    assert kinds.count("dispatched") == kinds.count("finished") == len(kinds) / 2 - 1  # nothing else, whatever the units
    assert records[0]["deadline_us"] - records[0]["at_us"] == 900_000 - RETURN_US


def test_an_engine_killed_in_the_middle_is_restarted_and_nobody_stays_without_an_answer(artifacts: Path) -> None:
    async def lose_it(endpoint: str) -> tuple[Any, Any]:
        async with AsyncClient(endpoint, timeout_ms=20_000) as client:
            await client.infer("slow", SLOW)
            (engine,) = (await client.health()).engines
            patient = asyncio.create_task(client.infer("slow", SLOW))
            await asyncio.sleep(0)  # lets it send
            os.kill(engine.pid, signal.SIGSTOP)  # what is in it now, or sent to it from now on, it will not answer
            hasty = asyncio.create_task(client.infer("slow", SLOW, deadline_ms=300))
            await asyncio.sleep(0)
            os.kill(engine.pid, signal.SIGKILL)
            answers = await asyncio.gather(patient, hasty, return_exceptions=True)
            health = await client.health()
            assert health.engines[0].restarts == 1
            assert health.engines[0].pid != engine.pid
            return answers[0], answers[1]

    with running(artifacts) as server:
        patient, hasty = asyncio.run(lose_it(server.endpoint))
        assert patient.outputs["y"].shape == (1,)  # idempotent: sent again to the new engine
        assert isinstance(hasty, EngineFailed)  # its deadline passed with the first one
        server.terminate()
        assert server.exit_code() == 0


def test_sigterm_answers_what_was_accepted_and_refuses_what_is_new(artifacts: Path) -> None:
    async def drain(server: Server) -> list[Any]:
        async with AsyncClient(server.endpoint) as client:
            await client.infer("slow", SLOW)
            accepted = [asyncio.create_task(client.infer("slow", SLOW)) for _ in range(3)]
            await asyncio.sleep(0)  # lets them send
            await client.infer("tiny", tiny_inputs())  # behind the three on the same connection: they have arrived
            server.terminate()
            while True:
                try:
                    await client.infer("tiny", tiny_inputs())
                except Draining:
                    break
            return await asyncio.gather(*accepted)

    with running(artifacts) as server:
        replies = asyncio.run(drain(server))
        assert len(replies) == 3
        assert server.exit_code() == 0
