"""The user's own model as an experiment sees it: settings resolved from its factory, the bench, the preflight."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stresstest.engine.curvature import Loss
from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.engine.replicas import DTYPES, FIRST_LR, Replicas, Training
from stresstest.engine.signal_propagation import Signal
from stresstest.errors import ConfigError
from stresstest.measurements.base import Bench, probing
from stresstest.measurements.journal import Journal
from stresstest.measurements.replica import ReplicaRun, Start
from stresstest.specs.base import TrainingSpec
from stresstest.specs.kinds import AS_BUILT
from stresstest.specs.parsing import parse_choice
from stresstest.tasks import load_task
from stresstest.tasks.task import INITIAL, TRAINING
from stresstest.user_code import UserCodeError
from stresstest.user_model.arguments import as_written, is_config, required, size_called
from stresstest.user_model.batches import UserBatches
from stresstest.user_model.brought import SizedStream
from stresstest.user_model.constants.constant import Constant
from stresstest.user_model.constants.predictor import ConstantLosses, best_constant
from stresstest.user_model.constants.targets import Targets
from stresstest.user_model.contract import Contract, contract, only_in_training
from stresstest.user_model.dtypes import advised
from stresstest.user_model.factory import Factory, factory_of, seeded
from stresstest.user_model.fresh import Judging, conclude, finite_step, oddness, starts
from stresstest.user_model.micro_batches import MicroBatches, Split, num_examples
from stresstest.user_model.optimizers import built, check_automatic, configures, eps_of
from stresstest.user_model.population import USER_OPTIMIZER, UserModel, UserPopulation, user_objective
from stresstest.user_model.stacked import StackedUserPopulation, is_capturable, stacks
from stresstest.user_model.step.plain_loop import contract_of_step, populate
from stresstest.user_model.wrapped import begin_compiling, uncompiled

T = TypeVar("T", bound=TrainingSpec)

OWN = USER_OPTIMIZER.name
_AT_ONCE = 8  # replicas of one population: they are stepped one after the other


@dataclass
class UserBench(Bench):
    """What the measurements of the user's model share."""

    model: UserModel
    batches: UserBatches
    constant: Constant = Constant("")
    _starts: dict[int, Start] = field(default_factory=dict)

    @property
    def rows_are_cheap(self) -> bool:
        """Where they are stacked."""
        return self.stacked

    @property
    def capacity(self) -> int:
        """How many replicas are held at once."""
        return _AT_ONCE

    stacked: bool = False  # train several replicas as one computation

    @property
    def unit(self) -> str:
        """Of the loss: "nats" of a likelihood; empty where it has its own."""
        return self.model.contract.unit or self.constant.unit

    @property
    def eps(self) -> float | None:
        """The optimizer's eps, if it has one, and no more: that of the first group of the user's own."""
        if self.training.optimizer is not USER_OPTIMIZER:
            return super().eps
        if self.model.factory.plain_loop:
            return None
        return eps_of(built(self.model.factory, self.model.make(0), FIRST_LR)[0].param_groups[0])

    @property
    def replay_seconds(self) -> float:
        """What reading a loader's batches once more has taken so far, in this process."""
        return float(getattr(self.model.factory.stream, "seconds", 0.0))

    def module(self) -> nn.Module:
        """A fresh replica."""
        return self.model.make(0)

    def populate(self, seeds: Sequence[int], lrs: Sequence[float]) -> UserPopulation:
        """A freshly initialised population; the user's own optimizer of each row is built at its entry of `lrs`."""
        if self.stacked and len(seeds) > 1:
            return StackedUserPopulation(self.model, seeds, self.training)
        return populate(self.model, seeds, self.training, lrs)

    def objective(self, seed: int) -> tuple[Tensor, Loss]:
        """The replica `seed` at initialisation, [P], and its loss on one batch as a function of it; in float32
        at least: a half-precision model is copied."""
        return user_objective(self.model, self.batches.batch([seed], 0, INITIAL)[0], seed, self.training.device)

    def starts(self, population: Replicas[Any], seeds: Sequence[int]) -> list[Start]:
        """What each replica is judged against; that of a seed is the same in every run."""
        if any(seed not in self._starts for seed in seeds):
            self._starts |= zip(seeds, starts(self._judging(population), seeds), strict=True)
        return [self._starts[seed] for seed in seeds]

    def finish(self, population: Replicas[Any], runs: Sequence[ReplicaRun]) -> None:
        """What fresh batches say of runs that have come to their end, [R]."""
        conclude(self._judging(population), runs)

    def blame(self, seed: int, step: int) -> None:
        """A step that is not finite at the initial weights too is the data's: a `UserCodeError` that names it."""
        module = self.model.make(seed).to(self.training.device)
        one = self.batches.batch([seed], step)[0]
        with uncompiled():
            finite = finite_step(self.model.contract, module, one)
        if not finite:
            raise UserCodeError(
                f"the loss or its gradient on {self.batches.named(step, TRAINING)} of seed {seed} is not finite at the "
                f"initial weights either, so the learning rate is not the cause{oddness(one.data)}; fix such "
                "batches or remove them"
            )

    def _judging(self, population: Replicas[Any]) -> Judging:
        assert isinstance(population, UserPopulation), "a bench of the user's model trains no other"
        return Judging(population, self.batches, self.model.contract, self.constant, self.rules)

    def scores(
        self, population: Replicas[Any], seeds: Sequence[int], losses: NDArray[np.float64]
    ) -> list[dict[str, float]]:
        """Nothing: what the outputs mean is not known."""
        return [{} for _ in seeds]

    def initial_signal(self, seed: int, noise_input: bool) -> Signal | None:
        """Nothing: what a foreign model's blocks are is not known."""
        return None

    def signal(self, theta_P: Tensor, seed: int, noise_input: bool) -> Signal:
        """Never asked for: settings that need it are refused."""
        raise NotImplementedError  # the blocks of a foreign model are not known


