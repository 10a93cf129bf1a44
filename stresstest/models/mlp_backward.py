"""The blocks of a residual MLP with a backward pass written by hand, linear in depth in time and memory.

Autograd would pay for some ten small operations and as many graph nodes a layer; here a layer costs
three operations forward and two backward (more with norms), and all that need not go layer by layer
is done for a stretch of layers at once, while it is in the cache. The equation is that of
`block.run_blocks`; the tests hold one against the other. Long for one file, since each forward operation stands
beside the backward that undoes it.

Dimension key: R replica, B batch, D width, N layers of a stretch. Tensors with a layer axis have it
first, [N, R, B, D], but for the banks, [R, layers, *shape].
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from stresstest.models.layout import Leaves
from stresstest.models.norms import unit_backward, unit_forward
from stresstest.models.variants import Wiring

Key = tuple[Any, ...]  # the shapes and places that a workspace is made for
_STRETCH = 64  # layers; at width 32 and batch 32 what they need fits into a core's cache


class MlpStack:
    """All blocks of one architecture: a stream [R, B, D] in, a stream [R, B, D] out."""

    def __init__(self, norm: str, wirings: Sequence[Wiring]) -> None:
        self._norm = norm
        self._wirings = [_normless(wiring) for wiring in wirings] if norm == "none" else list(wirings)
        self._stretches = _stretches(self._wirings)
        self._spare: Workspace | None = None

    def __call__(self, x_RBD: Tensor, banks: Leaves, into: Leaves | None = None) -> Tensor:
        """Differentiable once, with respect to x and to every bank; the banks' gradients are put in `into`."""
        kinds, sink = tuple(banks), None if into is None else {kind: into[kind] for kind in banks}
        output: Tensor = _Blocks.apply(  # type: ignore[no-untyped-call]  # torch does not type Function.apply
            self, kinds, sink, x_RBD, *banks.values()
        )
        return output

    def lend(self, x_RBD: Tensor, banks: Leaves) -> _Lease:
        """A workspace for these shapes and banks: that of the step before, where nobody holds it."""
        workspace, self._spare = self._spare, None
        key = _key(x_RBD, banks)
        if workspace is None or workspace.key != key:
            workspace = None  # free it before another one is made
            workspace = self._workspace(key, x_RBD, {kind: bank.detach() for kind, bank in banks.items()})
        return _Lease(self, workspace)

    def _workspace(self, key: Key, x_RBD: Tensor, banks: Leaves) -> Workspace:
        return _Stretches(key, self._stretches, self._norm, banks, x_RBD)

    def release(self) -> None:
        """Free the workspace that is kept for the next step."""
        self._spare = None

    def take_back(self, workspace: Workspace) -> None:
        """Keep a workspace for the next step."""
        self._spare = workspace


class Workspace(Protocol):
    """The passes over all blocks, for tensors of one shape and place."""

    key: Key

    def forward(self, x_RBD: Tensor) -> Tensor:
        """The stream after the last layer; it is written over by the next call."""
        ...

    def backward(self, d_RBD: Tensor, grads: Leaves | None) -> Tensor:
        """The gradient before the first layer, given that after the last, which is written over."""
        ...


@dataclass
class _Stretch:
    """Layers that are wired alike but for their constants; `rows` tells where they start in each bank."""

    wiring: Wiring
    start: int
    rows: dict[str, int]
    skip: list[float] = field(default_factory=list)
    gate: list[float] = field(default_factory=list)
    pre_gain: list[float] = field(default_factory=list)
    is_last: bool = False

    @property
    def num_layers(self) -> int:
        return len(self.skip)

    def part(self, bank: Tensor, kind: str) -> Tensor:
        """The stretch's part of a bank, [R, N, *shape]; one row where all layers share it."""
        if self.shares(kind):
            return bank[:, :1]
        start = self.rows.get(kind, self.start)
        return bank[:, start : start + self.num_layers]

    def shares(self, kind: str) -> bool:
        """Whether all layers have one row of this bank."""
        return kind == "mlp.out" and self.wiring.shared_norm


