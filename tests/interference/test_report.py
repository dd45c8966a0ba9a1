"""What a deep calibration leaves behind: times the core can read, and a report that says how good they are."""

from io import StringIO
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from tests.interference.world import CONVS, HOST, PRODUCTS, coruns
from veltair.bundle.store import to_model
from veltair.core.predict import ModelCosts
from veltair.errors import ProfileError, ProfileMissing, ProfileSchemaUnknown
from veltair.interference import deep, learnt
from veltair.interference.corun import CoRun, Discarded
from veltair.interference.deep import host_times
from veltair.interference.report import render
from veltair.interference.times import HostTimes, read, write


@pytest.fixture(scope="module")
def times() -> HostTimes:
    runs = coruns(250)
    suspended = CoRun(runs[0].victim, runs[0].beside, runs[0].block_us, waited=0.5)
    return host_times([*runs, suspended], HOST, seed=0)


def text(times: HostTimes) -> str:
    console = Console(width=140, file=StringIO())
    console.print(render(times))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_core_reads_the_times_as_it_reads_a_bundle_s(times: HostTimes) -> None:
    costs = ModelCosts(times.on(PRODUCTS), most_cores=2)
    assert costs.fastest(1, 0.0).rest_us(0) == pytest.approx(1650, rel=0.03)
    assert costs.fastest(1, 1.0).rest_us(0) > 1.25 * 1650  # pressed more than any co-run did the trees stay at the most they saw
    assert costs.fastest(2, 0.0).rest_us(0) == pytest.approx(825, rel=0.03)


def test_more_pressure_never_takes_less_time_and_the_p95_never_less_than_the_median(times: HostTimes) -> None:
    for bundle in times.bundles.values():
        for each in (each for block in bundle.blocks for each in block):
            for cores, row in each.median_us.items():
                assert list(row) == sorted(row)
                assert all(late >= middle for late, middle in zip(each.p95_us[cores], row, strict=True))


def test_the_p95_of_the_whole_model_is_above_the_sum_of_its_medians(times: HostTimes) -> None:
    assert 1.0 < times.on(CONVS).late < 1.2  # 5 % of times are above 1.05 times the median: that is the noise


def test_a_bundle_that_was_compiled_anew_keeps_its_own_times(times: HostTimes) -> None:
    anew = msgspec.structs.replace(CONVS, source="another")
    assert times.on(anew) == to_model(anew)


def test_the_report_says_error_and_coverage_and_which_is_used_for_each_class(times: HostTimes) -> None:
    by = {(figure.of, figure.by): figure for figure in times.figures}
    assert by["all blocks", "chosen"].median_error <= 0.10
    assert 0.93 <= by["all blocks", "chosen"].coverage <= 0.97
    assert by["all blocks", "time alone"].mape > 2 * by["all blocks", "chosen"].mape
    assert by["matmul", "table"].mape > 2 * by["matmul", "chosen"].mape
    said = text(times)
    for word in ("MAPE", "p95 covers", "matmul", "conv", "whole models", "1 disturbed", "Times measured alone"):
        assert word in said
    used = [line for line in said.splitlines() if "yes" in line]
    assert len(used) == len(times.chosen) == 2


def test_what_was_left_out_is_counted(times: HostTimes) -> None:
    assert times.discarded == Discarded(disturbed=1)
    assert times.coruns == 250


def test_too_few_pairs_are_an_error_with_the_remedy() -> None:
    with pytest.raises(ProfileError, match="calibrate for longer"):
        host_times(coruns(10), HOST, seed=0)


def test_without_xgboost_the_report_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (deep, learnt):
        monkeypatch.setattr(module, "has_trees", lambda: False)
    assert "pip install" in text(host_times(coruns(150), HOST, seed=0))


def test_times_hold_for_the_machine_they_were_made_on(times: HostTimes, tmp_path: Path) -> None:
    write(times, tmp_path / "times.json")
    assert read(tmp_path / "times.json", times.fingerprint) == times
    with pytest.raises(ProfileMissing, match="another machine"):
        read(tmp_path / "times.json", "elsewhere")
    with pytest.raises(ProfileMissing, match="--deep"):
        read(tmp_path / "none.json", times.fingerprint)


@pytest.mark.parametrize(("content", "error"), [("{}", ProfileError), ('{"schema_version": 99}', ProfileSchemaUnknown)])
def test_a_file_that_holds_something_else_is_refused(tmp_path: Path, content: str, error: type[ProfileError]) -> None:
    (tmp_path / "times.json").write_text(content)
    with pytest.raises(error, match="--deep"):
        read(tmp_path / "times.json", "here")
