"""What is read of a population while it trains, without changing anything of it.

Frames are the sizes of every weight matrix, its gradient and its update, at each step. A look is a forward
pass without a gradient, of which the sizes of activations, attention logits and log Z are kept.
Dimension key: R replica, N matrix or place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from stresstest.engine.rounded import wide
from stresstest.models.layout import RowLayout, TensorName, sampled
from stresstest.models.variants import Sublayer

SIZES = ("weight", "gradient", "update")  # of a frame: root mean squares of a matrix's elements
_LOOK_EVERY = {"economy": math.inf, "standard": 10, "full": 1}  # steps
_FLOAT16_MAX = 65504.0
_MODULES = 64  # of a foreign model, whose outputs are looked at
_MASKED = -1e30  # logits below are masked ones
_SOFTMAX_IN = ("attention", "cross")
_ATTENTION = F.scaled_dot_product_attention
_SOFTMAXES = (F.softmax, torch.softmax, Tensor.softmax)


@dataclass(frozen=True)
class Probing:
    """How much is read in training: `off`, or frames of every step and looks every so many of them.

    `economy` looks before the first step alone, `standard` every 10 steps, `full` at each; all after a break.
    """

    level: str = "off"
    at_start: bool = True  # a look before the first step, where not every step has one

    @property
    def frames(self) -> bool:
        """Whether every step has a frame."""
        return self.level != "off"

    def looks_before(self, step: int) -> bool:
        """Whether there is a look before this step, counted from 0."""
        if self.level == "off" or (step == 0 and not self.at_start):
            return False
        return step % _LOOK_EVERY[self.level] == 0


class Frames:
    """Takes a frame of each step: `before` it and `after` it."""

    def __init__(self, layout: RowLayout) -> None:
        self._layout = layout
        self._of: tuple[Tensor, Tensor] | None = None
        self._parts: list[Tensor] = []
        self._gradients: list[Tensor] = []
        self._before: list[Tensor] = []
        self._roots_N = torch.empty(0)
        self._wide = torch.float32

    def before(self, theta_RP: Tensor, grad_RP: Tensor) -> None:
        """Keep the parameters that the step starts from."""
        if self._of is None or self._of[0] is not theta_RP or self._of[1] is not grad_RP:
            self._of = theta_RP, grad_RP
            self._parts, self._gradients = self._layout.parts(theta_RP), self._layout.parts(grad_RP)
            self._before = [torch.empty_like(part) for part in self._parts]
            self._wide = wide(theta_RP.dtype)
            sizes = [part.new_full((part.shape[1],), part.shape[2], dtype=self._wide) for part in self._parts]
            self._roots_N = torch.cat(sizes).sqrt()
        torch._foreach_copy_(self._before, self._parts)

    def after(self) -> Tensor:
        """The frame [R, 3, N] of `SIZES`."""
        torch._foreach_sub_(self._before, self._parts)
        matrices = (*self._parts, *self._gradients, *self._before)
        norms = torch.cat([torch.linalg.vector_norm(part, dim=2, dtype=self._wide) for part in matrices], dim=1)
        return norms.view(len(norms), 3, -1) / self._roots_N


@dataclass
class ActivationSnapshot:
    """What a forward pass shows: by (signal, place), a number for each replica, [R].

    activation_rms, activation_max: of what a place puts out. zero_share: of it, what is exactly zero. overflow_share:
    what does not fit into float16. logit_rms, logit_max: attention logits, before the softmax. attention_entropy: of
    the attention weights, as a share of that of even weights. log_z: mean log partition function of the output.
    rms_t: root mean square of a matrix's last gradient over the root of Adam's second moment, or eps where that is
    larger (Wortsman et al. 2023, StableAdamW). eps_share: where eps is.
    """

    containers: ClassVar[bool] = False  # whether modules that have parts are places too

    replicas: int
    values: dict[tuple[str, str], Tensor] = field(default_factory=dict)

    def activation(self, place: str, x: Tensor) -> None:
        """Take what a place puts out."""
        if not x.is_floating_point() or x.numel() % self.replicas or not x.numel():
            return
        x_RN = x.detach().reshape(self.replicas, -1).float()
        size_RN = x_RN.abs()
        self._note("activation_rms", place, torch.linalg.vector_norm(x_RN, dim=1) / math.sqrt(x_RN.shape[1]))
        self._note("activation_max", place, size_RN.amax(1))
        self._note("zero_share", place, (x_RN == 0.0).float().mean(1))
        self._note("overflow_share", place, (~(size_RN <= _FLOAT16_MAX)).float().mean(1))

    def attention(self, place: str, logits: Tensor) -> None:
        """Take attention logits, [R * ..., queries, keys], the masked ones very small."""
        x = logits.detach().float().reshape(self.replicas, -1, logits.shape[-1])
        seen = x > _MASKED
        number = seen.sum(-1)
        kept = torch.where(seen, x, 0.0)
        self._note("logit_rms", place, (kept.square().sum((1, 2)) / number.sum(1)).sqrt())
        self._note("logit_max", place, kept.abs().amax((1, 2)))
        log_weights = torch.where(seen, x, -torch.inf).log_softmax(-1)
        entropy = -torch.where(seen, log_weights * log_weights.exp(), 0.0).sum(-1)
        several = number > 1
        share = torch.where(several, entropy / number.clamp(min=2).log(), 0.0)
        self._note("attention_entropy", place, share.sum(1) / several.sum(1))

    def output(self, logits: Tensor) -> None:
        """Take the logits of the loss."""
        self._note("log_z", "output", logits.detach().float().logsumexp(-1).reshape(self.replicas, -1).mean(1))

    def moments(
        self, names: Sequence[TensorName], gradients: Sequence[Tensor], squares: Sequence[Tensor], eps: float
    ) -> None:
        """Take matrices' gradients and their second moments, parts [R, some, size] of the named ones."""
        places = iter(names)
        for part, square in zip(gradients, squares, strict=True):
            gradient = part.to(square.dtype)  # which is float32 at least
            rms = (gradient.square() / square.clamp(min=eps**2)).mean(2).sqrt()
            below = (square < eps**2).float().mean(2)
            for one, share in zip(rms.unbind(1), below.unbind(1), strict=True):
                place = next(places).text
                self._note("rms_t", place, one)
                self._note("eps_share", place, share)

    def numbers(self) -> list[dict[tuple[str, str], float]]:
        """The values of each replica, on the host."""
        table = torch.stack(list(self.values.values())).double().cpu().numpy() if self.values else None
        if table is None:
            return [{} for _ in range(self.replicas)]
        return [dict(zip(self.values, map(float, column), strict=True)) for column in table.T]

    def _note(self, signal: str, place: str, value_R: Tensor) -> None:
        self.values[signal, place] = value_R


