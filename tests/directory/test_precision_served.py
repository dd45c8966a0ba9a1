"""Reduced precision over real sockets: the same model for two tenants, and the reply says which variants ran."""

import hashlib
import json
import shutil
from pathlib import Path

from server import running
from tiny import tiny_inputs

from veltair.client import Client


def test_only_the_tenant_that_permits_bf16_is_answered_with_it(artifacts: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(artifacts / "tiny", tmp_path / "bundles" / "tiny"))
    manifest = json.loads((folder / "manifest.json").read_text())
    split = manifest["blocks"][0]["variants"][1]
    split.update(precision="bf16", latency_us={"1": [5, 5], "2": [5, 5]})  # as if it were, and the fastest by far
    text = json.dumps(manifest).encode()
    (folder / "manifest.json").write_bytes(text)
    (folder / "manifest.sha256").write_text(f"{hashlib.sha256(text).hexdigest()}  manifest.json\n")
    config = tmp_path / "veltair.toml"
    config.write_text('[tenants.bank.models.tiny]\n[tenants.shop]\nprecision = "bf16"\n[tenants.shop.models.tiny]\n')
    with running(tmp_path / "bundles", "--config", str(config)) as server:
        for tenant, first in (("bank", "whole"), ("shop", "split")):
            with Client(server.endpoint, tenant=tenant) as client:
                assert client.infer("tiny", tiny_inputs()).variants == (first, "only")
