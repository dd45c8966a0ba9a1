"""Tiny bundles made by hand: what the compiler would write, small enough to know every number of.

`tiny`:  y[1,64] = relu(x[1,64] @ W[64,64]) + rows[ids[1]]   block 0 is the product (variants whole, split), block 1 the rest
`slow`:  y[1] = x[0] added to itself many times over          two blocks of some 100 ms each
`rows`:  as `tiny`, compiled for batches of 1, 2 and 4, with one block less at 4
"""

import subprocess
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import tvm
from tvm import te

from veltair.bundle.format import (
    SCHEMA_VERSION,
    Batched,
    BlockSpec,
    CallSpec,
    Manifest,
    MeasureSpec,
    PortSpec,
    QosSpec,
    TargetSpec,
    TensorSpec,
    VariantSpec,
)
from veltair.bundle.store import write_bundle
from veltair.engine.program import runner_source

WIDTH, ROWS = 64, 16
SLOW_STEPS = 40_000_000

_random = np.random.default_rng(7)
WEIGHT = _random.standard_normal((WIDTH, WIDTH), np.float32)
TABLE = _random.standard_normal((ROWS, WIDTH), np.float32)


def tiny_answer(x: np.ndarray[Any, Any], ids: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What NumPy says the tiny model's output is."""
    return np.maximum(x @ WEIGHT, 0) + TABLE[ids]


def tiny_inputs(seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    random = np.random.default_rng(seed)
    return {"x": random.standard_normal((1, WIDTH), np.float32), "ids": random.integers(0, ROWS, (1,), np.int32)}


def _product(name: str, parallel: bool, batch: int = 1) -> Any:
    x, w = te.placeholder((batch, WIDTH), "float32"), te.placeholder((WIDTH, WIDTH), "float32")
    k = te.reduce_axis((0, WIDTH))
    y = te.compute((batch, WIDTH), lambda i, j: te.sum(x[i, k] * w[k, j], axis=k), name="product")
    function = te.create_prim_func([x, w, y]).with_attr("global_symbol", name)
    if not parallel:
        return function
    schedule = tvm.s_tir.Schedule(tvm.IRModule({name: function}))
    block = schedule.get_sblock("product", func_name=name)
    schedule.parallel(schedule.get_loops(block)[1])
    return schedule.mod[name]


def _rest(name: str, batch: int = 1) -> Any:
    h, ids = te.placeholder((batch, WIDTH), "float32"), te.placeholder((batch,), "int32")
    rows = te.placeholder((ROWS, WIDTH), "float32")
    y = te.compute((batch, WIDTH), lambda i, j: te.max(h[i, j], tvm.tirx.const(0.0, "float32")) + rows[ids[i], j])
    return te.create_prim_func([h, ids, rows, y]).with_attr("global_symbol", name)


def _many_additions(name: str) -> Any:
    x = te.placeholder((1,), "float32")
    k = te.reduce_axis((0, SLOW_STEPS))
    y = te.compute((1,), lambda i: te.sum(x[i], axis=k))
    return te.create_prim_func([x, y]).with_attr("global_symbol", name)


def build_library(path: Path, functions: dict[str, Any]) -> Path:
    runner = path.with_suffix(".runner.o")
    subprocess.run(["cc", "-O2", "-fPIC", "-Wall", "-Werror", "-c", str(runner_source()), "-o", str(runner)], check=True)
    executable = tvm.compile(tvm.IRModule(functions), target={"kind": "llvm", "mcpu": "x86-64"})
    executable.export_library(str(path), addons=[str(runner)])
    return path


def _variant(name: str, latency_us: int, *calls: CallSpec) -> VariantSpec:
    return VariantSpec(name, calls, {1: (latency_us, 2 * latency_us), 2: (latency_us, 2 * latency_us)}, 4096, 4096, 1e-7)


def tiny_manifest() -> Manifest:
    return Manifest(
        schema_version=SCHEMA_VERSION,
        name="tiny",
        source="made by hand",
        qos=QosSpec(500.0),
        target=TargetSpec("x86_64", "x86-64", 4, ("sse2",)),
        tools={},
        measured=MeasureSpec("test", 2, 0, 1, 0, 20_000.0),
        pressure_levels=(0.0, 1.0),
        inputs=(PortSpec("x", 0, "float32", (1, WIDTH)), PortSpec("ids", 1, "int32", (1,), max_value=ROWS)),
        outputs=(PortSpec("y", 2, "float32", (1, WIDTH)),),
        tensors=(
            TensorSpec("input", "float32", (1, WIDTH), 0),
            TensorSpec("input", "int32", (1,), 256),
            TensorSpec("output", "float32", (1, WIDTH), 320),
            TensorSpec("activation", "float32", (1, WIDTH), 576),
            TensorSpec("weight", "float32", (WIDTH, WIDTH), 0),
            TensorSpec("weight", "float32", (ROWS, WIDTH), WEIGHT.nbytes),
        ),
        arena_bytes=832,
        blocks=(
            BlockSpec(
                "product",
                2 * WIDTH * WIDTH,
                256,
                (
                    _variant("whole", 20, CallSpec("tiny_product", (0, 4, 3))),
                    _variant("split", 30, CallSpec("tiny_product_split", (0, 4, 3))),
                ),
            ),
            BlockSpec("rest", 2 * WIDTH, 0, (_variant("only", 10, CallSpec("tiny_rest", (3, 1, 5, 2))),)),
        ),
        files={},
    )


def rows_manifest() -> Manifest:
    return msgspec.structs.replace(tiny_manifest(), name="rows", batched=(_rows_at(2), _rows_at(4)))


def _rows_at(batch: int) -> Batched:
    one, stride = tiny_manifest(), 256 * batch
    offsets = (0, stride, stride + 64, 2 * stride + 64)
    tensors = tuple(
        msgspec.structs.replace(tensor, shape=(batch, *tensor.shape[1:]), offset=offset)
        for tensor, offset in zip(one.tensors, offsets, strict=False)
    )
    inputs, outputs = (
        tuple(msgspec.structs.replace(port, shape=(batch, *port.shape[1:])) for port in ports)
        for ports in (one.inputs, one.outputs)
    )
    product = CallSpec(f"tiny_product_{batch}", (0, 4, 3))
    rest = CallSpec(f"tiny_rest_{batch}", (3, 1, 5, 2))
    lists = {"product": (product,), "rest": (rest,)} if batch == 2 else {"all": (product, rest)}
    blocks = tuple(BlockSpec(name, 0, 0, (_variant(f"of {batch}", 15 * batch, *calls),)) for name, calls in lists.items())
    return Batched(
        batch=batch,
        inputs=inputs,
        outputs=outputs,
        tensors=tensors + one.tensors[4:],
        arena_bytes=3 * stride + 64,
        blocks=blocks,
    )


def slow_manifest() -> Manifest:
    block = BlockSpec("add", 0, 0, (_variant("only", 100_000, CallSpec("slow_add", (0, 1))),))
    return msgspec.structs.replace(
        tiny_manifest(),
        name="slow",
        qos=QosSpec(60_000.0),
        inputs=(PortSpec("x", 0, "float32", (1,)),),
        outputs=(PortSpec("y", 1, "float32", (1,)),),
        tensors=(TensorSpec("input", "float32", (1,), 0), TensorSpec("output", "float32", (1,), 64)),
        arena_bytes=128,
        blocks=(block, msgspec.structs.replace(block, name="add again")),
    )


def write_tiny_bundles(folder: Path) -> Path:
    """Both bundles, below `folder`."""
    work = folder.with_name(folder.name + "-build")
    work.mkdir(parents=True)
    tiny = build_library(
        work / "tiny.so",
        {
            "tiny_product": _product("tiny_product", parallel=False),
            "tiny_product_split": _product("tiny_product_split", parallel=True),
            "tiny_rest": _rest("tiny_rest"),
        },
    )
    weights = [(0, WEIGHT), (WEIGHT.nbytes, TABLE)]
    write_bundle(folder / "tiny", tiny_manifest(), weights, tiny, {"made": "by hand"})
    slow = build_library(work / "slow.so", {"slow_add": _many_additions("slow_add")})
    write_bundle(folder / "slow", slow_manifest(), b"", slow, {"made": "by hand"})
    return folder


def write_rows_bundle(folder: Path) -> Path:
    """The bundle `rows`, as `folder`."""
    work = folder.with_name(folder.name + "-build")
    work.mkdir(parents=True)
    kernels = {
        "tiny_product": _product("tiny_product", parallel=False),
        "tiny_product_split": _product("tiny_product_split", parallel=True),
        "tiny_rest": _rest("tiny_rest"),
    }
    for batch in (2, 4):
        kernels[f"tiny_product_{batch}"] = _product(f"tiny_product_{batch}", parallel=False, batch=batch)
        kernels[f"tiny_rest_{batch}"] = _rest(f"tiny_rest_{batch}", batch)
    weights = [(0, WEIGHT), (WEIGHT.nbytes, TABLE)]
    return write_bundle(folder, rows_manifest(), weights, build_library(work / "rows.so", kernels), {"made": "by hand"})
