"""`veltair top` as its users meet it."""

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result
from served import Server

from veltair.cli import main, top
from veltair.observe.follow import Follower
from veltair.observe.live import Followed
from veltair.observe.read import read_log
from veltair.observe.records import PressureTold, encode_record
from veltair.wire.messages import Health

GOLDEN = Path(__file__).parent.parent / "simulate" / "golden" / "engine_fcfs.jsonl"


def run_top(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["top", *map(str, arguments)])


def serving(log: str) -> Health:
    return Health("", "serving", "0", "veltair", (), log=log)


def test_one_table_tells_what_each_tenant_got_and_its_noisiest_neighbour() -> None:
    result = run_top(GOLDEN, "--once")
    assert result.exit_code == 0, result.output
    head, *rows = [line for line in result.output.splitlines() if line.strip()]
    assert head.startswith("2026-11-23 03:53:00 UTC, last 4.47 s; policy fcfs; 0.6 of 1 cores leased")
    files = next(row for row in rows if row.strip().startswith("files")).split()
    assert files[:6] == ["files", "magika", "95", "%", "in", "30"]
    assert "MISSED" in files
    assert " ".join(files).endswith("pictures 8.66 ms (28.8 %)")


def test_json_holds_the_same_with_causes_that_add_up() -> None:
    result = run_top(GOLDEN, "--once", "--json")
    now = json.loads(result.output)
    assert result.output.count("\n") == 1
    assert (now["policy"], now["cores"], [t["tenant"] for t in now["tenants"]]) == ("fcfs", 1, ["files", "pictures"])
    for tenant in now["tenants"]:
        costs = tenant["costs"]
        of_others = sum(costs["waited_us"].values()) + sum(costs["slowed_us"].values()) + costs["outsiders_us"]
        assert of_others + costs["self_us"] == costs["excess_us"]
        assert tenant["noisiest"] == {"files": "pictures", "pictures": "files"}[tenant["tenant"]]
        assert 0 < tenant["noisiest_share"] < 1


def beside_others(tmp_path: Path, *told: PressureTold) -> Path:
    """The golden log with what the engine was told of other processes."""
    run = read_log(GOLDEN).runs[0]
    started = msgspec.structs.replace(run.started, sources=("runqueue",))
    log = tmp_path / "log.jsonl"
    log.write_bytes(b"".join(encode_record(record) + b"\n" for record in (started, *told, *run.records)))
    return log


def test_the_head_says_what_others_press_and_use_and_which_cpus_they_hold(tmp_path: Path) -> None:
    def head(*told: PressureTold) -> str:
        result = run_top(beside_others(tmp_path, *told), "--once")
        assert result.exit_code == 0, result.output
        return " ".join(result.output.split("tenant")[0].split())

    assert head(PressureTold(0, 0.25, 0.1, 1.0, (1,))).endswith("; others press 25 %, use 1.0 cores, hold CPU 1")
    assert head(PressureTold(0, 0.0, 0.1, 2.0, (3, 1))).endswith("; others press 0 %, use 2.0 cores, hold CPU 3, CPU 1")
    assert head(PressureTold(0, 0.0, 0.1, 2.0, (3,)), PressureTold(0, 0.0, 0.1, 0.2)).endswith("press 0 % and use 0.2 cores")
    assert head().endswith("; others press 0 % and use 0.0 cores")
    assert "others" not in run_top(GOLDEN, "--once").output  # nobody looked


def test_json_names_the_cpus_that_others_hold(tmp_path: Path) -> None:
    log = beside_others(tmp_path, PressureTold(0, 0.25, 0.1, 1.0, (1,)))
    now = json.loads(run_top(log, "--once", "--json").output)
    assert (now["outside_pressure"], now["outside_cores"], now["outside_held"]) == (0.25, 1.0, [1])
    assert json.loads(run_top(GOLDEN, "--once", "--json").output)["outside_held"] == []


