"""Small transformers for the built-in text: without a batch function beside them."""

from __future__ import annotations

from torch import nn


class Peeks(nn.Module):
    """An encoder of torch whose mask was forgotten: it sees the bytes that it is to predict."""

    def __init__(self, width=16):
        super().__init__()
        self.embedding = nn.Embedding(256, width)
        layer = nn.TransformerEncoderLayer(width, 2, 32, dropout=0.0, batch_first=True)
        self.body = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.output = nn.Linear(width, 256)

    def forward(self, x):
        return self.output(self.body(self.embedding(x)))


def peeks():
    return Peeks()


class Causal(nn.Module):
    """A small GPT for the built-in bytes."""

    def __init__(self, width=16):
        super().__init__()
        self.embedding = nn.Embedding(256, width)
        layer = nn.TransformerEncoderLayer(width, 2, 32, dropout=0.0, batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.output = nn.Linear(width, 256)

    def forward(self, x):
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        return self.output(self.body(self.embedding(x), mask=mask, is_causal=True))


def causal():
    return Causal()
