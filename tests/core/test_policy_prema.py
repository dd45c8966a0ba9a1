"""Tokens and shortest jobs, one at a time."""

from dataclasses import replace

from core_build import answered, arrived, model, scheduler, unit

from veltair.core.events import RequestArrived, UnitFinished
from veltair.core.scheduler import Scheduler
from veltair.core.values import LeaseId

LONG = model("long", [1_000] * 6, [600] * 6)
SHORT = model("short", [700], [400])


def of_priority(priority: int, event: RequestArrived) -> RequestArrived:
    return RequestArrived(replace(event.request, priority=priority))


def shortest(tokens: str, cores: str = "2 cores") -> str:
    return f"shortest of those with the most tokens, {tokens} tokens, on {cores}"


def ran(core: Scheduler, lease: int, us: int, now_us: int) -> list[object]:
    return core.handle(UnitFinished(LeaseId(lease), us), now_us)  # type: ignore[return-value]


def test_a_short_request_preempts_a_long_one_between_layers_and_nobody_runs_beside_another() -> None:
    core = scheduler("prema", LONG, SHORT)
    assert core.handle(arrived("a", "long", 0, 60_000), 0) == [unit("a", 1, (0, 1), range(1), 600, shortest("1.0"))]
    assert core.handle(arrived("b", "short", 400, 5_000), 400) == []
    assert ran(core, 1, 600, 600) == [
        unit("b", 2, (0, 1), range(1), 400, shortest("1.5"), ("request a", "3.0 ms left, 1.0 tokens"))
    ]
    # It has waited 400 us in all, a ninth of its 3.6 ms.
    assert ran(core, 2, 400, 1_000) == [answered("b", 3_600), unit("a", 3, (0, 1), range(1, 2), 600, shortest("1.1"))]


def test_what_is_almost_done_drains_before_a_slightly_shorter_one() -> None:
    core = scheduler("prema", model("like", [1_000, 800]), model("other", [700]), cores=1)
    core.handle(arrived("a", "like", 0, 60_000), 0)
    core.handle(arrived("b", "other", 0, 60_000), 0)
    # Shorter by 100 us: to wait for it would cost `a` 0.39 of its length, to wait for `a` costs `b` 1.14 of its own.
    assert ran(core, 1, 1_000, 1_000) == [
        unit("b", 2, (0,), range(1), 700, shortest("2.4", "1 core"), ("request a", "0.8 ms left, 1.0 tokens"))
    ]
    core = scheduler("prema", model("like", [1_000, 300]), model("other", [1_000, 200, 100]), cores=1)
    core.handle(of_priority(1, arrived("a", "other", 0, 60_000)), 0)
    core.handle(of_priority(2, arrived("b", "like", 0, 60_000)), 0)
    assert ran(core, 1, 1_000, 1_000) == [
        unit("a", 2, (0,), range(1, 2), 200, "drains: going on delays the other less, 3.0 tokens, on 1 core",
             ("request b", "1.3 ms left, 15.9 tokens"))
    ]  # fmt: skip


def test_waiting_earns_tokens_until_the_long_one_is_no_longer_passed_by_the_short() -> None:
    core = scheduler("prema", LONG, SHORT)
    core.handle(arrived("s0", "short", 0, 60_000), 0)
    core.handle(arrived("a", "long", 0, 60_000), 0)
    for i in range(18):  # 18 x 400 us are twice its 3.6 ms: it has three tokens then
        core.handle(arrived(f"s{i + 1}", "short", 400 * i + 399, 60_000), 400 * i + 399)
        _, start = ran(core, i + 1, 400, 400 * (i + 1))
        if i < 17:
            assert start == unit(f"s{i + 1}", i + 2, (0, 1), range(1), 400, shortest("1.0"), behind(400 * (i + 1)))
    assert start == unit("a", 19, (0, 1), range(1), 600, shortest("3.0"), ("request s18", "0.4 ms left, 1.0 tokens"))


def behind(waited_us: int) -> tuple[str, str]:
    return "request a", f"3.6 ms left, {1 + waited_us / 3_600:.1f} tokens"


def test_a_high_priority_goes_before_a_shorter_low_one() -> None:
    core = scheduler("prema", LONG, SHORT)
    core.handle(arrived("x", "short", 0, 60_000), 0)
    core.handle(arrived("low", "short", 310, 60_000), 310)
    core.handle(of_priority(2, arrived("high", "long", 310, 60_000)), 310)
    assert ran(core, 1, 400, 400)[1:] == [
        unit("high", 2, (0, 1), range(1), 600, shortest("9.2"), ("request low", "0.4 ms left, 1.2 tokens"))
    ]
