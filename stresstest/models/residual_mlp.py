"""A residual MLP with a replica axis, for depths up to 10,000 blocks and more.

A block is one matrix: f(x) = ReLU(W x + b), wired by the same table as the transformer's sublayers.
Dimension key: R replica, B batch, I inputs, D width, C classes, L layer, P all parameters of a
replica. Weights are [R, out, in].
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from stresstest.models.batch_norm import Running
from stresstest.models.block import (
    Watch,
    declare_scalar_gate,
    declare_wiring,
    mean_cross_entropy,
    run_blocks,
)
from stresstest.models.dropout import Dropout
from stresstest.models.layout import Init, Layout, Leaves, Parameters, xavier
from stresstest.models.mlp_backward import MlpStack
from stresstest.models.mlp_triton import TritonStack
from stresstest.models.norms import apply_norm, declare_norm
from stresstest.models.parametrization import base_of, output_multiplier, parametrize, scaled
from stresstest.models.variants import VARIANTS, Sublayer, SublayerPosition, Wiring
from stresstest.registry import OptionValue
from stresstest.specs.base import ModelSpec


class ResidualMlp:
    """R independent residual MLPs, wired as `variant`: inputs -> ReLU layer -> `depth` blocks -> logits.

    Initialisation follows ReZero's experiment (Bachlechner et al. 2020, their public notebook):
    N(0, 2/I) for the input layer, N(0, 2/D) for the blocks (a variant's gain on top), all biases
    zero (there they are torch's default); the output layer is N(0, 1/D).
    """

    memory: Tensor | None = None  # of the native kernel's passes, kept from one step for the next
    last_matrix = "weight"
    last_stack = 1

    def __init__(
        self, spec: ModelSpec, variant: str, options: dict[str, OptionValue], num_inputs: int, num_classes: int
    ) -> None:
        self.spec = spec
        self.variant = VARIANTS[variant]
        self.num_inputs = num_inputs
        self.num_classes = num_classes
        self.wirings: dict[tuple[int, Sublayer], Wiring] = {
            (layer, "mlp"): scaled(spec, self.variant.wiring(SublayerPosition(layer, spec.depth, "mlp"), **options))
            for layer in range(1, spec.depth + 1)
        }
        self.layout = Layout()
        self._declare()
        self.layout.close()
        if (base := base_of(spec)) is not None:
            parametrize(self.layout, ResidualMlp(base, variant, options, num_inputs, num_classes).layout, spec)
        self._stack = MlpStack(spec.norm, list(self.wirings.values()))

    def compute_by_triton(self) -> None:
        """Let the Triton kernel compute the blocks."""
        if not isinstance(self._stack, TritonStack):
            self._stack = TritonStack(self.spec.norm, list(self.wirings.values()))

    def initial_row(self, seed: int) -> Tensor:
        """The initial parameters of the replica `seed`: [P], float64."""
        return self.layout.draw_row(seed)

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
        """Mean cross-entropy of each replica in nats, [R]; inputs [R, B, I], targets [R, B].

        The gradients of the blocks are put in `into`. It has no dropout.
        """
        ends = {(kind, 0): bank[:, 0] for kind, bank in leaves.items() if kind in _ENDS}
        x_RBD = self.blocks(leaves, self.embed(ends, inputs), into)
        logits_RBC = self._read_out(ends, x_RBD)
        return mean_cross_entropy(logits_RBC, targets, self._smoothing(as_trained))

    def _smoothing(self, as_trained: bool) -> float:
        return self.spec.label_smoothing if as_trained else 0.0

    def plain_loss(
        self, leaves: Leaves, inputs: Tensor, targets: Tensor, watch: Watch | None = None, as_trained: bool = False
    ) -> Tensor:
        """The same by plain operations, which can be differentiated twice."""
        return mean_cross_entropy(
            self.logits(self.layout.unbind(leaves), inputs, watch), targets, self._smoothing(as_trained)
        )

    def logits(self, parameters: Parameters, inputs: Tensor, watch: Watch | None = None) -> Tensor:
        """Logits of the classes, [R, B, C], by plain operations."""
        return self._read_out(parameters, self.walk(parameters, self.embed(parameters, inputs), watch))

    def embed(self, parameters: Parameters, inputs: Tensor) -> Tensor:
        """The stream that enters the first block, [R, B, D], of inputs [R, B, I]."""
        weight_RDI = parameters["input.weight", 0]
        x_RBD = torch.baddbmm(parameters["input.bias", 0][:, None], inputs.to(weight_RDI.dtype), weight_RDI.mT)
        x_RBD = F.relu(x_RBD)
        if self.variant.embedding_norm:
            x_RBD = apply_norm(self.spec.norm, parameters, "embedding.norm", 0, x_RBD)
        return x_RBD

    def walk(self, parameters: Parameters, stream: Tensor, watch: Watch | None = None) -> Tensor:
        """The stream that leaves the last block (before a final norm), [R, B, D], by plain operations."""

        def f(layer: int, sublayer: Sublayer, wiring: Wiring, x_RBD: Tensor) -> Tensor:
            h_RBD = F.relu(torch.baddbmm(parameters["bias", layer][:, None], x_RBD, parameters["weight", layer].mT))
            if wiring.inner_norm:
                h_RBD = apply_norm(self.spec.norm, parameters, "mlp.inner", layer, h_RBD)
            return h_RBD

        return run_blocks(self.spec.norm, self.wirings, parameters, stream, f, watch)

    def blocks(self, leaves: Leaves, stream: Tensor, into: Leaves | None = None) -> Tensor:
        """The same from banks, with a backward pass written by hand; under autocast, by plain operations."""
        if torch.is_autocast_enabled(stream.device.type):
            return self.walk(self.layout.unbind(leaves), stream)
        return self._stack(stream, {kind: bank for kind, bank in leaves.items() if kind not in _ENDS}, into)

    def statistics(self, num_replicas: int) -> Parameters:
        """None: it has no BatchNorm."""
        return {}

    def release(self) -> None:
        """Give back the blocks' workspace."""
        self._stack.release()
        self.memory = None

    def activation_bytes(self, batch_size: int, autocast: bool = False) -> int:
        """An estimate of what one replica keeps for its backward pass, in float32 or under autocast."""
        wirings = self.wirings.values() if self.spec.norm != "none" else ()
        norms = max((sum((w.pre_norm, w.inner_norm, w.out_norm, w.post_norm)) for w in wirings), default=0)
        a_block = (4.0 if autocast else 2.0) + 1.5 * norms  # tensors of the width; autograd keeps more
        kept = batch_size * (self.spec.depth * self.spec.width * a_block + 2 * self.num_inputs)
        if autocast:
            kept += self.spec.depth * self.spec.width**2 / 2  # the weights in half precision
        return int(4 * kept) + _VIEW_BYTES * self.spec.depth

    def _read_out(self, parameters: Parameters, x_RBD: Tensor) -> Tensor:
        if self.variant.final_norm:
            x_RBD = apply_norm(self.spec.norm, parameters, "final.norm", 0, x_RBD)
        weight_RCD, multiplier = parameters["output.weight", 0], output_multiplier(self.spec)
        return torch.baddbmm(parameters["output.bias", 0][:, None], x_RBD, weight_RCD.mT, alpha=multiplier)

    def _declare(self) -> None:
        width, norm, layout = self.spec.width, self.spec.norm, self.layout
        layout.add("input.weight", 0, (width, self.num_inputs), Init(std=math.sqrt(2.0 / self.num_inputs)))
        layout.add("input.bias", 0, (width,), Init())
        if self.variant.embedding_norm:
            declare_norm(layout, norm, "embedding.norm", 0, width)
        for (layer, sublayer), wiring in self.wirings.items():
            layout.add("weight", layer, (width, width), xavier(width, width, math.sqrt(2.0) * wiring.fc2_gain))
            layout.add("bias", layer, (width,), Init())
            declare_wiring(layout, norm, wiring, layer, sublayer, width)
            declare_scalar_gate(layout, wiring, layer)
        if self.variant.final_norm:
            declare_norm(layout, norm, "final.norm", 0, width)
        layout.add("output.weight", 0, (self.num_classes, width), Init(std=width**-0.5))
        layout.add("output.bias", 0, (self.num_classes,), Init())


_VIEW_BYTES = 8192  # of the views of a layer's tensors
_ENDS = frozenset(
    {"input.weight", "input.bias", "output.weight", "output.bias"}
    | {f"{end}.norm.{part}" for end in ("embedding", "final") for part in ("gain", "bias", "alpha")}
)