def user_bench(
    spec: TrainingSpec,
    variant: str,
    depth: int,
    optimizer: str,
    device: str,
    journal: Path | None = None,
    constant: Constant | None = None,
) -> UserBench:
    """The bench of the user's model at one variant and depth; what the user's code raises is a `UserCodeError`.

    `constant` is what the preflight found, where it tried this very model.
    """
    where = torch.device(device)
    factory = factory_of(spec).at(variant, depth, spec.width)
    begin_compiling((spec.model, spec.set, variant, depth, spec.width))
    module = factory.make(0, variant, depth, spec.width).to(where)
    if factory.step is None:
        check_automatic(module)
    data = "synthetic" if factory.draws else spec.data  # which is not read then
    task = load_task(spec.task, data, spec.batch_size, spec.seq_len)
    batches = UserBatches(factory, task, where, module, spec.batch_size)
    batches.check_repeatable()
    first = batches.batch([0], 0, INITIAL)[0]
    if factory.plain_loop:
        found = contract_of_step(factory, module, [first, batches.batch([0], 1, INITIAL)[0]])
    else:
        with uncompiled(), seeded(first.seed), advised(module):
            found = contract(factory, module, first.data)
            found = replace(found, in_training=only_in_training(found, module, first.data))
    constant = constant or _best_constant(factory, found, module, batches)
    losses = ConstantLosses(constant, found, module) if constant.paired else None
    batches.judge(constant.baseline_loss, constant.chance_loss, losses)
    if spec.micro_batch is not None:
        _check_accumulation(spec, factory, first.data)
        if factory.stream is not None and not isinstance(factory.stream, SizedStream):
            batches.draw_several(spec.accumulate)
        else:
            batches.accumulate(Split(spec.micro_batch, counted_by(found, constant)))
    if optimizer == OWN:
        training = Training(USER_OPTIMIZER, {}, where, DTYPES[spec.dtype], spec.clip_norm)
    else:
        choice = parse_choice(optimizer, OPTIMIZERS)
        training = Training(OPTIMIZERS[choice.name], choice.numbers, where, DTYPES[spec.dtype], spec.clip_norm)
    model = UserModel(factory, found, variant, depth, spec.width)
    whole = spec.micro_batch is None
    stacked = where.type == "cuda" and whole and stacks(model, batches, training)  # on a CPU nothing is gained
    if spec.kernel == "graph" and stacked and is_capturable(model, batches, training):
        training = replace(training, kernel="graph")
    return UserBench(
        model,
        training,
        batches,
        journal=Journal(journal),
        probing=probing(spec),
        constant=constant,
        stacked=stacked,
    )


def _best_constant(factory: Factory, found: Contract, module: nn.Module, batches: UserBatches) -> Constant:
    """The best constant predictor, or what the user says of it; a loss that cannot be judged is a `UserCodeError`."""
    if found.stepped:
        constant = Constant("no loss of outputs and targets is known")
    else:
        with uncompiled():
            constant = best_constant(found, module, batches)
    if factory.baseline_loss is not None:
        return constant.said_to_be(factory.baseline_loss)
    if constant.lowest:
        raise UserCodeError(
            f"{found.text}: constant outputs already reach the lowest loss ({constant.baseline_loss:.4g}), so a "
            "collapse looks like training; give a loss_fn(model, batch) that constant outputs do not minimise"
        )
    if constant.unbounded:
        raise UserCodeError(
            f"{found.text}: {constant.text}, so its value does not measure training (a policy gradient, an "
            "adversarial loss, a maximised score?); give a loss_fn(model, batch) with a lowest value, or "
            "baseline_loss = NUMBER"
        )
    return constant


