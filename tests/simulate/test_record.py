"""A simulated run written down as an engine would: whatever reads decision logs reads it."""

from pathlib import Path

import msgspec
import pytest

from veltair.errors import LogError
from veltair.observe.attribution import attribute
from veltair.observe.read import read_log
from veltair.observe.records import Completed
from veltair.simulate.replay import replay
from veltair.simulate.run import record
from veltair.simulate.workload import read_workload

LIGHT = msgspec.structs.replace(read_workload("queue-mixed"), requests=200, noise=0.1)


def test_it_reads_replays_and_is_split_like_an_engines(tmp_path: Path) -> None:
    record(LIGHT, "veltair", 1, tmp_path / "new" / "log.jsonl")
    [run] = read_log(tmp_path / "new" / "log.jsonl").runs
    assert (run.started.policy, run.started.cores) == ("veltair", tuple(range(LIGHT.machine.cores)))
    assert {(t.name, t.model) for t in run.started.tenants} == {(t.name, t.model) for t in LIGHT.tenant}
    replayed = replay(run)
    assert replayed.difference is None
    assert replayed.events > 400
    answers = sum(isinstance(each, Completed) for each in run.records)
    assert len(attribute(run)) == answers > 100


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a", "b", "c")]
    for file, seed in zip(files, (1, 1, 2), strict=True):
        record(LIGHT, "fcfs", seed, file)
    first, again, other = (file.read_bytes() for file in files)
    assert first == again != other


def test_a_log_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(LogError, match="cannot be written: Is a directory"):
        record(LIGHT, "fcfs", 1, tmp_path / "taken")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
