"""A callback for transformers' Trainer: `WatchCallback(on_break="stop").attach(trainer)`.

It sees the raw loss of each step, before `logging_nan_inf_filter` and before the mean over `logging_steps`.
"""

from __future__ import annotations

import math
from typing import Any, Self

from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from stresstest.errors import ConfigError
from stresstest.watch.verdict import Verdict
from stresstest.watch.watch import Watch, watch_after


class WatchCallback(TrainerCallback):  # type: ignore[misc,unused-ignore]
    """Watches a Trainer; `settings` are those of `Watch`, whose model, optimizer and scaler are the trainer's.

    Steps are the trainer's own, from 1. A loss is that of the whole step, over all batches that it accumulates. What
    `scalars()` gives goes to every logger of `report_to`, under `watch/`.
    """

    def __init__(self, **settings: Any) -> None:
        self._settings = settings
        self._losses: list[Tensor] = []
        self._grad_norm: Any = None
        self._attached = False
        self.watch: Watch | None = None

    def attach(self, trainer: Trainer) -> Self:
        """Listen to a trainer, before the callbacks that report."""
        if self._attached:
            raise ConfigError("watch: this WatchCallback is attached already; make another for another trainer")
        self._attached = True
        trainer.add_callback(self)
        callbacks = trainer.callback_handler.callbacks
        callbacks.insert(0, callbacks.pop())
        training_step = trainer.training_step

        def listened(*args: Any, **kwargs: Any) -> Tensor:
            loss: Tensor = training_step(*args, **kwargs)
            self._losses.append(loss.detach())
            return loss

        trainer.training_step = listened  # type: ignore[method-assign]
        if (clip := getattr(trainer, "_clip_grad_norm", None)) is not None:

            def clipped(*args: Any, **kwargs: Any) -> Any:
                self._grad_norm = clip(*args, **kwargs)
                return self._grad_norm

            trainer._clip_grad_norm = clipped  # type: ignore[method-assign]
        return self

    @property
    def verdict(self) -> Verdict:
        """What became of the run."""
        return Verdict("") if self.watch is None else self.watch.verdict

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin to watch."""
        if not self._attached:
            raise ConfigError(
                "watch: WatchCallback(...) must be attached: callback.attach(trainer), not callbacks=[...]"
            )
        wrapped = kwargs["optimizer"]
        self._losses, self._grad_norm = [], None
        self.watch = watch_after(
            self.watch,
            kwargs["model"],
            getattr(wrapped, "optimizer", wrapped),
            scaler=getattr(wrapped, "scaler", None),
            **self._settings,
        )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Take the loss of the step; stop the trainer where the watch says so."""
        if self.watch is None or not self._losses:
            return
        loss, norm = sum(self._losses[1:], self._losses[0]), self._grad_norm
        self._losses, self._grad_norm = [], None
        self.watch.update(loss, state.global_step, norm)
        control.should_training_stop |= self.watch.should_stop

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Hand the scalars on."""
        if self.watch is not None and logs is not None and "loss" in logs:
            logs.update({name: value for name, value in self.watch.scalars().items() if math.isfinite(value)})

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Say the verdict."""
        if self.watch is not None:
            self.watch.close()
