"""The page of a simulation: its data is the result's, nothing in it is fetched, and no name can become markup."""

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from veltair.errors import LogError
from veltair.simulate.page import render_page, write_page
from veltair.simulate.page_data import page_data
from veltair.simulate.result import (
    Detail,
    LargestLoad,
    Latency,
    LeaseSpan,
    LoadPoint,
    MachineInfo,
    Mark,
    ModelInfo,
    PolicyResult,
    Result,
    Scenario,
    TenantInfo,
    TenantOutcome,
    Timeline,
)
from veltair.simulate.run import simulate
from veltair.simulate.workload import read_workload

HOSTILE = "</script><b>ads & co</b><!--{{script}}"


def tenant(name: str, percentile: float = 0.95) -> TenantInfo:
    return TenantInfo(name=name, model="net", qos_us=10_000, percentile=percentile, share=0.5, arrivals="poisson")


def scenario(*tenants: TenantInfo, name: str = "two tenants") -> Scenario:
    alone_us = {1: 900, 2: 500}
    model = ModelInfo(
        name="net", source="measured", blocks=3, variants=6, measured_cores=(1,), modelled_cores=(2,), alone_us=alone_us
    )
    return Scenario(
        name=name,
        machine=MachineInfo(cores=4, bandwidth_bytes_per_us=20_000.0),
        tenants=tenants or (tenant("ads"), tenant("maps")),
        models=(model,),
        capacity_per_s=1000.0,
        requests=500,
        warmup=0.1,
        seeds=(7, 8),
        interference=True,
        noise=0.0,
        handover_us=50,
    )


def point(per_s: float, **attainment: tuple[float, ...]) -> LoadPoint:
    return LoadPoint(per_s=per_s, of_capacity=per_s / 1000, attainment=attainment, kept=(True, False))


def largest(*per_seed: float) -> LargestLoad:
    mean = sum(per_seed) / len(per_seed)
    return LargestLoad(per_s=mean, low_per_s=mean - 5, high_per_s=mean + 5, of_capacity=mean / 1000, per_seed_per_s=per_seed)


def outcome(name: str, *, asked: int = 10, in_qos: int = 8, histogram: tuple[tuple[int, int], ...] = ()) -> TenantOutcome:
    answered = sum(count for _, count in histogram)
    latency = Latency(mean_us=5000.5, p50_us=4000, p95_us=9000, p99_us=9500, histogram=histogram) if histogram else None
    return TenantOutcome(
        name=name, asked=asked, in_qos=in_qos, late=answered - in_qos, refused=asked - answered, dropped=0,
        attainment=in_qos / asked, latency=latency, queued_mean_us=100.0, core_us_per_request=800.0, units_per_request=2.0,
        cores_per_unit=1.5, coverage=0.88,
    )  # fmt: skip


def detail(*tenants: TenantOutcome, timeline: Timeline | None = None) -> Detail:
    return Detail(
        per_s=400.0, of_capacity=0.4, tenants=tenants, attainment=0.9, mean_latency_us=6000.0, core_use=0.55, conflict_rate=0.125,
        decisions=99, units=33, loads=0, evictions=0, timeline=timeline,
    )  # fmt: skip


def policy(name: str, *per_seed: float, curve: tuple[LoadPoint, ...] = (), at_load: Detail | None = None) -> PolicyResult:
    return PolicyResult(
        name=name,
        curve=curve,
        largest=largest(*(per_seed or (500.0, 520.0))),
        at_load=at_load or detail(outcome("ads"), outcome("maps")),
        at_largest=None,
    )


def data_in(page: str) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_ratios_are_over_fcfs_and_over_the_best_rival_and_seed_by_seed() -> None:
    data = page_data(
        Result(
            scenario=scenario(),
            policies=(
                policy("fcfs", 200.0, 220.0),
                policy("veltair", 600.0, 638.0),
                policy("veltair-ac", 500.0, 500.0),  # a part of ours is no rival
                policy("prema", 300.0, 320.0),
            ),
        )
    )
    fcfs, veltair, part, prema = data["policies"]
    assert (data["lead"], data["baseline"], data["best_rival"]) == (1, 0, 3)
    assert veltair["over_baseline"]["of"] == pytest.approx(619 / 210)
    assert veltair["over_baseline"]["by_seed"] == pytest.approx([3.0, 2.9])
    assert veltair["over_best_rival"]["of"] == pytest.approx(619 / 310)
    assert part["over_best_rival"]["by_seed"] == pytest.approx([500 / 300, 500 / 320])
    assert (fcfs["over_baseline"], prema["over_best_rival"]) == (None, None)


