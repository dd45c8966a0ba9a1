"""The search: what it times, what it keeps, and what survives a candidate that ends or hangs the process it is built in."""

import os
import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pytest

from veltair.compiler import search as module
from veltair.compiler import search_worker
from veltair.compiler.records import Records, Timed
from veltair.compiler.schedules.base import Knobs
from veltair.compiler.schedules.gemm import Gemm
from veltair.compiler.search import Searched, search
from veltair.compiler.search_worker import Answer, Job, Refused, rank
from veltair.compiler.timing import Pool
from veltair.errors import CompileError

from .crashing import ABORTS, CRASHES, FINE, HANGS, LLVM_DIES, NAMES, REFUSED, Crashing
from .small import HOST, OLDEST


@pytest.fixture(autouse=True)
def worker_finds_the_crashing_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parent.parent
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(root), str(root.parent), os.environ.get("PYTHONPATH", "")]))


@pytest.fixture(scope="module")
def pool() -> Pool:
    return Pool(0)


def searched(kernels: Sequence[Any], spare: Collection[str] = ()) -> tuple[Records, Searched]:
    records = Records(OLDEST.mcpu, [])
    return records, search(kernels, OLDEST, records, 0, lambda done, total: None, spare=spare)


def timed_acts(records: Records, kernel: Crashing) -> list[str]:
    return sorted(NAMES[t.knobs["act"]] for t in records.get(kernel.key) or [])


def test_candidates_that_end_the_process_fail_alone_and_are_named_with_the_reason() -> None:
    before, after = Crashing(8, (FINE,)), Crashing(24, (FINE,))
    bad = Crashing(16, (FINE, REFUSED, LLVM_DIES, CRASHES, FINE))
    records, result = searched([before, bad, after])
    assert timed_acts(records, bad) == ["fine", "fine"]
    assert timed_acts(records, before) == timed_acts(records, after) == ["fine"]
    assert {NAMES[f["knobs"]["act"]]: f["reason"] for f in result.failed} == {
        "refused": "these knobs do not fit",
        "llvm dies": "while it was built, its process was ended by SIGABRT: "
        "LLVM ERROR: Do not know how to split the result of this operator!",
        "crashes": "while it was run, its process was ended by SIGSEGV",
    }
    assert {f["kernel"] for f in result.failed} == {"crashing 16 -> 16"}
    assert result.restarts == 3  # LLVM twice: first in the module of all, then by itself
    assert (result.kernels, result.candidates) == (3, 4)


def test_a_candidate_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUILD_LIMIT_S", 4.0)
    kernel = Crashing(8, (HANGS, FINE))
    records, result = searched([kernel])
    assert timed_acts(records, kernel) == ["fine"]
    assert [f["reason"] for f in result.failed] == ["while it was built, its process hung for 4 s"]


def test_a_kernel_without_any_candidate_that_works_is_named_with_the_reason() -> None:
    with pytest.raises(CompileError, match=r"no schedule fits the kernel crashing 8 -> 8 \(these knobs do not fit\)"):
        searched([Crashing(8, (REFUSED, REFUSED))])


def test_another_form_of_a_call_may_have_no_candidate_that_works_and_is_not_tried_again() -> None:
    form = Crashing(8, (REFUSED,))
    records, result = searched([form], spare=[form.key])
    assert records.get(form.key) == []
    assert len(result.failed) == 1
    assert search([form], OLDEST, records, 0, lambda done, total: None).kernels == 0


def test_what_is_known_is_not_searched_and_needs_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Crashing(8, (ABORTS,))
    records = Records("any", [])
    records.put(kernel.key, [Timed({"act": FINE}, 1.0, 1.0)])
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    assert search([kernel, kernel], OLDEST, records, 0, lambda done, total: None).kernels == 0


def test_every_candidate_is_timed_on_one_core_and_on_all(pool: Pool) -> None:
    kernel = Gemm(48, 64, 64, 32, HOST.lanes)
    candidates = dict(enumerate(kernel.candidates()))
    said: list[Answer] = []
    ranking = rank(Job(kernel, candidates, HOST, True), pool, said.append)
    assert ranking is not None
    assert set(ranking.us) == set(candidates)
    assert all(us > 0 and wide > 0 for us, wide in ranking.us.values())
    assert not any(isinstance(answer, Refused) for answer in said)


class Sized(Crashing):
    def traffic_bytes(self, knobs: Knobs) -> int:
        return 1000 - knobs["number"]


@pytest.mark.parametrize(("slower", "again"), [(1.2, True), (1.4, False)])
def test_the_smallest_footprint_is_timed_again_unless_it_is_much_slower(slower: float, again: bool) -> None:
    kernel = Sized(8, (FINE,) * 8)
    candidates = dict(enumerate(kernel.candidates()))
    brief = {i: (100.0 + i, 50.0 + i) for i in range(7)} | {7: (100.0 * slower, 60.0)}
    finalists = search_worker._finalists(Job(kernel, candidates, HOST, True), brief)
    assert finalists[:4] == [0, 1, 2, 3]
    assert (7 in finalists) == again
    assert 5 not in finalists


def test_every_run_finds_other_weights_and_the_same_activations(pool: Pool) -> None:
    kernel = Gemm(16, 64, 64, 32, HOST.lanes)
    arguments = pool.arguments(kernel)
    (x, w, y), (x2, w2, y2) = (next(arguments) for _ in range(2))
    assert x.same_as(x2)
    assert y.same_as(y2)
    assert not w.same_as(w2)
    assert w.shape == (2, 64, 32)


KILLED = """
import os, signal, sys
sys.modules["torch"] = None  # tvm would import it, which takes seconds
from pathlib import Path
from compiler.crashing import FINE, Crashing
from compiler.small import OLDEST
from veltair.compiler.records import Records
from veltair.compiler.search import describe, search

kernels = [Crashing(8 * n, (FINE,)) for n in range(1, 5)]
records = Records("any", [Path(sys.argv[1])])
described = {k.key: describe(k) for k in kernels}
done = 0

def save():
    global done
    records.write(Path(sys.argv[1]), "model", described)
    done += 1
    if done == 2 and sys.argv[2] == "die":
        os.kill(os.getpid(), signal.SIGKILL)

print(search(kernels, OLDEST, records, 0, lambda i, n: None, save).kernels)
"""


def test_a_search_that_is_killed_goes_on_where_it_stopped(tmp_path: Path) -> None:
    def run(how: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", KILLED, str(tmp_path), how]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    killed = run("die")
    assert killed.returncode == -9, killed.stderr
    assert [p.name for p in tmp_path.glob("any/*")] == ["model.json"]
    resumed = run("live")
    assert resumed.stdout == "2\n", resumed.stderr
