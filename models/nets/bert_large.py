"""BERT-Large, uncased (Devlin et al., 2018): 24 layers, 1024 wide, 16 heads, the pooler behind the first token."""

import torch
from torch import Tensor, nn

VOCABULARY, POSITIONS, SEGMENTS = 30_522, 512, 2
LAYERS, WIDTH, HEADS, INNER = 24, 1_024, 16, 4_096
NORM_EPSILON = 1e-12
MASKED = -1e4  # added to the score of a token that is padding


class Attention(nn.Module):  # type: ignore[misc]  # torch is not type checked
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        n, tokens, _ = hidden.shape

        def split(projected: Tensor) -> Tensor:
            return projected.reshape(n, tokens, HEADS, WIDTH // HEADS).transpose(1, 2)

        query, key, value = split(self.query(hidden)), split(self.key(hidden)), split(self.value(hidden))
        scores = query @ key.transpose(2, 3) * (WIDTH // HEADS) ** -0.5 + bias
        mixed = scores.softmax(dim=-1) @ value
        return self.out(mixed.transpose(1, 2).reshape(n, tokens, WIDTH))


class Layer(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention()
        self.attention_norm = nn.LayerNorm(WIDTH, NORM_EPSILON)
        self.feed_forward = nn.Sequential(nn.Linear(WIDTH, INNER), nn.GELU(), nn.Linear(INNER, WIDTH))
        self.norm = nn.LayerNorm(WIDTH, NORM_EPSILON)

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        hidden = self.attention_norm(hidden + self.attention(hidden, bias))
        return self.norm(hidden + self.feed_forward(hidden))


class BertLarge(nn.Module):  # type: ignore[misc]
    """Token ids and mask (1: a token, 0: padding) [n, tokens], to hidden states [n, tokens, 1024] and pooled [n, 1024].

    All tokens belong to the first segment.
    """

    def __init__(self, layers: int = LAYERS) -> None:
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, WIDTH)
        self.positions = nn.Embedding(POSITIONS, WIDTH)
        self.segments = nn.Embedding(SEGMENTS, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, NORM_EPSILON)
        self.layers = nn.ModuleList(Layer() for _ in range(layers))
        self.pooler = nn.Linear(WIDTH, WIDTH)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        fixed = self.positions.weight[: input_ids.shape[1]] + self.segments.weight[0]
        hidden = self.norm(self.words(input_ids) + fixed)
        bias = (1.0 - attention_mask[:, None, None, :].to(hidden.dtype)) * MASKED
        for layer in self.layers:
            hidden = layer(hidden, bias)
        return hidden, torch.tanh(self.pooler(hidden[:, 0]))
