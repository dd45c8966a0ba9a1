import json
from collections.abc import Callable
from functools import cache
from itertools import islice
from random import Random
from typing import Any

import numpy as np
import pytest

from veltair.models import MODELS, Infer
from veltair.models.magika import features, identify
from veltair.models.magika_files import KINDS

pytest.importorskip("PIL", reason='pip install "veltair[models]"')

InferWith = Callable[[str], Infer]

ODD_CONTENTS = {
    "nothing": b"",
    "a few letters": b"abc",
    "a few bytes": b"\xff\xfe\x00",
    "white space": b" \n\t" * 40,
    "white space longer than a block": b" " * 5_000 + b"import os\n" * 40,
    "white space around": b"\n\n   " + json.dumps({"a": list(range(40))}).encode() + b"\n\n",
    "seven letters and white space": b"       abcdefg      ",
    "eight letters": b"abcdefgh",
    "exactly one half of the input": b"x = 1\n" * 170 + b"y=23",
    "noise": Random(0).randbytes(6_000),
    "prose": b"It was raining when she came home, and the lamp in the hall was still lit. " * 30,
    "a tab": b"name\tcity\nAda\tLondon\n" * 20,
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.label)
def test_a_file_is_known_by_its_bytes(kind: Any, infer_with: InferWith) -> None:
    assert identify(kind.make(Random(7)), infer_with("magika")).label == kind.label


@cache
def original() -> Any:
    return pytest.importorskip("magika", reason="the package that carries the weights cannot be imported").Magika()


@pytest.mark.parametrize(
    "content", [*(kind.make(Random(3)) for kind in KINDS), *ODD_CONTENTS.values()], ids=[*(k.label for k in KINDS), *ODD_CONTENTS]
)
def test_the_verdict_is_that_of_magika_itself(content: bytes, infer_with: InferWith) -> None:
    theirs = original().identify_bytes(content)
    ours = identify(content, infer_with("magika"))
    assert ours.label == str(theirs.output.label)
    assert ours.score == pytest.approx(theirs.score, abs=1e-4)


def test_the_answer_to_a_sample_is_the_type_expected(infer_with: InferWith) -> None:
    source, infer = MODELS["magika"], infer_with("magika")
    for sample in islice(source.samples(seed=2), len(KINDS)):
        assert source.answer(infer(sample.inputs), sample) in sample.expected, sample.what


def test_bytes_are_padded_behind_the_beginning_and_before_the_end() -> None:
    tensor = features(b"0123456789")
    assert tensor is not None
    assert tensor[0].tolist() == [*b"0123456789", *[256] * 2028, *b"0123456789"]


def test_nothing_is_asked_of_the_model_where_too_little_is_left() -> None:
    def unreachable(inputs: object) -> dict[str, np.ndarray]:
        raise AssertionError("the model was asked")

    assert identify(b"", unreachable).label == "empty"
    assert identify(b"hello", unreachable).label == "txt"
    assert identify(b"\xff\xfe", unreachable).label == "unknown"
