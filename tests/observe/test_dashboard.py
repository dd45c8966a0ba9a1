"""The page: everything inside it, nothing from outside it, and no string of a log can become markup."""

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from veltair.cli.dashboard import dashboard
from veltair.errors import LogError
from veltair.observe.dashboard import render_page, write_page
from veltair.observe.dashboard.data import run_data
from veltair.observe.read import read_log
from veltair.observe.records import Drifted, PressureTold, Record
from veltair.observe.story import tell

from .logs import arrived, completed, dispatched, finished, lifelike, refused, started, tenant, written

HOSTILE = "</script><b>ads & co</b><!--{{script}}"


def page_of(tmp_path: Path, *logs: list[Record]) -> str:
    return render_page([read_log(written(tmp_path / f"log{i}.jsonl", records)) for i, records in enumerate(logs)])


def data_in(page: str) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def small_log(who: str = "ads") -> list[Record]:
    return [
        started(tenant(who)),
        arrived("a", 10, who=who),
        dispatched("a", 20, 1, who=who, cores=(1,)),
        finished("a", 1520, 1, measured_us=1400),
        completed("a", 1530, 1520, who=who),
        arrived("b", 2000, who=who),
        refused("b", 2001, who=who),
    ]


def test_the_page_holds_every_unit_and_request_of_the_log(tmp_path: Path) -> None:
    (run,) = data_in(page_of(tmp_path, small_log()))["runs"]
    units, requests = run["units"], run["requests"]
    assert (units["start"], units["end"], units["predicted"], units["measured"]) == ([20], [1520], [1000], [1400])
    assert units["cores"][units["core"][0]] == [1]
    assert units["reasons"][units["reason"][0]] == "fewest cores that keep"
    assert (requests["id"], requests["outcome"], requests["in_time"]) == (["a", "b"], ["answered", "refused"], [1, 0])
    assert requests["whys"][requests["why"][1]] == ["deadline_unmeetable", "the queue is too long"]
    refusal, answer = run["slowest"]  # misses come first
    assert refusal == {"request": 1, "took_us": 1, "running_us": 0, "causes": []}
    assert answer == {"request": 0, "took_us": 1520, "running_us": 1500, "causes": [["itself", 520]]}
    assert (run["summary"]["tenants"][0]["attainment"], run["summary"]["tenants"][0]["met"]) == (0.5, False)


def test_the_matrix_tells_who_cost_whom_how_much(tmp_path: Path) -> None:
    log = [
        started(tenant("ads"), tenant("docs"), tenant("idle"), cores=(0,)),
        arrived("a", 0),
        dispatched("a", 0, 1),
        arrived("d", 200, who="docs"),
        finished("a", 1000, 1, measured_us=1000),
        completed("a", 1000, 1000),
        dispatched("d", 1000, 2, who="docs"),
        finished("d", 2300, 2, measured_us=1300),
        completed("d", 2300, 2100, who="docs"),
    ]
    costs = data_in(page_of(tmp_path, log))["runs"][0]["costs"]
    ads, docs, idle = costs["rows"]
    assert costs["names"] == ["ads", "docs", "idle"]
    assert (docs["requests"], docs["solo_us"], docs["excess_us"]) == (1, 1000, 1100)
    assert (docs["waited_us"], docs["slowed_us"], docs["outsiders_us"]) == ([800, 0, 0], [0, 0, 0], 0)
    assert (docs["self_us"], docs["noisiest"]) == (300, "ads")
    assert (ads["excess_us"], ads["noisiest"], idle["requests"]) == (0, None, 0)


def test_alarms_of_drifting_times_are_on_the_page(tmp_path: Path) -> None:
    alarms: list[Record] = [Drifted(1_540, "tiny", False, 1.62), Drifted(1_800, "tiny", True, 1.04)]
    log = sorted([*small_log()[1:], *alarms], key=lambda record: record.at_us)
    page = page_of(tmp_path, [small_log()[0], *log])
    assert data_in(page)["runs"][0]["drifts"] == [
        {"at": 1_540, "model": "tiny", "over": False, "ratio": 1.62},
        {"at": 1_800, "model": "tiny", "over": True, "ratio": 1.04},
    ]


def test_a_run_without_an_alarm_or_a_source_says_so(tmp_path: Path) -> None:
    page = page_of(tmp_path, small_log())
    (run,) = data_in(page)["runs"]
    assert (run["drifts"], run["outsiders"]["sources"], run["outsiders"]["at"]) == ([], [], [])
    assert "No alarm was raised in this run." in page
    assert "Nobody looked for them: no source of outside pressure was read." in page


def test_what_was_told_of_other_processes_is_on_the_page_with_the_cpus_they_held(tmp_path: Path) -> None:
    head, *rest = small_log()  # from 10 to 2001 us
    told: list[Record] = [PressureTold(0, 0.5, held=(1,)), PressureTold(1_006, 0.25, held=(1, 3)), PressureTold(1_604, 0.0)]
    log = sorted([*rest, *told], key=lambda record: record.at_us)
    page = page_of(tmp_path, [msgspec.structs.replace(head, sources=("perf", "runqueue")), *log])
    (run,) = data_in(page)["runs"]
    outsiders, whole_us = run["outsiders"], 2_001 - 10
    assert outsiders["sources"] == ["perf", "runqueue"]
    assert (outsiders["at"], outsiders["pressure"]) == ([0, 1_006, 1_604], [0.5, 0.25, 0.0])
    assert outsiders["held"] == [[1], [1, 3], []]
    assert outsiders["most_pressure"] == 0.5
    assert outsiders["mean_pressure"] == pytest.approx((0.5 * 996 + 0.25 * 598) / whole_us)  # from the first arrival on
    assert outsiders["held_share"] == {"1": pytest.approx(1_594 / whole_us), "3": pytest.approx(598 / whole_us)}


