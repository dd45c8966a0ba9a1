"""An engine that ends is started again after a pause that grows; one that never served is not."""

import os
import signal
import sys

import pytest

from veltair.config import EngineSettings
from veltair.directory.supervisor import FIRST_PAUSE_S, Supervisor
from veltair.errors import BundleCorrupt, ServerError

SETTINGS = EngineSettings("tcp://127.0.0.1:*", (), "veltair", (0,), 1.0, ())
READS_AND_SAYS = "import sys; sys.stdin.read(); print({!r}, flush=True); {}"
SERVES = READS_AND_SAYS.format('{"endpoint": "tcp://127.0.0.1:1"}', "import signal; signal.pause()")


def supervised(program: str) -> Supervisor:
    supervisor = Supervisor(SETTINGS, (sys.executable, "-c", program))
    supervisor.start(now_s=0.0)
    return supervisor


def test_an_engine_serves_once_it_tells_where() -> None:
    engine = supervised(SERVES)
    assert engine.state == "starting"
    engine.heard(1.0)
    assert (engine.state, engine.endpoint) == ("serving", "tcp://127.0.0.1:1")
    engine.kill()
    engine.heard(2.0)


def test_each_crash_doubles_the_pause_before_the_next_start() -> None:
    engine = supervised(SERVES)
    now_s = 0.0
    for crash in range(3):
        engine.heard(now_s)
        os.kill(engine.pid, signal.SIGKILL)
        engine.heard(now_s)
        assert (engine.state, engine.endpoint, engine.pid) == ("down", "", 0)
        pause_s = FIRST_PAUSE_S * 2**crash
        assert engine.next_tick_s() == pytest.approx(now_s + pause_s)
        engine.tick(now_s + 0.9 * pause_s)
        assert engine.state == "down"
        now_s += pause_s
        engine.tick(now_s)
        assert (engine.state, engine.restarts) == ("starting", crash + 1)
    engine.heard(now_s)
    engine.stop()
    engine.heard(now_s)


def test_an_engine_that_is_stopped_is_not_started_again() -> None:
    engine = supervised(SERVES)
    engine.heard(0.0)
    engine.stop()
    engine.heard(1.0)
    assert (engine.state, engine.next_tick_s()) == ("down", None)


def test_why_an_engine_cannot_serve_is_raised_as_it_told_it() -> None:
    engine = supervised(READS_AND_SAYS.format('{"code": "bundle_corrupt", "message": "weights.bin: bad"}', ""))
    engine.heard(0.0)
    with pytest.raises(BundleCorrupt, match=r"weights.bin: bad"):
        engine.heard(0.0)


def test_an_engine_that_ends_without_a_word_is_told_by_its_code() -> None:
    engine = supervised("import sys; sys.stdin.read(); sys.exit(3)")
    with pytest.raises(ServerError, match="ended with code 3 before it served"):
        engine.heard(0.0)
