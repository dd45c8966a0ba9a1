"""The graph of all-MiniLM-L6-v2: a BERT encoder (Devlin et al., 2019), mean pooling, unit length.

Hidden states are [1, tokens, 384] throughout. Activations are named after the layer they leave.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from veltair.models.onnx_graph import GraphWriter
from veltair.models.source import Tensor

LAYERS, HEADS, WIDTH = 6, 12, 384
NORM_EPSILON = 1e-12
MASKED = -10_000.0  # added to the scores of padding: its softmax is 0 in single precision
SHORTEST = 1e-9  # keeps 0/0 out of a sentence of padding alone


def write_minilm(weights: Mapping[str, Tensor], path: Path, tokens: int) -> Path:
    """Inputs are int64 [1, tokens]; the output `embedding` is [1, 384] of length 1."""
    graph = _Encoder(weights, tokens)
    hidden = graph.embed()
    bias = graph.mask_bias()
    for layer in range(LAYERS):
        hidden = graph.layer(f"encoder.layer.{layer}", hidden, bias)
    graph.pool(hidden)
    inputs = dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), ("int64", (1, tokens)))
    return graph.save(path, inputs, {"embedding": ("float32", (1, WIDTH))})


class _Encoder(GraphWriter):
    def __init__(self, weights: Mapping[str, Tensor], tokens: int) -> None:
        super().__init__("all-MiniLM-L6-v2")
        self._of = weights
        self._tokens = tokens

    def embed(self) -> str:
        table = "embeddings.word_embeddings.weight"
        words = self.node("Gather", [self.weight(table, self._of[table]), "input_ids"], "words")
        kinds = "embeddings.token_type_embeddings.weight"
        types = self.node("Gather", [self.weight(kinds, self._of[kinds]), "token_type_ids"], "types")
        places = self._of["embeddings.position_embeddings.weight"][None, : self._tokens]
        placed = self.node("Add", [words, self.weight("positions", places)], "words_and_positions")
        return self._norm("embeddings.LayerNorm", self.node("Add", [placed, types], "embedded"))

    def mask_bias(self) -> str:
        """0 for words, MASKED for padding, broadcast over heads and queries."""
        mask = self.node("Cast", ["attention_mask"], "mask", to=1)
        padding = self.node("Sub", [self._scalar("one", 1.0), mask], "padding")
        bias = self.node("Mul", [padding, self._scalar("masked", MASKED)], "bias")
        return self.node("Reshape", [bias, self._shape(1, 1, 1, self._tokens)], "attention_bias")

    def layer(self, name: str, hidden: str, bias: str) -> str:
        query, key, value = (self._heads(f"{name}.attention.self.{part}", hidden) for part in ("query", "key", "value"))
        keys = self.node("Transpose", [key], f"{name}.keys", perm=[0, 1, 3, 2])
        products = self.node("MatMul", [query, keys], f"{name}.products")
        scaled = self.node("Mul", [products, self._scalar("scale", (WIDTH // HEADS) ** -0.5)], f"{name}.scaled")
        scores = self.node("Add", [scaled, bias], f"{name}.scores")
        shares = self.node("Softmax", [scores], f"{name}.shares", axis=-1)
        mixed = self.node("MatMul", [shares, value], f"{name}.mixed")
        rows = self.node("Transpose", [mixed], f"{name}.rows", perm=[0, 2, 1, 3])
        joined = self.node("Reshape", [rows, self._shape(1, self._tokens, WIDTH)], f"{name}.joined")
        attended = self._residual(f"{name}.attention.output", joined, hidden)
        inner = self._gelu(f"{name}.gelu", self._dense(f"{name}.intermediate.dense", attended))
        return self._residual(f"{name}.output", inner, attended)

    def pool(self, hidden: str) -> str:
        """The mean over what is no padding, divided by its length."""
        weights = self.node("Reshape", ["mask", self._shape(1, self._tokens, 1)], "pool_mask")
        kept = self.node("Mul", [hidden, weights], "kept")
        along = self.weight("token_axis", np.array([1], np.int64))
        total = self.node("ReduceSum", [kept, along], "total", keepdims=0)
        count = self.node("ReduceSum", ["mask", along], "count", keepdims=1)
        some = self.node("Max", [count, self._scalar("shortest", SHORTEST)], "count_or_some")
        mean = self.node("Div", [total, some], "mean")
        square = self.node("ReduceSum", [self.node("Mul", [mean, mean], "squares"), along], "square_length", keepdims=1)
        length = self.node("Sqrt", [self.node("Max", [square, "shortest_square"], "square_or_some")], "length")
        self._scalar("shortest_square", SHORTEST**2)
        return self.node("Div", [mean, length], "embedding")

    def _dense(self, name: str, hidden: str) -> str:
        product = self.node("MatMul", [hidden, self.weight(f"{name}.weight", self._of[f"{name}.weight"].T)], f"{name}.product")
        return self.node("Add", [product, self.weight(f"{name}.bias", self._of[f"{name}.bias"])], name)

    def _heads(self, name: str, hidden: str) -> str:
        split = self._shape(1, self._tokens, HEADS, WIDTH // HEADS)
        return self.node(
            "Transpose",
            [self.node("Reshape", [self._dense(name, hidden), split], f"{name}.split")],
            f"{name}.heads",
            perm=[0, 2, 1, 3],
        )

    def _residual(self, name: str, hidden: str, skip: str) -> str:
        return self._norm(f"{name}.LayerNorm", self.node("Add", [self._dense(f"{name}.dense", hidden), skip], f"{name}.sum"))

    def _norm(self, name: str, hidden: str) -> str:
        scale, shift = (self.weight(f"{name}.{part}", self._of[f"{name}.{part}"]) for part in ("weight", "bias"))
        return self.node("LayerNormalization", [hidden, scale, shift], name, axis=-1, epsilon=NORM_EPSILON)

    def _gelu(self, name: str, hidden: str) -> str:
        """The exact one: x/2 * (1 + erf(x / sqrt 2))."""
        error = self.node("Erf", [self.node("Div", [hidden, self._scalar("root_two", 2**0.5)], f"{name}.scaled")], f"{name}.erf")
        share = self.node("Add", [error, self._scalar("one", 1.0)], f"{name}.share")
        half = self.node("Mul", [hidden, self._scalar("half", 0.5)], f"{name}.half")
        return self.node("Mul", [half, share], name)

    def _scalar(self, name: str, value: float) -> str:
        return self.weight(name, np.array(value, np.float32))

    def _shape(self, *dims: int) -> str:
        return self.weight("shape_" + "x".join(map(str, dims)), np.array(dims, np.int64))