def _stretches(wirings: Sequence[Wiring]) -> list[_Stretch]:
    stretches: list[_Stretch] = []
    seen: Counter[str] = Counter()
    for layer, wiring in enumerate(wirings):
        last = stretches[-1] if stretches else None
        if last is None or last.num_layers == _STRETCH or banks_of(last.wiring) != banks_of(wiring):
            last = _Stretch(wiring, layer, {kind: seen[kind] for kind in banks_of(wiring)})
            stretches.append(last)
        last.skip.append(wiring.skip)
        last.gate.append(wiring.gate)
        last.pre_gain.append(wiring.pre_gain)
        seen.update(banks_of(wiring))
    stretches[-1].is_last = True
    return stretches


def banks_of(wiring: Wiring) -> tuple[str, ...]:
    """The banks that a layer may have a row in, which also decide the operations that it needs."""
    assert not (wiring.inner_norm and wiring.out_norm), "they are one place in an MLP"
    there = {
        "mlp.pre": wiring.pre_norm,
        "mlp.inner": wiring.inner_norm,
        "mlp.out": wiring.out_norm,
        "mlp.post": wiring.post_norm,
        "mlp.skip": wiring.learned_skip,
        "mlp.gate": wiring.learned_gate == "vector",
        "gate": wiring.learned_gate == "scalar",
    }
    return tuple(kind for kind, is_there in there.items() if is_there)


def _normless(wiring: Wiring) -> Wiring:
    return replace(wiring, pre_norm=False, inner_norm=False, out_norm=False, post_norm=False)


class _Blocks(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, stack: MlpStack, kinds: tuple[str, ...], into: Leaves | None, x: Tensor, *banks: Tensor
    ) -> Tensor:
        ctx.banks = dict(zip(kinds, banks, strict=True))
        ctx.into = into
        ctx.lease = lease = stack.lend(x, ctx.banks)
        return lease.workspace.forward(x).clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d: Tensor) -> tuple[Tensor | None, ...]:
        grads = None
        if any(ctx.needs_input_grad[4:]):
            grads = ctx.into or {kind: torch.empty_like(bank) for kind, bank in ctx.banks.items()}
        d = ctx.lease.workspace.backward(d.clone(), grads)
        return (None, None, None, d, *(grads.values() if grads else [None] * len(ctx.banks)))


class _Lease:
    """A workspace in use; it goes back when the graph that needs it is gone."""

    def __init__(self, stack: MlpStack, workspace: Workspace) -> None:
        self.stack = stack
        self.workspace = workspace

    def __del__(self) -> None:
        self.stack.take_back(self.workspace)


def _key(x_RBD: Tensor, banks: Leaves) -> Key:
    return (x_RBD.shape, x_RBD.dtype, x_RBD.device, *((bank.data_ptr(), bank.shape) for bank in banks.values()))


class _Stretches:
    """The passes of all stretches, with views of every layer's tensors: making them anew costs as much as a step."""

    def __init__(self, key: Key, stretches: Sequence[_Stretch], norm: str, banks: Leaves, x_RBD: Tensor) -> None:
        self.key = key
        scratch = _Scratch(x_RBD, max(stretch.num_layers for stretch in stretches))
        self._passes = [_Pass(stretch, norm, banks, x_RBD, scratch) for stretch in stretches]

    @torch.inference_mode()
    def forward(self, x_RBD: Tensor) -> Tensor:
        """The stream after the last layer; it is written over by the next call."""
        for one in self._passes:
            x_RBD = one.forward(x_RBD)
        return x_RBD

    @torch.inference_mode()
    def backward(self, d_RBD: Tensor, grads: Leaves | None) -> Tensor:
        """The gradient before the first layer, given that after the last, which is written over."""
        for one in reversed(self._passes):
            d_RBD = one.backward(d_RBD, grads)
        return d_RBD