def counted_by(found: Contract, constant: Constant) -> Callable[[Any], float] | None:
    """How many targets a batch has that count in the mean of its loss, of a cross-entropy; `None` of any other loss."""
    targets, classes = found.targets, found.num_classes
    if not classes and constant.log_prior is not None:
        targets, classes = constant.targets, len(constant.log_prior)
    if targets is None or not classes:
        return None

    def counted(data: Any) -> float:
        labels = targets(data)
        return float(((labels >= 0) & (labels < classes)).sum())

    return counted


def known_targets(bench: UserBench) -> Targets | None:
    """Where the targets of a batch are, as far as that was found."""
    return bench.model.contract.targets or bench.constant.targets


def _check_accumulation(spec: TrainingSpec, factory: Factory, data: Any) -> None:
    if factory.backward is not None or factory.step is not None:
        raise UserCodeError(f"accumulate {spec.accumulate}: it takes its gradient itself; accumulate there")
    if isinstance(data, MicroBatches):
        raise UserCodeError(f"accumulate {spec.accumulate}: its batches come in micro-batches; set their number there")
    if factory.stream is not None and not isinstance(factory.stream, SizedStream):
        return
    examples = num_examples(data)
    if spec.batch_size % spec.accumulate and spec.largest_batch == spec.batch_size:
        raise UserCodeError(
            f"accumulate {spec.accumulate} does not divide batch_size {spec.batch_size}; give one that does"
        )
    if examples != spec.batch_size:
        raise UserCodeError(
            f"accumulate {spec.accumulate}: a batch has {examples} along the first axis of its tensors, and batch_size "
            f"is {spec.batch_size}; give --batch-size {examples} if that is its examples"
        )


def resolve_user_model(spec: T, sweeps_depth: bool) -> T:
    """The spec with what its factory says where the user says nothing; a setting that it does not take is an error.

    A sweep over depth needs a factory that takes `depth`.
    """
    factory = factory_of(spec)
    _check_step(spec, factory)
    takes, update = factory.takes, _of_what_is_brought(spec, factory)
    anything = "**" in takes
    for name in ("depth", "width"):
        if name not in type(spec).model_fields:
            continue
        if name in factory.args:
            if name in spec.model_fields_set and getattr(spec, name) != factory.args[name]:
                raise ConfigError(f"{name} {getattr(spec, name)}, but set has {name}={factory.args[name]}; keep one")
            if not _is_size(factory.args[name], name):
                theirs = factory.known_as.get(name, name)
                raise ConfigError(f"set {theirs}={factory.args[name]}: not a whole number from 1 on")
            update[name] = factory.args[name]
        elif name in takes or anything:
            default = takes.get(name)
            if name not in spec.model_fields_set and isinstance(default, int) and not isinstance(default, bool):
                update[name] = default
        elif name in spec.model_fields_set:
            raise ConfigError(f"{name}: {does_not_take(factory, name)}")
        elif name == "depth":
            update[name] = 1
    if sweeps_depth and "depth" not in takes and not anything:
        raise ConfigError(
            f"depths: {factory.shape or _takes_only(factory, 'depth')}; a depth sweep needs this argument"
        )
    for name in ("init_only", "probe_steps"):
        if getattr(spec, name, None):
            raise ConfigError(f"{name} works only with built-in models; leave it out for {spec.model}")
    variants = [variant for variant in spec.variant if variant != AS_BUILT]
    if variants and "variant" not in takes and not anything:
        raise ConfigError(f"variant {variants[0]}: {does_not_take(factory, 'variant')}")
    if not variants and "variant" in takes:
        if required(takes["variant"]):
            raise ConfigError(f"{factory.name} needs a variant; give --variant NAME,...")
        if isinstance(takes["variant"], str):
            update["variant"] = (takes["variant"],)
    if OWN in spec.optimizers and not (factory.optimizer or factory.step or _may_configure(factory)):
        raise ConfigError(f"optimizer own: the file of {factory.name} has no optimizer(params, lr); write one")
    missing = [name for name, default in takes.items() if name != "**" and required(default)]
    missing = [name for name in missing if name not in (*factory.args, "depth", "width", "variant")]
    if missing:
        raise ConfigError(_needs(factory, missing[0]))
    return spec.model_copy(update=update | _optimizers(spec, factory))


