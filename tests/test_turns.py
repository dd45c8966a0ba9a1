import os
import threading
from collections.abc import Callable

from veltair import turns


def of_thread(*acts: Callable[[], None]) -> tuple[int | None, int]:
    """Turn and niceness of a new thread that did this."""
    seen: list[tuple[int | None, int]] = []

    def run() -> None:
        for act in acts:
            act()
        seen.append((turns.turn_us(), os.getpriority(os.PRIO_PROCESS, threading.get_native_id())))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return seen[0]


def test_who_passes_messages_takes_shorter_turns_where_the_system_knows_of_them() -> None:
    usual_us, niceness = of_thread()
    short_us, kept = of_thread(turns.pass_messages)
    assert kept == niceness
    assert short_us == (turns.SHORT_US if usual_us else usual_us)  # an older system tells of no turns


def test_who_computes_steps_back_and_takes_the_usual_turns_whoever_started_it() -> None:
    usual_us, _ = of_thread()
    assert of_thread(turns.pass_messages, turns.compute) == (usual_us, turns.BEHIND)


def test_other_threads_stay_as_they_were() -> None:
    before = turns.turn_us(), os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    of_thread(turns.pass_messages, turns.compute)
    assert (turns.turn_us(), os.getpriority(os.PRIO_PROCESS, threading.get_native_id())) == before