def test_over_a_policy_that_carries_nothing_there_is_no_ratio() -> None:
    data = page_data(Result(scenario=scenario(), policies=(policy("veltair"), policy("fcfs", 0.0, 0.0))))
    assert data["policies"][0]["over_baseline"] is None


def test_alone_a_policy_leads_whatever_its_name() -> None:
    data = page_data(Result(scenario=scenario(), policies=(policy("edf"),)))
    assert (data["lead"], data["baseline"], data["best_rival"]) == (0, None, 0)
    assert data["policies"][0]["over_best_rival"] is None


def test_a_policy_is_limited_by_the_first_tenant_to_lose_its_share() -> None:
    tenants = (tenant("ads", percentile=0.9), tenant("maps", percentile=0.99))
    curve = (
        point(100.0, ads=(1.0, 1.0), maps=(1.0, 1.0)),
        point(200.0, ads=(0.95, 0.93), maps=(0.97, 0.99)),  # lower, but above what it was promised
        point(300.0, ads=(0.1, 0.1), maps=(0.9, 0.9)),
    )
    data = page_data(Result(scenario=scenario(*tenants), policies=(policy("veltair", curve=curve),)))
    [drawn] = data["policies"]
    assert drawn["limit"] == {"tenant": 1, "per_s": 200.0, "attainment": pytest.approx(0.98)}
    assert drawn["curve"]["worst"] == [1, 1, 0]
    assert drawn["curve"]["attainment"][0][1] == pytest.approx([0.94, 0.93, 0.95])  # mean, worst seed, best seed
    assert drawn["curve"]["per_s"] == [100.0, 200.0, 300.0]
    assert drawn["curve"]["kept"] == [1, 1, 1]


def test_nobody_limits_a_policy_that_keeps_all_at_every_load_tried() -> None:
    curve = (point(100.0, ads=(1.0, 1.0), maps=(0.96, 0.95)),)
    data = page_data(Result(scenario=scenario(), policies=(policy("veltair", curve=curve),)))
    assert data["policies"][0]["limit"] is None


def test_the_line_of_answers_ends_below_all_by_what_was_never_answered() -> None:
    histogram = ((1024, 2), (1117, 1), (4096, 5))  # bins 80, 81 and 96; two of ten were refused
    data = page_data(
        Result(scenario=scenario(tenant("ads")), policies=(policy("edf", at_load=detail(outcome("ads", histogram=histogram))),))
    )
    [told] = data["policies"][0]["at_load"]["tenants"]
    points = told["latency"]["answered_within"]
    assert [time for time, _ in points] == pytest.approx([1024, 1116.7, 1217.7, 4096, 4466.7], abs=0.2)
    assert [share for _, share in points] == pytest.approx([0, 0.2, 0.3, 0.3, 0.8])
    assert (told["latency"]["p95_us"], told["latency"]["mean_us"]) == (9000, 5000.5)


def test_outcomes_stand_in_the_order_of_the_tenants_and_a_missing_one_is_missing() -> None:
    at_load = detail(outcome("maps", in_qos=3))
    data = page_data(Result(scenario=scenario(), policies=(policy("edf", at_load=at_load),)))
    nobody, maps = data["policies"][0]["at_load"]["tenants"]
    assert nobody is None
    assert (maps["in_qos"], maps["refused"], maps["coverage"], maps["latency"]) == (3, 10, 0.88, None)


