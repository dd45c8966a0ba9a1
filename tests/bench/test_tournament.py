"""Contenders in turns: the same arrivals for all at one load, turns by probe, and rows that say against whom."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from veltair.bench.contenders import alone, contenders, permitting, total_per_s
from veltair.bench.foresee import at_load
from veltair.bench.result import PolicyResult, TenantResult
from veltair.bench.scenario import Scenario, TenantLoad, arrivals_of, read_scenario
from veltair.bench.standings import mixes_in, plot, print_standings
from veltair.bench.tournament import (
    LATENESS,
    LOAD,
    OVER_PEER,
    Effort,
    Entry,
    Pace,
    Standing,
    compete,
    paired,
    rows,
    searches,
)
from veltair.errors import ConfigError

MIX = Scenario("mixed", 8.0, (TenantLoad("files", "magika", 50.0, 15.0), TenantLoad("shop", "resnet50", 20.0, 190.0)), 3, 0.7)
EFFORT = Effort(seeds=2, rival_seeds=1, probes=4, requests=400, least_s=5, most_s=10)
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
    pace = Pace(searches(entries, EFFORT), now_s=lambda: float(len(diary)))
    standings = compete(entries, servers, starts, EFFORT, 5, pace, said.append)
    assert len(said) == len(diary) == pace.probes
    assert pace.ended == pace.searches
    assert pace.left_s() == 0
    return standings, diary


def test_contenders_take_turns_by_probe_and_a_later_seed_starts_where_the_earlier_one_ended() -> None:
    standings, diary = played(["veltair", "fcfs"], [80.0, 30.0], [60.0, 40.0])
    assert [name for name, _ in diary[:4]] == ["veltair", "fcfs", "veltair", "fcfs"]
    assert [load for standing in standings for load in standing.loads] == pytest.approx([80, 80, 30, 30], rel=0.03)
    [first] = [s for name, s in diary if name == "veltair" and s.seed == 6][:1]
    assert total_per_s(first) == pytest.approx(standings[0].loads[0])
    assert {s.seed for _, s in diary} == {5, 6}


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


def test_rivals_without_a_target_run_fewer_seeds() -> None:
    names = ("veltair", "fcfs", "edf", "openvino", "veltair-bf16")
    entries = [Entry(contender, MIX) for contender in contenders(names)]
    entries += [Entry(entries[0].contender, one, alone=True) for one in alone(MIX)]
    assert searches(entries, EFFORT) == 2 + 2 + 1 + 2 + 2 + 1 + 1


def test_an_unknown_contender_is_named_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"contender triton is not known; choose from veltair, .*fcfs, .*openvino-bf16"):
        contenders(["veltair", "triton"])


def standing(name: str, *loads: float, lateness_us: int = 300) -> Standing:
    return Standing(Entry(contenders([name])[0], MIX), list(loads), lateness_us)


FOUND = [
    standing("veltair", 80.0, 84.0, 76.0),
    standing("fcfs", 30.0, 28.0, 38.0),
    standing("edf", 45.0),
    standing("veltair-bf16", 120.0, 120.0, 120.0),
    standing("onnxruntime", 30.0, 30.0, 30.0),
    standing("openvino", 40.0, 40.0, 50.0, lateness_us=2_500),
    standing("openvino-bf16", 100.0, 100.0, 100.0),
    Standing(Entry(contenders(["veltair"])[0], alone(MIX)[0], alone=True), [290.0]),
]


def test_ratios_are_medians_of_what_was_met_at_one_seed_and_only_ours_has_targets() -> None:
    made = rows("mixed", FOUND, "a machine", 0)
    loads = {r.case: (r.value, r.against, r.ratio and round(r.ratio, 2), r.target, r.met) for r in made if r.metric == LOAD}
    assert loads == {
        "mixed, veltair": (80.0, "fcfs", 2.67, ">= 2.5x", True),
        "mixed, fcfs": (30.0, None, None, None, None),
        "mixed, edf": (45.0, "fcfs", 1.5, None, None),
        "mixed, veltair bf16": (120.0, None, None, None, None),
        "mixed, ONNX Runtime fp32": (30.0, None, None, None, None),
        "mixed, OpenVINO fp32": (40.0, None, None, None, None),
        "mixed, OpenVINO bf16": (100.0, None, None, None, None),
        "mixed, files magika alone, veltair": (290.0, None, None, None, None),
    }
    spreads = {r.case: r.spread for r in made if r.metric == LOAD}
    assert (spreads["mixed, veltair"], spreads["mixed, edf"]) == (0.05, None)


def test_ours_is_held_against_the_best_peer_that_is_no_coarser() -> None:
    made = [r for r in rows("mixed", FOUND, "a machine", 0) if r.metric == OVER_PEER]
    assert [(r.case, r.against, r.ratio, r.met) for r in made] == [
        ("mixed, veltair", "OpenVINO fp32", 2.0, True),
        ("mixed, fcfs", "OpenVINO fp32", 0.75, None),
        ("mixed, edf", "OpenVINO fp32", 1.125, None),
        ("mixed, veltair bf16", "OpenVINO bf16", 1.2, False),
    ]


def test_a_base_that_carried_nothing_gives_no_ratio() -> None:
    assert paired([80.0], [0.0]) is None
    assert paired([80.0, 90.0], [0.0, 30.0]) == 3.0


def test_a_late_generator_shows_in_the_rows() -> None:
    late = [r.case for r in rows("mixed", FOUND, "a machine", 0) if r.metric == LATENESS and r.met is False]
    assert late == ["mixed, OpenVINO fp32"]


def test_table_and_plot_say_what_the_rows_say() -> None:
    made = rows("mixed", FOUND, "a machine", 0)
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_standings(made, console)
    console.file.close()
    [ours] = [line for line in console.export_text().splitlines() if "veltair " in line and "±5%" in line]
    assert "2.67x >= 2.5x" in ours
    assert "2.00x (OpenVINO fp32)" in ours
    assert mixes_in(made) == ["mixed"]
    drawn = ElementTree.fromstring(plot(made))
    texts = [element.text for element in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert [label for label in ("veltair", "fcfs", "edf", "OpenVINO bf16") if label in texts] == texts_of_labels(texts)
    assert "80.0" in texts
    assert not any(text and "alone" in text for text in texts)


def texts_of_labels(texts: Sequence[str | None]) -> list[str]:
    return [label for label in ("veltair", "fcfs", "edf", "OpenVINO bf16") if texts.count(label)]


@pytest.mark.parametrize("mix", ["light", "medium", "heavy", "mixed"])
def test_a_mix_has_three_tenants_whose_shares_are_of_a_hundred(mix: str) -> None:
    scenario = read_scenario(MIXES / f"{mix}.toml")
    assert (scenario.name, len(scenario.tenant), total_per_s(scenario)) == (mix, 3, 100.0)
    assert {tenant.percentile for tenant in scenario.tenant} == {0.95}
