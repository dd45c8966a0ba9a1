"""What a model of interference is told of a co-run, and what tables answer."""

import pytest

from tests.interference.profiles import profile
from tests.interference.world import CONVS, HOST, PRODUCTS, manifest, variant
from veltair.interference.corun import CoRun, Outsider, Subject
from veltair.interference.model import Anchored, Host, Key, Table, examples_of, questions, quiet_times

CONV, PRODUCT = Key("convs", 0, 0, 1), Key("products", 0, 0, 1)
WHOLE = HOST.subjects["convs"].whole(0, 1)
ALONE = CoRun(WHOLE, None, ((800, 810, 820), (880, 881, 882), (960, 961, 962), (1040, 1041, 1042)))


def test_a_unit_presses_with_its_traffic_as_a_share_of_the_machine_s_bandwidth() -> None:
    # 24 MiB in 1650 us on a machine that reads 34 GB/s
    assert HOST.pressure_of(HOST.subjects["products"].whole(0, 1)) == pytest.approx((24 << 20) / 1650 / 34_000)


def test_nobody_presses_more_than_fully() -> None:
    greedy = Subject.of(manifest("greedy", {"00-matmul": (variant(10, 1.0, 64),)}))
    assert Host(profile(), {"greedy": greedy}).pressure_of(greedy.whole(0, 1)) == 1.0


@pytest.mark.parametrize(
    ("outsider", "pressure"),
    [
        (Outsider("stream", 0.5), 0.5),
        (Outsider("cache", 0.5), 0.75),  # the probe feels it as it does three quarters of a streaming one
        (Outsider("compute", 1.0), 0.0),  # whatever the probe felt: it does not use what is shared
    ],
)
def test_an_outsider_presses_with_what_the_probe_would_tell(outsider: Outsider, pressure: float) -> None:
    assert HOST.pressure_of(outsider) == pytest.approx(pressure)


def test_nobody_beside_is_no_pressure() -> None:
    assert HOST.pressure_of(None) == 0.0


def test_quiet_times_are_medians_of_runs_with_nobody_beside() -> None:
    beside = CoRun(WHOLE, Outsider("stream", 1.0), ((5000,) * 3,) * 4)
    assert quiet_times([ALONE, beside], HOST)[CONV] == 810


def test_the_table_says_what_the_compiler_measured_and_the_anchored_one_slows_what_was_measured_here() -> None:
    asked = questions([CONV, PRODUCT], 0.5, quiet_times([ALONE], HOST), HOST)
    assert Table().median_us(asked).tolist() == [1100, 500]
    assert Anchored().median_us(asked).tolist() == pytest.approx([810 * 1.1, 500])  # products were never timed here


def test_each_block_of_a_co_run_is_an_example_with_its_own_times() -> None:
    examples = examples_of([ALONE, ALONE], {}, HOST)
    assert [(each.run, each.key.block) for each in examples] == [(run, block) for run in (0, 1) for block in range(4)]
    assert examples[1].times.tolist() == [880, 881, 882]
    assert {each.kind for each in examples} == {"conv"}


def test_a_class_is_the_layer_or_an_algorithm_of_its_own() -> None:
    named = manifest("named", {"03-conv": (variant(10, 1.0, 1), variant(9, 1.0, 1, algorithm="winograd"))})
    host = Host(profile(), {"named": Subject.of(named)})
    assert [host.kind(Key("named", 0, v, 1)) for v in (0, 1)] == ["conv", "winograd"]
    assert {HOST.kind(Key(each.name, 0, 0, 1)) for each in (CONVS, PRODUCTS)} == {"conv", "matmul"}