class _Scratch:
    """What a stretch needs on the way back only: gradients, and weights with a gate folded in."""

    def __init__(self, x_RBD: Tensor, num_layers: int) -> None:
        self.g_NRBD = x_RBD.new_empty(num_layers, *x_RBD.shape)
        self.gs = self.g_NRBD.unbind(0)

    @cached_property
    def back(self) -> Tensor:
        num_layers, replicas, _, width = self.g_NRBD.shape
        return self.g_NRBD.new_empty(num_layers, replicas, width, width)

    @cached_property
    def backs(self) -> Sequence[Tensor]:
        return self.back.unbind(0)


class _Pass:
    """One stretch, forward and backward: what it keeps is `x`, `h` = f(...) and its norms' units."""

    def __init__(self, stretch: _Stretch, norm: str, banks: Leaves, x_RBD: Tensor, scratch: _Scratch) -> None:
        self.stretch = stretch
        self.banks = banks
        self.scratch = scratch
        wiring = stretch.wiring
        self.x = x_RBD.new_empty(stretch.num_layers + 1, *x_RBD.shape)
        self.h = torch.empty_like(self.x[1:])
        self.xs, self.hs = self.x.unbind(0), self.h.unbind(0)
        self.weights = self._part("weight").mT.unbind(1)
        self.biases = self._part("bias")[:, :, None].unbind(1)
        self.pre = _Norm(norm, "mlp.pre", stretch, banks) if wiring.pre_norm else None
        self.post = _Norm(norm, "mlp.post", stretch, banks) if wiring.post_norm else None
        self.out = None
        if wiring.inner_norm or wiring.out_norm:
            self.out = _Norm(norm, "mlp.inner" if wiring.inner_norm else "mlp.out", stretch, banks)
        self.gate = self._gate()
        self.gates = [None] * stretch.num_layers if self.gate is None else self.gate.unbind(0)
        self.skips: Sequence[Tensor | float] = stretch.skip
        if wiring.learned_skip:
            self.skips = self._part("mlp.skip")[:, :, None].unbind(1)
        # A gate that only the sum follows is folded into W on the way back.
        self.folded = self.gate if self.out is None else None
        self.backs = self._part("weight").unbind(1) if self.folded is None else scratch.backs

    def forward(self, x_RBD: Tensor) -> Tensor:
        """The stream after the stretch, a view of `x`."""
        xs, skips, gates, pre_gains = self.xs, self.skips, self.gates, self.stretch.pre_gain
        xs[0].copy_(x_RBD)
        for i, h in enumerate(self.hs):
            u = xs[i] if self.pre is None else self.pre.forward(i, xs[i])
            torch.baddbmm(self.biases[i], u, self.weights[i], alpha=pre_gains[i], out=h).relu_()
            o = h if self.out is None else self.out.forward(i, h)
            _join(xs[i], o, skips[i], gates[i], out=xs[i + 1])
            if self.post is not None:
                xs[i + 1].copy_(self.post.forward(i, xs[i + 1].clone()))
        return xs[-1]

    def backward(self, d: Tensor, grads: Leaves | None) -> Tensor:
        """The gradient before the stretch, given that after it; writes the banks' part of `grads`."""
        stretch, skips, gates, backs = self.stretch, self.skips, self.gates, self.backs
        pre_gains, num_layers = stretch.pre_gain, stretch.num_layers
        if self.folded is not None:
            torch.mul(self._part("weight").transpose(0, 1), self.folded.mT, out=self.scratch.back[:num_layers])
        # ReLU's derivative, and then the gradient of W u + b, short of a folded gate.
        g_NRBD, gs = self.scratch.g_NRBD[:num_layers], self.scratch.gs
        torch.ne(self.h, 0.0, out=g_NRBD)  # 1 where not finite too, as autograd's
        keep = stretch.wiring.learned_skip or (self.out is not None and stretch.wiring.learned_gate != "no")
        kept: list[Tensor] = []
        for i in reversed(range(num_layers)):
            g, skip = gs[i], skips[i]
            if self.post is not None:
                d = self.post.backward(i, d)
            if keep:
                kept.append(d)
            if self.out is None:
                g.mul_(d)
            else:
                gate = gates[i]
                g.mul_(self.out.backward(i, d if gate is None else d * gate))
            if self.pre is not None:
                through = self.pre.backward(i, torch.bmm(g, backs[i]).mul_(pre_gains[i]))
                d = _skipped(through, d, skip)
            elif isinstance(skip, Tensor):
                d = torch.baddbmm(d * skip, g, backs[i], alpha=pre_gains[i])
            elif keep or self.out is not None:
                d = torch.baddbmm(d, g, backs[i], beta=skip, alpha=pre_gains[i])
            else:
                d.baddbmm_(g, backs[i], beta=skip, alpha=pre_gains[i])
        if grads is not None:
            self._write(grads, g_NRBD, torch.stack(kept[::-1]) if keep else None)
        for norm in (self.pre, self.out, self.post):
            if norm is not None:
                norm.forget()
        return d

    def _write(self, grads: Leaves, g_NRBD: Tensor, d_NRBD: Tensor | None) -> None:
        """Gradients of the banks; `d_NRBD` is the gradient of the sum skip * x + gate * o, where kept."""
        wiring, stretch = self.stretch.wiring, self.stretch
        if wiring.learned_gate != "no":
            by_gate = g_NRBD * self.h if self.out is None or d_NRBD is None else d_NRBD * self.out.outputs()
            kind, over = ("gate", (2, 3)) if wiring.learned_gate == "scalar" else ("mlp.gate", (2,))
            stretch.part(grads[kind], kind).copy_(by_gate.sum(over).transpose(0, 1))
        if wiring.learned_skip and d_NRBD is not None:
            stretch.part(grads["mlp.skip"], "mlp.skip").copy_((d_NRBD * self.x[:-1]).sum(2).transpose(0, 1))
        if self.gate is not None and self.out is None:
            g_NRBD.mul_(self.gate)
        stretch.part(grads["bias"], "bias").copy_(g_NRBD.sum(2).transpose(0, 1))
        u_NRBD = self.x[:-1] if self.pre is None else self.pre.outputs()
        if any(gain != 1.0 for gain in stretch.pre_gain):
            g_NRBD.mul_(_column(stretch.pre_gain, g_NRBD))
        for r, weight_NDD in enumerate(stretch.part(grads["weight"], "weight")):
            torch.bmm(g_NRBD[:, r].mT, u_NRBD[:, r], out=weight_NDD)
        for norm in (self.pre, self.out, self.post):
            if norm is not None:
                norm.write(grads)

    def _part(self, kind: str) -> Tensor:
        return self.stretch.part(self.banks[kind], kind)

    def _gate(self) -> Tensor | None:
        """The gates, to be broadcast against [N, R, B, D]; `None` where all are 1."""
        if self.stretch.wiring.learned_gate == "scalar":
            return self._part("gate").t()[:, :, None, None]
        if self.stretch.wiring.learned_gate == "vector":
            return self._part("mlp.gate").transpose(0, 1)[:, :, None]
        if all(gate == 1.0 for gate in self.stretch.gate):
            return None
        return _column(self.stretch.gate, self.h)


