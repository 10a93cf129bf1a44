"""transformers' Trainer and its subclasses, trl's among them: what `trainer.train()` trains, step by step."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from stresstest.errors import ConfigError
from stresstest.user_code import UserCodeError
from stresstest.user_model.brought import TRAINER, Brought, is_instance
from stresstest.user_model.copies import copied, rebuilt
from stresstest.user_model.dataloader.random_state import RandomState, start_all
from stresstest.user_model.trainer.stream import TrainerStream, micro_batches, unregistered

# By which Trainer trains; a subclass with others trains in another way than this package asks for.
_LOOP = ("train", "_inner_training_loop", "_run_epoch", "_prepare_for_training")
_GENERATES = tuple(
    f"trl.trainer.{name}_trainer.{kind}Trainer"
    for name, kind in (("grpo", "GRPO"), ("rloo", "RLOO"), ("online_dpo", "OnlineDPO"), ("gkd", "GKD"))
)
_STEPS_IN_BACKWARD = ("lomo", "adalomo", "layerwise")
# transformers' schedules, as the experiments that have one call it.
_DECAYS: Mapping[str, str] = {
    "linear": "linear",
    "cosine": "cosine",
    "constant": "constant",
    "constant_with_warmup": "constant",
    "inverse_sqrt": "inverse-sqrt",
}
# Arguments that change where things are written and said, not how training goes.
_SAYS_NOTHING = ("output_dir", "run_name", "report_to", "disable_tqdm", "seed", "project", "trackio_space_id")
_SAYS_NOTHING_IN = ("log", "save", "hub", "eval", "push", "load_best", "metric_for", "greater_is", "do_", "resume")


def from_trainer(trainer: Any) -> Brought:
    """What a transformers Trainer trains: its model, data, loss, optimizer and settings.

    Seed s trains as `trainer.train()` does with `TrainingArguments(seed=s)`. Raises `ConfigError` where it cannot.
    """
    if not is_instance(trainer, TRAINER):
        raise ConfigError(f"from_trainer takes a transformers.Trainer, not {type(trainer).__name__}")
    _check(trainer)
    run = TrainerRun(trainer)
    args = trainer.args
    batch_size = trainer._train_batch_size * args.gradient_accumulation_steps
    decay, schedule_note = _decay(args)
    settings: dict[str, Any] = {"clip_norm": args.max_grad_norm if args.max_grad_norm else None} | decay
    return Brought(
        type(trainer).__name__,
        build=run.build,
        stream=TrainerStream(run, run.has_held_out, type(trainer).__name__),
        loss_fn=run.loss,
        loss_words=f"{type(trainer).__name__}.compute_loss",
        backward=run.backward,
        optimizer=run.optimizer(),
        optimizer_words=f"the {type(trainer).__name__}",
        settings={name: value for name, value in settings.items() if value is not None},
        fixed={"batch_size": batch_size, "dtype": "float16" if args.fp16 else "float32"},
        notes=tuple(note for note in (*_notes(trainer), schedule_note) if note),
        key=_key(trainer),
    )


class TrainerRun:
    """One Trainer, asked for the parts of its training in turn.

    Its methods find the replica at hand as `trainer.model`, and accelerate's global state as it was for this Trainer:
    another one may have been made since.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._model = trainer.model
        self._given = trainer.optimizer
        self._names = {id(parameter): name for name, parameter in self._model.named_parameters()}
        self._accelerate = _SharedState(trainer)
        self._starts: dict[int, RandomState] = {}
        self._bare: set[type[nn.Module]] = set()  # classes that wrap nothing
        self.accumulation: int = trainer.args.gradient_accumulation_steps
        self.num_workers: int = trainer.args.dataloader_num_workers
        self.has_held_out = trainer.eval_dataset is not None

    def build(self) -> nn.Module:
        """A replica as `train()` prepares it; the global generators say of which seed."""
        trainer, seed = self._trainer, torch.initial_seed()
        found: list[nn.Module] = []

        def instead(*args: Any, **kwargs: Any) -> None:
            self._starts[seed] = RandomState.now()
            found.append(trainer.accelerator.prepare(trainer._wrap_model(trainer.model_wrapped)))

        with (
            self._as(copied(self._model) if trainer.model_init is None else self._model),
            _replaced(trainer, _inner_training_loop=instead),
            _replaced(trainer.args, seed=seed),
            unregistered(trainer.accelerator),
            _quietly(),
        ):
            trainer.train()
        return found[0]

    def backward(self, model: nn.Module, data: Any, scale: float) -> Tensor:
        """The gradient of a step by the Trainer's own training_step, and its loss."""
        trainer = self._trainer
        with self._as(model, scale):
            losses = [trainer.training_step(model, inputs, num_items) for inputs, num_items in self._each(data)]
        total: Tensor = sum(losses[1:], losses[0])
        return total.reshape(())

    def loss(self, model: nn.Module, data: Any) -> Tensor:
        """The loss of a step as training_step takes it, without the gradient."""
        trainer = self._trainer
        total: Tensor | None = None
        with self._as(model):
            for inputs, num_items in self._each(data):
                with trainer.compute_loss_context_manager():
                    loss = trainer.compute_loss(model, trainer._prepare_inputs(inputs), num_items_in_batch=num_items)
                if not self._is_scaled(num_items):
                    loss = loss / trainer.current_gradient_accumulation_steps
                total = loss if total is None else total + loss
        assert total is not None, "a step has at least one batch"
        return total.reshape(())

    def optimizer(self) -> Callable[..., torch.optim.Optimizer]:
        """What makes a replica's optimizer."""
        if self._given is not None:
            given = getattr(self._given, "optimizer", self._given) if _is_accelerated(self._given) else self._given
            return lambda model: rebuilt(given, self._names, model, "the Trainer's optimizer")
        return self._created

    def start(self, seed: int) -> None:
        """See `Loaders`: after the weights are drawn, where the Trainer draws them."""
        start_all(seed)
        if self._trainer.model_init is not None:
            if seed not in self._starts:
                self.build()
            self._starts[seed].put()

    def training(self) -> Any:
        """See `Loaders`."""
        with self._as(self._model), unregistered(self._trainer.accelerator):
            return self._trainer.get_train_dataloader()

    def held_out(self) -> Any:
        """See `Loaders`; of several evaluation sets the first."""
        trainer = self._trainer
        name = next(iter(trainer.eval_dataset)) if isinstance(trainer.eval_dataset, dict) else None
        with self._as(self._model), unregistered(trainer.accelerator):
            return trainer.get_eval_dataloader(name)

    @contextmanager
    def ordered_by(self, seed: int | None) -> Iterator[None]:
        """See `Loaders`."""
        config = self._trainer.accelerator.dataloader_config
        with _replaced(config, data_seed=config.data_seed if seed is None else seed):
            yield

    def _each(self, data: Any) -> Iterator[tuple[Any, Any]]:
        """The batches of a step, each with the number of items that it is normalised by."""
        trainer = self._trainer
        for group in micro_batches(data, self.accumulation):
            samples, num_items = trainer.get_batch_samples(iter(group), len(group), trainer.args.device)
            trainer.current_gradient_accumulation_steps = len(samples)
            for place, inputs in enumerate(samples):
                trainer.accelerator.gradient_state._set_sync_gradients(place == len(samples) - 1)
                yield inputs, num_items

    def _is_scaled(self, num_items: Any) -> bool:
        """Whether compute_loss divides by all that is accumulated itself, as training_step decides it."""
        trainer = self._trainer
        said = getattr(trainer, "loss_is_scaled_for_ga", None)
        if said is not None:
            return bool(said)
        return (trainer.model_accepts_loss_kwargs and num_items is not None) or trainer.compute_loss_func is not None

    def _created(self, model: nn.Module, lr: float) -> torch.optim.Optimizer:
        trainer = self._trainer
        chosen = trainer.optimizer_cls_and_kwargs
        chosen = None if chosen is None else (chosen[0], {**chosen[1], "lr": lr})
        with (
            self._as(model),
            _replaced(trainer.args, learning_rate=lr),
            _replaced(trainer, optimizer=None, optimizer_cls_and_kwargs=chosen),
        ):
            found: torch.optim.Optimizer = trainer.create_optimizer()
        return found

    def _unwrapped(self, model: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
        """accelerate's unwrap_model, which looks for packages on the disk each time: half of a small smoothed loss."""
        plain = not (args or kwargs or "_orig_mod" in vars(model))
        if plain and type(model) in self._bare:
            return model
        accelerator = self._trainer.accelerator
        found: nn.Module = type(accelerator).unwrap_model(accelerator, model, *args, **kwargs)
        if plain and found is model:
            self._bare.add(type(model))
        return found

    @contextmanager
    def _as(self, model: nn.Module, scale: float = 1.0) -> Iterator[None]:
        """The Trainer as it is while it trains this model."""
        trainer = self._trainer
        parameter = next(model.parameters(), None)
        if parameter is not None and parameter.device.type != trainer.args.device.type:
            raise UserCodeError(
                f"trains on {trainer.args.device.type}, but the model is on {parameter.device.type}; give "
                f"--device {trainer.args.device.type}, or TrainingArguments(use_cpu=True)"
            )
        accelerator = trainer.accelerator

        def backward(loss: Tensor, **kwargs: Any) -> None:
            (loss if scale == 1.0 else loss * scale).backward()  # type: ignore[no-untyped-call]  # torch's

        with (
            self._accelerate.restored(),
            _replaced(trainer, model=model, model_wrapped=model, is_in_train=True),
            _replaced(accelerator, backward=backward, scaler=None, unwrap_model=self._unwrapped),
        ):
            yield


class _SharedState:
    """accelerate's state is global, and a Trainer made later resets it: mixed precision of an earlier one was lost."""

    def __init__(self, trainer: Any) -> None:
        from accelerate.state import AcceleratorState, PartialState  # type: ignore[import-untyped]  # theirs

        self._shared = [kind._shared_state for kind in (AcceleratorState, PartialState)]
        self._kept = [dict(each) for each in self._shared]
        self._kept[0]["_mixed_precision"] = trainer.args.mixed_precision

    @contextmanager
    def restored(self) -> Iterator[None]:
        """As it was when this Trainer was the last one."""
        before = [dict(each) for each in self._shared]
        self._set(self._kept)
        try:
            yield
        finally:
            self._set(before)

    def _set(self, values: list[dict[str, Any]]) -> None:
        for each, value in zip(self._shared, values, strict=True):
            if each != value:
                each.clear()
                each.update(value)


@contextmanager
def _replaced(thing: Any, **values: Any) -> Iterator[None]:
    """Attributes of an object are others for a while."""
    absent = object()
    before = {name: vars(thing).get(name, absent) for name in values}
    for name, value in values.items():
        object.__setattr__(thing, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is absent:
                object.__delattr__(thing, name)
            else:
                object.__setattr__(thing, name, value)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without transformers' remarks, which would come once a replica."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # theirs
    try:
        yield
    finally:
        logging.set_verbosity(level)


def _check(trainer: Any) -> None:
    """Refuse what would train in another way than here."""
    from transformers import Trainer

    args, name = trainer.args, type(trainer).__name__
    if trainer.train_dataset is None:
        raise ConfigError(f"{name} has no train_dataset; give it one")
    if is_instance(trainer, *_GENERATES):
        raise ConfigError(
            f"{name} trains on what its model generates, so its loss does not measure training; use an SFTTrainer or "
            "DPOTrainer, or a step(model, batch, lr) that returns what does"
        )
    other = [part for part in _LOOP if _function(trainer, part) is not getattr(Trainer, part, None)]
    if other:
        raise ConfigError(
            f"{name} overrides {other[0]}, so it does not train by Trainer's loop; give its "
            "model with a step(model, batch, lr)"
        )
    for setting, why in (
        ("deepspeed", "DeepSpeed"),
        ("fsdp", "FSDP"),
        ("use_liger_kernel", "Liger's kernels"),
        ("activation_offloading", "activation offloading"),
    ):
        if getattr(args, setting, None):
            raise ConfigError(f"{name} trains with {why} ({setting}), which has no form here; leave it out")
    if args.world_size > 1 or args.n_gpu > 1:
        raise ConfigError(f"{name} trains on several devices; show it one, CUDA_VISIBLE_DEVICES=0, without torchrun")
    optim = str(getattr(args.optim, "value", args.optim))
    if trainer.optimizer is None and any(word in optim for word in _STEPS_IN_BACKWARD):
        raise ConfigError(f"{name}: optim='{optim}' steps within the backward pass; use another, such as adamw_torch")


def _function(trainer: Any, name: str) -> Any:
    return vars(trainer).get(name, getattr(type(trainer), name, None))


def _is_accelerated(optimizer: Any) -> bool:
    return is_instance(optimizer, "accelerate.optimizer.AcceleratedOptimizer")


def _decay(args: Any) -> tuple[dict[str, Any], str]:
    """The schedule after the warm-up, in our words, for the experiments that have one; else a note."""
    name = str(getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type))
    if name == "polynomial":
        return {"decay": f"polynomial:power={(args.lr_scheduler_kwargs or {}).get('power', 1.0)}"}, ""
    if name in _DECAYS:
        return {"decay": _DECAYS[name]}, ""
    return {}, f"note: schedule {name} has no counterpart here; warmup and race keep the LR constant after the warm-up"


def _notes(trainer: Any) -> Iterator[str]:
    if trainer.model_init is None:
        yield (
            "note: every seed starts from the weights of the Trainer's model, so seeds differ in batches and dropout "
            "alone; give it model_init=... for other weights"
        )
    if trainer.args.data_seed is not None:
        yield f"note: data_seed={trainer.args.data_seed} gives every seed the same order of batches"
    if trainer.args.bf16:
        yield "note: computes in bfloat16, by the Trainer's own mixed precision"
    callbacks = [type(one).__name__ for one in trainer.callback_handler.callbacks if not _is_theirs(one)]
    if callbacks:
        yield f"note: callbacks do not run here: {', '.join(callbacks)}"
    if isinstance(trainer.eval_dataset, dict) and len(trainer.eval_dataset) > 1:
        yield f"note: of its evaluation sets {next(iter(trainer.eval_dataset))} is the held-out data"


def _is_theirs(callback: Any) -> bool:
    """Whether a callback is one that Trainer adds by itself: for progress, flow and reports."""
    names = ("DefaultFlowCallback", "PrinterCallback", "ProgressCallback", "NotebookProgressCallback")
    where = type(callback).__module__
    return where.startswith("transformers.integrations") or (
        where.startswith("transformers.") and type(callback).__name__ in names
    )


def _key(trainer: Any) -> str:
    """A hash of the arguments that decide how training goes."""
    args = {
        name: value
        for name, value in trainer.args.to_dict().items()
        if name not in _SAYS_NOTHING and not name.startswith(_SAYS_NOTHING_IN)
    }
    stored = json.dumps([type(trainer).__name__, args], sort_keys=True, default=str)
    return f"trainer/{hashlib.blake2b(stored.encode(), digest_size=8).hexdigest()}"
