"""A callback for Keras 3 on torch: `model.fit(..., callbacks=[WatchCallback(on_break="stop")])`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import torch

from stresstest.errors import ConfigError
from stresstest.watch.verdict import Verdict
from stresstest.watch.watch import Watch, watch_after


class WatchCallback(keras.callbacks.Callback):  # type: ignore[misc,unused-ignore]
    """Watches a fit; `settings` are those of `Watch`, whose model and optimizer are Keras's own.

    Steps count batches over all epochs, from 0. Keras hands over the mean since the epoch's start, which is undone as
    that of batches of one size (the last of an epoch may be smaller: its loss comes out a little off).
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self._settings = settings
        self._step = 0
        self._sum = 0.0  # of the losses of this epoch
        self._count = 0
        self.watch: Watch | None = None

    @property
    def verdict(self) -> Verdict:
        """What became of the run."""
        return Verdict("") if self.watch is None else self.watch.verdict

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Begin to watch."""
        if keras.backend.backend() != "torch":
            raise ConfigError(f"watch: Keras runs on {keras.backend.backend()}; set KERAS_BACKEND=torch")
        self._step = 0
        self.watch = watch_after(self.watch, self.model, _Optimizer(self.model.optimizer), **self._settings)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """The mean begins anew."""
        self._sum, self._count = 0.0, 0

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Take the loss; stop the fit where the watch says so."""
        if self.watch is None or logs is None or "loss" not in logs:
            return
        batches = batch + 1 - self._count  # several where steps_per_execution says so
        total = float(logs["loss"]) * (batch + 1)
        loss = (total - self._sum) / batches
        self._sum, self._count = total, batch + 1
        self._step += batches
        self.watch.update(loss, self._step - 1)
        if self.watch.should_stop:
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Hand the scalars to the callbacks that come later, among them the history."""
        if self.watch is not None and logs is not None:
            logs.update(self.watch.scalars())

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        """Say the verdict."""
        if self.watch is not None:
            self.watch.close()


class _Optimizer:
    """A Keras optimizer as the watch takes it: its learning rate, and a state to copy."""

    def __init__(self, optimizer: Any) -> None:
        self._optimizer = optimizer

    @property
    def param_groups(self) -> list[dict[str, float]]:
        return [{"lr": float(self._optimizer.learning_rate)}]

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {f"{i}": variable.value for i, variable in enumerate(self._optimizer.variables)}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        for i, variable in enumerate(self._optimizer.variables):
            variable.assign(state[f"{i}"].to(variable.value.device))
