"""`veltair metrics` as a scraper meets it."""

import threading
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result
from prometheus_client.parser import text_string_to_metric_families
from served import Server

from veltair.cli import main, metrics
from veltair.observe.records import Refused, encode_record
from veltair.wire.messages import EngineHealth, Health, OutsideHealth

GOLDEN = Path(__file__).parent.parent / "simulate" / "golden" / "engine_fcfs.jsonl"
OUTSIDE = OutsideHealth(0.5, 0.05, 1.2, ("runqueue",), discarded=3, held=(1,))
ENGINE = EngineHealth("tcp://127.0.0.1:1", "serving", 4, 2, 1, 77, OUTSIDE, adrift=("magika",), absurd=5)


@pytest.fixture
def up(server: Server) -> Health:
    """It answers, and has a log."""
    server.now = Health("", "serving", "0.1", "veltair", (ENGINE,), log=str(GOLDEN))
    return server.now


def run_metrics(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["metrics", *arguments])


def values(text: str) -> dict[tuple[str, ...], float]:
    """By name and the labels' values, these in alphabetical order of the labels."""
    families: Any = text_string_to_metric_families(text)
    return {(s.name, *(s.labels[label] for label in sorted(s.labels))): s.value for family in families for s in family.samples}


def test_it_tells_how_the_server_is_and_which_models_are_adrift(up: Health) -> None:
    result = run_metrics()
    assert result.exit_code == 0, result.output
    told = values(result.output)
    assert told["veltair_up",] == 1
    assert told["veltair_server_info", "veltair", "0.1"] == 1
    assert told["veltair_requests_waiting", ENGINE.endpoint] == 4
    assert told["veltair_times_discarded_total", ENGINE.endpoint] == 5
    assert told["veltair_outside_pressure_ratio", ENGINE.endpoint] == 0.5
    assert told["veltair_outside_held_cpus", ENGINE.endpoint] == 1
    assert told["veltair_model_adrift", "magika"] == 1
    assert told["veltair_model_adrift", "minilm"] == 0


def test_it_tells_what_each_tenant_got_as_top_does(up: Health) -> None:
    told = values(run_metrics("--window", "1000000000").output)  # the log is from long ago
    assert told["veltair_tenant_target_seconds", "magika", "files"] == pytest.approx(0.03)
    assert 0 < told["veltair_tenant_in_time_ratio", "magika", "files"] < 1
    assert (
        told["veltair_tenant_latency_seconds", "magika", "0.5", "files"]
        < told["veltair_tenant_latency_seconds", "magika", "0.95", "files"]
    )
    assert told["veltair_tenant_lost_requests", "refused", "magika", "files"] == 0
    assert told["veltair_tenant_noisiest_seconds", "magika", "pictures", "files"] > 0


def test_a_server_without_a_log_still_tells_how_it_is(server: Server) -> None:
    server.now = Health("", "degraded", "0.1", "veltair", ())
    result = run_metrics()
    assert result.exit_code == 1
    assert values(result.output)["veltair_up",] == 0
    assert "veltair_tenant" not in result.output


def test_printed_once_a_server_that_does_not_answer_is_an_error(server: Server) -> None:
    result = run_metrics("tcp://127.0.0.1:9")
    assert result.exit_code == 1
    assert "Error: nothing answers at tcp://127.0.0.1:9 [server_unreachable]" in result.output


def test_what_is_no_endpoint_is_said_before_anybody_listens(up: Health) -> None:
    result = run_metrics("localhost:7400", "--listen", "9464")
    assert result.exit_code == 1
    assert "endpoint = 'localhost:7400'" in result.output
    assert "[bad_config]" in result.output


@pytest.mark.parametrize("listen", ["", "x", "0", "127.0.0.1:70000", "127.0.0.1:"])
def test_a_port_that_is_none_is_named(up: Health, listen: str) -> None:
    result = run_metrics("--listen", listen)
    assert result.exit_code == 2
    assert f"{listen!r} is no port; write one like 9464 or 0.0.0.0:9464" in result.output


def test_scrapes_are_answered_also_while_the_server_is_away(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And a log is followed from one scrape to the next."""
    log = tmp_path / "log.jsonl"
    log.write_bytes(GOLDEN.read_bytes())
    up = Health("", "serving", "0.1", "veltair", (ENGINE,), log=str(log))
    listening = threading.Event()
    done = threading.Event()
    found: list[Any] = []

    def started(port: int, address: str, registry: Any) -> None:
        from prometheus_client import start_http_server

        found.append(start_http_server(0, address, registry)[0])
        listening.set()

    def sleep(_: float) -> None:
        done.wait()
        raise KeyboardInterrupt

    monkeypatch.setattr(metrics, "start_http_server", started)
    monkeypatch.setattr(metrics, "time", SimpleNamespace(sleep=sleep))  # not everybody's
    results: list[Result] = []
    listen = "--listen", "9464", "--window", "1000000000"
    service = threading.Thread(target=lambda: results.append(run_metrics(*listen)))
    service.start()
    try:
        assert listening.wait(10)

        def scraped() -> dict[tuple[str, ...], float]:
            url = f"http://127.0.0.1:{found[0].server_port}/metrics"
            with urllib.request.urlopen(url, timeout=10) as answer:
                return values(answer.read().decode())

        assert scraped() == {("veltair_up",): 0}
        server.now = up
        assert scraped()["veltair_up",] == 1
        before = scraped()["veltair_tenant_lost_requests", "refused", "magika", "files"]
        with log.open("ab") as more:
            more.write(encode_record(Refused(10_000_000, "r1000", "files", "magika", "draining", "asked to end")) + b"\n")
        assert scraped()["veltair_tenant_lost_requests", "refused", "magika", "files"] == before + 1
    finally:
        done.set()
        service.join(10)
        for http in found:
            http.shutdown()
            http.server_close()
    assert not service.is_alive()
    assert results[0].exit_code == 0
