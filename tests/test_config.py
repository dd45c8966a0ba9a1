"""A mistyped setting stops the start-up with its key, its value and what to write."""

from pathlib import Path
from typing import Any

import pytest

from veltair.config import Interference, ModelQos, ServeConfig, load_config, parse_config, parse_cores, with_options
from veltair.errors import ConfigError
from veltair.host import usable_cores

CORE = usable_cores()[0]


def test_a_file_is_read_with_units_as_people_write_them(tmp_path: Path) -> None:
    path = tmp_path / "veltair.toml"
    path.write_text(
        f"""
        endpoint = "tcp://127.0.0.1:7500"
        policy = "fcfs"
        cores = [{CORE}]
        log = "decisions.jsonl"
        drain_timeout_s = 3
        [interference]
        source = "probe"
        profile = "host.json"
        [tenants.shop.models.ocr-det]
        qos_ms = 60
        percentile = 0.99
        [tenants.shop.models.ocr-rec]
        [tenants.bank]
        precision = "bf16"
        priority = 1
        weight = 2
        [tenants.bank.models.ocr-det]
        [tenants.bank.models.ocr-rec]
        precision = "fp32"
        """
    )
    assert load_config(path) == ServeConfig(
        "tcp://127.0.0.1:7500",
        "fcfs",
        (CORE,),
        Path("decisions.jsonl"),
        3.0,
        {
            "shop": {"ocr-det": ModelQos(60.0, 0.99), "ocr-rec": ModelQos()},
            "bank": {
                "ocr-det": ModelQos(precision="bf16", priority=1, weight=2.0),
                "ocr-rec": ModelQos(precision="fp32", priority=1, weight=2.0),
            },
        },
        Interference("probe", Path("host.json")),
    )


def test_other_processes_are_watched_unless_it_is_said_otherwise() -> None:
    assert parse_config({}).interference.source == "auto"
    assert parse_config({"interference": {"source": "off"}}).interference.source == "off"


def test_command_line_options_go_before_the_file() -> None:
    config = with_options(parse_config({"policy": "fcfs", "drain_timeout_s": 3}), policy="veltair", cores=None)
    assert config == ServeConfig(policy="veltair", drain_timeout_s=3.0)


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ({"polcy": "x"}, "unknown key 'polcy'; known here: .*policy"),
        ({"endpoint": "localhost:7400"}, "endpoint = 'localhost:7400' is no endpoint"),
        ({"endpoint": "tcp://127.0.0.1:99999"}, "no valid port"),
        ({"cores": []}, r"cores = \[\]"),
        ({"cores": [CORE, CORE]}, "twice"),
        ({"cores": [100_000]}, r"may not use \[100000\]; choose from"),
        ({"cores": [True]}, "no list of core numbers"),
        ({"policy": 3}, "policy = 3"),
        ({"drain_timeout_s": float("nan")}, "drain_timeout_s = nan"),
        ({"drain_timeout_s": -1}, "above 0"),
        ({"interference": "off"}, r"interference = 'off' must be a table; write \[interference\]"),
        (
            {"interference": {"source": "counters"}},
            "interference.source = 'counters' is no source of pressure; write one",
        ),
        ({"interference": {"source": 3}}, "interference.source = 3 is no source of pressure"),
        ({"interference": {"sources": "perf"}}, "unknown key 'interference.sources'; known here: profile, source"),
        ({"tenants": {}}, "tenants is empty"),
        ({"tenants": {"a": {}}}, "tenant 'a' has no models"),
        ({"tenants": {"a": {"modles": {}}}}, r"unknown key 'tenants.a.modles'"),
        ({"tenants": {"a": {"models": {"m": {"qos_ms": 0}}}}}, r"tenants.a.models.m.qos_ms = 0 must be"),
        ({"tenants": {"a": {"models": {"m": {"qos": 5}}}}}, r"unknown key 'tenants.a.models.m.qos'"),
        ({"tenants": {"a": {"models": {"m": {"percentile": 95}}}}}, "percentile = 95 must be below 1; write 0.95"),
        ({"tenants": {"a": {"models": {"m": 5}}}}, "must be a table"),
        ({"tenants": {"a": {"precision": "fp16", "models": {"m": {}}}}}, "tenants.a.precision = 'fp16' is no precision; write"),
        ({"tenants": {"a": {"models": {"m": {"precision": True}}}}}, "models.m.precision = True is no precision"),
        ({"tenants": {"a": {"priority": 1.5, "models": {"m": {}}}}}, "tenants.a.priority = 1.5 is no priority; write a whole"),
        ({"tenants": {"a": {"priority": True, "models": {"m": {}}}}}, "tenants.a.priority = True is no priority"),
        ({"tenants": {"a": {"priority": 101, "models": {"m": {}}}}}, r"within -100..100"),
        ({"tenants": {"a": {"weight": 0, "models": {"m": {}}}}}, "tenants.a.weight = 0 must be a finite number above 0"),
        ({"tenants": {"a": {"weight": float("inf"), "models": {"m": {}}}}}, "tenants.a.weight = inf must be"),
        ({"tenants": {"a": {"models": {"m": {"priority": 1}}}}}, "unknown key 'tenants.a.models.m.priority'"),
    ],
)
def test_a_bad_value_is_named(table: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        parse_config(table)


def test_a_file_that_is_missing_or_no_toml_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("endpoint = \n")
    with pytest.raises(ConfigError, match=r"is not TOML.*line 1"):
        load_config(tmp_path / "bad.toml")


@pytest.mark.parametrize("text", ["", "a", "1-", "0,,1", "-1"])
def test_cores_that_are_no_numbers_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="neither a number nor a range"):
        parse_cores(text)


def test_cores_may_be_a_range() -> None:
    assert parse_cores(f"{CORE}-{CORE}") == (CORE,)
