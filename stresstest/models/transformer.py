"""A transformer over bytes or other tokens, with a replica axis: R copies run as one batched computation.

Dimension key: R replica, B batch, T time, N = B * T, D width, F hidden width (4 D unless set), H heads,
K head width, V vocabulary, L layer, P all parameters of a replica. Weights are [R, out, in].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from stresstest.models.batch_norm import Running
from stresstest.models.block import (
    Watch,
    asked_cross_entropy,
    declare_scalar_gate,
    declare_wiring,
    mean_cross_entropy,
    run_blocks,
)
from stresstest.models.dropout import Dropout
from stresstest.models.layout import Init, Layout, Leaves, Parameters, xavier
from stresstest.models.norms import apply_norm, declare_norm
from stresstest.models.parametrization import attention_scale, base_of, output_multiplier, parametrize, scaled
from stresstest.models.variants import VARIANTS, Sublayer, SublayerPosition, Wiring
from stresstest.registry import OptionValue
from stresstest.specs.base import ModelSpec
from stresstest.tasks.language import VOCABULARY

SUBLAYERS: tuple[Sublayer, ...] = ("attention", "ffn")
_ACTIVATIONS_PER_BLOCK = 30  # tensors of one width kept for the backward pass, about
_DROPOUT_PER_BLOCK = 3  # more of them, of masks and what they are drawn from


class Transformer:
    """R independent transformers, wired as `variant`: causal, or an encoder that sees both sides.

    Initialisation follows Xiong et al. 2020: Xavier normal matrices, zero biases, unit
    gains; the embedding is N(0, 1/D), scaled by sqrt(D) on the way in (Vaswani et al. 2017), and
    positions are sinusoidal. An untied output layer is N(0, 1/D).
    """

    last_matrix = "fc2.weight"

    def __init__(
        self, spec: ModelSpec, variant: str, options: dict[str, OptionValue], vocabulary: int = VOCABULARY
    ) -> None:
        self.spec = spec
        self.variant = VARIANTS[variant]
        self.causal = spec.model == "decoder"
        self.vocabulary = vocabulary
        self.last_stack = 1
        self._mean = mean_cross_entropy if self.causal else asked_cross_entropy
        self.hidden = spec.ffn_width or 4 * spec.width
        self.wirings = self._wired(options)
        self.layout = Layout()
        self._declare()
        self.layout.close()
        self._attention_scale = attention_scale(spec)
        if (base := base_of(spec)) is not None:
            parametrize(self.layout, type(self)(base, variant, options, vocabulary).layout, spec)
        self._positions: dict[torch.device, Tensor] = {}

    def _wired(self, options: dict[str, OptionValue]) -> dict[tuple[int, Sublayer], Wiring]:
        return {
            (layer, sublayer): self._wired_at(SublayerPosition(layer, self.spec.depth, sublayer), options)
            for layer in range(1, self.spec.depth + 1)
            for sublayer in SUBLAYERS
        }

    def _wired_at(self, place: SublayerPosition, options: dict[str, OptionValue]) -> Wiring:
        return scaled(self.spec, self.variant.wiring(place, **options))

    def initial_row(self, seed: int) -> Tensor:
        """The initial parameters of the replica `seed`: [P], float64."""
        return self.layout.draw_row(seed)

    def logits(
        self, parameters: Parameters, inputs: Tensor, watch: Watch | None = None, dropout: Dropout | None = None
    ) -> Tensor:
        """Logits of the next token, or in an encoder of the token at each place, [R, N, V]; inputs are [R, B, T]."""
        stream = self.walk(parameters, self.embed(parameters, inputs), watch, dropout)
        return self.read_out(parameters, stream.flatten(1, 2))

    def read_out(self, parameters: Parameters, x_RND: Tensor) -> Tensor:
        """Logits of the stream that leaves the last block, [R, N, V]."""
        if self.variant.final_norm:
            x_RND = self._norm(parameters, "final.norm", 0, x_RND)
        if (multiplier := output_multiplier(self.spec)) != 1.0:
            x_RND = x_RND * multiplier
        output_RVD = parameters["embedding" if self.spec.tied else "unembedding", 0]
        return torch.bmm(x_RND, output_RVD.mT)

    def loss(
        self,
        leaves: Leaves,
        inputs: Tensor,
        targets: Tensor,
        into: Leaves | None = None,
        as_trained: bool = False,
        dropout: Dropout | None = None,
        running: Running | None = None,
    ) -> Tensor:
        """Mean cross-entropy of each replica in nats, [R]; inputs and targets are [R, B, T]."""
        return self._loss_of(self.logits(self.layout.unbind(leaves), inputs, dropout=dropout), targets, as_trained)

    def plain_loss(
        self, leaves: Leaves, inputs: Tensor, targets: Tensor, watch: Watch | None = None, as_trained: bool = False
    ) -> Tensor:
        """The same, which can be differentiated twice where attention can."""
        return self._loss_of(self.logits(self.layout.unbind(leaves), inputs, watch), targets, as_trained)

    def _loss_of(self, logits_RNV: Tensor, targets: Tensor, as_trained: bool) -> Tensor:
        added = (self.spec.label_smoothing, self.spec.z_loss) if as_trained else ()
        return self._mean(logits_RNV, targets, *added)

    def statistics(self, num_replicas: int) -> Parameters:
        """None: it has no BatchNorm."""
        return {}

    def release(self) -> None:
        """Nothing is kept."""

    def activation_bytes(self, batch_size: int, autocast: bool = False) -> int:
        """An estimate of what one replica keeps for its backward pass, in float32."""
        spec = self.spec
        a_block = _ACTIVATIONS_PER_BLOCK + (_DROPOUT_PER_BLOCK if spec.dropout else 0)
        of_logits = (6 if spec.label_smoothing or spec.z_loss else 4) * self.vocabulary
        return 4 * batch_size * spec.seq_len * (spec.depth * spec.width * a_block + of_logits)

    def embed(self, parameters: Parameters, inputs: Tensor) -> Tensor:
        """The stream that enters the first block, [R, B, T, D], of tokens [R, B, T]."""
        return self._embedded(parameters, inputs)

    def _embedded(self, parameters: Parameters, inputs: Tensor) -> Tensor:
        embedding_RVD = parameters["embedding", 0]
        replicas, batch, time = inputs.shape
        width = self.spec.width
        index = inputs.reshape(replicas, -1, 1).expand(-1, -1, width)
        x_RND = embedding_RVD.gather(1, index) * math.sqrt(width)
        x_RND = (x_RND.view(-1, time, width) + self._sinusoids(time, x_RND)).view(replicas, batch * time, width)
        if self.variant.embedding_norm:
            x_RND = self._norm(parameters, "embedding.norm", 0, x_RND)
        return x_RND.view(replicas, batch, time, width)

    def walk(
        self, parameters: Parameters, stream: Tensor, watch: Watch | None = None, dropout: Dropout | None = None
    ) -> Tensor:
        """The stream that leaves the last block (before a final norm), [R, B, T, D]."""

        def sublayer_of(layer: int, sublayer: Sublayer, wiring: Wiring, x_RND: Tensor) -> Tensor:
            if sublayer == "attention":
                return self._attention(parameters, layer, wiring, x_RND.view_as(stream), self.causal)
            return self._ffn(parameters, layer, wiring, x_RND)

        stream = stream if dropout is None else dropout.of_embedding(stream)
        return self._through(self.wirings, parameters, stream, sublayer_of, watch, dropout)

    def _through(
        self,
        wirings: Mapping[tuple[int, Sublayer], Wiring],
        parameters: Parameters,
        stream: Tensor,
        f: Callable[[int, Sublayer, Wiring, Tensor], Tensor],
        watch: Watch | None,
        dropout: Dropout | None,
    ) -> Tensor:
        """A stack of blocks on a stream [R, B, T, D], which `f` and the equation have as [R, N, D]."""

        def unfolded(layer: int, sublayer: Sublayer, *tensors: Tensor) -> None:
            assert watch is not None, "only called where there is a watch"
            watch(layer, sublayer, *(tensor.view_as(stream) for tensor in tensors))

        heard = None if watch is None else unfolded
        x_RND = run_blocks(self.spec.norm, wirings, parameters, stream.flatten(1, 2), f, heard, dropout)
        return x_RND.view_as(stream)

    def blocks(self, leaves: Leaves, stream: Tensor) -> Tensor:
        """The same from banks."""
        return self.walk(self.layout.unbind(leaves), stream)

    def _declare(self) -> None:
        spec, width = self.spec, self.spec.width
        self.layout.add("embedding", 0, (self.vocabulary, width), Init(std=width**-0.5))
        if self.variant.embedding_norm:
            declare_norm(self.layout, self.spec.norm, "embedding.norm", 0, width)
        self._declare_blocks()
        if self.variant.final_norm:
            declare_norm(self.layout, self.spec.norm, "final.norm", 0, width)
        if not spec.tied:
            self.layout.add("unembedding", 0, (self.vocabulary, width), Init(std=width**-0.5))

    def _declare_blocks(self) -> None:
        for layer in range(1, self.spec.depth + 1):
            self._declare_attention(layer)
            self._declare_ffn(layer)
            declare_scalar_gate(self.layout, self.wirings[layer, "ffn"], layer)

    def _declare_attention(self, layer: int) -> None:
        width = self.spec.width
        wiring = self.wirings[layer, "attention"]
        self._declare_projection("qkv", layer, gains=(1.0, 1.0, wiring.value_gain))
        self._declare_rest_of_attention("", layer, wiring)
        declare_wiring(self.layout, self.spec.norm, wiring, layer, "attention", width)

    def _declare_projection(self, kind: str, layer: int, gains: tuple[float, ...]) -> None:
        """A bank of some matrices for queries, keys or values, and their biases."""
        width = self.spec.width
        self.layout.add(
            f"{kind}.weight", layer, (len(gains), width, width), xavier(width, width, self.spec.qkv_gain, gains)
        )
        self.layout.add(f"{kind}.bias", layer, (len(gains), width), Init())

    def _declare_rest_of_attention(self, prefix: str, layer: int, wiring: Wiring) -> None:
        width, heads = self.spec.width, self.spec.heads
        if self.spec.qk_norm:
            declare_norm(self.layout, self.spec.norm, f"{prefix}query.norm", layer, width // heads)
            declare_norm(self.layout, self.spec.norm, f"{prefix}key.norm", layer, width // heads)
        if wiring.head_scale:
            self.layout.add(f"{prefix}head_scale", layer, (heads,), Init(mean=1.0))
        self.layout.add(f"{prefix}output.weight", layer, (width, width), xavier(width, width, wiring.output_gain))
        self.layout.add(f"{prefix}output.bias", layer, (width,), Init())

    def _declare_ffn(self, layer: int) -> None:
        width, hidden = self.spec.width, self.hidden
        wiring = self.wirings[layer, "ffn"]
        self.layout.add("fc1.weight", layer, (hidden, width), xavier(width, hidden, wiring.fc1_gain))
        self.layout.add("fc1.bias", layer, (hidden,), Init())
        self.layout.add("fc2.weight", layer, (width, hidden), xavier(hidden, width, wiring.fc2_gain))
        self.layout.add("fc2.bias", layer, (width,), Init())
        declare_wiring(self.layout, self.spec.norm, wiring, layer, "ffn", width, hidden)

    def _attention(
        self,
        parameters: Parameters,
        layer: int,
        wiring: Wiring,
        x_RBTD: Tensor,
        causal: bool,
        seen: Tensor | None = None,
    ) -> Tensor:
        """Self-attention; `seen`: which keys there are, [R * B, 1, 1, T]."""
        qkv = self._projected(parameters, layer, "qkv", x_RBTD)
        return self._attend(parameters, layer, wiring, "", qkv, causal, seen)

    def _projected(self, parameters: Parameters, layer: int, kind: str, x_RBTD: Tensor) -> tuple[Tensor, ...]:
        """The tensors of a bank of some matrices, each [R, B, T, H, K]."""
        heads = self.spec.heads
        weight_RED = parameters[f"{kind}.weight", layer].flatten(1, 2)
        joined = torch.baddbmm(
            parameters[f"{kind}.bias", layer].flatten(1)[:, None], x_RBTD.flatten(1, 2), weight_RED.mT
        )
        return joined.view(*x_RBTD.shape[:3], -1, heads, self.spec.width // heads).unbind(3)

    def _attend(
        self,
        parameters: Parameters,
        layer: int,
        wiring: Wiring,
        prefix: str,
        qkv: tuple[Tensor, ...],
        causal: bool,
        seen: Tensor | None,
    ) -> Tensor:
        q, k, v = qkv
        replicas, batch, time, heads, _ = q.shape
        if self.spec.qk_norm:
            q = self._norm(parameters, f"{prefix}query.norm", layer, q.flatten(1, 3)).view_as(q)
            k = self._norm(parameters, f"{prefix}key.norm", layer, k.flatten(1, 3)).view_as(k)
        q, k, v = (t.flatten(0, 1).transpose(1, 2) for t in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, is_causal=causal, scale=self._attention_scale)
        out = out.transpose(1, 2).reshape(replicas, batch * time, heads, -1)
        if wiring.head_scale:
            out = out * parameters[f"{prefix}head_scale", layer][:, None, :, None]
        out_RND = out.flatten(2)
        if wiring.inner_norm:
            out_RND = self._norm(parameters, f"{'cross' if prefix else 'attention'}.inner", layer, out_RND)
        return _linear(out_RND, parameters[f"{prefix}output.weight", layer], parameters[f"{prefix}output.bias", layer])

    def _ffn(self, parameters: Parameters, layer: int, wiring: Wiring, x_RND: Tensor) -> Tensor:
        h_RNF = _linear(x_RND, parameters["fc1.weight", layer], parameters["fc1.bias", layer])
        h_RNF = F.gelu(h_RNF) if self.spec.activation == "gelu" else F.relu(h_RNF)
        if wiring.inner_norm:
            h_RNF = self._norm(parameters, "ffn.inner", layer, h_RNF)
        return _linear(h_RNF, parameters["fc2.weight", layer], parameters["fc2.bias", layer])

    def _norm(self, parameters: Parameters, kind: str, layer: int, x_RNE: Tensor) -> Tensor:
        return apply_norm(self.spec.norm, parameters, kind, layer, x_RNE)

    def _sinusoids(self, time: int, like: Tensor) -> Tensor:
        positions = self._positions.get(like.device)
        if positions is None or positions.shape[0] < time:
            positions = self._positions[like.device] = _sinusoids(time, self.spec.width).to(like.device)
        return positions[:time].to(like.dtype)


def _linear(x_RND: Tensor, weight_RED: Tensor, bias_RE: Tensor) -> Tensor:
    return torch.baddbmm(bias_RE[:, None], x_RND, weight_RED.mT)


def _sinusoids(time: int, width: int) -> Tensor:
    """Sine and cosine position codes, [T, D], computed in float64 (Vaswani et al. 2017, Sec. 3.5)."""
    rates = torch.exp(torch.arange(0, width, 2, dtype=torch.float64) * (-math.log(10_000.0) / width))
    angles = torch.arange(time, dtype=torch.float64)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :width].float()