def _is_size(value: Any, name: str) -> bool:
    if name == "width" and not isinstance(value, int):
        return True  # a factor of all widths, or one a layer
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _needs(factory: Factory, name: str) -> str:
    remedy = f"give --set {name}=VALUE, or a default"
    if is_config(name):
        called = getattr(as_written(factory.build), "__name__", "Model")
        remedy = f"write a function beside it, def build(): return {called}({name}), or annotate it with its dataclass"
    return f"{factory.name} needs '{name}'; {remedy}"


_OF_A_LOSS = {
    "clip_norm": "clip in the step",
    "optimizer": "leave it out: the step has its own",
    "optimizer_fn": "leave it out: the step has its own",
}


def _check_step(spec: TrainingSpec, factory: Factory) -> None:
    """Settings that a step of the user's own leaves no room for are an error."""
    if not factory.plain_loop:
        return
    where = f"step(model, batch, lr) of {factory.name} is a whole step"
    for name in (name for name in _OF_A_LOSS if name in spec.model_fields_set):
        given = getattr(spec, name)
        if given and given not in (OWN, (OWN,)):
            shown = ",".join(given) if isinstance(given, tuple) else given
            raise ConfigError(f"{name} {shown}: {where}; {_OF_A_LOSS[name]}")
    if spec.dtype == "float16":
        raise ConfigError(f"dtype float16: {where}, whose loss cannot be scaled; use bfloat16, or autocast in the step")


def _of_what_is_brought(spec: TrainingSpec, factory: Factory) -> dict[str, Any]:
    """Settings that come with a loader or a trainer; another value of one that it alone can change is an error."""
    if "batch_size" in factory.fixed and getattr(spec, "batch_sizes", None):
        raise ConfigError(
            f"batch_sizes: every batch that {factory.name} trains on has {factory.fixed['batch_size']} examples; for "
            "batches of other sizes write batch(step, batch_size, generator)"
        )
    task = factory.settings.get("task", "language")
    if (
        factory.name.startswith("hf:")
        and factory.batch is None
        and spec.task != task
        and "task" in spec.model_fields_set
    ):
        raise ConfigError(f"task {spec.task}: {factory.name} comes with its batches, {task}; leave it out")
    for name, value in factory.fixed.items():
        if name in spec.model_fields_set and getattr(spec, name, value) != value:
            raise ConfigError(f"{name} {getattr(spec, name)}: what {factory.name} brings has {value}; change it there")
    settings = {**factory.settings, **factory.fixed}
    known = {name: value for name, value in settings.items() if name in type(spec).model_fields}
    return {name: value for name, value in known.items() if name not in spec.model_fields_set}


def does_not_take(factory: Factory, name: str) -> str:
    """Why a depth, width or variant cannot be given to a factory, in a line."""
    if factory.shape and name in ("depth", "width", "depths"):
        return factory.shape
    theirs = size_called(name, factory.takes)
    if theirs in factory.args:
        return f"set has {theirs}={factory.args[theirs]} already; keep one"
    if theirs:
        return f"{factory.name} calls it {theirs}, which has no number of its own; give --set {theirs}=N"
    return _takes_only(factory, name)


def _takes_only(factory: Factory, name: str) -> str:
    takes = [*factory.takes]
    more = f" and {len(takes) - _ARGUMENTS} more" if len(takes) > _ARGUMENTS else ""
    only = f"only ({', '.join(takes[:_ARGUMENTS])}{more})" if takes else "and takes none"
    return f"{factory.name} has no argument '{name}', {only}; leave it out or add the argument"


_ARGUMENTS = 8  # that a line shows


def _may_configure(factory: Factory) -> bool:
    """Whether what is built has a configure_optimizers of its own; of a function only the building will tell."""
    return not inspect.isclass(as_written(factory.build)) or configures(as_written(factory.build))


def _optimizers(spec: TrainingSpec, factory: Factory) -> dict[str, Any]:
    """The optimizer beside the model where the user names none; another by its canonical spelling."""
    many = not isinstance(spec.model_dump(include={"optimizer"})["optimizer"], str)
    by_itself = inspect.isclass(as_written(factory.build)) and _may_configure(factory)
    theirs = factory.optimizer is not None or factory.step is not None or by_itself
    if "optimizer" not in spec.model_fields_set and theirs:
        names: tuple[str, ...] = (OWN,)
    else:
        names = tuple(text if text == OWN else parse_choice(text, OPTIMIZERS).label for text in spec.optimizers)
    return {"optimizer": names if many else names[0]}
