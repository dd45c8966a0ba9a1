"""Where times come from: measured tables of bundles, a CSV of layer times, equal blocks; and what a law adds to them."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from veltair.bundle.store import WEIGHTS, list_bundles, read_manifest, to_model
from veltair.core.values import Footprint, LatencyTable, LayerBlock, Model, ModelName, Variant
from veltair.errors import ConfigError
from veltair.simulate.scaling import scale_model
from veltair.simulate.workload import Costs, ModelSource

DATA = Path(__file__).parent / "data"
ZOO = "zoo_znver4"
"""Tables that come along."""


@dataclass(frozen=True, slots=True)
class Known:
    """A model and where its times are from. `measured_cores` are those of its first block's first variant."""

    model: Model
    source: str
    measured_cores: tuple[int, ...]

    @property
    def modelled_cores(self) -> tuple[int, ...]:
        return tuple(c for c in _cores(self.model) if c not in self.measured_cores)


class Tables(msgspec.Struct, frozen=True):
    """Models' latency tables on their own, without code and weights."""

    machine: str  # that measured them
    bandwidth_bytes_per_us: float
    models: tuple[Model, ...]


def read_models(names: set[str], costs: Costs, sources: Mapping[str, ModelSource], folder: Path, cores: int) -> dict[str, Known]:
    """The named models. Raises ConfigError for one that has no times, and whatever is wrong with a file."""
    known = {name: _from_source(sources[name], folder) for name in names if name in sources}
    missing = names - known.keys()
    if missing:
        found = _from_bundles(_at(folder, costs.bundles), missing) if costs.bundles else _from_tables(costs.tables, folder)
        if unknown := sorted(missing - found.keys()):
            have = ", ".join(sorted({*found, *sources})) or "none"
            raise ConfigError(f"model {unknown[0]!r} has no measured times; there are: {have}. Compile it, or add a [[model]]")
        known |= {name: found[name] for name in missing}
    if costs.scale == "usl":
        known = {name: replace(each, model=scale_model(each.model, cores)) for name, each in known.items()}
    for name, each in known.items():
        if min(_cores(each.model)) > cores:
            raise ConfigError(f"model {name!r} was measured on {min(_cores(each.model))} cores and more; give --cores as many")
    return known


def collect_tables(bundles: Path) -> Tables:
    """The tables of all bundles in a folder. Raises BundleError for one that is broken."""
    manifests = [read_manifest(folder) for folder in list_bundles(bundles)]
    bandwidths = sorted(m.measured.bandwidth_bytes_per_us for m in manifests)
    machines = sorted({m.measured.machine for m in manifests})
    models = tuple(_bundle_model(folder) for folder in list_bundles(bundles))
    return Tables(", ".join(machines), bandwidths[len(bandwidths) // 2] if bandwidths else 0.0, models)


def write_tables(tables: Tables, path: Path) -> None:
    """One line a model, so that a change of one is a change of one line."""
    head = msgspec.json.encode(msgspec.structs.replace(tables, models=()))
    lines = b",\n".join(msgspec.json.encode(model) for model in tables.models)
    path.write_bytes(head.removesuffix(b"]}") + b"\n" + lines + b"\n]}\n")


def read_tables(path: Path) -> Tables:
    """Raises ConfigError for a file that holds no tables."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Tables)
    except OSError as e:
        raise ConfigError(f"tables {str(path)!r} cannot be read: {e.strerror}; name a file of scripts/collect_tables") from e
    except (msgspec.MsgspecError, UnicodeDecodeError) as e:
        raise ConfigError(f"tables {str(path)!r}: {e}; make the file again with scripts/collect_tables") from e


def read_layers(path: Path) -> list[dict[int, int]]:
    """Microseconds by cores of each layer, from a CSV with the header `layer,cores_8,cores_16,..`.

    Raises ConfigError with the number of the line.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"layer times {str(path)!r} cannot be read: {e}; name a CSV file") from e
    cores = [_core_count(path, title) for title in rows[0][1:]] if rows else []
    if not cores or rows[0][0].strip() != "layer" or len(set(cores)) < len(cores):
        raise ConfigError(f"layer times {str(path)!r}, line 1: the header must be like layer,cores_8,cores_16")
    layers = []
    for number, row in enumerate(rows[1:], start=2):
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(cores) + 1:
            raise ConfigError(f"layer times {str(path)!r}, line {number}: {len(row)} cells, the header has {len(cores) + 1}")
        try:
            times = [int(cell) for cell in row[1:]]
        except ValueError as e:
            raise ConfigError(f"layer times {str(path)!r}, line {number}: times must be whole microseconds ({e})") from e
        if min(times) < 1:
            raise ConfigError(f"layer times {str(path)!r}, line {number}: a time is {min(times)} us; it must be 1 or more")
        layers.append(dict(zip(cores, times, strict=True)))
    if not layers:
        raise ConfigError(f"layer times {str(path)!r}: there is no layer below the header")
    return layers


def _core_count(path: Path, title: str) -> int:
    number = title.strip().removeprefix("cores_")
    if not number.isdigit() or int(number) < 1 or not title.strip().startswith("cores_"):
        raise ConfigError(f"layer times {str(path)!r}, line 1: column {title!r} must be like cores_8")
    return int(number)


def _from_source(source: ModelSource, folder: Path) -> Known:
    if source.csv is not None:
        path = _at(folder, source.csv)
        rows = read_layers(path)
        said = f"measured, {path.name}: {len(rows)} layers, nothing known of their traffic"
    else:
        assert source.service_ms is not None
        count = max(1, round(source.service_ms / source.block_ms))
        us = max(1, round(source.service_ms * 1000 / count))
        row = {1: us} if source.two_core_speedup is None else {1: us, 2: max(1, round(us / source.two_core_speedup))}
        rows = [row] * count
        said = f"stated, {count} equal blocks of {us} us"
    blocks = tuple(
        LayerBlock(f"{i:02d}", (Variant("only", LatencyTable((0.0,), {c: (us,) for c, us in row.items()}), Footprint(0, 0)),))
        for i, row in enumerate(rows)
    )
    model = Model(ModelName(source.name), blocks, weights_bytes=round(source.weights_mb * 1e6))
    return Known(model, said, _cores(model))


def _from_bundles(folder: Path, names: set[str]) -> dict[str, Known]:
    known = {}
    for path in list_bundles(folder):
        if path.name in names:
            model = _bundle_model(path)
            known[path.name] = Known(model, f"measured, bundle {path.name}", _cores(model))
    return known


def _bundle_model(folder: Path) -> Model:
    manifest = read_manifest(folder)
    batches = {batch: to_model(manifest.at_batch(batch)) for batch in manifest.batches if batch > 1}
    weights = (folder / WEIGHTS).stat().st_size if (folder / WEIGHTS).is_file() else 0
    return replace(to_model(manifest.at_batch(1)), batches=batches, weights_bytes=weights)


def _from_tables(name: str | None, folder: Path) -> dict[str, Known]:
    path = DATA / f"{ZOO}.json" if name is None else _at(folder, name)
    tables = read_tables(path)
    said = f"measured, {tables.machine} ({path.name})"
    return {model.name: Known(model, said, _cores(model)) for model in tables.models}


def _cores(model: Model) -> tuple[int, ...]:
    return tuple(sorted(model.blocks[0].variants[0].table.rows_us))


def _at(folder: Path, name: str) -> Path:
    return Path(name) if Path(name).is_absolute() else folder / name
