"""`veltair top` at a real server: found by its endpoint, read from its log."""

import json
from pathlib import Path

from click.testing import CliRunner
from server import running
from tiny import tiny_inputs

from veltair.cli import main
from veltair.client import Client

REQUESTS = 8
LOOKS = 200  # the log is written twenty times a second


def test_it_shows_what_the_server_answered_and_says_where_there_is_no_log(artifacts: Path, tmp_path: Path) -> None:
    log = tmp_path / "decisions.jsonl"
    with running(artifacts, "--log", str(log)) as server, Client(server.endpoint) as client:
        assert client.health().log == str(log)
        for seed in range(REQUESTS):
            client.infer("tiny", tiny_inputs(seed), deadline_ms=2_000)
        for _ in range(LOOKS):
            result = CliRunner().invoke(main, ["top", server.endpoint, "--once", "--json", "--window", "60"])
            assert result.exit_code == 0, result.output
            tiny = next(tenant for tenant in json.loads(result.output)["tenants"] if tenant["model"] == "tiny")
            if tiny["ended"] == REQUESTS:
                break
    assert (tiny["tenant"], tiny["ended"], tiny["in_qos"], tiny["noisiest"]) == ("default", REQUESTS, 1.0, None)
    assert tiny["costs"]["solo_us"] > 0
    with running(artifacts) as server:
        result = CliRunner().invoke(main, ["top", server.endpoint, "--once"])
    assert result.exit_code == 1
    assert "writes no decision log; start it with `veltair serve --log FILE`" in result.output
