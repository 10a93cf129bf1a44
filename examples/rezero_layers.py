"""ReZero's layer in place of torch's own: does a deep nn.TransformerEncoder then train without a warm-up?

    stresstest race --model rezero_layers.py:build --variant post-ln,rezero --depth 12 --start-lr 0.004 --end-lr 0.004 \
        --num-lrs 1 --train-steps 200

`ReZeroEncoderLayer` is called as nn.TransformerEncoderLayer is, so that nn.TransformerEncoder takes it as it is.
Source: Bachlechner et al. 2020, their layer: one scalar, at first 0, for both branches of a layer, and no norms.
"""

import torch
from torch import nn

VOCABULARY, HEADS = 256, 2


class ReZeroEncoderLayer(nn.Module):
    """x + alpha f(x), for attention and for the feed-forward layer, with one alpha that starts at 0."""

    def __init__(self, width: int, heads: int, ffn_width: int) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.feed_forward = nn.Sequential(nn.Linear(width, ffn_width), nn.ReLU(), nn.Linear(ffn_width, width))
        self.alpha = nn.Parameter(torch.zeros(()))

    def forward(
        self,
        src: torch.Tensor,
        src_mask: torch.Tensor | None = None,
        src_key_padding_mask: torch.Tensor | None = None,
        is_causal: bool = False,
    ) -> torch.Tensor:
        attended, _ = self.self_attn(
            src, src, src, src_key_padding_mask, need_weights=False, attn_mask=src_mask, is_causal=is_causal
        )
        x = src + self.alpha * attended
        return x + self.alpha * self.feed_forward(x)


class Model(nn.Module):
    """A causal language model of bytes: embeddings, nn.TransformerEncoder, and a linear layer."""

    def __init__(self, depth: int, width: int, layer: nn.Module) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(VOCABULARY, width), nn.Embedding(1024, width)
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.output = nn.Linear(width, VOCABULARY)
        for parameter in self.encoder.parameters():  # nn.TransformerEncoder copies one layer: draw each anew
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        length = tokens.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length, device=tokens.device)
        x = self.token(tokens) + self.place.weight[:length]
        return self.output(self.encoder(x, mask=mask, is_causal=True))


def build(depth: int = 12, width: int = 32, variant: str = "rezero") -> nn.Module:
    """The model to test, freshly initialised."""
    if variant == "rezero":
        return Model(depth, width, ReZeroEncoderLayer(width, HEADS, 4 * width))
    return Model(depth, width, nn.TransformerEncoderLayer(width, HEADS, 4 * width, dropout=0.0, batch_first=True))
