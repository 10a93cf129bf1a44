"""What a LightningModule brings: its loop, its data, and what of its Trainer is followed or refused."""

from __future__ import annotations

import copy
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from stresstest.errors import ConfigError
from stresstest.user_model.brought import Brought
from stresstest.user_model.lightning.data import data_of_lightning
from stresstest.user_model.lightning.from_lightning import Lightning, library_of, parts_of
from stresstest.user_model.lightning.loop import LightningLoop, quiet

_DTYPES = {"32-true": "float32", "bf16-mixed": "bfloat16", "64-true": "float32", "bf16-true": "float32"}
_HARMLESS = ("ModelSummary", "ModelCheckpoint", "ProgressBar", "LearningRateMonitor", "DeviceStatsMonitor", "Timer")
_TRAINING = ("GradientAccumulationScheduler", "BaseFinetuning", "ModelPruning")  # callbacks that change what is trained
_DEFAULT_EPOCHS = 1000  # of a Trainer that is told no end


def what_lightning_brings(thing: Any) -> Brought:
    """All that a module, its data and its Trainer say."""
    given = parts_of(thing)
    step = getattr(given.module, "training_step", None)
    _check_step(given.module, step)
    library = library_of(given.module, "LightningModule")
    assert library is not None, "from_lightning has seen to it"
    trainer, notes = _our_trainer(importlib.import_module(library), given)
    is_module = library_of(given.datamodule, "LightningDataModule") is not None
    loop = LightningLoop(trainer, given.datamodule if is_module else None, given.monitor)
    data = data_of_lightning(loop, given)
    clip = given.trainer.gradient_clip_val if given.trainer is not None else None
    by_norm = clip and str(trainer.gradient_clip_algorithm or "norm").endswith("norm")
    manual = not given.module.automatic_optimization
    accumulate = f" over {loop.accumulate} batches" if loop.accumulate > 1 else ""
    return Brought(
        "a LightningModule",
        build=lambda: loop.prepare(copy.deepcopy(given.module)),
        adopt=lambda again: loop.prepare(parts_of(again).module),
        stream=data.stream if data is not None else None,
        loss_fn=None if manual else loop.loss,
        loss_words=f"its training_step{accumulate}",
        step=loop.step,
        optimizer=None if manual else loop.configure_optimizers,
        settings=data.settings if data is not None else {},
        fixed={
            "clip_norm": float(clip) if clip and by_norm else None,
            "dtype": _DTYPES[str(trainer.precision)],
            "accumulate": 1,
            **(data.fixed if data is not None else {}),
        },
        notes=(*notes, *(data.notes if data is not None else ())),
        key=" ".join([_settings_of(trainer), data.key if data is not None else ""]).strip(),
    )


def _check_step(module: Any, step: Callable[..., Any] | None) -> None:
    takes = inspect.signature(step).parameters if callable(step) else {}
    for name, remedy in (
        ("dataloader_iter", "take a batch"),
        ("optimizer_idx", "Lightning 2 has one loss: use automatic_optimization = False"),
    ):
        if name in takes:
            raise ConfigError(f"{type(module).__name__}: training_step takes {name}, which is not supported; {remedy}")


def _our_trainer(library: Any, given: Lightning) -> tuple[Any, list[str]]:
    """A Trainer that trains as the user's does, on one device and without a word; and what of theirs it leaves out."""
    theirs = given.trainer
    if theirs is None:
        return _made(library, {"max_epochs": _DEFAULT_EPOCHS}), []
    _check_trainer(theirs)
    epochs = theirs.max_epochs
    if epochs is None:
        epochs = _DEFAULT_EPOCHS if theirs.max_steps == -1 else -1
    same = ("gradient_clip_val", "gradient_clip_algorithm", "accumulate_grad_batches", "max_steps", "precision")
    made = _made(library, {name: getattr(theirs, name) for name in same} | {"max_epochs": epochs})
    made.limit_train_batches = theirs.limit_train_batches
    return made, list(_left_out(theirs))


def _made(library: Any, settings: Mapping[str, Any]) -> Any:
    logger = importlib.import_module(f"{library.__name__}.loggers.logger").DummyLogger()
    with quiet():
        return library.Trainer(
            accelerator="gpu" if torch.cuda.is_available() else "cpu",
            devices=1,
            logger=logger,
            callbacks=[],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
            log_every_n_steps=0,
            **settings,
        )


def _check_trainer(trainer: Any) -> None:
    precision = str(trainer.precision)
    if precision not in _DTYPES:
        known = ", ".join(_DTYPES)
        raise ConfigError(f"Trainer(precision={precision!r}) keeps a state of its own, or is not known; use {known}")
    for name in ("overfit_batches", "fast_dev_run", "reload_dataloaders_every_n_epochs"):
        if value := getattr(trainer, name, None):
            raise ConfigError(f"Trainer({name}={value}) would train on other batches; leave it out")
    for callback in trainer.callbacks:
        found = [kind.__name__ for kind in type(callback).__mro__ if kind.__name__ in _TRAINING]
        if found:
            raise ConfigError(
                f"Trainer has the callback {type(callback).__name__}, which changes what is trained and is not run; "
                "leave it out, or do it in the module"
            )


def _left_out(trainer: Any) -> Iterator[str]:
    names = [
        type(callback).__name__
        for callback in trainer.callbacks
        if not any(kind.__name__ in _HARMLESS for kind in type(callback).__mro__)
    ]
    if names:
        yield f"note: callbacks of the Trainer are not run: {', '.join(dict.fromkeys(names))}"
    if (devices := getattr(trainer, "world_size", 1)) > 1:
        yield f"note: the Trainer has {devices} devices, whose batches add up; here one trains on the batches of one"


def _settings_of(trainer: Any) -> str:
    return (
        f"clip={trainer.gradient_clip_val} by {trainer.gradient_clip_algorithm} "
        f"accumulate={trainer.accumulate_grad_batches} precision={trainer.precision} "
        f"epochs={trainer.max_epochs} steps={trainer.max_steps} batches={trainer.limit_train_batches}"
    )
