"""The transformer of Vaswani et al. 2017: an encoder of the source, and a decoder that reads it.

Blocks count through both stacks: 1 to N of the encoder, N + 1 to 2 N of the decoder. The stream of both is one
tensor, the source first: [R, B, S + T, D] with S = T = `seq_len`. A place of the source without a token enters as
exact zeros, and a row that enters so is not a key of any attention.
"""

from __future__ import annotations

from torch import Tensor, cat

from stresstest.models.block import Watch, declare_scalar_gate, declare_wiring
from stresstest.models.dropout import Dropout
from stresstest.models.layout import Parameters
from stresstest.models.norms import declare_norm
from stresstest.models.transformer import SUBLAYERS, Transformer
from stresstest.models.variants import Stack, Sublayer, SublayerPosition, Wiring
from stresstest.registry import OptionValue
from stresstest.tasks.translation import PADDING

_OF_DECODER: tuple[Sublayer, ...] = ("attention", "cross", "ffn")


class EncoderDecoder(Transformer):
    """R independent encoder-decoders, both stacks of `depth` blocks and wired as `variant`, over one vocabulary."""

    def _wired(self, options: dict[str, OptionValue]) -> dict[tuple[int, Sublayer], Wiring]:
        depth = self.spec.depth
        self.last_stack = depth + 1
        stacks: tuple[tuple[Stack, int, tuple[Sublayer, ...]], ...] = (
            ("encoder", 0, SUBLAYERS),
            ("decoder", depth, _OF_DECODER),
        )
        return {
            (before + layer, sublayer): self._wired_at(SublayerPosition(layer, depth, sublayer, stack, depth), options)
            for stack, before, sublayers in stacks
            for layer in range(1, depth + 1)
            for sublayer in sublayers
        }

    def _declare_blocks(self) -> None:
        for layer in range(1, 2 * self.spec.depth + 1):
            self._declare_attention(layer)
            if layer >= self.last_stack:
                self._declare_cross(layer)
            self._declare_ffn(layer)
            declare_scalar_gate(self.layout, self.wirings[layer, "ffn"], layer)
        if self.variant.final_norm:
            declare_norm(self.layout, self.spec.norm, "encoder.norm", 0, self.spec.width)

    def _declare_cross(self, layer: int) -> None:
        wiring = self.wirings[layer, "cross"]
        self._declare_projection("cross.q", layer, gains=(1.0,))
        self._declare_projection("cross.kv", layer, gains=(1.0, wiring.value_gain))
        self._declare_rest_of_attention("cross.", layer, wiring)
        declare_wiring(self.layout, self.spec.norm, wiring, layer, "cross", self.spec.width)

    def activation_bytes(self, batch_size: int, autocast: bool = False) -> int:
        """An estimate of what one replica keeps for its backward pass: an encoder's twice, and half as much more."""
        return int(2.5 * super().activation_bytes(batch_size, autocast))

    def logits(
        self, parameters: Parameters, inputs: Tensor, watch: Watch | None = None, dropout: Dropout | None = None
    ) -> Tensor:
        """Logits of the next token of the target, [R, B * T, V]; inputs are source and target, [R, B, S + T]."""
        stream = self.walk(parameters, self.embed(parameters, inputs), watch, dropout)
        return self.read_out(parameters, stream[:, :, self.spec.seq_len :].flatten(1, 2))

    def embed(self, parameters: Parameters, inputs: Tensor) -> Tensor:
        """The stream that enters both stacks, [R, B, S + T, D]."""
        length = self.spec.seq_len
        source, target = inputs[..., :length], inputs[..., length:]
        there = (source != PADDING)[..., None]
        return cat([self._embedded(parameters, source) * there, self._embedded(parameters, target)], dim=2)

    def walk(
        self, parameters: Parameters, stream: Tensor, watch: Watch | None = None, dropout: Dropout | None = None
    ) -> Tensor:
        """The streams that leave the encoder's last block and the decoder's (before a final norm)."""
        source, target = stream[:, :, : self.spec.seq_len], stream[:, :, self.spec.seq_len :]
        seen = (source != 0.0).any(-1).flatten(0, 1)[:, None, None]
        if dropout is not None:  # after it is known which rows are empty
            source, target = dropout.of_embedding(source), dropout.of_embedding(target, 1)

        def of_encoder(layer: int, sublayer: Sublayer, wiring: Wiring, x_RND: Tensor) -> Tensor:
            if sublayer == "attention":
                return self._attention(parameters, layer, wiring, x_RND.view_as(source), False, seen)
            return self._ffn(parameters, layer, wiring, x_RND)

        def of_decoder(layer: int, sublayer: Sublayer, wiring: Wiring, x_RND: Tensor) -> Tensor:
            if sublayer == "attention":
                return self._attention(parameters, layer, wiring, x_RND.view_as(target), True)
            if sublayer == "cross":
                q = self._projected(parameters, layer, "cross.q", x_RND.view_as(target))
                kv = self._projected(parameters, layer, "cross.kv", memory)
                return self._attend(parameters, layer, wiring, "cross.", (*q, *kv), False, seen)
            return self._ffn(parameters, layer, wiring, x_RND)

        below = {place: wiring for place, wiring in self.wirings.items() if place[0] < self.last_stack}
        above = {place: wiring for place, wiring in self.wirings.items() if place[0] >= self.last_stack}
        source = self._through(below, parameters, source, of_encoder, watch, dropout)
        memory = source
        if self.variant.final_norm:
            memory = self._norm(parameters, "encoder.norm", 0, source.flatten(1, 2)).view_as(source)
        target = self._through(above, parameters, target, of_decoder, watch, dropout)
        return cat([source, target], dim=2)
