"""Lightning's own training loop, driven a step at a time: its hooks, clipping, accumulation and precision are run.

One Trainer of this process is lent to whichever replica takes a step; what the loop counts, and the optimizers, hang on
the replica. Nothing is logged, saved or validated, and no scheduler steps.
"""

from __future__ import annotations

import copy
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from stresstest.user_code import UserCodeError
from stresstest.user_model.optimizers import of_returned

_COURSE = "_stresstest_course"  # the attribute of a module
_NUMBERS = ("loss", "total_loss", "train_loss")  # under which the number to judge is logged, in this order
_FIT_PROGRESS = ("epoch_progress",)
_EPOCH_PROGRESS = ("batch_progress", "scheduler_progress", "_batches_that_stepped")


@dataclass
class Course:
    """What the loop keeps of one replica from step to step: its optimizers, built at the LRs `base`, and its counts."""

    optimizers: list[torch.optim.Optimizer] = field(default_factory=list)
    base: list[float] = field(default_factory=list)
    num_schedulers: int = 0
    progress: dict[str, Any] = field(default_factory=dict)
    lr: float | None = None
    started: bool = False
    epoch_begins: bool = True

    def set_lr(self, lr: float) -> None:
        """Every group's LR in proportion: the first that has one gets `lr`."""
        if lr == self.lr:
            return
        self.lr = lr
        first = next((one for one in self.base if one), 1.0)
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        for group, one in zip(groups, self.base, strict=True):
            value = lr if one == first else lr * (one / first)
            group["lr"] = torch.full_like(group["lr"], value) if isinstance(group["lr"], Tensor) else value