def test_what_was_over_before_the_first_request_counts_for_nothing(tmp_path: Path) -> None:
    head, *rest = small_log()
    outsiders = data_in(page_of(tmp_path, [head, PressureTold(0, 0.9, held=(0,)), PressureTold(5, 0.0), *rest]))["runs"][0][
        "outsiders"
    ]
    assert (outsiders["mean_pressure"], outsiders["most_pressure"], outsiders["held_share"]) == (0.0, 0.0, {})


def test_a_batch_is_drawn_for_the_request_that_it_goes_by(tmp_path: Path) -> None:
    log = [
        started(tenant("ads")),
        arrived("rider", 5),
        arrived("first", 10),
        dispatched("first", 20, 1, riders=("rider",)),
        finished("first", 1520, 1, measured_us=1400),
        completed("first", 1530, 1520),
        completed("rider", 1530, 1525),
    ]
    (run,) = data_in(page_of(tmp_path, log))["runs"]
    assert [run["requests"]["id"][request] for request in run["units"]["request"]] == ["first"]
    assert run["units"]["riders"] == {"0": 1}


def test_the_page_names_no_address_outside_itself(tmp_path: Path) -> None:
    page = page_of(tmp_path, lifelike(duration_s=0.5))
    assert re.search(r"https?:|//[a-z0-9-]+\.[a-z]|<link|<script src|@import|url\(", page) is None
    assert "default-src 'none'" in page
    assert "{{" not in page.replace("${{", "")


def test_a_hostile_tenant_name_stays_text(tmp_path: Path) -> None:
    page = page_of(tmp_path, small_log(HOSTILE))
    assert "</script><b>" not in page
    assert page.count("</script>") == 2
    assert data_in(page)["runs"][0]["tenants"][0]["name"] == HOSTILE


def test_a_hostile_policy_name_is_escaped_in_the_title(tmp_path: Path) -> None:
    page = page_of(tmp_path, [started(tenant("ads"), policy="</title><script>")])
    assert "<title>veltair: &lt;/title&gt;&lt;script&gt;</title>" in page


def test_scripts_put_text_into_the_page_as_text_only() -> None:
    folder = Path(str(render_page.__globals__["__file__"])).parent
    for script in folder.glob("*.js"):
        assert re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", script.read_text()) is None, (
            script.name
        )


def test_an_engine_without_requests_makes_a_page_that_says_so(tmp_path: Path) -> None:
    page = page_of(tmp_path, [started(tenant("ads"))])
    (run,) = data_in(page)["runs"]
    assert (run["requests"]["id"], run["summary"]["tenants"][0]["attainment"]) == ([], None)
    assert "No request has reached this engine" in page


def test_runs_of_the_same_policy_are_told_apart_by_file_and_number(tmp_path: Path) -> None:
    again = written(tmp_path / "log0.jsonl", [started(tenant("ads"))])
    page = page_of(tmp_path, [started(tenant("ads"))], [started(tenant("ads"), policy="fcfs")])
    assert [run["label"] for run in data_in(page)["runs"]] == ["veltair · log0 #1", "veltair · log0 #2", "fcfs"]
    assert again.exists()


def test_a_log_too_long_to_draw_keeps_its_numbers_and_its_latest_units(tmp_path: Path) -> None:
    story = tell(read_log(written(tmp_path / "log.jsonl", lifelike(duration_s=2.0))).runs[0])
    whole, cut = run_data(story, "x", "x"), run_data(story, "x", "x", max_units=50)
    assert cut["summary"] == whole["summary"]
    assert cut["units"]["start"] == whole["units"]["start"][-50:]
    assert cut["hidden_units"] == len(whole["units"]["start"]) - 50
    names = [cut["requests"]["id"][place] for place in cut["units"]["request"]]
    assert names == [whole["requests"]["id"][place] for place in whole["units"]["request"][-50:]]


def test_the_command_writes_the_page_and_says_where(tmp_path: Path) -> None:
    log = written(tmp_path / "log.jsonl", small_log())
    page = tmp_path / "new" / "page.html"
    result = CliRunner().invoke(dashboard, [str(log), "-o", str(page)])
    assert (result.exit_code, page.exists()) == (0, True)
    assert str(page) in result.output.replace("\n", "")


def test_the_command_ends_with_1_and_the_reason_for_a_log_that_is_not_there(tmp_path: Path) -> None:
    result = CliRunner().invoke(dashboard, [str(tmp_path / "no.jsonl"), "-o", str(tmp_path / "page.html")])
    assert result.exit_code == 1
    assert "cannot be read: No such file" in result.output
    assert not (tmp_path / "page.html").exists()


def test_a_page_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    log = written(tmp_path / "log.jsonl", small_log())
    (tmp_path / "taken").mkdir()
    with pytest.raises(LogError, match="cannot be written: Is a directory"):
        write_page([log], tmp_path / "taken")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.jsonl", "taken"]
