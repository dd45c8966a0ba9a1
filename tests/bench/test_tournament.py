"""Contenders in turns: the same arrivals for all at one load, turns by probe, and rows that say against whom."""

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from veltair.bench.contenders import alone, contenders, permitting, total_per_s
from veltair.bench.foresee import at_load
from veltair.bench.largest import LargestLoad, Probe
from veltair.bench.result import PolicyResult, TenantResult
from veltair.bench.rows import Row
from veltair.bench.scenario import Scenario, TenantLoad, arrivals_of, read_scenario
from veltair.bench.standings import mixes_in, plot, print_standings
from veltair.bench.tournament import (
    LATENESS,
    LOAD,
    OVER_FCFS,
    OVER_PEER,
    Effort,
    Entry,
    Pace,
    Standing,
    compete,
    rounds_of,
    rows,
)
from veltair.errors import ConfigError

MIX = Scenario("mixed", 8.0, (TenantLoad("files", "magika", 50.0, 15.0), TenantLoad("shop", "resnet50", 20.0, 190.0)), 3, 0.7)
EFFORT = Effort(rounds=6, alone_rounds=2, requests=400, least_s=5, most_s=10)
MIXES = Path(__file__).parents[2] / "scripts" / "scenarios" / "goodput"


class Carries:
    """A server that keeps all requests up to `most` a second in all, and writes down what it was probed with."""

    def __init__(self, name: str, most: float, diary: list[tuple[str, Scenario]]) -> None:
        self.name, self.most, self.diary = name, most, diary

    def probe(self, scenario: Scenario) -> PolicyResult:
        self.diary.append((self.name, scenario))
        share = 1.0 - 0.05 * (total_per_s(scenario) / self.most) ** 8
        tenants = tuple(
            TenantResult(t.name, t.model, t.qos_ms, t.percentile, 100, share, 1.0, 1.0, 1.0, 0, 0, {}) for t in scenario.tenant
        )
        return PolicyResult(self.name, tenants, 400)

    def close(self) -> None: ...


def played(
    names: Sequence[str], most: Sequence[float], starts: Sequence[float]
) -> tuple[list[Standing], list[tuple[str, Scenario]]]:
    diary: list[tuple[str, Scenario]] = []
    entries = [Entry(contender, MIX) for contender in contenders(names)]
    servers = [Carries(name, load, diary) for name, load in zip(names, most, strict=True)]
    said: list[str] = []
    pace = Pace(EFFORT.rounds * len(entries), now_s=lambda: float(len(diary)))
    standings = compete(entries, servers, starts, EFFORT, 5, pace, said.append)
    assert len(said) == len(diary) == pace.probes == pace.all_probes
    assert pace.left_s() == 0
    return standings, diary


def test_contenders_take_turns_there_and_back_with_one_seed_a_round() -> None:
    standings, diary = played(["veltair", "fcfs"], [80.0, 30.0], [60.0, 40.0])
    assert [name for name, _ in diary] == ["veltair", "fcfs", "fcfs", "veltair"] * 3
    assert [s.seed for _, s in diary] == [5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10]
    assert [standing.load for standing in standings] == pytest.approx([80, 30], rel=0.05)


def test_contenders_meet_the_same_requests_at_one_load_and_seed_whatever_precision_they_may_use() -> None:
    _, diary = played(["veltair", "openvino-bf16"], [50.0, 50.0], [50.0, 50.0])
    (_, mine), (_, theirs) = diary[:2]
    one, other = (arrivals_of(s) for s in (permitting(mine, "bf16"), theirs))
    assert np.array_equal(one.at_us, other.at_us)
    assert np.array_equal(one.tenant, other.tenant)
    assert len(one) > 300


def test_a_load_scales_all_tenants_alike_and_keeps_their_pattern() -> None:
    at_35, at_70 = (at_load(MIX, load, 9.0) for load in (35.0, 70.0))
    assert [t.rate_per_s for t in at_35.tenant] == [25.0, 10.0]
    assert (at_35.duration_s, total_per_s(at_70)) == (9.0, 70.0)
    of_files = [arrivals_of(s).at_us[arrivals_of(s).tenant == 0][:50] for s in (at_35, at_70)]
    assert of_files[1] * 2 == pytest.approx(of_files[0], abs=2)


def test_tenants_alone_are_probed_less_often() -> None:
    entries = [Entry(contender, MIX) for contender in contenders(("veltair", "fcfs"))]
    entries += [Entry(entries[0].contender, one, alone=True) for one in alone(MIX)]
    assert [rounds_of(entry, EFFORT) for entry in entries] == [6, 6, 2, 2]


def test_an_unknown_contender_is_named_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"contender triton is not known; choose from veltair, .*fcfs, .*openvino-bf16"):
        contenders(["veltair", "triton"])


def standing(name: str, *shares: float, load: float, lateness_us: int = 300, scenario: Scenario | None = None) -> Standing:
    """All its tenants crossed their promise at `load`, times `shares` in each round."""
    search = LargestLoad(load, len(shares))
    for number, share in enumerate(shares):
        at = load * (0.95 + 0.02 * number)
        missed = 100 / (1 + math.exp(-(math.log(0.05 / 0.95) + 8 * math.log(at / load)))) * share
        search.tell(Probe(at, (100, 100), (missed, missed), (0.05, 0.05)))
    return Standing(Entry(contenders([name])[0], scenario or MIX, alone=scenario is not None), search, 0, lateness_us)


ALIKE = (1.0,) * 6