class _Norm:
    """One norm of each layer of a stretch."""

    def __init__(self, norm: str, kind: str, stretch: _Stretch, banks: Leaves) -> None:
        self.norm = norm
        self.kind = kind
        self.stretch = stretch
        self._gain = self._rows(banks, "gain", 1)
        self._bias = None if norm == "rms-norm" else self._rows(banks, "bias", 1)
        self._alpha = self._rows(banks, "alpha", 2) if norm == "dyt" else None
        self._gains = self._gain.unbind(0)
        self._biases = [None] * stretch.num_layers if self._bias is None else self._bias.unbind(0)
        self._alphas = [None] * stretch.num_layers if self._alpha is None else self._alpha.unbind(0)
        self._units: list[Tensor] = [self._gain] * stretch.num_layers
        self._saved: list[Tensor] = [self._gain] * stretch.num_layers
        self._ds: list[Tensor] = [self._gain] * stretch.num_layers

    def forward(self, i: int, x: Tensor) -> Tensor:
        """gain * unit(x) + bias of layer i of the stretch."""
        self._units[i], self._saved[i] = unit_forward(self.norm, x, self._alphas[i])
        bias = self._biases[i]
        if bias is None:
            return self._units[i] * self._gains[i]
        return torch.addcmul(bias, self._units[i], self._gains[i])

    def backward(self, i: int, d: Tensor) -> Tensor:
        """The gradient of the input; keeps d, which must not be written to afterwards."""
        self._ds[i] = d
        return unit_backward(self.norm, d * self._gains[i], self._units[i], self._saved[i], self._alphas[i])

    def outputs(self) -> Tensor:
        """What `forward` returned, [N, R, B, D]."""
        units = torch.stack(self._units)
        return units * self._gain if self._bias is None else torch.addcmul(self._bias, units, self._gain)

    def write(self, grads: Leaves) -> None:
        """Gradients of gain, bias and alpha."""
        d, units = torch.stack(self._ds), torch.stack(self._units)
        self._put(grads, "gain", (d * units).sum(2))
        if self._bias is not None:
            self._put(grads, "bias", d.sum(2))
        if self._alpha is not None:
            slope = (1.0 - units.square()).mul_(torch.stack(self._saved))
            self._put(grads, "alpha", slope.mul_(d).mul_(self._gain).sum((2, 3)))

    def forget(self) -> None:
        """Let go of what `backward` kept."""
        self._ds = [self._gain] * self.stretch.num_layers

    def _rows(self, banks: Leaves, part: str, ones: int) -> Tensor:
        """A bank's rows, [N, R, ..., D], broadcast over the batch."""
        rows = self.stretch.part(banks[f"{self.kind}.{part}"], self.kind).transpose(0, 1)
        rows = rows.expand(self.stretch.num_layers, *rows.shape[1:])
        for _ in range(ones):
            rows = rows.unsqueeze(2)
        return rows

    def _put(self, grads: Leaves, part: str, values_NR: Tensor) -> None:
        rows = self.stretch.part(grads[f"{self.kind}.{part}"], self.kind)
        values_RN = values_NR.transpose(0, 1)
        if not self.stretch.shares(self.kind):
            rows.copy_(values_RN)
        elif self.stretch.is_last:  # the first that backward comes to
            rows.copy_(values_RN.sum(1, keepdim=True))
        else:
            rows.add_(values_RN.sum(1, keepdim=True))


def _join(x: Tensor, o: Tensor, skip: Tensor | float, gate: Tensor | None, out: Tensor) -> None:
    """out = skip * x + gate * o."""
    if isinstance(skip, Tensor):
        torch.mul(x, skip, out=out)
        out.add_(o if gate is None else o * gate)
    elif skip == 1.0 and gate is not None:
        torch.addcmul(x, o, gate, out=out)
    elif skip == 0.0:
        out.copy_(o if gate is None else o * gate)
    else:
        torch.add(o if gate is None else o * gate, x, alpha=skip, out=out)


def _skipped(through: Tensor, d: Tensor, skip: Tensor | float) -> Tensor:
    """through + skip * d."""
    if isinstance(skip, Tensor):
        return torch.addcmul(through, d, skip)
    return through if skip == 0.0 else torch.add(through, d, alpha=skip)


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(-1, 1, 1, 1)