class NoScheduler:
    """Stands for a scheduler of the user's: it never steps."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.last_epoch = 0

    def step(self, *_: Any, **__: Any) -> None:
        """Nothing."""

    def get_last_lr(self) -> list[float]:
        """The LRs as they are."""
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Nothing is kept."""
        return {}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Nothing is taken over."""


class LightningLoop:
    """Trains modules of one kind as `trainer` would: `num_batches` an epoch, of `datamodule` or `loaders`."""

    def __init__(self, trainer: Any, datamodule: Any, monitor: str | None) -> None:
        self.trainer = trainer
        self.accumulate = int(trainer.accumulate_grad_batches)
        self._monitor = monitor
        self.datamodule = datamodule
        self._library = sys.modules[type(trainer).__module__.partition(".trainer")[0]]
        self._logged: dict[str, Any] = {}
        self._output: Any = None
        self._at: nn.Module | None = None
        self._fresh = self._counts()
        trainer.callbacks.append(_reader(self._library, self))

    def attach(self, module: nn.Module) -> None:
        """Let a module see the Trainer, before it is trained."""
        trainer = self.trainer
        trainer.strategy._lightning_module = module
        trainer.state.fn, trainer.state.status = "fit", "running"
        trainer.training = True
        data = trainer.fit_loop._combined_loader
        trainer._data_connector.attach_data(module, datamodule=self.datamodule)
        trainer.fit_loop._combined_loader = data
        trainer.strategy.connect(module)

    def prepare(self, module: nn.Module) -> nn.Module:
        """A fresh module as it is before training: what `setup` and `configure_model` build is there."""
        from lightning_utilities.core.overrides import is_overridden

        self.attach(module)
        with self._silent(module), quiet():
            self._hook("setup", stage="fit")
            if is_overridden("configure_model", module, self._library.LightningModule):
                self._hook("configure_model")
        return self.trainer.precision_plugin.convert_module(module)  # type: ignore[no-any-return]  # a module

    def configure_optimizers(self, model: nn.Module) -> Any:
        """What the module's own returns, its schedulers too."""
        with self.lent_to(model):
            return self._hook("configure_optimizers")

    def loss(self, module: nn.Module, data: Any) -> Any:
        """What `training_step` returns, without training."""
        with self.lent_to(module):
            return self._mean([self._output_of(one) for one in self._micro(data)])

    def step(self, module: nn.Module, data: Any, lr: float) -> Any:
        """A whole step: `training_step` of each batch that is accumulated, and all that follows it."""
        with self.lent_to(module) as course:
            self._start(module, course)
            course.set_lr(lr)
            return self._mean(
                [self._advance(course, one, data) for one in enumerate(self._micro(data), 1)], divided=True
            )

    @contextmanager
    def lent_to(self, module: nn.Module) -> Iterator[Course]:
        """The Trainer with this module, its optimizers and its counts."""
        course = course_of(module)
        if self._at is not module:
            self.attach(module)
            self.trainer.strategy._root_device = next(module.parameters()).device
            self._at = module
        self._put(course)
        self._logged = {}
        with self._silent(module):
            yield course
        course.progress = self._counts(copied=False)

    def _put(self, course: Course) -> None:
        trainer, strategy = self.trainer, self.trainer.strategy
        if strategy.optimizers is not course.optimizers:
            strategy.optimizers = course.optimizers
            strategy.lr_scheduler_configs = []
            if not getattr(trainer.lightning_module, "automatic_optimization", True):
                strategy.lr_scheduler_configs = [_config(self._library, course) for _ in range(course.num_schedulers)]
        counts = course.progress or copy.deepcopy(self._fresh)
        for place, names in self._places():
            for name in names:
                setattr(place, name, counts[_key(place, name)])

    def _places(self) -> list[tuple[Any, Sequence[str]]]:
        fit = self.trainer.fit_loop
        epoch = fit.epoch_loop
        return [
            (fit, _FIT_PROGRESS),
            (epoch, _EPOCH_PROGRESS),
            (epoch.automatic_optimization, ("optim_progress",)),
            (epoch.manual_optimization, ("optim_step_progress",)),
        ]

    def _counts(self, copied: bool = True) -> dict[str, Any]:
        found = {_key(place, name): getattr(place, name) for place, names in self._places() for name in names}
        return copy.deepcopy(found) if copied else found

    def _start(self, module: nn.Module, course: Course) -> None:
        """All that `Trainer.fit` does before the first epoch."""
        if course.started:
            return
        course.started = True
        with quiet():
            self._set_up(module, course)
        self._hook("on_fit_start")
        self._hook("on_train_start")

    def _set_up(self, module: nn.Module, course: Course) -> None:
        returned = self._hook("configure_optimizers")
        course.optimizers = of_returned(returned, module)
        course.base = [float(g["lr"]) for optimizer in course.optimizers for g in optimizer.param_groups]
        course.num_schedulers = _num_schedulers(self._library, returned)
        self._put(course)
        self.trainer.strategy.setup_precision_plugin()
        self.trainer._logger_connector.reset_results()
        self.trainer._logger_connector.reset_metrics()

    def _advance(self, course: Course, numbered: tuple[int, Any], data: Any) -> Any:
        """One batch: all that `Trainer.fit` does with it."""
        fit, place = self.trainer.fit_loop, numbered[0]
        if course.epoch_begins:
            course.epoch_begins = False
            fit.on_advance_start()
            fit.epoch_loop.reset()
        taken = fit.epoch_loop.batch_progress.current.ready + 1
        last = place == len(self._micro(data)) and taken >= fit.max_batches
        fetcher = _OneBatch(numbered[1], last)
        self._output = None
        try:
            fit.epoch_loop.advance(fetcher)
        except StopIteration:
            raise UserCodeError("on_train_batch_start returned -1, which ends an epoch; leave it out") from None
        fit.epoch_loop.on_advance_end(fetcher)
        output = self._output
        if last:
            course.epoch_begins = True
            fit.on_advance_end()
        return self._judged(output)

    def _judged(self, output: Any) -> Any:
        """The number in what a training step returned, else in what it logged."""
        if self._monitor is not None:
            if self._monitor not in self._logged:
                raise UserCodeError(f"logged no '{self._monitor}', only {', '.join(self._logged) or 'nothing'}")
            return self._logged[self._monitor]
        if isinstance(output, Mapping) and isinstance(output.get("loss"), Tensor):
            return output["loss"]
        named = next((name for name in _NUMBERS if name in self._logged), None)
        alike = [name for name in self._logged if "loss" in name.lower()]
        if named is None and len(alike) != 1:
            logged = f"logged {', '.join(map(repr, alike))}" if alike else "logged no loss"
            raise UserCodeError(
                f"returned no loss and {logged}; return the number that is to be judged, or name one that is logged: "
                "from_lightning(..., monitor=NAME)"
            )
        return self._logged[named or alike[0]]

    def _output_of(self, batch: Any) -> Any:
        """What `training_step` returns of a batch, moved as Lightning moves it."""
        trainer, module = self.trainer, self.trainer.lightning_module
        batch = trainer.precision_plugin.convert_input(batch)
        batch = module._on_before_batch_transfer(batch, dataloader_idx=0)
        batch = trainer.strategy.batch_to_device(batch)
        kwargs = trainer.fit_loop.epoch_loop._build_kwargs({}, batch, 0)
        with trainer.precision_plugin.train_step_context():
            return self._hook("training_step", *kwargs.values())

    def _micro(self, data: Any) -> Sequence[Any]:
        return data if self.accumulate > 1 else (data,)

    def _mean(self, outputs: Sequence[Any], divided: bool = False) -> Any:
        """The loss of a step; of `divided` ones Lightning has made a part of the sum."""
        if self.accumulate == 1:
            return outputs[0]
        losses = [one["loss"] if isinstance(one, Mapping) else one for one in outputs]
        if not all(isinstance(loss, Tensor) for loss in losses):
            raise UserCodeError("returned no loss for one of the batches that are accumulated")
        return sum(losses[1:], losses[0]) * ((self.accumulate if divided else 1) / len(losses))

    def _hook(self, name: str, *args: Any, **kwargs: Any) -> Any:
        module = self.trainer.lightning_module
        before, module._current_fx_name = module._current_fx_name, name
        try:
            return getattr(module, name)(*args, **kwargs)
        finally:
            module._current_fx_name = before

    @contextmanager
    def _silent(self, module: nn.Module) -> Iterator[None]:
        """What a module logs is kept, and nothing is printed or written."""
        heard: dict[str, Callable[..., None]] = {
            "log": lambda name, value, *_, **__: self._logged.update({name: value}),
            "log_dict": lambda values, *_, **__: self._logged.update(values),
            "print": lambda *_, **__: None,
        }
        vars(module).update(heard)
        try:
            yield
        finally:
            for name in heard:
                vars(module).pop(name, None)


