"""A decoder transformer over bytes with a replica axis: R copies run as one batched computation.

Dimension key: R replica, B batch, T time, N = B * T, D width, F hidden width (4 D), H heads,
K head width, V vocabulary, L layer, P all parameters of a replica. Weights are [R, out, in].
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from stresstest.models.layout import Init, Layout, xavier
from stresstest.models.variants import VARIANTS, Place, Sublayer, Wiring
from stresstest.specs import ModelSpec
from stresstest.tables import OptionValue

VOCABULARY = 256
SUBLAYERS: tuple[Sublayer, ...] = ("attention", "ffn")

Parameters = dict[tuple[str, int], Tensor]


class Transformer:
    """R independent decoder transformers, wired as `variant`.

    Initialisation follows Xiong et al. 2020: Xavier normal matrices, zero biases, unit
    gains; the embedding is N(0, 1/D), scaled by sqrt(D) on the way in (Vaswani et al. 2017), and
    positions are sinusoidal. An untied output layer is N(0, 1/D).
    """

    def __init__(self, spec: ModelSpec, variant: str, options: dict[str, OptionValue]) -> None:
        self.spec = spec
        self.variant = VARIANTS[variant]
        self.wirings: dict[tuple[int, Sublayer], Wiring] = {
            (layer, sublayer): self.variant.wiring(Place(layer, spec.depth, sublayer), **options)
            for layer in range(1, spec.depth + 1)
            for sublayer in SUBLAYERS
        }
        self.layout = Layout()
        self._declare()
        self.layout.close()
        self._positions: dict[torch.device, Tensor] = {}

    def initial_row(self, seed: int) -> Tensor:
        """The initial parameters of the replica `seed`: [P], float64."""
        return self.layout.draw_row(seed)

    def logits(self, parameters: Parameters, tokens_RBT: Tensor) -> Tensor:
        """Next-byte logits, [R, N, V]."""
        return self._run(parameters, tokens_RBT, lambda *_: None)

    def loss(self, parameters: Parameters, batch_RBT1: Tensor) -> Tensor:
        """Mean next-byte cross-entropy of each replica in nats, [R]; the batch has T + 1 bytes a row."""
        logits_RNV = self.logits(parameters, batch_RBT1[:, :, :-1])
        targets = batch_RBT1[:, :, 1:].flatten()
        losses = F.cross_entropy(logits_RNV.flatten(0, 1).float(), targets, reduction="none")
        return losses.view(batch_RBT1.shape[0], -1).mean(1)

    def profile(self, parameters: Parameters, tokens_RBT: Tensor) -> None:
        """Admin's profiling pass: set every learned skip to sqrt(1 + sum of Var f_j before it).

        Var is over all elements of the branch's output (Liu et al. 2020, and their code).
        """
        variances_R: list[Tensor] = []

        def measure(layer: int, sublayer: Sublayer, branch_RND: Tensor) -> None:
            earlier = torch.stack(variances_R).sum(0) if variances_R else torch.zeros_like(branch_RND[:, 0, 0])
            skips.append((f"{sublayer}.skip", layer, (1.0 + earlier).sqrt()))
            variances_R.append(branch_RND.flatten(1).var(1))

        skips: list[tuple[str, int, Tensor]] = []
        with torch.no_grad():
            self._run(parameters, tokens_RBT, measure)
            for kind, layer, omega_R in skips:
                parameters[kind, layer].copy_(omega_R[:, None].expand_as(parameters[kind, layer]))

    def _declare(self) -> None:
        spec, width = self.spec, self.spec.width
        self.layout.add("embedding", 0, (VOCABULARY, width), Init(std=width**-0.5))
        if self.variant.embedding_norm:
            self._declare_norm("embedding.norm", 0, width)
        for layer in range(1, spec.depth + 1):
            self._declare_attention(layer)
            self._declare_ffn(layer)
            if self.wirings[layer, "ffn"].learned_gate == "scalar":
                self.layout.add("gate", layer, (), Init(mean=self.wirings[layer, "ffn"].gate))
        if self.variant.final_norm:
            self._declare_norm("final.norm", 0, width)
        if not spec.tied:
            self.layout.add("unembedding", 0, (VOCABULARY, width), Init(std=width**-0.5))

    def _declare_attention(self, layer: int) -> None:
        width, heads = self.spec.width, self.spec.heads
        wiring = self.wirings[layer, "attention"]
        gains = (1.0, 1.0, wiring.value_gain)
        self.layout.add("qkv.weight", layer, (3, width, width), xavier(width, width, gains=gains))
        self.layout.add("qkv.bias", layer, (3, width), Init())
        if self.spec.qk_norm:
            self._declare_norm("query.norm", layer, width // heads)
            self._declare_norm("key.norm", layer, width // heads)
        if wiring.head_scale:
            self.layout.add("head_scale", layer, (heads,), Init(mean=1.0))
        self.layout.add("output.weight", layer, (width, width), xavier(width, width, wiring.output_gain))
        self.layout.add("output.bias", layer, (width,), Init())
        self._declare_wiring(layer, "attention", width)

    def _declare_ffn(self, layer: int) -> None:
        width, hidden = self.spec.width, 4 * self.spec.width
        wiring = self.wirings[layer, "ffn"]
        self.layout.add("fc1.weight", layer, (hidden, width), xavier(width, hidden, wiring.fc1_gain))
        self.layout.add("fc1.bias", layer, (hidden,), Init())
        self.layout.add("fc2.weight", layer, (width, hidden), xavier(hidden, width, wiring.fc2_gain))
        self.layout.add("fc2.bias", layer, (width,), Init())
        self._declare_wiring(layer, "ffn", hidden)

    def _declare_wiring(self, layer: int, sublayer: Sublayer, inner_width: int) -> None:
        width, wiring = self.spec.width, self.wirings[layer, sublayer]
        if wiring.pre_norm:
            self._declare_norm(f"{sublayer}.pre", layer, width)
        if wiring.inner_norm:
            self._declare_norm(f"{sublayer}.inner", layer, inner_width)
        if wiring.out_norm:
            self._declare_norm(f"{sublayer}.out", layer, width)
        if wiring.post_norm:
            self._declare_norm(f"{sublayer}.post", layer, width)
        if wiring.learned_skip:
            self.layout.add(f"{sublayer}.skip", layer, (width,), Init(mean=wiring.skip))
        if wiring.learned_gate == "vector":
            self.layout.add(f"{sublayer}.gate", layer, (width,), Init(mean=wiring.gate))

    def _declare_norm(self, kind: str, layer: int, width: int) -> None:
        norm = self.spec.norm
        if norm == "none":
            return
        self.layout.add(f"{kind}.gain", layer, (width,), Init(mean=1.0))
        if norm != "rms-norm":
            self.layout.add(f"{kind}.bias", layer, (width,), Init())
        if norm == "dyt":
            self.layout.add(f"{kind}.alpha", layer, (), Init(mean=0.5))

    def _run(
        self,
        parameters: Parameters,
        tokens_RBT: Tensor,
        watch_branch: Callable[[int, Sublayer, Tensor], None],
    ) -> Tensor:
        x_RND = self._embed(parameters, tokens_RBT)
        batch, time = tokens_RBT.shape[1:]
        for layer in range(1, self.spec.depth + 1):
            for sublayer in SUBLAYERS:
                wiring = self.wirings[layer, sublayer]
                h = self._norm(parameters, f"{sublayer}.pre", layer, x_RND) if wiring.pre_norm else x_RND
                if wiring.pre_gain != 1.0:
                    h = h * wiring.pre_gain
                if sublayer == "attention":
                    h = self._attention(parameters, layer, wiring, h, batch, time)
                else:
                    h = self._ffn(parameters, layer, wiring, h)
                if wiring.out_norm:
                    h = self._norm(parameters, f"{sublayer}.out", layer, h)
                watch_branch(layer, sublayer, h)
                x_RND = self._join(parameters, layer, sublayer, wiring, x_RND, h)
                if wiring.post_norm:
                    x_RND = self._norm(parameters, f"{sublayer}.post", layer, x_RND)
        if self.variant.final_norm:
            x_RND = self._norm(parameters, "final.norm", 0, x_RND)
        output_RVD = parameters["embedding" if self.spec.tied else "unembedding", 0]
        return torch.bmm(x_RND, output_RVD.mT)

    def _embed(self, parameters: Parameters, tokens_RBT: Tensor) -> Tensor:
        embedding_RVD = parameters["embedding", 0]
        replicas, batch, time = tokens_RBT.shape
        width = self.spec.width
        index = tokens_RBT.reshape(replicas, -1, 1).expand(-1, -1, width)
        x_RND = embedding_RVD.gather(1, index) * math.sqrt(width)
        positions_TD = self._sinusoids(time, x_RND.device)
        x_RND = (x_RND.view(-1, time, width) + positions_TD).view(replicas, batch * time, width)
        if self.variant.embedding_norm:
            x_RND = self._norm(parameters, "embedding.norm", 0, x_RND)
        return x_RND

    def _attention(
        self, parameters: Parameters, layer: int, wiring: Wiring, x_RND: Tensor, batch: int, time: int
    ) -> Tensor:
        replicas, _, width = x_RND.shape
        heads, head_width = self.spec.heads, width // self.spec.heads
        weight_RED = parameters["qkv.weight", layer].flatten(1, 2)
        qkv = torch.baddbmm(parameters["qkv.bias", layer].flatten(1)[:, None], x_RND, weight_RED.mT)
        q, k, v = qkv.view(replicas, batch, time, 3, heads, head_width).unbind(3)
        if self.spec.qk_norm:
            q = self._norm(parameters, "query.norm", layer, q.flatten(1, 3)).view_as(q)
            k = self._norm(parameters, "key.norm", layer, k.flatten(1, 3)).view_as(k)
        q, k, v = (t.flatten(0, 1).transpose(1, 2) for t in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        out = out.transpose(1, 2).reshape(replicas, batch * time, heads, head_width)
        if wiring.head_scale:
            out = out * parameters["head_scale", layer][:, None, :, None]
        out_RND = out.reshape(replicas, batch * time, width)
        if wiring.inner_norm:
            out_RND = self._norm(parameters, "attention.inner", layer, out_RND)
        return _linear(out_RND, parameters["output.weight", layer], parameters["output.bias", layer])

    def _ffn(self, parameters: Parameters, layer: int, wiring: Wiring, x_RND: Tensor) -> Tensor:
        h_RNF = _linear(x_RND, parameters["fc1.weight", layer], parameters["fc1.bias", layer])
        h_RNF = F.gelu(h_RNF) if self.spec.activation == "gelu" else F.relu(h_RNF)
        if wiring.inner_norm:
            h_RNF = self._norm(parameters, "ffn.inner", layer, h_RNF)
        return _linear(h_RNF, parameters["fc2.weight", layer], parameters["fc2.bias", layer])

    def _join(
        self,
        parameters: Parameters,
        layer: int,
        sublayer: Sublayer,
        wiring: Wiring,
        x_RND: Tensor,
        branch_RND: Tensor,
    ) -> Tensor:
        if wiring.learned_gate == "scalar":
            branch_RND = branch_RND * parameters["gate", layer][:, None, None]
        elif wiring.learned_gate == "vector":
            branch_RND = branch_RND * parameters[f"{sublayer}.gate", layer][:, None]
        elif wiring.gate != 1.0:
            branch_RND = branch_RND * wiring.gate
        if wiring.learned_skip:
            return torch.addcmul(branch_RND, x_RND, parameters[f"{sublayer}.skip", layer][:, None])
        if wiring.skip == 0.0:
            return branch_RND
        return torch.add(branch_RND, x_RND, alpha=wiring.skip)

    def _norm(self, parameters: Parameters, kind: str, layer: int, x_RNE: Tensor) -> Tensor:
        norm, size = self.spec.norm, x_RNE.shape[-1:]
        if norm == "none":
            return x_RNE
        gain_R1E = parameters[f"{kind}.gain", layer][:, None]
        if norm == "rms-norm":
            return F.rms_norm(x_RNE, size, eps=1e-6) * gain_R1E
        if norm == "layer-norm":
            unit = F.layer_norm(x_RNE, size, eps=1e-5)
        else:
            unit = torch.tanh(parameters[f"{kind}.alpha", layer][:, None, None] * x_RNE)
        return torch.addcmul(parameters[f"{kind}.bias", layer][:, None], unit, gain_R1E)

    def _sinusoids(self, time: int, device: torch.device) -> Tensor:
        if device not in self._positions or self._positions[device].shape[0] < time:
            self._positions[device] = _sinusoids(time, self.spec.width).to(device)
        return self._positions[device][:time]


def _linear(x_RND: Tensor, weight_RED: Tensor, bias_RE: Tensor) -> Tensor:
    return torch.baddbmm(bias_RE[:, None], x_RND, weight_RED.mT)


def _sinusoids(time: int, width: int) -> Tensor:
    """Sine and cosine position codes, [T, D], computed in float64 (Vaswani et al. 2017, Sec. 3.5)."""
    rates = torch.exp(torch.arange(0, width, 2, dtype=torch.float64) * (-math.log(10_000.0) / width))
    angles = torch.arange(time, dtype=torch.float64)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :width].float()
