"""Files of /proc as Linux writes them, below a root of the test's own."""

from collections.abc import Sequence
from pathlib import Path

PRESSURE = "some avg10=0.00 avg60=0.00 avg300=0.00 total={}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"


def write_stat(
    root: Path,
    *,
    busy_us: int = 0,
    idle_us: int = 0,
    iowait_us: int = 0,
    stolen_us: int = 0,
    each: Sequence[tuple[int, int]] = ((0, 0), (0, 0)),
) -> None:
    """/proc/stat with sums of all CPUs since boot; what is not whole hundredths of a second is cut off, as the kernel does.

    `each` CPU's line tells how long it served threads of usual niceness, and others.
    """
    lines = [_line("cpu ", busy_us, 0, 0, idle_us, iowait_us, 0, 0, stolen_us)]
    lines += [_line(f"cpu{cpu}", usual_us, niced_us) for cpu, (usual_us, niced_us) in enumerate(each)]
    _write(root / "proc/stat", "\n".join([*lines, "intr 16732723 0 0", "ctxt 73208584"]) + "\n")


def write_pressure(root: Path, *, cpu_us: int = 0, memory_us: int = 0) -> None:
    _write(root / "proc/pressure/cpu", PRESSURE.format(cpu_us))
    _write(root / "proc/pressure/memory", PRESSURE.format(memory_us))


def _line(name: str, *times_us: int) -> str:
    ticks = [us // 10_000 for us in times_us]
    return f"{name} {' '.join(map(str, ticks + [0] * (10 - len(ticks))))}"


def _write(path: Path, text: str) -> None:
    if not path.parent.exists():
        path.parent.mkdir(parents=True)
    path.write_text(text)
