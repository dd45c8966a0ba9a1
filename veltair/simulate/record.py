"""A simulated run as a decision log: what reads an engine's (dashboard, top, trace, replay) reads it too."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from veltair.core.events import ModelLoaded
from veltair.core.values import Machine, Model
from veltair.errors import LogError
from veltair.observe import records
from veltair.simulate.trace_steps import StepRecords
from veltair.simulate.virtual import Step
from veltair.simulate.workload import Workload


@contextmanager
def watch_log(path: str | Path, workload: Workload, machine: Machine, policy: str) -> Iterator[Callable[[Step], None]]:
    """A `watch` for `play`. The file appears when the `with` block ends well, whole or not at all; same steps, same bytes.

    The run is said to begin once all models are loaded, in 1970. Raises LogError where the file cannot be written.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    words, models, begun = StepRecords(), list[Model](), False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:

            def watch(step: Step) -> None:
                nonlocal begun
                if isinstance(step.event, ModelLoaded) and not begun:
                    models.append(step.event.model)
                elif not begun:
                    begun = True
                    file.write(records.encode_record(_started(workload, machine, policy, models)) + b"\n")
                file.writelines(records.encode_record(record) + b"\n" for record in words.of(step))

            yield watch
        part.replace(path)
    except OSError as e:
        raise LogError(f"log {str(path)!r} cannot be written: {e.strerror}; name a writable file") from e
    finally:
        part.unlink(missing_ok=True)


def _started(workload: Workload, machine: Machine, policy: str, models: list[Model]) -> records.Started:
    blocks = {
        model.name: tuple(records.BlockInfo(block.name, tuple(v.name for v in block.variants)) for block in model.blocks)
        for model in models
    }
    tenants = tuple(
        records.TenantRecord(t.name, model, t.qos_us, t.percentile, t.precision, t.priority, t.weight)
        for t in workload.tenant
        for model in t.models
    )
    return records.Started(
        at_us=0,
        wall_time_s=0.0,
        version=version("veltair"),
        policy=policy,
        machine=f"{len(machine.cores)} simulated cores, workload {workload.name}",
        cores=machine.cores,
        models=tuple(records.ModelRecord(name, infos) for name, infos in blocks.items()),
        tenants=tenants,
        core=records.CoreRecord(machine, tuple(models)),
    )