Look = Callable[[int], ActivationSnapshot]  # of so many replicas: what is taken of a forward pass


class Outputs(ActivationSnapshot):
    """What every place puts out, as it is: by ("output", place), [R, N] in float32 at least, of attention its logits.

    Masked logits are 0; the logits of the loss stand at "logits".
    """

    containers = True

    def activation(self, place: str, x: Tensor) -> None:
        """Keep what a place puts out."""
        if x.is_floating_point() and x.dim() and x.numel() and not x.numel() % self.replicas:
            x_RN = x.detach().reshape(self.replicas, -1)
            self._note("output", place, x_RN.to(wide(x.dtype), copy=True))  # which a later place may write over

    def attention(self, place: str, logits: Tensor) -> None:
        """Keep attention logits."""
        self.activation(f"logits in {place}", logits.detach().where(logits > _MASKED, 0.0))

    def output(self, logits: Tensor) -> None:
        """Keep the logits of the loss."""
        self.activation("logits", logits)


class LargestLogits(ActivationSnapshot):
    """The largest magnitude of each place's attention logits, by ("logit_max", place), and nothing else."""

    def attention(self, place: str, logits: Tensor) -> None:
        """Take attention logits, [R * ..., queries, keys], the masked ones very small."""
        x_RN = logits.detach().float().reshape(self.replicas, -1)
        self._note("logit_max", place, torch.where(x_RN <= _MASKED, 0.0, x_RN).abs().amax(1))


