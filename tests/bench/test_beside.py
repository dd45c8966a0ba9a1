"""Three contenders in turns: who is up when, which static choice is taken, and what counts as a gain."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from veltair.bench.beside import ADAPTIVE, LATENESS, LOAD, STATIC, UNAWARE, Carried, Disturbed, Effort, compete, rows
from veltair.bench.contenders import Server, total_per_s
from veltair.bench.result import PolicyResult, TenantResult
from veltair.bench.scenario import Scenario, TenantLoad

MIX = Scenario(
    "quiet",
    5.0,
    (TenantLoad("photos", "net", 40.0, 20.0), TenantLoad("video", "yolo", 8.0, 300.0, background=True)),
    warmup_s=0.7,
)
EFFORT = Effort(seeds=2, probes=4, requests=250, least_s=3, most_s=4.5, budget_s=1e9)


class Carries:
    """A server that keeps all requests of the tenant that counts up to `most` a second, and none of the background's."""

    def __init__(self, name: str, most: float, diary: list[tuple[str, Scenario]]) -> None:
        self.name, self.most, self.diary = name, most, diary

    def probe(self, scenario: Scenario) -> PolicyResult:
        self.diary.append((self.name, scenario))
        share = 1.0 - 0.05 * (total_per_s(scenario) / self.most) ** 8
        shares = [0.0 if tenant.background else share for tenant in scenario.tenant]
        tenants = tuple(
            TenantResult(t.name, t.model, t.qos_ms, t.percentile, 100, kept, 1.0, 1.0, 1.0, 0, 0, {})
            for t, kept in zip(scenario.tenant, shares, strict=True)
        )
        return PolicyResult(self.name, tenants, 400)

    def close(self) -> None: ...


class Bench:
    """Opens servers by name, one at a time, and writes down what they are probed with."""

    def __init__(self, **most: float) -> None:
        self.diary: list[tuple[str, Scenario]] = []
        self.up = 0
        self.opened: dict[str, Callable[[], object]] = {name: partial(self._open, name, load) for name, load in most.items()}

    @contextmanager
    def _open(self, name: str, most: float) -> Iterator[Server]:
        self.up += 1
        assert self.up == 1, "two servers are up at a time"
        yield Carries(name, most, self.diary)
        self.up -= 1

    def competed(self, effort: Effort = EFFORT, seconds_a_probe: float = 1.0) -> list[Carried]:
        servers = {ADAPTIVE: self.opened["adaptive"], UNAWARE: self.opened["unaware"]}
        statics = {name: each for name, each in self.opened.items() if name.startswith("static")}

        def clock() -> float:
            return seconds_a_probe * len(self.diary)

        return compete(MIX, servers, statics, effort, 5, lambda said: None, clock)  # type: ignore[arg-type]


def test_each_seed_is_searched_by_one_contender_after_the_other() -> None:
    bench = Bench(adaptive=80.0, unaware=50.0, static=70.0)
    found = bench.competed()
    assert [each.label for each in found] == [ADAPTIVE, f"{STATIC} (static)", UNAWARE]
    for each, most in zip(found, (80.0, 70.0, 50.0), strict=True):
        assert each.loads == pytest.approx([most, most], rel=0.08)
    turns = list(dict.fromkeys((name, scenario.seed) for name, scenario in bench.diary))
    assert turns == [(name, seed) for seed in (5, 6) for name in ("adaptive", "static", "unaware")]


def test_the_static_choice_is_the_one_that_fares_best_at_the_load_that_adaptive_carries() -> None:
    bench = Bench(adaptive=80.0, unaware=50.0, static0=60.0, static5=75.0, static1=66.0)
    found = bench.competed()
    assert found[1].label == f"{STATIC} (static5)"
    tried = [(name, total_per_s(scenario)) for name, scenario in bench.diary if name in ("static0", "static1")]
    assert tried == [("static0", pytest.approx(found[0].loads[0])), ("static1", pytest.approx(found[0].loads[0]))]


