"""`veltair calibrate`: measure this host, once, and again when it has become another."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path

import click
import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from veltair.bundle.store import MANIFEST, list_bundles
from veltair.cli.progress import ShareBar
from veltair.compiler.apart import Apart
from veltair.errors import CompileError, ProfileMissing, ProfileSchemaUnknown, VeltairError
from veltair.interference import profile as profiles
from veltair.interference.calibrate import Peaks
from veltair.interference.calibrate import calibrate as measure
from veltair.interference.machine import Groups, Machine, this_machine
from veltair.interference.profile import HostProfile
from veltair.interference.report import render
from veltair.interference.sampler import Sampler
from veltair.interference.sources.choose import Surroundings, open_groups
from veltair.interference.times import FILE as TIMES_FILE
from veltair.interference.times import HostTimes
from veltair.interference.times import read as read_times

WIDTH_IN_FILES = 120
_KINDS = (
    "cache: reads that share of the last-level cache, over and over;\n"
    "stream, compute: copies in memory, multiplies, for that share of the time"
)


class Answer(msgspec.Struct, frozen=True):
    """What --json prints."""

    path: str
    made: bool  # now; else the one that was there holds
    reason: str  # why it was made, or that nothing has changed
    profile: HostProfile


@click.command(epilog="Example: veltair calibrate --profile host.json --json")
@click.option(
    "--profile", "path", type=click.Path(dir_okay=False, path_type=Path), envvar=profiles.VARIABLE, show_envvar=True,
    help="The file. Default: veltair/host.json in the user's cache folder.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Measure though the profile there is still holds.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the order of measurements.")
@click.option("--json", "as_json", is_flag=True, help="Print what is known as JSON.")
@click.option("--deep", is_flag=True, help="Also run BUNDLES (or folders of them) beside each other, and learn from it.")
@click.option(
    "--seconds", type=click.FloatRange(1.0), default=90.0, show_default=True,
    help="Of running together; what earlier calls have timed counts, too.",
)  # fmt: skip
@click.option("--report", is_flag=True, help="Measure nothing; print how well held-out co-runs were foretold.")
@click.argument("bundles", nargs=-1, type=click.Path(exists=True, file_okay=False, path_type=Path))
def calibrate(
    path: Path | None, force: bool, seed: int, as_json: bool, deep: bool, seconds: float, report: bool, bundles: tuple[Path, ...]
) -> None:
    """Measure what this host can do and how crowded it can get: cores, caches, bandwidth, and what a probe feels of antagonists.

    Takes about half a minute, on all cores: stop what else runs. A profile that still holds for this machine, its kernel, its
    cores and its CPU quota is left as it is.
    """
    if bool(bundles) != deep or (deep and report):
        raise click.UsageError("BUNDLES go with --deep, which goes without --report: veltair calibrate --deep artifacts")
    path = path or profiles.default_path()
    try:
        answer = None if report else _profile(path, force, seed)
        times = _deepen(answer.profile, bundles, path, seconds, seed) if answer and deep else None
        if report:
            times = read_times(path.parent / TIMES_FILE, this_machine().fingerprint)
    except VeltairError as error:
        raise click.ClickException(f"{error} [{error.code}]") from error
    if as_json:
        known = answer if times is None else msgspec.structs.replace(times, bundles={})
        click.echo(msgspec.json.format(msgspec.json.encode(known), indent=1))
        return
    console = Console(highlight=False)
    console = console if console.is_terminal else Console(width=WIDTH_IN_FILES)
    if answer is not None:
        _print(answer, console)
    if times is not None:
        console.print(render(times))


def _deepen(profile: HostProfile, bundles: Sequence[Path], path: Path, seconds: float, seed: int) -> HostTimes:
    folders = [folder for given in bundles for folder in ([given] if (given / MANIFEST).is_file() else list_bundles(given))]
    # Before anything imports tvm, as in an engine: the runtime alone, and pool threads that do not spin on.
    os.environ["TVM_USE_RUNTIME_LIB"] = "1"
    os.environ.setdefault("TVM_THREAD_POOL_SPIN_COUNT", "100")
    run: Callable[..., HostTimes] = import_module("veltair.bench.corun").deepen
    with ShareBar(Console(stderr=True)) as bar:
        return run(folders, profile, path.parent, seconds, seed, bar)


def _profile(path: Path, force: bool, seed: int) -> Answer:
    machine = this_machine()
    reason = "--force"
    if not force:
        try:
            found = profiles.read(path)
            stale = profiles.stale_reason(found, machine)
            if stale is None:
                return Answer(str(path), False, f"unchanged since {found.made_at}", found)
            reason = f"the one of {found.made_at} is stale: {stale}"
        except ProfileMissing:
            reason = "there was none"
        except ProfileSchemaUnknown as error:
            reason = str(error)
    profiles.make_folder(path)
    with ShareBar(Console(stderr=True)) as bar:
        made = measure(machine, _peaks_apart, bar, seed)
    profiles.write(made, path)
    return Answer(str(path), True, reason, made)


def _peaks_apart() -> Peaks:
    """In a process of its own, so that TVM and its threads are gone when the probe runs."""
    try:
        with Apart(_peaks) as apart:
            return apart.result()
    except CompileError as error:
        return Peaks({}, {}, f"peak unknown: {error}")


def _peaks() -> Peaks:
    """By kernels that TVM builds; without it they stay unknown."""
    try:
        import_module("veltair.compiler.tvm_alone").import_tvm()
        peaks, tvm = import_module("veltair.compiler.peaks"), import_module("tvm")
    except ModuleNotFoundError as error:
        return Peaks({}, {}, f'peak unknown: {error.name} is not installed; run: pip install "veltair[engine]"')
    found = {}
    for precision in peaks.PRECISIONS:
        with contextlib.suppress(CompileError):  # the CPU does not compute it
            found[precision] = peaks.fma_peak_gflops(precision)
    return Peaks(found, {"tvm": tvm.__version__})


def _print(answer: Answer, console: Console) -> None:
    profile, machine = answer.profile, answer.profile.machine
    facts = Table.grid(padding=(0, 2))
    for name, value in _facts(profile, machine):
        facts.add_row(name, value)
    console.print(facts)
    if profile.ladder:
        table = Table(
            box=SIMPLE_HEAD,
            title="beside antagonists on the other cores, the probe takes so many times as long",
            title_justify="left",
        )
        table.add_column("antagonist")
        for column in ("level", "moves GB/s", "median", "low round", "high round", "p95 of readings"):
            table.add_column(column, justify="right")
        for rung in profile.ladder:
            kind = rung.kind if rung.level == profile.rungs(rung.kind)[0].level else ""
            moved = f"{rung.gb_per_s:.1f}" if rung.gb_per_s else "-"
            slower = (f"{s:.2f}" for s in (rung.slowdown_median, rung.slowdown_low, rung.slowdown_high, rung.slowdown_p95))
            table.add_row(kind, f"{rung.level:.0%}", moved, *slower, style="yellow" if rung.disturbed else None)
        console.print(table)
        console.print(_KINDS)
    for note in profile.notes:
        console.print(f"[yellow]note: {escape(note)}[/]", soft_wrap=True)
    sampler = Sampler(open_groups("auto", Surroundings(profile.bandwidth_gb_per_s.one_core * 1e3, profile)))
    console.print(f"a server here learns of other processes by {escape(sampler.describe())}", soft_wrap=True)
    sampler.close()
    did = f"measured in {profile.took_s:.0f} s, since {answer.reason}" if answer.made else answer.reason
    console.print(f"{escape(answer.path)}: {escape(did)}", soft_wrap=True)


def _facts(profile: HostProfile, machine: Machine) -> Iterator[tuple[str, str]]:
    yield "CPU", machine.cpu
    yield "kernel", f"Linux {machine.kernel}"
    quota = "no CPU quota" if machine.quota is None else f"a CPU quota of {machine.quota:g}"
    yield "cores", f"{_list(machine.cores)} of {machine.cpus}, {quota}"
    threads = max(map(len, machine.siblings))
    yield "threads", "one a core" if threads == 1 else f"{threads} a core (SMT): {_groups(machine.siblings)}"
    yield "memory nodes", f"{len(machine.nodes)}" + (f": {_groups(machine.nodes)}" if len(machine.nodes) > 1 else "")
    for level in sorted({cache.level for cache in machine.caches}):
        caches = [cache for cache in machine.caches if cache.level == level]
        private = all(len(cache.cores) == 1 for cache in caches)
        whose = "a core" if private else f"for {_groups(tuple(cache.cores for cache in caches))}"
        yield f"L{level}", f"{_size(caches[0].size_bytes)} {whose}"
    peaks = ", ".join(f"{gflops:.0f} GFLOP/s in {precision}" for precision, gflops in profile.fma_peak_gflops.items())
    yield "peak of a core", peaks or "unknown"
    bandwidth = profile.bandwidth_gb_per_s
    yield "reads", f"{bandwidth.one_core:.1f} GB/s by one core, {bandwidth.all_cores:.1f} by all"
    probe = profile.probe
    yield (
        "probe",
        (
            f"{probe.median_us:.0f} us, p95 {probe.p95_us:.0f}, spread {probe.spread:.0%} "
            f"({probe.samples} readings; {profile.discarded or 'no'} absurd ones discarded)"
        ),
    )


def _groups(groups: Groups) -> str:
    return " | ".join(map(_list, groups))


def _list(cores: Sequence[int]) -> str:
    """(0, 1, 2, 5) → "0-2,5", as taskset takes them."""
    runs: list[list[int]] = []
    for core in cores:
        if runs and core == runs[-1][-1] + 1:
            runs[-1].append(core)
        else:
            runs.append([core])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _size(count: int) -> str:
    return f"{count >> 20} MiB" if count >= 1 << 20 else f"{count >> 10} KiB"
