"""A callback for Lightning: `Trainer(callbacks=[WatchCallback(on_break="stop")])`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from stresstest.errors import ConfigError
from stresstest.watch.verdict import Verdict
from stresstest.watch.watch import Watch, watch_after

if TYPE_CHECKING or "lightning.pytorch" not in sys.modules:
    from pytorch_lightning import Callback, LightningModule, Trainer
else:  # the same under its other name
    from lightning.pytorch import Callback, LightningModule, Trainer


class WatchCallback(Callback):
    """Watches a fit; `settings` are those of `Watch`, whose model, optimizers and scaler are the trainer's.

    Steps are those of the optimizer, from 0, as in Lightning's own logs; with several optimizers each of their steps
    counts. The loss is what `training_step` returns, its mean over the batches that a step accumulates; where it
    returns none, `metric` names a value that it logs. The scalars go to the trainer's loggers, under `watch/`.
    """

    def __init__(self, metric: str | None = None, **settings: Any) -> None:
        self._metric = metric
        self._settings = settings
        self._losses: list[Tensor] = []
        self._step = 0
        self._resumed: dict[str, Any] = {}
        self.watch: Watch | None = None

    @property
    def state_key(self) -> str:
        """Its name in a checkpoint: one for each metric, as of two that watch the losses of a GAN."""
        return self._generate_state_key(metric=self._metric)

    @property
    def verdict(self) -> Verdict:
        """What became of the run."""
        return Verdict("") if self.watch is None else self.watch.verdict

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to watch."""
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        self._losses, self._step = [], trainer.global_step
        self.watch = watch_after(self.watch, pl_module, trainer.optimizers, scaler=scaler, **self._settings)
        if self._resumed:
            self.watch.load_state_dict(self._resumed)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """Read the gradients, which are clipped next."""
        if self.watch is not None:
            self.watch.gradients()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take the loss; stop the trainer where the watch says so."""
        if self.watch is None:
            return
        loss = self._loss_of(trainer, outputs)
        self._losses += [] if loss is None else [loss]
        if trainer.global_step == self._step:
            return  # more batches are accumulated
        self._step = trainer.global_step
        if not self._losses:
            return
        loss, self._losses = torch.stack(self._losses).mean(), []
        self.watch.update(loss, self._step - 1)
        if self._step % _log_every(trainer) == 0:
            for logger in trainer.loggers:
                logger.log_metrics(self.watch.scalars(), self._step - 1)
        if self.watch.should_stop:
            trainer.should_stop = True

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close the log of a fit that ends with an error."""
        if self.watch is not None:
            self.watch.close()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say the verdict."""
        if self.watch is not None:
            self.watch.close()

    def state_dict(self) -> dict[str, Any]:
        """What a resumed fit needs to know of the losses so far."""
        return {} if self.watch is None else self.watch.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint, once training starts."""
        self._resumed = state_dict

    def _loss_of(self, trainer: Trainer, outputs: Any) -> Tensor | None:
        """Of one batch, where Lightning divides it by the number that are accumulated; None of one that is skipped."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if self._metric is not None:
            loss = trainer.callback_metrics.get(self._metric)
            if loss is None:
                raise ConfigError(
                    f"watch: training_step logs no {self._metric!r}: {', '.join(trainer.callback_metrics)}"
                )
            return loss.detach()
        automatic = trainer.lightning_module.automatic_optimization
        if not isinstance(loss, Tensor) and automatic:
            return None
        if not isinstance(loss, Tensor):
            raise ConfigError("watch: training_step returns no loss; give metric= the name of a value that it logs")
        return loss.detach() * (trainer.accumulate_grad_batches if automatic else 1)


def _log_every(trainer: Any) -> int:
    return int(trainer.log_every_n_steps)
