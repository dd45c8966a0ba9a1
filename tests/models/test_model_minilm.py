from collections.abc import Callable, Mapping
from itertools import islice
from math import erf
from pathlib import Path

import numpy as np
import pytest

from veltair.errors import CompileError
from veltair.models import MODELS, Infer, minilm
from veltair.models.safetensors import read_safetensors

pytest.importorskip("tokenizers", reason='pip install "veltair[models]"')

InferWith = Callable[[str], Infer]


def numpy_embedding(weights: Mapping[str, np.ndarray], ids: list[int]) -> np.ndarray:
    """The model written once more, without padding or masks, in double precision, from the papers' formulas."""

    def of(name: str) -> np.ndarray:
        return weights[name].astype(np.float64)

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt(centred.var(-1, keepdims=True) + 1e-12) * of(f"{name}.weight") + of(f"{name}.bias")

    def dense(x: np.ndarray, name: str) -> np.ndarray:
        return np.einsum("ti,oi->to", x, of(f"{name}.weight")) + of(f"{name}.bias")

    gelu = np.vectorize(lambda x: 0.5 * x * (1 + erf(x / 2**0.5)))
    words, places = of("embeddings.word_embeddings.weight"), of("embeddings.position_embeddings.weight")
    x = norm(words[ids] + places[: len(ids)] + of("embeddings.token_type_embeddings.weight")[0], "embeddings.LayerNorm")
    for number in range(6):
        layer = f"encoder.layer.{number}"
        q, k, v = (dense(x, f"{layer}.attention.self.{part}") for part in ("query", "key", "value"))
        heads = []
        for head in range(12):
            part = slice(32 * head, 32 * head + 32)
            weight = np.exp(q[:, part] @ k[:, part].T / 32**0.5)
            heads.append(weight / weight.sum(-1, keepdims=True) @ v[:, part])
        attended = dense(np.concatenate(heads, axis=1), f"{layer}.attention.output.dense")
        x = norm(x + attended, f"{layer}.attention.output.LayerNorm")
        inner = gelu(dense(x, f"{layer}.intermediate.dense"))
        x = norm(x + dense(inner, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
    mean = x.mean(0)
    return mean / np.linalg.norm(mean)


@pytest.mark.parametrize("sentence", ["Why is the sky blue?", minilm.PASSAGES[0], "tea"])
def test_the_graph_computes_what_the_formulas_say(sentence: str, infer_with: InferWith) -> None:
    infer = infer_with("minilm")
    inputs = minilm.tokenize(sentence)
    ids = [int(i) for i in inputs["input_ids"][0][: int(inputs["attention_mask"].sum())]]
    expected = numpy_embedding(minilm.weights(), ids)
    assert np.abs(infer(inputs)["embedding"][0] - expected).max() <= 1e-4 * np.abs(expected).max()


def test_every_question_is_nearest_to_its_own_answer(infer_with: InferWith) -> None:
    infer = infer_with("minilm")
    vectors = {sentence: minilm.embed(sentence, infer) for pair in minilm.PAIRS for sentence in pair}
    for question, passage in minilm.PAIRS:
        assert max(minilm.PASSAGES, key=lambda p: vectors[p] @ vectors[question]) == passage, question


def test_nearest_sorts_by_meaning_not_by_words(infer_with: InferWith) -> None:
    sentences = ["A man is eating food.", "The rocket reached its orbit.", "Someone has a meal."]
    ordered = minilm.nearest("A person is having lunch.", sentences, infer_with("minilm"))
    assert ordered[-1][0] == "The rocket reached its orbit."
    assert [cosine for _, cosine in ordered] == sorted((cosine for _, cosine in ordered), reverse=True)


def test_an_embedding_has_length_one_even_of_no_words_at_all(infer_with: InferWith) -> None:
    for sentence in ("", "What should I feed a kitten?"):
        assert np.linalg.norm(minilm.embed(sentence, infer_with("minilm"))) == pytest.approx(1.0, abs=1e-5)


def test_what_stands_under_the_padding_changes_nothing(infer_with: InferWith) -> None:
    infer = infer_with("minilm")
    inputs = minilm.tokenize("Air scatters light.")
    junk = np.where(inputs["attention_mask"] == 0, 1_999, inputs["input_ids"])
    np.testing.assert_allclose(infer({**inputs, "input_ids": junk})["embedding"], infer(inputs)["embedding"], atol=1e-6)


def test_a_long_text_is_cut_to_the_compiled_length() -> None:
    inputs = minilm.tokenize("word " * 500)
    assert {name: tensor.shape for name, tensor in inputs.items()} == dict(MODELS["minilm"].input_shapes)
    assert int(inputs["attention_mask"].sum()) == 64


def test_the_answer_to_a_sample_is_the_passage_expected(infer_with: InferWith) -> None:
    source, infer = MODELS["minilm"], infer_with("minilm")
    for sample in islice(source.samples(seed=5), 5):
        assert source.answer(infer(sample.inputs), sample) in sample.expected, sample.what


def write(path: Path, header: bytes, data: bytes) -> Path:
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    return path


def test_safetensors_are_read_by_name(tmp_path: Path) -> None:
    header = b'{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]}}'
    tensors = read_safetensors(write(tmp_path / "a.safetensors", header, np.array([1, 2], "<f4").tobytes()))
    assert {name: tensor.tolist() for name, tensor in tensors.items()} == {"a": [[1.0], [2.0]]}


@pytest.mark.parametrize(
    "header",
    [
        b"not json",
        b"[]",
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,16]}}',
        b'{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}',
        b'{"a":{"dtype":"F7","shape":[2],"data_offsets":[0,8]}}',
        b'{"a":{"dtype":"F32","shape":[2]}}',
    ],
)
def test_a_damaged_safetensors_file_is_named_with_the_remedy(tmp_path: Path, header: bytes) -> None:
    path = write(tmp_path / "broken.safetensors", header, bytes(8))
    with pytest.raises(CompileError, match=r"broken\.safetensors .*install its package again"):
        read_safetensors(path)


def test_an_empty_safetensors_file_is_damaged_too(tmp_path: Path) -> None:
    (tmp_path / "empty.safetensors").touch()
    with pytest.raises(CompileError, match=r"empty\.safetensors"):
        read_safetensors(tmp_path / "empty.safetensors")
