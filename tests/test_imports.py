"""The tree imports one way, floor by floor: whoever reads a lower floor need not know the upper ones.

    cli → directory, gateway, cluster, bench → compiler, simulate, engine, client → interference
        → bundle, observe, wire → core → errors

`veltair/__init__.py` is free: it gathers the public API. Engines are started as programs, so the control plane does not
import them. Folders on one floor do not import each other, but for the exceptions below.
"""

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "veltair"

FLOORS = (
    ("__main__",),
    ("cli",),
    ("directory", "gateway", "cluster", "bench"),
    ("compiler", "simulate", "engine", "client", "models"),
    ("interference",),
    ("bundle", "observe", "wire"),
    ("config", "host", "turns", "tuning", "core"),
    ("errors",),
)
FLOOR = {folder: level for level, folders in enumerate(FLOORS) for folder in folders}

# (who, whom): why.
EXCEPTIONS: Mapping[tuple[str, str], str] = {
    ("compiler", "engine"): "gate and measurement run a bundle with the very code that will serve it",
    ("config", "core"): "what a tenant may be promised is said in the core's words",
    ("config", "host"): "cores that a setting names must exist",
    ("host", "core"): "where a core stands, and which to take first, is said in the core's words",
}
# (who, whom): lower, and yet not to be imported.
FORBIDDEN: Mapping[tuple[str, str], str] = {
    ("directory", "engine"): "engines are started as programs",
    ("gateway", "engine"): "a gateway is just another client",
    ("cluster", "engine"): "engines are started as programs",
    ("engine", "compiler"): "an engine loads the runtime only",
}
# Packages of others that only some folders may import.
ONLY_IN: Mapping[str, frozenset[str]] = {
    "tvm": frozenset({"compiler", "engine"}),
    "tvm_ffi": frozenset({"compiler", "engine"}),
    "onnx": frozenset({"compiler", "models", "bench"}),
    "onnxruntime": frozenset({"compiler", "models", "bench"}),
    "openvino": frozenset({"bench"}),
}
# The core decides, and touches nothing: what it may import is listed, all else is input, output, clocks or chance.
CORE_MAY_IMPORT = frozenset(
    {
        "__future__",
        "abc",
        "bisect",
        "collections",
        "copy",
        "dataclasses",
        "enum",
        "functools",
        "heapq",
        "itertools",
        "math",
        "operator",
        "types",
        "typing",
    }
)


@dataclass(frozen=True)
class Import:
    path: Path
    line: int
    module: str  # absolute


def imports_of(root: Path) -> Iterator[Import]:
    """Every import in the tree below `root`, wherever in a file it stands; symlinked folders are followed."""
    for path in sorted(p for top in (root, *(d for d in root.iterdir() if d.is_symlink())) for p in top.rglob("*.py")):
        package = ("veltair", *path.relative_to(root).parts[:-1])
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
            if isinstance(node, ast.Import):
                yield from (Import(path, node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = package[: len(package) - node.level + 1] if node.level else ()
                module = ".".join([*base, *([node.module] if node.module else [])])
                if module == "veltair":  # `from veltair import core` imports a folder
                    yield from (Import(path, node.lineno, f"veltair.{alias.name}") for alias in node.names)
                else:
                    yield Import(path, node.lineno, module)


def violations(root: Path) -> list[str]:
    """What breaks the rules, one sentence each."""
    found = []
    for each in imports_of(root):
        inside = each.path.relative_to(root)
        if inside == Path("__init__.py"):
            continue
        who, parts = inside.parts[0].removesuffix(".py"), each.module.split(".")
        where = f"{inside}:{each.line}"
        if who not in FLOOR:
            found.append(f"{where}: {who} has no floor; give it one in FLOORS")
            continue
        if parts[0] != "veltair":
            if who not in ONLY_IN.get(parts[0], {who}):
                found.append(f"{where}: {parts[0]} may be imported in {', '.join(sorted(ONLY_IN[parts[0]]))} only")
            elif who == "core" and parts[0] not in CORE_MAY_IMPORT:
                found.append(f"{where}: the core is pure and may not import {parts[0]}")
            continue
        whom = parts[1] if len(parts) > 1 else ""
        if whom in (who, "__version__"):
            continue
        if whom not in FLOOR:
            found.append(f"{where}: imports {each.module}, which has no floor; name the module that defines what you need")
        elif (who, whom) in FORBIDDEN:
            found.append(f"{where}: {who} may not import {whom}: {FORBIDDEN[who, whom]}")
        elif FLOOR[whom] == FLOOR[who] and (who, whom) not in EXCEPTIONS:
            found.append(f"{where}: {who} and {whom} are on one floor")
        elif FLOOR[whom] < FLOOR[who]:
            found.append(f"{where}: {who} imports upwards, from {whom}")
    return found


def test_the_tree_imports_one_way() -> None:
    assert violations(ROOT) == []


def test_the_cores_allowed_modules_are_all_of_the_standard_library() -> None:
    assert sys.stdlib_module_names >= CORE_MAY_IMPORT


@pytest.mark.parametrize(
    ("file", "line", "complaint"),
    [
        ("core/a.py", "import time", "the core is pure and may not import time"),
        ("core/a.py", "from random import random", "the core is pure and may not import random"),
        ("core/a.py", "import zmq.asyncio", "the core is pure and may not import zmq"),
        ("core/policies/a.py", "from pathlib import Path", "the core is pure and may not import pathlib"),
        ("core/a.py", "from veltair.wire.messages import Infer", "core imports upwards, from wire"),
        ("core/a.py", "from ..wire import messages", "core imports upwards, from wire"),
        ("core/policies/a.py", "from ... import wire", "core imports upwards, from wire"),
        ("wire/a.py", "from veltair import bundle", "wire and bundle are on one floor"),
        ("client/a.py", "def f():\n    from veltair.engine import lanes", "client and engine are on one floor"),
        ("errors.py", "import veltair.core.values", "errors imports upwards, from core"),
        ("directory/a.py", "from veltair.engine import main", "directory may not import engine: engines are started as programs"),
        ("directory/a.py", "import tvm", "tvm may be imported in compiler, engine only"),
        ("engine/a.py", "import onnxruntime", "onnxruntime may be imported in bench, compiler, models only"),
        ("shiny/a.py", "import os", "shiny has no floor; give it one in FLOORS"),
        ("cli/a.py", "from veltair import Client", "imports veltair.Client, which has no floor; name the module that defines"),
    ],
)
def test_a_wrong_import_is_caught(tmp_path: Path, file: str, line: str, complaint: str) -> None:
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(line + "\n")
    [found] = violations(tmp_path)
    assert found.startswith(file)
    assert complaint in found


def test_a_wrong_import_behind_a_link_is_caught(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "a.py").write_text("import tvm\n")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "models").symlink_to(tmp_path / "outside")
    assert violations(tmp_path / "tree") == ["models/a.py:1: tvm may be imported in compiler, engine only"]


def test_right_imports_pass(tmp_path: Path) -> None:
    for file, lines in {
        "__init__.py": ("import tvm", "from veltair.cli import main"),
        "cli/a.py": ("from veltair.directory import serve", "from veltair import __version__", "import click"),
        "compiler/a.py": ("import tvm, onnx", "from veltair.bundle.format import Manifest", "import veltair.engine.program"),
        "core/policies/a.py": ("import heapq", "from collections.abc import Mapping", "from ..values import Model"),
    }.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("\n".join(lines))
    assert violations(tmp_path) == []
