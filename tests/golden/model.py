"""The user's model of the golden runs."""

from __future__ import annotations

from torch import Tensor, nn


class Model(nn.Module):
    """A decoder of PyTorch's own layers."""

    def __init__(self, depth: int, width: int, norm_first: bool) -> None:
        super().__init__()
        block = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True, norm_first=norm_first)
        self.embedding = nn.Embedding(256, width)
        self.blocks = nn.TransformerEncoder(block, depth, enable_nested_tensor=False)
        self.output = nn.Linear(width, 256)

    def forward(self, tokens: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1], device=tokens.device)
        return self.output(self.blocks(self.embedding(tokens), mask=mask, is_causal=True))  # type: ignore[no-any-return]


def build(depth: int = 4, width: int = 64, variant: str = "pre-ln") -> Model:
    """What `--model model.py:build` calls."""
    return Model(depth, width, norm_first=variant == "pre-ln")
