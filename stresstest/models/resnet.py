"""Residual networks for images of CIFAR's shape (He et al. 2016, Sec. 4.2), with a replica axis.

A block is f(x) = BN(W_2 ReLU(BN(W_1 x))) of two 3 x 3 convolutions, wired as its variant says:

    vanilla   x <- ReLU(x + f(x))
    rezero    x <- x + alpha ReLU(f(x)), alpha learned and 0 at first (Bachlechner et al. 2020, their code)
    fixup     x <- ReLU(x + s f(x) + b), no norms, scalar biases before each convolution and ReLU (Zhang et al. 2019)

`depth` blocks lie in three stages, of `width`, 2 `width` and 4 `width` channels, whose images halve: 9, 27 and 54
blocks of width 16 are ResNet-20, -56 and -110. Where a stage begins, the shortcut takes every other pixel and pads
channels with zeros (their option A). BatchNorm takes the statistics of the batch in training, of each micro-batch where
gradients are accumulated (ghost batch norm, Hoffer et al. 2017), and its running ones at validation.
Dimension key: R replica, B batch, C channels, P all parameters of a replica. Weights are [R, out, in, 3, 3].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from stresstest.errors import ConfigError
from stresstest.models.batch_norm import Running, batch_norm
from stresstest.models.block import Watch, mean_cross_entropy
from stresstest.models.dropout import Dropout
from stresstest.models.layout import Init, Layout, Leaves, Parameters
from stresstest.models.variants import STAGES, VARIANTS, Sublayer, SublayerPosition, Wiring
from stresstest.registry import OptionValue
from stresstest.specs.base import ModelSpec

SHAPES = {3072: (3, 32), 64: (1, 8)}  # channels and side, by the numbers of an image
_KEPT = 6  # tensors of a block's size that its backward pass needs, about

One = dict[tuple[str, int], Tensor]  # the parameters of one replica, without the replica axis
Of = Callable[[One, Tensor], Tensor]


class ResNet:
    """R independent residual networks; the stream is [R, B, C, H, W], whose shape changes from stage to stage."""

    last_matrix = ""  # the blocks' last matrices are of several shapes
    last_stack = 1

    def __init__(
        self, spec: ModelSpec, variant: str, options: dict[str, OptionValue], num_inputs: int, num_classes: int
    ) -> None:
        if num_inputs not in SHAPES:
            raise ConfigError(f"a resnet needs images of {sorted(SHAPES)} numbers; these have {num_inputs}")
        self.spec = spec
        self.variant = VARIANTS[variant]
        self.num_classes = num_classes
        self.channels, self.side = SHAPES[num_inputs]
        self.wirings: dict[tuple[int, Sublayer], Wiring] = {
            (block, "conv"): self.variant.wiring(SublayerPosition(block, spec.depth, "conv"), **options)
            for block in range(1, spec.depth + 1)
        }
        self.batch_norm = self.wirings[1, "conv"].out_norm
        self.layout = Layout()
        self._declare()
        self.layout.close()
        if (share := self.wirings[1, "conv"].scalar_lr) != 1.0:
            banks = self.layout.banks.values()
            self.layout.lr_shares = {bank.kind: share for bank in banks if bank.shape == () or "bias" in bank.kind}

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
        """Mean cross-entropy of each replica in nats, [R]; inputs [R, B, I], targets [R, B]. It has no dropout."""
        logits_RBC = self.logits(self.layout.unbind(leaves), inputs, running=running)
        return mean_cross_entropy(logits_RBC, targets, self._smoothing(as_trained))

    def _smoothing(self, as_trained: bool) -> float:
        return self.spec.label_smoothing if as_trained else 0.0

    def plain_loss(
        self, leaves: Leaves, inputs: Tensor, targets: Tensor, watch: Watch | None = None, as_trained: bool = False
    ) -> Tensor:
        """The same, with the statistics of the batch."""
        return mean_cross_entropy(
            self.logits(self.layout.unbind(leaves), inputs, watch), targets, self._smoothing(as_trained)
        )

    def statistics(self, num_replicas: int) -> Parameters:
        """The running means and variances of BatchNorms before training, [R, C] each."""
        if not self.batch_norm:
            return {}
        norms = [("stem.norm", 0, self.spec.width)]
        for block in range(1, self.spec.depth + 1):
            norms += [(f"norm{n}.{self.stage(block)}", block, self._width(block)) for n in (1, 2)]
        return {
            (f"{kind}.{what}", block): torch.full((num_replicas, channels), value)
            for kind, block, channels in norms
            for what, value in (("mean", 0.0), ("var", 1.0))
        }

    def logits(
        self, parameters: Parameters, inputs: Tensor, watch: Watch | None = None, running: Running | None = None
    ) -> Tensor:
        """Logits of the classes, [R, B, C]."""
        known, learns = (parameters, True) if running is None else (parameters | running.statistics, running.learns)
        pooled_RBC = self.walk(known, self.embed(known, inputs, learns), watch, learns).mean((-2, -1))
        bias_R1C = parameters["output.bias", 0][:, None]
        return torch.baddbmm(bias_R1C, pooled_RBC, parameters["output.weight", 0].mT)

    def embed(self, parameters: Parameters, inputs: Tensor, learns: bool = True) -> Tensor:
        """The stream that enters the first block, [R, B, C, H, W], of inputs [R, B, I]."""
        shape = (*inputs.shape[:2], self.channels, self.side, self.side)
        images = inputs.to(parameters["stem.weight", 0].dtype).view(shape)
        return _replicas(partial(self._stem, learns=learns), parameters, images)

    def walk(self, parameters: Parameters, stream: Tensor, watch: Watch | None = None, learns: bool = True) -> Tensor:
        """The stream that leaves the last block."""
        for block in range(1, self.spec.depth + 1):

            def one(p: One, x: Tensor, block: int = block) -> Tensor:
                branch = self._branch(p, x, block, learns)
                return torch.cat([branch.flatten(1), self._shortcut(x, block).flatten(1)], 1)

            shape = (*stream.shape[:2], self._width(block), self._side(block), self._side(block))
            branch, skip = (t.reshape(shape) for t in _replicas(one, parameters, stream).chunk(2, -1))
            joined = skip + branch
            stream = (
                joined if self.wirings[block, "conv"].learned_gate == "scalar" and self.batch_norm else joined.relu()
            )
            if watch is not None:
                watch(block, "conv", branch, joined, stream)
        return stream

    def blocks(self, leaves: Leaves, stream: Tensor) -> Tensor:
        """The same from banks."""
        return self.walk(self.layout.unbind(leaves), stream)

    def release(self) -> None:
        """Nothing is kept."""

    def activation_bytes(self, batch_size: int, autocast: bool = False) -> int:
        """An estimate of what one replica keeps for its backward pass, in float32."""
        sizes = [self._width(block) * self._side(block) ** 2 for block in range(1, self.spec.depth + 1)]
        return 4 * batch_size * _KEPT * (sum(sizes) + self.spec.width * self.side**2)

    def stage(self, block: int) -> int:
        """Which stage a block, counted from 1, lies in: 0, 1 or 2."""
        return (block - 1) * STAGES // self.spec.depth

    def _width(self, block: int) -> int:
        return self.spec.width << self.stage(block)

    def _side(self, block: int) -> int:
        return self.side >> self.stage(block)

    def _stem(self, p: One, x: Tensor, learns: bool) -> Tensor:
        x = F.conv2d(x, p["stem.weight", 0], padding=1)
        return (batch_norm(p, "stem.norm", 0, x, learns) if self.batch_norm else x + p["stem.bias", 0]).relu()

    def _branch(self, p: One, x: Tensor, block: int, learns: bool) -> Tensor:
        """gate * f(x), [B, C, H, W]."""
        stage, wiring = self.stage(block), self.wirings[block, "conv"]
        stride = 1 if block == 1 or stage == self.stage(block - 1) else 2
        first, second = p[f"conv1.{self._kind(block)}", block], p[f"conv2.{stage}", block]
        if self.batch_norm:
            h = batch_norm(p, f"norm1.{stage}", block, F.conv2d(x, first, stride=stride, padding=1), learns).relu()
            h = batch_norm(p, f"norm2.{stage}", block, F.conv2d(h, second, padding=1), learns)
            return h if wiring.learned_gate == "no" else h.relu() * p["gate", block]
        h = (F.conv2d(x + p["bias1", block], first, stride=stride, padding=1) + p["bias2", block]).relu()
        h = F.conv2d(h + p["bias3", block], second, padding=1)
        return h * p["gate", block] + p["bias4", block]

    def _shortcut(self, x: Tensor, block: int) -> Tensor:
        width = self._width(block)
        if x.shape[-3] == width:
            return x
        return F.pad(x[..., ::2, ::2], (0, 0, 0, 0, 0, width - x.shape[-3]))

    def _kind(self, block: int) -> str:
        """Convolutions into a stage have fewer channels in than out."""
        stage = self.stage(block)
        return f"{stage}.in" if block > 1 and stage != self.stage(block - 1) else f"{stage}"

    def _declare(self) -> None:
        width, add = self.spec.width, self.layout.add
        add("stem.weight", 0, (width, self.channels, 3, 3), _he(width))
        self._declare_norm("stem.norm", 0, width)
        if not self.batch_norm:
            add("stem.bias", 0, (), Init())
        for block in range(1, self.spec.depth + 1):
            out, stage, wiring = self._width(block), self.stage(block), self.wirings[block, "conv"]
            before = out if self._kind(block) == f"{stage}" else out // 2
            add(f"conv1.{self._kind(block)}", block, (out, before, 3, 3), _he(out, wiring.fc1_gain))
            self._declare_norm(f"norm1.{stage}", block, out)
            add(f"conv2.{stage}", block, (out, out, 3, 3), _he(out, wiring.fc2_gain))
            self._declare_norm(f"norm2.{stage}", block, out)
            if wiring.learned_gate == "scalar":
                add("gate", block, (), Init(mean=wiring.gate))
            for number in range(1, 5) if not self.batch_norm else ():
                add(f"bias{number}", block, (), Init())
        last = self._width(self.spec.depth)
        add("output.weight", 0, (self.num_classes, last), Init(std=last**-0.5 if self.batch_norm else 0.0))
        add("output.bias", 0, (self.num_classes,), Init())

    def _declare_norm(self, kind: str, block: int, channels: int) -> None:
        if self.batch_norm:
            self.layout.add(f"{kind}.gain", block, (channels,), Init(mean=1.0))
            self.layout.add(f"{kind}.bias", block, (channels,), Init())


def _he(channels_out: int, gain: float = 1.0) -> Init:
    """N(0, 2 / (9 channels_out)): He et al. 2015, fan out."""
    return Init(std=gain * math.sqrt(2.0 / (9 * channels_out)))


def one_by_one(f: Of, parameters: Parameters, x: Tensor) -> Tensor:
    """f(parameters, x) of each replica, [R, ...], as if each were alone."""
    views = {key: tensor.unbind(0) for key, tensor in parameters.items()}
    return torch.stack([f({key: each[r] for key, each in views.items()}, x[r]) for r in range(len(x))])


def all_at_once(f: Of, parameters: Parameters, x: Tensor) -> Tensor:
    """The same in operations over all replicas."""
    return torch.vmap(f, randomness="error")(parameters, x)


def _replicas(f: Of, parameters: Parameters, x: Tensor) -> Tensor:
    return (all_at_once if x.device.type == "cuda" else one_by_one)(f, parameters, x)
