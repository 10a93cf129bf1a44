"""Blow-ups to plant into the small runs of watch_runs.py: each changes a run from one step on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from watch_runs import CLASSES, Batch, Conv, Decoder, Maker, Run, adam, labelled, maker, mlp, sgd, text, warmed

Plant = Callable[[Run, int], None]

BASES: dict[str, Maker] = {
    "transformer, Adam": maker(Decoder, adam, lambda: text(16), warmed(3e-3, 50)),
    "conv net, SGD": maker(Conv, sgd, lambda: labelled(64, 64), warmed(0.05, 1), clip=1.0),
    "MLP, SGD": maker(mlp, sgd, lambda: labelled(128), warmed(0.1, 1)),
    "MLP, Adam": maker(mlp, adam, lambda: labelled(128, noise=0.1), warmed(3e-3, 1)),
}


@dataclass(frozen=True)
class Kind:
    """A kind of blow-up: what it does, and the runs that it breaks for good."""

    plant: Plant
    bases: tuple[str, ...]


def lr_jumps(run: Run, at: int) -> None:
    """LR times 60."""
    run.lr_times = lambda step: 60.0 if step >= at else 1.0


def lr_ramps(run: Run, at: int) -> None:
    """LR times 1.1 with each step."""
    run.lr_times = lambda step: 1.1 ** max(0, step - at)


def nan_loss(run: Run, at: int) -> None:
    """A loss that is NaN, once."""
    run.on_loss = lambda step, loss: loss * torch.nan if step == at else loss


def inf_gradient(run: Run, at: int) -> None:
    """One infinite number in one gradient."""

    def change(step: int) -> None:
        if step == at:
            gradients = [p.grad for p in run.model.parameters() if p.grad is not None]
            gradients[len(gradients) // 2].view(-1)[0] = torch.inf

    run.on_gradient = change


def corrupt_batch(run: Run, at: int) -> None:
    """Inputs times 300, for one step."""
    run.on_batch = lambda step, batch: (300.0 * batch[0], batch[1]) if step == at else batch


def lost_moments(run: Run, at: int) -> None:
    """Adam's second moments are lost, and its step count is not."""

    def change(step: int) -> None:
        if step == at:
            for state in run.optimizer.state.values():
                state["exp_avg_sq"].zero_()
                state["exp_avg"].mul_(30.0)

    run.on_gradient = change


def weights_scaled(run: Run, at: int) -> None:
    """Every weight matrix times 6."""

    def change(step: int) -> None:
        if step == at:
            with torch.no_grad():
                for parameter in run.model.parameters():
                    if parameter.dim() > 1:
                        parameter.mul_(6.0)

    run.on_gradient = change


def float16_overflow(run: Run, at: int) -> None:
    """The head's outputs grow fourfold with each step, in float16."""
    head = [module for module in run.model.modules() if isinstance(module, nn.Linear)][-1]
    calls = 0

    def change(module: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> Tensor:
        nonlocal calls
        factor = 4.0 ** max(0, calls - at + 1)
        calls += 1
        return (factor * outputs).half().float()

    head.register_forward_hook(change)


def labels_shuffled(run: Run, at: int) -> None:
    """Labels in another order than inputs, from then on."""

    def change(step: int, batch: Batch) -> Batch:
        x, y = batch
        if step < at:
            return batch
        return x, y.flatten()[torch.randperm(y.numel(), generator=run.generator)].view_as(y)

    run.on_batch = change


def no_clipping(run: Run, at: int) -> None:
    """Clipping is off, and gradients are 30 times as large."""

    def change(step: int) -> None:
        if step >= at:
            run.clip = None
            for parameter in run.model.parameters():
                assert parameter.grad is not None
                parameter.grad.mul_(30.0)

    run.on_gradient = change


def sign_flipped(run: Run, at: int) -> None:
    """The loss is climbed from then on: a slow divergence."""

    def change(step: int) -> None:
        if step >= at:
            for parameter in run.model.parameters():
                assert parameter.grad is not None
                parameter.grad.neg_()

    run.on_gradient = change


def labels_moved(run: Run, at: int) -> None:
    """Every label is the next class: what was learned is wrong."""

    def change(step: int, batch: Batch) -> Batch:
        return (batch[0], (batch[1] + 1) % CLASSES) if step >= at else batch

    run.on_batch = change


ALL, CONTINUOUS = tuple(BASES), tuple(name for name in BASES if "transformer" not in name)
KINDS: dict[str, Kind] = {
    "LR times 60": Kind(lr_jumps, ALL),
    "LR ramp": Kind(lr_ramps, ALL),
    "NaN loss": Kind(nan_loss, ALL),
    "infinite gradient": Kind(inf_gradient, ("transformer, Adam", "MLP, SGD", "MLP, Adam")),
    "corrupt batch": Kind(corrupt_batch, ("MLP, SGD",)),
    "optimizer's moments lost": Kind(lost_moments, ("transformer, Adam", "MLP, Adam")),
    "weights scaled": Kind(weights_scaled, ("MLP, SGD", "MLP, Adam")),
    "float16 overflow": Kind(float16_overflow, ALL),
    "labels shuffled": Kind(labels_shuffled, ALL),
    "explosion without clipping": Kind(no_clipping, ("conv net, SGD", "MLP, SGD")),
    "slow divergence": Kind(sign_flipped, ALL),
}
