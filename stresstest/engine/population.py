"""Built-in models in training: a population of replicas of one, from its table of parameters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from stresstest.engine.graphs import StepGraph
from stresstest.engine.native.mlp import NativeMlp, Rows
from stresstest.engine.probes import ActivationSnapshot, Blocks, Look, looking
from stresstest.engine.replicas import Readings, Replicas, Training, aligned_rows, health, row_of
from stresstest.models.batch_norm import Running
from stresstest.models.block import Model, profile
from stresstest.models.dropout import Dropout
from stresstest.models.layout import Leaves
from stresstest.models.residual_mlp import ResidualMlp
from stresstest.tasks.task import Batch


class Population(Replicas[Batch]):
    """The replicas `seeds` of a built-in model, freshly initialised (a seed may stand in several rows)."""

    model: Model

    def __init__(self, model: Model, seeds: Sequence[int], training: Training) -> None:
        rows = {seed: model.initial_row(seed).float() for seed in dict.fromkeys(seeds)}
        self._statistics = {key: one_RC.to(training.device) for key, one_RC in model.statistics(len(seeds)).items()}
        self._begin(model, torch.stack([rows[seed] for seed in seeds]).to(training.device), training)
        native = training.kernel == "native"
        self._native = NativeMlp(model, training.optimizer, training.options) if native else None
        if training.kernel == "triton":
            assert isinstance(model, ResidualMlp), "it is what the kernel takes"
            model.compute_by_triton()

    def profile(self, batch: Batch) -> None:
        """The variant's measurement at initialisation, if it has one (Admin)."""
        if self.model.variant.profiled:
            with torch.no_grad():
                profile(self.model, self.model.layout.unbind(self._leaves), batch.inputs)

    def evaluate(self, batch: Batch, as_trained: bool = True) -> Tensor:
        """The loss of each replica on a batch, [R], without training: as a step would have it, or of the trained model.

        The latter is without dropout and smoothed labels, and with the running statistics of BatchNorms.
        """
        with torch.no_grad():
            parts = [
                (share_R, self._forward(one, as_trained))
                for one, share_R in micro_batches(batch, self.training.micro_batch)
            ]
        return _together(parts)

    def step(self, batch: Batch, lr_R: Tensor) -> Readings:
        """One optimizer step of every replica; by its graph, or by the kernel in one pass, where nothing pauses it."""
        if self._graph is not None and not self._is_looked_into:
            return Readings(*self._graph(batch.inputs, batch.targets, lr_R))
        native = self._passes
        if native is None or not native.updates or self._pauses(len(batch.targets[0])):
            return super().step(batch, lr_R)
        self._count_step()
        loss_R, seen = native.step(self._rows(), batch, lr_R, self._step_R1)
        no_R = torch.zeros_like(loss_R, dtype=torch.bool)
        health_R = health(loss_R, ~seen.grad_norm_R.isfinite(), seen.sum_R)
        return Readings(loss_R, seen.grad_norm_R, health_R, no_R, no_R)

    def keep(self, rows: Sequence[int]) -> None:
        """Drop every replica but these rows."""
        super().keep(rows)
        self._statistics = {key: one_RC[list(rows)] for key, one_RC in self._statistics.items()}

    def branch(self, row: int) -> Population:
        """This row once more, as a population of its own, which goes on as the row would, bit for bit."""
        found = super().branch(row)
        assert isinstance(found, Population), "a copy is of its kind"
        found._statistics = row_of(self._statistics, row)
        return found

    def state(self) -> dict[str, Any]:
        """Everything that training changes, from which `restore` goes on bit for bit, and the last gradient."""
        return super().state() | {"statistics": self._statistics}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over the rows of a `state`, on whichever device it lies."""
        super().restore(state)
        self._statistics = {key: one_RC.to(self.training.device) for key, one_RC in state["statistics"].items()}

    def _pauses(self, batch_size: int) -> bool:
        """Whether something reads or changes a gradient before the update, or adds it up, or is to see the passes."""
        limit = self.training.micro_batch
        waits = self._is_looked_into or self.training.clip_norm is not None
        return waits or (limit is not None and batch_size > limit)

    def logits(self, inputs: Tensor) -> Tensor:
        """The logits of each replica, [R, N, V], of a built-in transformer."""
        with torch.no_grad(), self._autocast():
            leaves = {kind: leaf.detach() for kind, leaf in self._leaves.items()}
            return self.model.logits(self.model.layout.unbind(leaves), inputs)

    def look(self, batch: Batch, kind: Look = ActivationSnapshot) -> ActivationSnapshot:
        """A forward pass on a batch, or on its first micro-batch, looked at, without dropout; no replica changes."""
        look = kind(self.num_replicas)
        batch, _ = next(micro_batches(batch, self.training.micro_batch))
        places = Blocks(look, self.model.wirings)
        leaves = {kind: leaf.detach() for kind, leaf in self._leaves.items()}
        with looking(look, places.attention), self._autocast():
            self.model.plain_loss(leaves, batch.inputs, batch.targets, places.watch)
        self._look_at_moments(look)
        return look

    def _backward(self, batch: Batch, scale_R: Tensor | None) -> Tensor:
        """The loss of each replica, [R]; its gradient, times `scale_R`, goes to `grad_RP`."""
        native = self._passes if self.within is nullcontext else None
        found = []
        for place, (one, share_R) in enumerate(micro_batches(batch, self.training.micro_batch)):
            matrix_RP, grads = self._more if place else (self.grad_RP, self._grads)
            if native is not None:
                loss_R = native.gradients(Rows(self.theta_RP, matrix_RP), one, share_R)
            else:
                loss_R = self._differentiate(one, share_R, scale_R, grads)
            if place:
                self.grad_RP.add_(matrix_RP)
            found.append((share_R, loss_R))
        return _together(found)

    def _differentiate(self, batch: Batch, share_R: Tensor | None, scale_R: Tensor | None, grads: Leaves) -> Tensor:
        loss_R = self._loss(batch, True, grads)
        weighted_R = loss_R if share_R is None else loss_R * share_R
        total = (weighted_R if scale_R is None else weighted_R * scale_R).sum()
        gradients = torch.autograd.grad(total, list(self._leaves.values()))
        self.model.layout.gather(gradients, grads)
        return loss_R.detach()

    @property
    def _passes(self) -> NativeMlp | None:
        """The native kernel, where it computes: not in the arithmetic that a shock gives some steps."""
        return self._native if self.training.dtype == torch.float32 else None

    def _rows(self) -> Rows:
        return Rows(self.theta_RP, self.grad_RP, list(self._state.values()))

    def _norm(self, matrix_RP: Tensor) -> Tensor:
        native = self._passes
        return super()._norm(matrix_RP) if native is None else native.norms(Rows(matrix_RP, matrix_RP))

    def _update(self, lr_R: Tensor) -> None:
        native = self._passes
        if native is None or not native.updates:
            return super()._update(lr_R)
        self._count_step()
        native.update(self._rows(), lr_R, self._step_R1)
        return None

    def _forward(self, batch: Batch, as_trained: bool) -> Tensor:
        """The loss of each replica, [R], of which no gradient is taken."""
        native = self._passes
        if native is None:
            return self._loss(batch, as_trained)
        return native.losses(self.theta_RP, batch, self.model.spec.label_smoothing if as_trained else 0.0)

    def _loss(self, batch: Batch, as_trained: bool, into: Leaves | None = None) -> Tensor:
        spec, dropout = self.model.spec, None
        if as_trained and spec.dropout:
            assert batch.keys_R is not None, "a batch that is trained on says what its step draws"
            dropout = Dropout(spec.dropout, batch.keys_R, batch.targets.shape[1], batch.first)
        only_read = as_trained and into is None
        running = None if only_read else Running(self._statistics, learns=as_trained)
        with self._autocast():
            return self.model.loss(self._leaves, batch.inputs, batch.targets, into, as_trained, dropout, running)

    @cached_property
    def _more(self) -> tuple[Tensor, Leaves]:
        """Where the gradient of a micro-batch goes that is not the first: a matrix [R, P], and its banks."""
        matrix_RP = aligned_rows(self.theta_RP)
        return matrix_RP, self.model.layout.views(matrix_RP)

    def _bind(self) -> None:
        """Let the model's parameters and gradients be these matrices."""
        self._leaves = self.model.layout.leaves(self.theta_RP)
        self._grads = self.model.layout.views(self.grad_RP)
        self.__dict__.pop("_more", None)  # it has as many rows as there were
        captured = self.training.kernel == "graph"
        self._graph = StepGraph(self._captured_step) if captured else None  # of these matrices alone

    def _captured_step(self, inputs: Tensor, targets: Tensor, lr_R: Tensor) -> Readings:
        return super().step(Batch(inputs, targets), lr_R)


def micro_batches(batch: Batch, size: int | None) -> Iterator[tuple[Batch, Tensor | None]]:
    """The micro-batches of a batch, and their shares of the positions asked for, [R]; a whole one has `None`."""
    if size is None or batch.targets.shape[1] <= size:
        yield batch, None
        return
    asked_R = _asked(batch.targets)
    for start in range(0, batch.targets.shape[1], size):
        inputs, targets = (t[:, start : start + size] for t in (batch.inputs, batch.targets))
        yield Batch(inputs, targets, batch.keys_R, batch.first + start), _asked(targets) / asked_R


def _asked(targets: Tensor) -> Tensor:
    """How many positions are asked for, [R]."""
    return (targets >= 0).flatten(1).sum(1)


def _together(parts: Sequence[tuple[Tensor | None, Tensor]]) -> Tensor:
    """The loss of a batch from those of its micro-batches and their shares."""
    losses = [loss_R if share_R is None else share_R * loss_R for share_R, loss_R in parts]
    return losses[0] if len(losses) == 1 else torch.stack(losses).sum(0)
