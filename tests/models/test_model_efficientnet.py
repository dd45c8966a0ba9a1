from collections.abc import Callable
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest

from veltair.models import MODELS, Infer
from veltair.models.efficientnet import SUBJECTS, class_names, image_input, photograph, state_dict_file
from veltair.models.efficientnet_layers import HEAD_CONV, STEM_CONV, Conv, blocks

InferWith = Callable[[str], Infer]
SOURCE = MODELS["efficientnet-lite0"]


@pytest.mark.parametrize("file", SUBJECTS)
def test_the_subject_of_a_photograph_is_named(file: str, infer_with: InferWith) -> None:
    logits = infer_with("efficientnet-lite0")({"image": image_input(photograph(file))})["logits"]
    assert class_names()[int(logits.argmax())] in SUBJECTS[file]


def test_the_subject_is_named_in_every_frame_and_in_the_mirror(infer_with: InferWith) -> None:
    infer = infer_with("efficientnet-lite0")
    for sample in islice(SOURCE.samples(seed=4), 12):
        assert SOURCE.answer(infer(sample.inputs), sample) in sample.expected, sample.what


def test_the_graph_computes_what_the_torch_module_does(infer_with: InferWith) -> None:
    infer = infer_with("efficientnet-lite0")  # skips where torch is missing
    import torch

    from veltair.models.efficientnet_torch import load

    module = load(state_dict_file())
    for inputs in SOURCE.gate_inputs(3):
        with torch.no_grad():
            expected = module(torch.from_numpy(inputs["image"])).numpy()
        assert np.abs(infer(inputs)["logits"] - expected).max() <= 1e-4 * np.abs(expected).max()


def test_a_state_dict_that_lacks_a_weight_is_refused(tmp_path: Path, infer_with: InferWith) -> None:
    infer_with("efficientnet-lite0")
    import torch

    from veltair.models.efficientnet_torch import load

    state = torch.load(state_dict_file(), weights_only=True)
    del state["_blocks.3._bn1.running_var"]
    torch.save(state, tmp_path / "lacking.pth")
    with pytest.raises(RuntimeError, match=r"_blocks\.3\._bn1\.running_var"):
        load(tmp_path / "lacking.pth")


def test_the_table_lists_sixteen_blocks_with_a_residual_wherever_the_shape_is_kept() -> None:
    table = list(blocks())
    assert len(table) == 16
    assert [number for number, block in enumerate(table) if block.residual] == [2, 4, 6, 7, 9, 10, 12, 13, 14]
    chain = [STEM_CONV, *(conv for block in table for conv in block.convs), HEAD_CONV]
    assert all(before.channels_out == after.channels_in for before, after in pairwise(chain))


@pytest.mark.parametrize(
    ("kernel", "stride", "pixels", "expected"), [(3, 2, 224, (0, 1)), (5, 2, 56, (1, 2)), (3, 1, 14, (1, 1)), (1, 1, 7, (0, 0))]
)
def test_padding_puts_the_odd_pixel_behind(kernel: int, stride: int, pixels: int, expected: tuple[int, int]) -> None:
    assert Conv("w", "n", 8, 8, kernel, stride).padding(pixels) == expected


def test_a_thousand_classes_have_names() -> None:
    names = class_names()
    assert (len(names), names[0], names[281], names[967], names[999]) == (1000, "tench", "tabby", "espresso", "toilet tissue")


def test_what_is_no_photograph_is_refused_with_what_it_should_be() -> None:
    pytest.importorskip("PIL", reason='pip install "veltair[models]"')
    with pytest.raises(ValueError, match=r"height x width x 3 of uint8, got uint8 \(8, 8\)"):
        image_input(np.zeros((8, 8), np.uint8))
