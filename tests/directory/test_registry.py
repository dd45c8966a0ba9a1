"""Bundles and configuration are put together, or the start-up says what does not fit."""

import shutil
from pathlib import Path

import pytest

from veltair.config import ModelQos, ServeConfig, TenantQos, parse_config
from veltair.directory.registry import open_registry
from veltair.errors import BundleMissing, ConfigError, UnknownModel, UnknownTenant


def test_without_configuration_one_tenant_has_every_model_as_compiled(artifacts: Path) -> None:
    registry = open_registry(artifacts, ServeConfig())
    assert registry.promises == (TenantQos("default", "slow", 60_000_000, 0.95), TenantQos("default", "tiny", 500_000, 0.95))
    assert [path.name for path in registry.bundles] == ["slow", "tiny"]


def test_a_tenants_own_target_goes_before_the_compiled_one(artifacts: Path) -> None:
    config = ServeConfig(tenants={"shop": {"tiny": ModelQos(qos_ms=5.0, percentile=0.99)}, "bank": {"tiny": ModelQos()}})
    registry = open_registry(artifacts, config)
    assert registry.promises == (TenantQos("shop", "tiny", 5_000, 0.99), TenantQos("bank", "tiny", 500_000, 0.95))
    assert [path.name for path in registry.bundles] == ["tiny"]  # nobody asked for the other
    assert registry.models[0].tenants == ("shop", "bank")


def test_a_configured_model_without_a_bundle_is_named(artifacts: Path) -> None:
    config = parse_config({"tenants": {"shop": {"models": {"tyni": {}}}}})
    with pytest.raises(ConfigError, match=r"tenants\.shop\.models\.tyni: there is no such bundle; there are: slow, tiny"):
        open_registry(artifacts, config)


def test_a_tenant_learns_of_its_own_models_only(artifacts: Path) -> None:
    registry = open_registry(artifacts, ServeConfig(tenants={"shop": {"tiny": ModelQos()}, "bank": {"slow": ModelQos()}}))
    registry.check("shop", "tiny")
    with pytest.raises(UnknownModel, match=r"served: tiny$"):
        registry.check("shop", "slow")
    with pytest.raises(UnknownTenant, match="'nobody'"):
        registry.check("nobody", "tiny")


def test_an_empty_folder_says_how_to_fill_it(tmp_path: Path) -> None:
    with pytest.raises(BundleMissing, match=r"no bundle in .*veltair compile MODEL"):
        open_registry(tmp_path, ServeConfig())


def test_two_bundles_of_one_model_are_both_named(artifacts: Path, tmp_path: Path) -> None:
    for copy in ("a", "b"):
        shutil.copytree(artifacts / "tiny", tmp_path / copy)
    with pytest.raises(ConfigError, match=r"model 'tiny' is in .*a and in .*b; remove one"):
        open_registry(tmp_path, ServeConfig())
