"""Tensors cross the wire as raw frames, and a frame that does not fit its header is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from veltair.errors import BadTensor
from veltair.wire.frames import DTYPES, frames_of, tensor_headers, tensors_from
from veltair.wire.messages import Cancel, TensorHeader

ANY_TENSOR = st.sampled_from(sorted(DTYPES)).flatmap(
    lambda dtype: arrays.arrays(DTYPES[dtype], arrays.array_shapes(min_dims=0, min_side=0, max_side=5))
)


@given(st.dictionaries(st.text(max_size=5), ANY_TENSOR, max_size=3))
def test_tensors_come_back_as_they_were(tensors: dict[str, np.ndarray]) -> None:
    _, *frames = frames_of(Cancel("1"), tensors)
    back = tensors_from(tensor_headers(tensors), [bytes(frame) for frame in frames])
    assert list(back) == list(tensors)
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype
        np.testing.assert_array_equal(back[name], tensor)


def test_what_is_not_contiguous_or_big_endian_is_sent_in_c_order_little_endian() -> None:
    tensor = np.arange(12, dtype=">i4").reshape(3, 4).T
    _, frame = frames_of(Cancel("1"), {"a": tensor})
    assert bytes(frame) == np.ascontiguousarray(tensor, "<i4").tobytes()


@pytest.mark.parametrize(
    ("headers", "frames", "complaint"),
    [
        ([TensorHeader("a", "float32", (2,))], [], "1 tensors but 0 frames"),
        ([TensorHeader("a", "float32", (2,))], [bytes(7)], "takes 8 bytes, but its frame holds 7"),
        ([TensorHeader("a", "float32", (2, -1))], [bytes(8)], "must not be negative"),
        ([TensorHeader("a", "object", (1,))], [bytes(8)], "unknown dtype 'object'"),
        ([TensorHeader("a", ">f4", (1,))], [bytes(4)], "unknown dtype"),
        ([TensorHeader("a", "int8", (1 << 40, 1 << 40))], [bytes(8)], "takes 1208925819614629174706176 bytes"),
        ([TensorHeader("a", "int8", (1,)), TensorHeader("a", "int8", (1,))], [b"1", b"2"], "given twice"),
    ],
)
def test_a_frame_that_does_not_fit_its_header_is_refused(
    headers: list[TensorHeader], frames: list[bytes], complaint: str
) -> None:
    with pytest.raises(BadTensor, match=complaint):
        tensors_from(headers, frames)


@pytest.mark.parametrize("tensor", [np.array(["text"]), np.array([None]), np.array([1j])])
def test_only_plain_numbers_are_sent(tensor: np.ndarray) -> None:
    with pytest.raises(BadTensor, match=r"tensor 'a' has dtype .*convert it"):
        tensor_headers({"a": tensor})
