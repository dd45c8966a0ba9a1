"""The library of a bundle: every kernel in every setting that a candidate uses, as machine code, linked with the runner.

Code is generated on all cores. LLVM works outside the GIL, so threads are enough: each takes a few kernels, makes one module
of them and writes it as an object file. What modules share (TVM's hooks into its runtime) the linker merges.
"""

import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import tvm
from tvm.support import cc

from veltair.bundle.format import TargetSpec
from veltair.compiler.assemble import BlockCandidate, Setting
from veltair.compiler.target import tvm_target
from veltair.engine.program import runner_source
from veltair.errors import CompileError, ToolMissing

ROOM_BYTES = 128 << 10  # of the scratch folder for each kernel: its object and its part of the library, both generously
KERNELS_AT_ONCE = 6  # in one module: under a second of work, so that all threads end together and an interrupt waits for little


def build_library(blocks: Iterable[BlockCandidate], target: TargetSpec, library: Path) -> dict[Setting, str]:
    """Compile every kernel in every setting that a candidate uses and link them with the runner; setting -> symbol.

    Raises ToolMissing without a C++ compiler, OSError where the disk lacks the room, CompileError where linking fails.
    """
    symbols: dict[Setting, str] = {}
    functions: dict[str, Any] = {}
    numbers: dict[str, int] = {}
    for candidate in blocks:
        for chosen in candidate.calls:
            key, _ = chosen.setting
            if chosen.setting in symbols:
                continue
            symbol = f"{key.replace('-', '_')}_{numbers.setdefault(key, 0)}"
            numbers[key] += 1
            functions[symbol] = chosen.call.kernel.function(chosen.knobs, symbol)
            symbols[chosen.setting] = symbol
    _reserve(library.with_name("room"), ROOM_BYTES * (4 + len(functions)))
    objects = [_runner(library.with_name("runner.o")), *_objects(functions, target, library.parent)]
    try:
        cc.create_shared(str(library), [str(path) for path in objects])
    except RuntimeError as error:
        raise CompileError(f"the kernels could not be linked: {error}") from error
    return symbols


def _runner(path: Path) -> Path:
    command = ["c++", "-x", "c", "-O2", "-fPIC", "-c", str(runner_source()), "-o", str(path)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise ToolMissing("no C++ compiler: `c++` is not on PATH; install one (Debian: apt-get install g++)") from error
    except subprocess.CalledProcessError as error:
        raise CompileError(f"the C++ compiler failed on the runner: {error.stderr.strip()}") from error
    return path


def _objects(functions: Mapping[str, Any], target: TargetSpec, folder: Path) -> list[Path]:
    names = list(functions)
    threads = len(os.sched_getaffinity(0))
    modules = max(threads, -(-len(names) // KERNELS_AT_ONCE))
    parts = [part for number in range(modules) if (part := names[number::modules])]  # like kernels, in a row, are spread
    build = partial(_object, functions, target, folder)
    with ThreadPoolExecutor(threads, "veltair-llvm") as pool:
        try:
            return list(pool.map(build, range(len(parts)), parts))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # leaving the block waits for what runs already
            raise


def _object(functions: Mapping[str, Any], target: TargetSpec, folder: Path, number: int, names: Sequence[str]) -> Path:
    path = folder / f"kernels{number}.o"
    module = tvm.compile(tvm.IRModule({name: functions[name] for name in names}), target=tvm_target(target)).mod
    module.write_to_file(str(path))
    return path


def _reserve(path: Path, size_bytes: int) -> None:
    """Raises OSError where the disk lacks the room: LLVM ends the whole process when it meets a full one."""
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size_bytes)
