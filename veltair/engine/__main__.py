"""`python -m veltair.engine`: one engine process. Started by the directory, which writes EngineSettings (JSON) to stdin.

Says one line of JSON on stdout: {"endpoint": ...} once it serves, or {"code": ..., "message": ...} where it cannot.
"""

import os

# Before anything imports tvm. The runtime alone is 5 MB of libraries in place of 260.
os.environ["TVM_USE_RUNTIME_LIB"] = "1"
# A pool thread spins for its next kernel before it sleeps. TVM's own 300000 rounds hold a core for 5 ms and more after
# a unit, and that core may be another lane's by then; 100 rounds are about 60 us, which still bridges two kernels.
os.environ.setdefault("TVM_THREAD_POOL_SPIN_COUNT", "100")

import ctypes
import gc
import json
import secrets
import signal
import sys
import time
import traceback
from importlib.metadata import version
from pathlib import Path

import msgspec
import zmq

from veltair import host, turns
from veltair.bundle.store import open_bundle
from veltair.config import EngineSettings
from veltair.core.events import ModelLoaded
from veltair.core.policies import make_policy
from veltair.core.scheduler import Scheduler
from veltair.core.values import CoreId, Machine, Model
from veltair.engine.intake import Intake
from veltair.engine.program import Program
from veltair.engine.service import LINGER_MS, Outbox, Service, WakeUp, listen_to_signals, microseconds_since_start
from veltair.engine.stage import Stage
from veltair.engine.watch import Watch
from veltair.errors import VeltairError
from veltair.interference import profile as profiles
from veltair.interference import times as host_times
from veltair.interference.sampler import Sampler
from veltair.interference.sources.choose import Surroundings, open_groups
from veltair.interference.times import HostTimes
from veltair.observe import records
from veltair.observe.log import DecisionLog

PR_SET_PDEATHSIG = 1
# A lane that comes back from a kernel waits at most this long for the GIL while another thread computes in Python.
# The default of 5 ms would be the largest part of a small model's latency.
GIL_SWITCH_INTERVAL_S = 100e-6
MAX_MESSAGE_BYTES = 256 << 20  # no input is near it; a peer that sends more is cut off before we hold it in memory


def main() -> int:
    settings = msgspec.json.decode(sys.stdin.buffer.read(), type=EngineSettings)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # a directory that dies takes its engines with it, drained
    os.environ["TVM_NUM_THREADS"] = str(len(settings.cores))
    sys.setswitchinterval(GIL_SWITCH_INTERVAL_S)
    try:
        serve(settings)
    except VeltairError as error:
        say(code=error.code, message=str(error))
        return 1
    except Exception:
        traceback.print_exc()
        return os.EX_SOFTWARE
    return 0


def serve(settings: EngineSettings) -> None:
    clock = microseconds_since_start()
    programs = {bundle.name: Program(bundle) for bundle in (open_bundle(Path(folder)) for folder in settings.bundles)}
    cores = tuple(CoreId(core) for core in settings.cores)
    times, bandwidth = known_times(settings, programs)
    models = {name: p.bundle.model if times is None else times.on(p.bundle.manifest) for name, p in programs.items()}
    machine = Machine(cores, bandwidth, host.read_places(cores))
    scheduler = Scheduler(machine, make_policy(settings.policy))
    for model in models.values():
        scheduler.handle(ModelLoaded(model), clock())
    sampler = open_sampler(settings, bandwidth)  # before any lane: a lane's misses are to be counted as ours
    log = DecisionLog(settings.log) if settings.log is not None else None
    if log is not None:
        log.write(started(settings, models, machine, sampler, clock()))
    wake_up = WakeUp()
    outbox = Outbox(wake_up)
    stage = Stage(scheduler, cores, clock, outbox.put, log.write if log else lambda _: None, outbox.broken, wake_up.ring)
    turns.pass_messages()  # this thread and those of zmq; lanes step back
    context = zmq.Context()
    router = bind(context, settings.endpoint)
    endpoint = router.getsockopt_string(zmq.LAST_ENDPOINT)
    local = bind_local(router)
    by_program = {program: models[name] for name, program in programs.items()}
    by_program |= {batch: models[name].batches[n] for name, program in programs.items() for n, batch in program.batches.items()}
    watch = Watch(sampler, stage, by_program, clock, bandwidth, outbox.broken) if sampler.sources else None
    service = Service(router, Intake(programs, settings.tenants), stage, outbox, wake_up, settings.policy, watch)
    listen_to_signals(service, wake_up)
    gc.collect()
    gc.freeze()  # programs and manifests live as long as we do; no collection needs to walk them
    gc.set_threshold(20_000)  # requests leave no cycles behind; a collection every 700 allocations is time of somebody's
    say(endpoint=endpoint, local=local, outside=sampler.describe())
    if watch is not None:
        watch.start()
    try:
        service.run(settings.drain_timeout_s)
    finally:
        router.close(LINGER_MS)
        context.term()
        if log is not None:
            log.close()


def open_sampler(settings: EngineSettings, bandwidth_bytes_per_us: float) -> Sampler:
    """Raises SourceUnavailable where the source that the configuration names cannot be had."""
    if settings.source == "off":
        return Sampler(())
    profile, why_none = profiles.current(None if settings.profile is None else Path(settings.profile))
    return Sampler(open_groups(settings.source, Surroundings(bandwidth_bytes_per_us, profile, why_none)))


def bind(context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str) -> "zmq.Socket[bytes]":
    router = context.socket(zmq.ROUTER)
    router.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
    router.setsockopt(zmq.HEARTBEAT_IVL, 1_000)  # a client that vanished is forgotten, and its queue with it
    router.setsockopt(zmq.HEARTBEAT_TIMEOUT, 5_000)
    router.bind(endpoint)
    return router


def bind_local(router: "zmq.Socket[bytes]") -> str:
    """A socket without a file beside the TCP one: some 30 us less each way than TCP over loopback."""
    name = f"ipc://@veltair-{os.getpid()}-{secrets.token_hex(4)}"
    router.bind(name)
    return name


def known_times(settings: EngineSettings, programs: dict[str, Program]) -> tuple[HostTimes | None, float]:
    """This host's own times of the bundles, and the bandwidth (bytes/us) that pressures are shares of."""
    times = host_times.current(None if settings.profile is None else Path(settings.profile))[0] if settings.times else None
    manifests = [program.bundle.manifest for program in programs.values()]
    if times is not None and any(times.knows(manifest) for manifest in manifests):
        return times, times.bandwidth_bytes_per_us
    return None, max(manifest.measured.bandwidth_bytes_per_us for manifest in manifests)


def started(
    settings: EngineSettings, models: dict[str, Model], machine: Machine, sampler: Sampler, now_us: int
) -> records.Started:
    infos = (
        records.ModelRecord(
            name, tuple(records.BlockInfo(block.name, tuple(v.name for v in block.variants)) for block in model.blocks)
        )
        for name, model in models.items()
    )
    tenants = (
        records.TenantRecord(t.tenant, t.model, t.qos_us, t.percentile, t.precision, t.priority, t.weight)
        for t in settings.tenants
    )
    return records.Started(
        now_us,
        time.time(),
        version("veltair"),
        settings.policy,
        processor(),
        settings.cores,
        tuple(infos),
        tuple(tenants),
        host.read_quota(),
        records.CoreRecord(machine, tuple(models.values())),
        sampler.sources,
        sampler.refused,
    )


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), os.uname().machine)


def say(**fields: str) -> None:
    print(json.dumps(fields), flush=True)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # lanes may still be inside a kernel that nobody waits for; the interpreter would wait for their GIL