def test_a_simulated_outsider_is_shown_though_no_source_was_read(tmp_path: Path) -> None:
    run = read_log(GOLDEN).runs[0]
    log = tmp_path / "log.jsonl"
    told = PressureTold(0, 0.5, cores=1.0, held=(0,))
    log.write_bytes(b"".join(encode_record(record) + b"\n" for record in (run.started, told, *run.records)))
    assert "; others press 50 %, use 1.0 cores, hold CPU 0" in " ".join(run_top(log, "--once").output.split())


def test_the_window_is_the_last_of_the_log() -> None:
    whole, last = (json.loads(run_top(GOLDEN, "--once", "--json", "--window", s).output) for s in (60, 1))
    assert (whole["at_us"], last["window_us"]) == (last["at_us"], 1_000_000)
    assert sum(t["ended"] for t in whole["tenants"]) == 149
    assert 0 < sum(t["ended"] for t in last["tenants"]) < 60


def test_without_once_it_looks_again_and_again_until_it_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: Iterator[None] = iter([None, None])

    def wait(_: float) -> None:
        if next(waits, "ended") == "ended":
            raise KeyboardInterrupt

    monkeypatch.setattr(top.time, "sleep", wait)
    result = run_top(GOLDEN, "--json")
    assert result.exit_code == 0, result.output
    looks = [json.loads(line) for line in result.output.splitlines()]
    assert len(looks) == 3
    assert looks[0]["at_us"] <= looks[1]["at_us"] <= looks[2]["at_us"]
    assert looks[0]["tenants"][0]["rate_per_s"] == 0  # long ago


def test_a_restarted_engine_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(top.time, "sleep", lambda _: None)
    log = tmp_path / "log.jsonl"
    log.write_bytes(GOLDEN.read_bytes())
    started = read_log(GOLDEN).runs[0].started
    with Follower(log) as follower:
        looks = top._looks(Followed(follower, 1_000_000), 0.1, until_now=False)
        assert next(looks).at_us > 4_000_000
        with log.open("ab") as file:
            file.write(encode_record(started) + b"\n")
        assert next(looks).at_us == started.at_us


def test_a_server_on_this_machine_tells_where_its_log_is(server: Server) -> None:
    server.now = serving(str(GOLDEN))
    result = run_top("tcp://127.0.0.1:7400", "--once", "--json")
    assert result.exit_code == 0, result.output
    now = json.loads(result.output)
    assert (now["policy"], now["tenants"][0]["ended"]) == ("fcfs", 0)  # of a server, the last seconds until now


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (None, "nothing answers at tcp://127.0.0.1:7400 [server_unreachable]"),
        ("", "writes no decision log; start it with `veltair serve --log FILE` [bad_log]"),
        ("/nowhere/else.jsonl", "'/nowhere/else.jsonl', which is not on this machine; run veltair top there [bad_log]"),
    ],
)
def test_a_server_without_a_log_to_read_is_named(server: Server, log: str | None, said: str) -> None:
    server.now = None if log is None else serving(log)
    result = run_top("tcp://127.0.0.1:7400", "--once")
    assert result.exit_code == 1
    assert said in result.output


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("none.jsonl", "log 'none.jsonl' cannot be read: No such file or directory; name a file"),
        (".", "cannot be read: Is a directory"),
        (__file__, "is no decision log, no run begins in it; give one of `veltair serve --log FILE`, whole [bad_log]"),
        ("tcp://x", "'tcp://x' is no endpoint; write for example 'tcp://127.0.0.1:7400' [bad_config]"),
        ("http://127.0.0.1:80", "is no endpoint"),
    ],
)
def test_what_is_neither_log_nor_server_is_named(source: str, said: str) -> None:
    result = run_top(source, "--once")
    assert result.exit_code == 1
    assert said in result.output


@pytest.mark.parametrize("option", [("--window", "0"), ("--interval", "0"), ("--window", "x")])
def test_a_window_or_interval_of_nothing_is_wrong_usage(option: tuple[str, str]) -> None:
    assert run_top(GOLDEN, "--once", *option).exit_code == 2
