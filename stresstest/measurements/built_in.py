"""The bench of a built-in model: its population, what it is judged against, its signal propagation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stresstest.engine.curvature import Loss, Sum
from stresstest.engine.decoding import Decoding
from stresstest.engine.logit_sizes import logit_sizes
from stresstest.engine.memory import is_out_of_memory, replicas_that_fit
from stresstest.engine.outcomes import Reference
from stresstest.engine.population import Population, micro_batches
from stresstest.engine.replicas import FIRST_LR, Replicas
from stresstest.engine.signal_propagation import Signal, measure_signal
from stresstest.engine.train import Batches, initial_parameters, initialise
from stresstest.engine.translation_scores import translation_scores
from stresstest.measurements.base import Bench
from stresstest.measurements.replica import ReplicaRun, Start
from stresstest.models.block import Model
from stresstest.models.transformer import Transformer
from stresstest.tasks.language import VOCABULARY
from stresstest.tasks.smoothing import Constants
from stresstest.tasks.task import INITIAL, Batch
from stresstest.tasks.translation import TranslationTask


@dataclass
class BuiltInBench(Bench):
    """What the measurements of one variant of a built-in model share."""

    model: Model
    batches: Batches
    decoding: Decoding = Decoding()  # of translations

    @property
    def capacity(self) -> int:
        """How many replicas our share of the device's memory holds at once, by estimate."""
        return replicas_that_fit(self.model, self.training, self.batches.task.batch_size, self.memory_share)

    def rows_are_alike(self, seeds: Sequence[int]) -> bool:
        """By the loss and the gradient of one step: MKL's products depend on where a row lies in memory.

        A row of the native kernel is always computed by itself.
        """
        together = list(seeds)[: self.capacity]
        if self.training.device.type != "cpu" or self.training.kernel == "native" or len(together) < 2:
            return True
        try:
            alone, beside = self._first_step(together[1:2]), self._first_step(together)
        except (MemoryError, RuntimeError) as error:
            if is_out_of_memory(error):
                return True  # as training finds
            raise
        return all(
            torch.equal(row.nan_to_num(), rows[1:2].nan_to_num()) for row, rows in zip(alone, beside, strict=True)
        )

    def _first_step(self, seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Losses and gradients of the seeds, [R] and [R, P]."""
        population = self.populate(seeds, [FIRST_LR] * len(seeds))
        loss_R = population.step(self.batches.batch(seeds, 0), torch.zeros(len(seeds))).loss_R
        self.model.release()
        return loss_R, population.grad_RP

    def module(self) -> None:
        """None: its blocks are wired as its variant says."""

    def populate(self, seeds: Sequence[int], lrs: Sequence[float]) -> Population:
        """A freshly initialised population, whose rows will train at `lrs`; only an optimizer of the user's asks."""
        return Population(self.model, seeds, self.training)

    def starts(self, population: Replicas[Any], seeds: Sequence[int]) -> list[Start]:
        """What each replica is judged against, after the variant's profiling pass."""
        initial = initialise(population, self.batches, seeds)
        with np.errstate(invalid="ignore", over="ignore"):  # a loss at initialisation may be infinite
            return [Start(_reference(self, losses), paired=True) for losses in initial.T]

    def finish(self, population: Replicas[Any], runs: Sequence[ReplicaRun]) -> None:
        """What else is judged of runs at their end, [R]: of a built-in model nothing."""

    def blame(self, seed: int, step: int) -> None:
        """Ask whose fault a step is that is not finite; of a built-in task never the data's."""

    def scores(
        self, population: Replicas[Any], seeds: Sequence[int], losses: NDArray[np.float64]
    ) -> list[dict[str, float]]:
        """What validation gives beside the loss, [R]: of translations their scores, of bytes the bits of each.

        Of transformers how large their logits are, too.
        """
        assert isinstance(population, Population), "a bench of a built-in model trains no other"
        found: list[dict[str, float]] = [{} for _ in seeds]
        if isinstance(self.model, Transformer):
            found = logit_sizes(population, self.batches, seeds)
        if isinstance(self.batches.task, TranslationTask):
            scores = translation_scores(population, self.batches, seeds, self.decoding)
            return [one | score for one, score in zip(found, scores, strict=True)]
        if self.batches.task.num_classes == VOCABULARY:
            bits = [{"bits_per_byte": float(loss) / math.log(2.0)} for loss in losses]
            return [one | score for one, score in zip(found, bits, strict=True)]
        return found

    def objective(self, seed: int) -> tuple[Tensor, Loss]:
        """The replica `seed` at initialisation, [P], and its loss on one batch as a function of it; in float64."""
        layout = self.model.layout
        theta_P = initial_parameters(self.model, seed, self.batches).double()
        batch = self.batches.batch([seed], 0, INITIAL)

        def of(one: Batch, share_R: Tensor | None) -> Loss:
            def loss(at_P: Tensor) -> Tensor:
                leaves = layout.split(at_P[None])
                value = self.model.plain_loss(leaves, one.inputs, one.targets, as_trained=True)[0]
                return value if share_R is None else share_R[0] * value

            return loss

        terms = tuple(of(*part) for part in micro_batches(batch, self.training.micro_batch))
        return theta_P, terms[0] if len(terms) == 1 else Sum(terms)

    def initial_signal(self, seed: int, noise_input: bool) -> Signal | None:
        """Signal propagation of one replica at initialisation; `None` where the model cannot tell."""
        if not self.model.last_matrix:
            return None
        return self.signal(initial_parameters(self.model, seed, self.batches), seed, noise_input)

    def signal(self, theta_P: Tensor, seed: int, noise_input: bool) -> Signal:
        """Signal propagation of a replica with these parameters."""
        return measure_signal(self.model, theta_P, self.batches, seed, noise_input)


def _reference(bench: BuiltInBench, initial: NDArray[np.float64]) -> Reference:
    """What a curve of a built-in model is judged against."""
    return Reference(
        initial_loss=float(initial.mean()),
        initial_std=float(initial.std(ddof=1)),
        baseline_loss=bench.batches.baseline_loss,
        chance_loss=bench.batches.chance_loss,
        learnable=_learnable(bench.batches.constants),
    )


def _learnable(known: Constants) -> float:
    """How far below the constant predictor any outputs can get; NaN: to 0."""
    return known.baseline_loss - known.lowest if known.lowest else math.nan