def test_the_background_keeps_its_rate_and_what_it_misses_does_not_count() -> None:
    bench = Bench(adaptive=80.0, unaware=80.0, static=80.0)
    bench.competed()
    assert {scenario.tenant[1].rate_per_s for _, scenario in bench.diary} == {8.0}
    assert len({scenario.tenant[0].rate_per_s for _, scenario in bench.diary}) > 1


def test_a_later_search_begins_where_the_earlier_one_of_its_contender_ended() -> None:
    bench = Bench(adaptive=80.0, unaware=50.0, static=70.0)
    found = bench.competed()
    first = {name: total_per_s(scenario) for name, scenario in reversed(bench.diary) if scenario.seed == 6}
    assert first == {
        name: pytest.approx(each.loads[0]) for name, each in zip(("adaptive", "static", "unaware"), found, strict=True)
    }


def test_a_contender_that_carries_nothing_does_not_end_the_others_searches() -> None:
    found = Bench(adaptive=0.001, unaware=50.0, static=70.0).competed()
    assert found[0].loads == [0.0, 0.0]
    assert found[2].loads == pytest.approx([50.0, 50.0], rel=0.08)


def test_seeds_for_which_there_is_no_time_are_left_out() -> None:
    effort = Effort(seeds=9, probes=4, requests=250, least_s=3, most_s=4.5, budget_s=60.0)
    found = Bench(adaptive=80.0, unaware=50.0, static=70.0).competed(effort, seconds_a_probe=3.0)
    assert 1 <= len(found[0].loads) < 9
    assert len({len(each.loads) for each in found}) == 1


def test_an_outsider_runs_during_probes_alone_and_rests_when_one_fails() -> None:
    switched: list[bool] = []

    class Failing(Carries):
        def probe(self, scenario: Scenario) -> PolicyResult:
            assert switched == [True]
            raise RuntimeError("the server is gone")

    with pytest.raises(RuntimeError):
        Disturbed(Failing("a", 1.0, []), switched.append).probe(MIX)
    assert switched == [True, False]


def test_rows_tell_what_each_carries_and_the_gain_seed_by_seed() -> None:
    found = [Carried(ADAPTIVE, [60.0, 66.0], 500), Carried(STATIC, [60.0, 60.0], 2_500), Carried(UNAWARE, [50.0, 50.0])]
    made = rows("quiet", found, "a machine", 5, resolution=0.02)
    loads = {row.case: (row.value, row.unit, row.met) for row in made if row.metric == LOAD}
    assert loads == {
        f"quiet, {ADAPTIVE}": (63.0, "/s", None),
        f"quiet, {STATIC}": (60.0, "/s", None),
        f"quiet, {UNAWARE}": (50.0, "/s", None),
        f"quiet, {ADAPTIVE} over {STATIC}": (pytest.approx(1.05), "x", False),  # 1.0 to 1.1: perhaps no gain
        f"quiet, {ADAPTIVE} over {UNAWARE}": (pytest.approx(1.26), "x", True),
    }
    assert [(row.value, row.met) for row in made if row.metric == LATENESS] == [(0.5, True), (2.5, False)]


def test_one_seed_cannot_tell_a_gain_from_chance() -> None:
    made = rows("quiet", [Carried(ADAPTIVE, [66.0]), Carried(STATIC, [60.0]), Carried(UNAWARE, [0.0])], "a machine", 5, 0.02)
    gains = [(row.value, row.spread, row.met) for row in made if row.unit == "x"]
    assert gains == [(pytest.approx(1.1), None, None), (None, None, None)]


def test_a_gain_that_is_finer_than_the_searches_can_tell_is_none() -> None:
    found = [Carried(ADAPTIVE, [61.0, 61.0]), Carried(STATIC, [60.0, 60.0]), Carried(UNAWARE, [50.0, 50.0])]
    assert [row.met for row in rows("quiet", found, "a machine", 5, 0.05) if row.unit == "x"] == [False, True]
