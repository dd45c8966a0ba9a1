"""What is served to whom: bundles and configuration put together, once, before any process starts. No socket, no clock."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from veltair.bundle.format import Manifest, PortSpec
from veltair.bundle.store import list_bundles, read_manifest
from veltair.config import DEFAULT_QOS_MS, ModelQos, ServeConfig, TenantQos
from veltair.errors import BundleMissing, ConfigError, UnknownModel, UnknownTenant
from veltair.wire.messages import ModelInfo, Port

DEFAULT_TENANT = "default"
DEFAULT_PERCENTILE = 0.95


@dataclass(frozen=True, slots=True)
class Registry:
    bundles: tuple[Path, ...]
    models: tuple[ModelInfo, ...]
    promises: tuple[TenantQos, ...]

    def check(self, tenant: str, model: str) -> None:
        """Raises UnknownTenant or UnknownModel; a tenant is told of its own models only."""
        own = sorted(promise.model for promise in self.promises if promise.tenant == tenant)
        if not own:
            raise UnknownTenant(f"tenant {tenant!r} is not known here; add it to the server's configuration")
        if model not in own:
            raise UnknownModel(f"model {model!r} is not served to {tenant!r}; served: {', '.join(own)}")


def open_registry(folder: Path, config: ServeConfig) -> Registry:
    """Reads the manifests in `folder`; their files are verified by the engine. Raises BundleError or ConfigError."""
    bundles = list_bundles(folder)
    if not bundles:
        raise BundleMissing(f"no bundle in {folder}; run `veltair compile MODEL -o {folder}` first")
    manifests: dict[str, tuple[Path, Manifest]] = {}
    for bundle in bundles:
        manifest = read_manifest(bundle)
        if manifest.name in manifests:
            raise ConfigError(f"model {manifest.name!r} is in {manifests[manifest.name][0]} and in {bundle}; remove one of them")
        manifests[manifest.name] = bundle, manifest
    promises = _promises(config, [manifest for _, manifest in manifests.values()])
    served = {promise.model for promise in promises}
    return Registry(
        tuple(bundle for name, (bundle, _) in manifests.items() if name in served),
        tuple(_info(manifest, promises) for name, (_, manifest) in manifests.items() if name in served),
        promises,
    )


def _promises(config: ServeConfig, manifests: Sequence[Manifest]) -> tuple[TenantQos, ...]:
    by_name = {manifest.name: manifest for manifest in manifests}
    tenants = config.tenants or {DEFAULT_TENANT: {name: ModelQos() for name in by_name}}
    for tenant, models in tenants.items():
        for model in models:
            if model not in by_name:
                raise ConfigError(f"tenants.{tenant}.models.{model}: there is no such bundle; there are: {', '.join(by_name)}")
    return tuple(
        _promise(tenant, model, qos, by_name[model]) for tenant, models in tenants.items() for model, qos in models.items()
    )


def _promise(tenant: str, model: str, qos: ModelQos, manifest: Manifest) -> TenantQos:
    compiled = manifest.qos
    qos_ms = qos.qos_ms or (compiled.target_ms if compiled else DEFAULT_QOS_MS)
    percentile = qos.percentile or (compiled.percentile if compiled else DEFAULT_PERCENTILE)
    return TenantQos(tenant, model, max(1, round(qos_ms * 1000)), percentile, qos.precision, qos.priority, qos.weight)


def _info(manifest: Manifest, promises: Iterable[TenantQos]) -> ModelInfo:
    return ModelInfo(
        manifest.name,
        _ports(manifest.inputs),
        _ports(manifest.outputs),
        len(manifest.blocks),
        manifest.qos.target_ms if manifest.qos else None,
        tuple(promise.tenant for promise in promises if promise.model == manifest.name),
    )


def _ports(specs: Iterable[PortSpec]) -> tuple[Port, ...]:
    return tuple(Port(spec.name, spec.dtype, spec.shape) for spec in specs)