class _OneBatch:
    """Stands for the fetcher of a loader that has this batch next; `done`: the epoch ends with it."""

    def __init__(self, batch: Any, done: bool) -> None:
        self._batch = batch
        self.done = done

    def __next__(self) -> tuple[Any, int, int]:
        return self._batch, 0, 0


def course_of(module: nn.Module) -> Course:
    """The course of a module, which hangs on it and is copied and stored with it."""
    found: Course = vars(module).setdefault(_COURSE, Course())
    return found


@contextmanager
def quiet() -> Iterator[None]:
    """Without what Lightning tells users of its own Trainer."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric")]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(pytorch_lightning|lightning)\.")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _reader(library: Any, loop: LightningLoop) -> Any:
    """A callback that keeps what a training step has returned."""

    def on_train_batch_end(self: Any, trainer: Any, module: Any, outputs: Any, *_: Any) -> None:
        loop._output = outputs

    return type("Reader", (library.Callback,), {"on_train_batch_end": on_train_batch_end})()


def _config(library: Any, course: Course) -> Any:
    return library.utilities.types.LRSchedulerConfig(NoScheduler(course.optimizers[0]))


def _num_schedulers(library: Any, returned: Any) -> int:
    with quiet():
        return len(library.core.optimizer._configure_optimizers(returned)[1])


def _key(place: Any, name: str) -> str:
    return f"{type(place).__name__}.{name}"