class _Softmaxes(TorchFunctionMode):
    """Hears of every softmax: attention's, and that of a cross-entropy."""

    def __init__(self, look: ActivationSnapshot, place: Callable[[], str | None]) -> None:
        super().__init__()
        self._look = look
        self._place = place

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.multi_head_attention_forward:
            return self._heard(func, *args, **(kwargs or {}))
        # It is one function to a mode, which is off inside: what it calls is heard by standing in for it.
        inner = {name: getattr(F, name) for name in ("scaled_dot_product_attention", "softmax")}
        try:
            for name, function in inner.items():
                setattr(F, name, partial(self._heard, function))
            return func(*args, **(kwargs or {}))
        finally:
            for name, function in inner.items():
                setattr(F, name, function)

    def _heard(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        if func in _SOFTMAXES and self._whole(args[0]) and args[0].dim() >= 3 and args[0].shape[-1] > 1:
            self._attention(args[0])
        elif func is _ATTENTION:
            self._attention(_logits(*args, **kwargs))
        elif func is F.cross_entropy and self._whole(args[0]) and args[0].dim() >= 2:
            self._look.output(args[0].movedim(1, -1))
        return func(*args, **kwargs)

    def _attention(self, logits: Tensor) -> None:
        place = self._place()
        if place is not None and self._whole(logits):
            self._look.attention(place, logits)

    def _whole(self, x: Any) -> bool:
        """Whether these are numbers of each replica, as many of one as of another."""
        return isinstance(x, Tensor) and x.numel() > 0 and x.numel() // x.shape[-1] % self._look.replicas == 0


def _logits(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """What `scaled_dot_product_attention` takes the softmax of, [..., queries, keys]; -inf where masked."""
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
    logits = query.float() @ key.float().mT * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).tril()
    if attn_mask is None:
        return logits
    return logits.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else logits + attn_mask


class Blocks:
    """The places of a built-in model, as a pass goes through its sublayers: a `Watch` of those of sampled blocks."""

    def __init__(self, look: ActivationSnapshot, sublayers: Collection[tuple[int, Sublayer]]) -> None:
        self._look = look
        depth = max(layer for layer, _ in sublayers)
        self._sampled = range(1, depth + 1)[sampled(depth)]
        self._softmaxes = iter([(layer, sublayer) for layer, sublayer in sublayers if sublayer in _SOFTMAX_IN])

    def watch(self, layer: int, sublayer: Sublayer, branch: Tensor, joined: Tensor, stream: Tensor) -> None:
        """Note what a sublayer adds, and what the stream is then."""
        if layer in self._sampled:
            self._look.activation(f"{sublayer} of block {layer}", branch)
            self._look.activation(f"stream after the {sublayer} of block {layer}", stream)

    def attention(self) -> str | None:
        """Where the next softmax of attention is."""
        layer, sublayer = next(self._softmaxes, (0, ""))
        return f"{sublayer} of block {layer}" if layer in self._sampled else None


@contextmanager
def looking(look: ActivationSnapshot, place: Callable[[], str | None]) -> Iterator[None]:
    """A forward pass in which the softmaxes are heard; `place` says where the pass is, `None` is not of interest."""
    with torch.no_grad(), _Softmaxes(look, place):
        yield


def look_at(module: nn.Module, forward: Callable[[], Tensor], kind: Look = ActivationSnapshot) -> ActivationSnapshot:
    """A forward pass of a foreign module: its places are its modules that have no parts, some 64 of them."""
    look = kind(1)
    inside: list[str] = []
    whole = [name for name, part in module.named_modules() if isinstance(part, nn.MultiheadAttention)]
    leaves = [name for name, part in module.named_modules() if next(part.children(), None) is None or name in whole]
    leaves = [name for name in leaves if name.rpartition(".")[0] not in whole]
    if look.containers:
        leaves = [name for name, _ in module.named_modules() if name.rpartition(".")[0] not in whole]
    heard = set(leaves[sampled(len(leaves), _MODULES)])

    def enter(name: str) -> Callable[..., None]:
        return lambda *_: inside.append(name)

    def leave(name: str) -> Callable[..., None]:
        def hook(part: nn.Module, given: Any, output: Any) -> None:
            inside.pop()
            first = output[0] if isinstance(output, tuple | list) and output else output
            if name in heard and isinstance(first, Tensor):
                look.activation(name or "output", first)

        return hook

    hooks = []
    for name, part in module.named_modules():
        if isinstance(part, torch.jit.ScriptModule):  # which takes no hooks
            continue
        hooks += [part.register_forward_pre_hook(enter(name)), part.register_forward_hook(leave(name))]
    try:
        with looking(look, lambda: inside[-1] if inside else None):
            forward()
    finally:
        for hook in hooks:
            hook.remove()
    return look


def together(looks: Sequence[ActivationSnapshot]) -> ActivationSnapshot:
    """Looks at single replicas as one."""
    places = [place for place in looks[0].values if all(place in look.values for look in looks)]
    return ActivationSnapshot(
        len(looks), {place: torch.cat([look.values[place] for look in looks]) for place in places}
    )
