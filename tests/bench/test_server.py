"""The configuration that `bench` writes for its own servers is one that `serve` reads."""

from pathlib import Path

import pytest

from veltair.bench.scenario import Scenario, TenantLoad
from veltair.bench.server import config_text, running_server
from veltair.config import ModelQos, load_config
from veltair.errors import ServerError

ODD_NAME = 'a "quoted" tenant.\\'


def test_the_servers_configuration_promises_what_the_scenario_asks_for(tmp_path: Path) -> None:
    tenants = (
        TenantLoad("ads", "tiny", 5.0, 12.5),
        TenantLoad("ads", "large", 1.0, 80),
        TenantLoad(ODD_NAME, "tiny", 5.0, 9, 0.99, precision="bf16"),
    )
    path = tmp_path / "server.toml"
    path.write_text(config_text(Scenario("mixed", 10.0, tenants), "tcp://127.0.0.1:7399"))
    config = load_config(path)
    assert config.endpoint == "tcp://127.0.0.1:7399"
    assert config.tenants == {
        "ads": {"tiny": ModelQos(12.5, 0.95), "large": ModelQos(80.0, 0.95)},
        ODD_NAME: {"tiny": ModelQos(9.0, 0.99, "bf16")},
    }


def test_a_server_that_does_not_start_is_an_error_that_says_why(tmp_path: Path) -> None:
    scenario = Scenario("mixed", 1.0, (TenantLoad("ads", "tiny", 5.0, 10.0),))
    with (
        pytest.raises(ServerError, match=r"server for policy 'veltair' ended with status \d+ before it was ready: .*\w"),
        running_server(scenario, tmp_path / "no bundles", "veltair", tmp_path / "out"),
    ):
        pass