FOUND = [
    standing("veltair", *ALIKE, load=80.0),
    standing("fcfs", *ALIKE, load=30.0),
    standing("edf", *ALIKE, load=45.0),
    standing("veltair-bf16", *ALIKE, load=120.0),
    standing("onnxruntime", *ALIKE, load=30.0),
    standing("openvino", *ALIKE, load=40.0, lateness_us=2_500),
    standing("openvino-bf16", *ALIKE, load=100.0),
    standing("veltair", 1.0, 1.0, load=290.0, scenario=alone(MIX)[0]),
]


def of(metric: str, found: Sequence[Standing] = FOUND) -> list[Row]:
    return [row for row in rows("mixed", found, "a machine", 0) if row.metric == metric]


def test_every_contender_has_its_load() -> None:
    loads = {row.case: row.value for row in of(LOAD)}
    assert loads == {
        "mixed, veltair": pytest.approx(80, rel=0.03),
        "mixed, fcfs": pytest.approx(30, rel=0.03),
        "mixed, edf": pytest.approx(45, rel=0.03),
        "mixed, veltair bf16": pytest.approx(120, rel=0.03),
        "mixed, ONNX Runtime fp32": pytest.approx(30, rel=0.03),
        "mixed, OpenVINO fp32": pytest.approx(40, rel=0.03),
        "mixed, OpenVINO bf16": pytest.approx(100, rel=0.03),
        "mixed, files magika alone, veltair": pytest.approx(290, rel=0.06),
    }
    assert all(row.spread is not None and row.spread < 0.05 for row in of(LOAD) if "alone" not in row.case)


def test_ours_are_held_against_fcfs_and_only_the_default_has_a_target() -> None:
    assert [(r.case, r.against, r.ratio, r.target, r.met) for r in of(OVER_FCFS)] == [
        ("mixed, veltair", "fcfs", pytest.approx(2.67, rel=0.01), ">= 2.5x", True),
        ("mixed, edf", "fcfs", pytest.approx(1.5, rel=0.01), None, None),
    ]


def test_ours_is_held_against_the_best_peer_that_is_no_coarser() -> None:
    assert [(r.case, r.against, r.ratio, r.met) for r in of(OVER_PEER)] == [
        ("mixed, veltair", "OpenVINO fp32", pytest.approx(2.0, rel=0.01), True),
        ("mixed, fcfs", "OpenVINO fp32", pytest.approx(0.75, rel=0.01), None),
        ("mixed, edf", "OpenVINO fp32", pytest.approx(1.125, rel=0.01), None),
        ("mixed, veltair bf16", "OpenVINO bf16", pytest.approx(1.2, rel=0.01), False),
    ]


def test_a_bad_round_of_all_spreads_loads_and_not_their_ratio() -> None:
    shaken = (2.5, 0.7, 0.7, 2.5, 0.7, 0.7)
    found = [standing("veltair", *shaken, load=80.0), standing("fcfs", *shaken, load=40.0)]
    [ours, _], [ratio] = of(LOAD, found), of(OVER_FCFS, found)
    assert ours.spread is not None
    assert ratio.spread is not None
    assert ratio.ratio == pytest.approx(2.0, rel=0.02)
    assert ratio.spread < 0.02 < 0.05 < ours.spread


def test_a_base_that_carried_nothing_gives_no_ratio() -> None:
    nothing = Standing(Entry(contenders(["fcfs"])[0], MIX), LargestLoad(50.0), 0)
    for load in (50.0, 25.0, 12.0, 6.0, 3.0, 1.5):
        nothing.search.tell(Probe(load, (100, 100), (100.0, 100.0), (0.05, 0.05)))
    [row] = of(OVER_FCFS, [standing("veltair", *ALIKE, load=80.0), nothing])
    assert (row.ratio, row.met, row.spread) == (None, False, None)


def test_a_late_generator_shows_in_the_rows() -> None:
    late = [r.case for r in rows("mixed", FOUND, "a machine", 0) if r.metric == LATENESS and r.met is False]
    assert late == ["mixed, OpenVINO fp32"]


def test_table_and_plot_say_what_the_rows_say() -> None:
    made = rows("mixed", FOUND, "a machine", 0)
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_standings(made, console)
    console.file.close()
    [ours] = [line for line in console.export_text().splitlines() if ">= 2.5x" in line]
    assert "2.67x ±0% >= 2.5x" in ours
    assert "2.00x ±0% (OpenVINO fp32) >= 1.5x" in ours
    assert mixes_in(made) == ["mixed"]
    drawn = ElementTree.fromstring(plot(made))
    texts = [element.text for element in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert [label for label in ("veltair", "fcfs", "edf", "OpenVINO bf16") if label in texts] == texts_of_labels(texts)
    assert f"{ours_load(made):.1f}" in texts
    assert not any(text and "alone" in text for text in texts)


def ours_load(made: Sequence[Row]) -> float:
    return next(row.value or 0.0 for row in made if row.metric == LOAD and row.case == "mixed, veltair")


def texts_of_labels(texts: Sequence[str | None]) -> list[str]:
    return [label for label in ("veltair", "fcfs", "edf", "OpenVINO bf16") if texts.count(label)]


@pytest.mark.parametrize("mix", ["light", "medium", "heavy", "mixed"])
def test_a_mix_has_three_tenants_whose_shares_are_of_a_hundred(mix: str) -> None:
    scenario = read_scenario(MIXES / f"{mix}.toml")
    assert (scenario.name, len(scenario.tenant), total_per_s(scenario)) == (mix, 3, 100.0)
    assert {tenant.percentile for tenant in scenario.tenant} == {0.95}