def test_the_timeline_holds_every_unit_and_mark() -> None:
    span = LeaseSpan(
        begin_us=100, end_us=900, cores=(0, 1), tenant="maps", model="net", request="maps-1", first_block=0, end_block=3,
        predicted_us=750, pressure=0.12345, reason="it is first", riders=1,
    )  # fmt: skip
    marks = (
        Mark(at_us=100, what="arrived", tenant="maps", model="net", request="maps-1"),
        Mark(at_us=400, what="load", tenant="", model="old"),
        Mark(at_us=500, what="refused", tenant="ads", model="net", request="ads-1", reason="too many wait"),
    )
    whole = detail(timeline=Timeline(begin_us=50, end_us=1000, leases=(span, span), marks=marks))
    data = page_data(Result(scenario=scenario(), policies=(policy("edf", at_load=whole),)))
    line = data["policies"][0]["at_load"]["timeline"]
    lease, mark = line["lease"], line["mark"]
    assert (line["begin_us"], line["end_us"]) == (50, 1000)
    assert (lease["begin"], lease["end"], lease["predicted"], lease["riders"]) == ([100] * 2, [900] * 2, [750] * 2, [1] * 2)
    assert [line["cores"][place] for place in lease["cores"]] == [[0, 1], [0, 1]]
    assert [line["requests"][place] for place in lease["request"]] == ["maps-1"] * 2
    assert [line["reasons"][place] for place in lease["reason"]] == ["it is first"] * 2
    assert (lease["tenant"], lease["pressure"]) == ([1, 1], [0.123, 0.123])
    assert [line["whats"][place] for place in mark["what"]] == ["arrived", "load", "refused"]
    assert [line["models"][place] for place in mark["model"]] == ["net", "old", "net"]
    assert [line["reasons"][place] for place in mark["reason"]] == ["", "", "too many wait"]
    assert (mark["at"], mark["tenant"]) == ([100, 400, 500], [1, -1, 0])


def test_a_simulated_result_is_on_its_page_figure_for_figure() -> None:
    workload = read_workload("queue-light")
    result = simulate(msgspec.structs.replace(workload, requests=100), ["veltair", "fcfs"], seeds=(0,))
    data = data_in(render_page(result))
    for drawn, policy_result in zip(data["policies"], result.policies, strict=True):
        assert drawn["largest"]["per_s"] == policy_result.largest.per_s
        assert drawn["at_load"]["mean_latency_us"] == policy_result.at_load.mean_latency_us
        for i, told in enumerate(policy_result.at_load.tenants):
            assert told.latency is not None
            seen = drawn["at_load"]["tenants"][i]
            assert (seen["name"], seen["attainment"], seen["refused"]) == (told.name, told.attainment, told.refused)
            assert seen["latency"]["p99_us"] == told.latency.p99_us
            answered = seen["latency"]["answered_within"][-1][1]
            assert answered == pytest.approx((told.asked - told.refused - told.dropped) / told.asked)
        assert policy_result.at_load.timeline is not None
        assert drawn["at_load"]["timeline"]["lease"]["end"] == [span.end_us for span in policy_result.at_load.timeline.leases]


def test_a_hostile_name_stays_text() -> None:
    result = Result(
        scenario=scenario(tenant(HOSTILE), name=HOSTILE), policies=(policy("</script>", at_load=detail(outcome(HOSTILE))),)
    )
    page = render_page(result)
    assert "</script><b>" not in page
    assert page.count("</script>") == 2
    assert data_in(page)["scenario"]["tenants"][0]["name"] == HOSTILE
    assert "<title>veltair simulation: &lt;/script&gt;&lt;b&gt;ads &amp; co" in page
    assert "{{data}}" not in page


def test_the_page_names_no_address_outside_itself() -> None:
    page = render_page(Result(scenario=scenario(), policies=(policy("veltair"),)))
    assert re.search(r"https?:|//[a-z0-9-]+\.[a-z]|<link|<script src|@import|url\(", page) is None
    assert "default-src 'none'" in page


def test_scripts_put_text_into_the_page_as_text_only() -> None:
    scripts = list(Path(str(render_page.__globals__["__file__"])).parent.glob("page*.js"))
    assert scripts
    for script in scripts:
        assert re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", script.read_text()) is None, (
            script.name
        )


def test_the_same_result_gives_the_same_bytes(tmp_path: Path) -> None:
    result = Result(scenario=scenario(), policies=(policy("veltair"), policy("fcfs")))
    one, two = (write_page(result, tmp_path / "new" / name).read_bytes() for name in ("one.html", "two.html"))
    assert one == two


def test_a_page_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(LogError, match="taken' cannot be written: Is a directory; name a writable file"):
        write_page(Result(scenario=scenario(), policies=(policy("veltair"),)), tmp_path / "taken")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
