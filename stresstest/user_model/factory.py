"""The user's own model: a factory in a file or module, or a Hugging Face config, and what stands beside it.

Whatever a scenario or an option names is imported, which runs its code; nothing else is.
"""

from __future__ import annotations

import contextlib
import inspect
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from stresstest.errors import ConfigError
from stresstest.registry import did_you_mean
from stresstest.specs.base import TrainingSpec
from stresstest.specs.kinds import AS_BUILT
from stresstest.specs.parsing import parse_settings
from stresstest.user_code import UserCodeError, described, user_code
from stresstest.user_model.arguments import Arguments, arguments, as_written, parameters
from stresstest.user_model.brought import Backward, BatchStream, Brought, Step, as_model, brings, brought
from stresstest.user_model.carried import leave_averages_alone
from stresstest.user_model.dataloader.from_dataloader import data_of, is_data
from stresstest.user_model.dtypes import with_values
from stresstest.user_model.lightning import from_lightning as lightning
from stresstest.user_model.state_dict import with_weights
from stresstest.user_model.user_file import apart_from_results, function_in, imported
from stresstest.user_model.wrapped import unwrapped

COMPANIONS = ("batch", "loss_fn", "optimizer", "step")
_STEP_TAKES = ("model", "batch", "lr")  # by which a function called step is known


@dataclass(frozen=True)
class Factory:
    """What builds the model, and the functions beside it; `None` where there is none.

    `batch(step, batch_size, generator)`, `loss_fn(model, batch)`, `optimizer(params, lr)`. `baseline_loss` is that
    of the best constant predictor, where the file says it, in the unit of the loss. `takes` has the names of the
    factory's parameters with their defaults; `fingerprint` changes with the code.
    """

    name: str
    build: Callable[..., nn.Module]
    takes: Mapping[str, Any]
    args: Mapping[str, Any]
    fingerprint: str
    batch: Callable[..., Any] | None = None
    loss_fn: Callable[..., Any] | None = None
    optimizer: Callable[..., Any] | None = None
    baseline_loss: float | None = None
    shifts_labels: bool = False  # a language model of Hugging Face, which predicts labels[1:]
    known_as: Mapping[str, str] = field(default_factory=dict)  # what its depth and width are called there
    stream: BatchStream | None = None
    loss_words: str = "loss_fn(model, batch)"
    backward: Backward | None = None
    step: Step | None = None
    optimizer_words: str = ""  # where the optimizer comes from, if from no function of the user's
    of_object: bool = False  # an object that brings its model: there is nothing to be called to see
    plain_loop: bool = False  # the step alone says what is judged; a loss need not stand beside it
    settings: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    start: str = ""  # what every seed starts from, where that is not random
    shape: str = ""  # why depth and width are no arguments, in a line
    weights: Callable[[nn.Module], None] | None = None  # puts them into what is built
    remake: Callable[[Mapping[str, Any]], Brought] | None = None

    @property
    def draws(self) -> bool:
        """Whether it has data of its own."""
        return self.batch is not None or self.stream is not None

    def at(self, variant: str, depth: int, width: int) -> Factory:
        """The same at one variant, depth and width, where what is built brings its data, loss and optimizer along."""
        if self.remake is None:
            return self
        return self.bringing(self.remake(self._args(variant, depth, width)))

    def bringing(self, found: Brought) -> Factory:
        """The same with what an object brings."""
        there = {name: getattr(found, name) for name in _BROUGHT if getattr(found, name) is not None}
        if self.batch is not None:
            there.pop("stream", None)  # what the file says goes before
        if self.plain_loop:
            there = {name: value for name, value in there.items() if name == "stream"}
        build = found.build
        if build is not None and self.remake is not None:
            there["build"] = lambda **_: build()
        elif build is not None:
            taken = arguments(build)
            there |= {"build": taken.build, "takes": taken.takes, "known_as": taken.known_as}
        return replace(
            self,
            **there,
            plain_loop=self.plain_loop or (found.step is not None and found.loss_fn is None),
            loss_words=self.loss_words if self.plain_loop else found.loss_words,
            optimizer_words=found.optimizer_words,
            settings=found.settings,
            fixed={k: v for k, v in found.fixed.items() if k != "batch_size" or self.batch is None},
            notes=found.notes,
        )

    def make(self, seed: int, variant: str, depth: int, width: int) -> nn.Module:
        """A freshly initialised model in training mode and the dtypes that it has; the same seed gives the same one."""
        built = unwrapped(self.as_written(seed, variant, depth, width))
        return leave_averages_alone(with_values(built)).train()

    def as_written(self, seed: int, variant: str, depth: int, width: int) -> nn.Module:
        """What the factory returns, in its wrappers."""
        args = self._args(variant, depth, width)
        with seeded(seed), apart_from_results(self.name), user_code(_call(self.name, args)):
            module = self.build(**args)
            if not isinstance(module, nn.Module):
                raise UserCodeError(f"returned {type(module).__name__}; return a torch.nn.Module")
        with user_code(f"parameters() of {type(module).__name__}"):
            list(module.parameters())
        if self.weights is not None:
            self.weights(module)
        return module

    def _args(self, variant: str, depth: int, width: int) -> dict[str, Any]:
        swept = {"depth": depth, "width": width, "variant": variant}
        args = {name: value for name, value in swept.items() if name in self.takes and value != AS_BUILT}
        return args | dict(self.args)


_BROUGHT = ("stream", "loss_fn", "backward", "step", "optimizer")


def factory_of(spec: TrainingSpec) -> Factory:
    """The factory that settings name; what cannot be is a `ConfigError`."""
    companions = tuple(getattr(spec, f"{name}_fn" if name != "loss_fn" else name) for name in COMPANIONS)
    factory = _given.get(spec.model) or _load(spec.model, spec.set, companions, _fed(spec), str(Path.cwd()))
    if spec.from_weights:
        factory = replace(factory, **with_weights(factory.fingerprint, spec.from_weights))
    return _looked_into(factory, spec)


class _Fed(NamedTuple):
    """What a model of Hugging Face depends on beside its name: its batches come with it."""

    data: str = ""
    seq_len: int = 0
    batch_size: int = 0
    random_init: bool = False


def _fed(spec: TrainingSpec) -> _Fed:
    if not spec.model.startswith("hf:"):
        if spec.random_init:
            raise ConfigError(f"random-init works only with hf:FOLDER; {spec.model} makes its own weights")
        return _Fed()
    return _Fed(spec.data, spec.seq_len, spec.batch_size, spec.random_init)


_given: dict[str, Factory] = {}


@dataclass
class _Made:
    """The last object that a function of the user's returned: a trainer leaves no room for a second one."""

    factory: str = ""
    args: Mapping[str, Any] = field(default_factory=dict)
    build: Callable[..., Any] | None = None
    found: Brought | None = None


_made = _Made()


def _looked_into(factory: Factory, spec: TrainingSpec) -> Factory:
    """The factory with what it brings, where it returns no module but what people train with: it is called to see."""
    kind = as_written(factory.build)
    modules = inspect.isclass(kind) and not lightning.is_lightning_class(kind)
    if modules or factory.of_object or factory.remake is not None or factory.name.startswith("hf:"):
        return factory
    asked = _asked_first(factory, spec)

    def remake(args: Mapping[str, Any]) -> Brought:
        with user_code(_call(factory.name, args)):
            found = _made_of(factory, args)
            if found is None:
                raise UserCodeError("returned a module, and another object before; return one kind")
            return _anew(factory, args, found)

    try:
        found = _made_of(factory, factory._args(*asked))
    except ConfigError:
        raise
    except Exception:  # the preflight calls it again and says what was raised, and where
        return factory
    if found is None:
        return factory
    shown = replace(factory, remake=remake, fingerprint=f"{factory.fingerprint} {found.key}".strip())
    return shown.bringing(_anew(factory, factory._args(*asked), found))


def _anew(factory: Factory, args: Mapping[str, Any], found: Brought) -> Brought:
    """What a function's object brings, where each seed's module comes from calling it again."""
    adopt = found.adopt
    return found if adopt is None else replace(found, build=lambda: adopt(factory.build(**args)))


def _asked_first(factory: Factory, spec: TrainingSpec) -> tuple[str, int, int]:
    """The variant, depth and width that are built first: what is asked for, else the factory's own."""
    depth = getattr(spec, "depth", None) or min(getattr(spec, "depths", (1,)))
    given = {"variant": spec.variant[0], "depth": depth, "width": spec.width}
    own = {name: factory.takes[name] for name in given if isinstance(factory.takes.get(name), int | str)}
    said = spec.model_fields_set | ({"depth"} if "depths" in spec.model_fields_set else set())
    found: dict[str, Any] = {name: given[name] if name in said else own.get(name, given[name]) for name in given}
    return found["variant"], found["depth"], found["width"]


def _made_of(factory: Factory, args: Mapping[str, Any]) -> Brought | None:
    """What the user's function returns, in our form; `None` of a module."""
    key = f"{factory.name} {factory.fingerprint}"
    if (_made.factory, _made.args) != (key, args) or _made.build is not factory.build:
        _made.found = None  # first, so that there are never two
        with seeded(0), apart_from_results(factory.name):
            thing = factory.build(**args)
        _made.factory, _made.args, _made.build = key, dict(args), factory.build
        plain = isinstance(thing, nn.Module) and not _brings_more(factory, thing)
        found = None if plain else as_model(thing, factory.name)
        if found is not None and (pick := found.pick) is not None:
            found = replace(found, build=lambda: pick(factory.build(**args)))
        _made.found = found
    return _made.found


def _brings_more(factory: Factory, module: nn.Module) -> bool:
    """Whether a module brings its own data or steps, which the file does not say already."""
    return brings(module) and (not factory.draws or getattr(module, "automatic_optimization", True) is False)


def _call(name: str, args: Mapping[str, Any]) -> str:
    return f"{name}({', '.join(f'{k}={v!r}' for k, v in args.items())})"


@contextlib.contextmanager
def register_callable(build: Any, args: Mapping[str, Any], **beside: Any) -> Iterator[str]:
    """A name under which settings of this process may speak of a factory, or what brings one, that is an object."""
    name = f"{getattr(build, '__module__', 'given')}:{getattr(build, '__qualname__', type(build).__name__)}"
    found = as_model(build)
    if found is None:
        factory = _taking(name, arguments(build, "batch" in beside), args, "given")
    else:
        factory = _of_object(name, found, args, "given")
    _given[name] = _with(factory, beside)
    try:
        yield name
    finally:
        del _given[name]


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The global generators of torch, numpy and Python start from `seed`; afterwards they are as before."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    torch.default_generator.manual_seed(seed)  # torch.manual_seed takes a traceback for each absent kind of device
    if cuda:
        torch.cuda.manual_seed_all(seed)
    np.random.seed(seed % (1 << 32))
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])
        if cuda:
            torch.cuda.set_rng_state_all(cuda)


@lru_cache(maxsize=8)
def _load(model: str, settings: tuple[str, ...], companions: tuple[str, ...], fed: _Fed, folder: str) -> Factory:
    where, _, name = model.rpartition(":")
    args = parse_settings(settings)
    module: ModuleType | None = None
    if model.startswith("hf:"):
        from stresstest.user_model.hugging_face import Feed, hugging_face

        found_there = hugging_face(model, args, None if companions[0] else Feed(*fed[:3]), fed.random_init)
        factory = Factory(name=model, args=args, **vars(found_there))
    else:
        module, fingerprint = imported(where, model)
        found = as_model(getattr(module, name, None), model)
        if found is not None:
            factory = _of_object(model, found, args, fingerprint)
        else:
            has_data = bool(companions[0]) or _is_companion("batch", getattr(module, "batch", None))
            taken = arguments(function_in(module, name, model), has_data)
            factory = _taking(model, taken, args, fingerprint)
    unknown = [key for key in factory.args if key not in factory.takes and "**" not in factory.takes]
    if unknown:
        known = did_you_mean(unknown[0], [key for key in factory.takes if key != "**"])
        raise ConfigError(f"set {unknown[0]}: {model} has no argument '{unknown[0]}'{known}")
    return _with_companions(factory, module, companions)


def _with_companions(factory: Factory, module: ModuleType | None, companions: tuple[str, ...]) -> Factory:
    """The functions beside the factory: those that are named, or else those of its file."""
    found: dict[str, Any] = {}
    prints = [factory.fingerprint]
    for name, path in zip(COMPANIONS, companions, strict=True):
        if path:
            where, _, attribute = path.rpartition(":")
            theirs, fingerprint = imported(where, path) if where else (module, "")
            data = name == "batch" and is_data(getattr(theirs, attribute, None))
            found[name] = getattr(theirs, attribute) if data else function_in(theirs, attribute, path)
            prints.append(f"{name}={attribute}/{fingerprint}")
        elif _is_companion(name, getattr(module, name, None)):
            found[name] = getattr(module, name)
    baseline = getattr(module, "baseline_loss", None)
    if baseline is not None:
        if isinstance(baseline, bool) or not isinstance(baseline, int | float):
            raise ConfigError(f"{factory.name}: baseline_loss is {baseline!r}; make it a number")
        found["baseline_loss"] = float(baseline)
    return _with(replace(factory, fingerprint=" ".join(prints)), found)


def _is_companion(name: str, there: Any) -> bool:
    """Whether what a file has under this name is meant: a batch may be a loader, a step takes what ours does."""
    if name == "step" and callable(there):
        return tuple(parameters(there)) == _STEP_TAKES
    return callable(there) or (name == "batch" and is_data(there, by_name_alone=True))


def _of_object(name: str, found: Brought, args: Mapping[str, Any], fingerprint: str) -> Factory:
    """A factory that is an object which brings its model along."""
    assert found.build is not None, "as_model has seen to it"
    fingerprint = f"{fingerprint} {found.key}".strip()
    return replace(_taking(name, arguments(found.build), args, fingerprint), of_object=True).bringing(found)


def _taking(name: str, taken: Arguments, args: Mapping[str, Any], fingerprint: str) -> Factory:
    return Factory(name, taken.build, taken.takes, taken.renamed(args), fingerprint, known_as=taken.known_as)


def _with(factory: Factory, beside: Mapping[str, Any]) -> Factory:
    """The factory with the functions beside it, and with what an object brings that stands for its batches."""
    given, notes = _beside_a_step(beside)
    factory = replace(factory, notes=(*factory.notes, *notes))
    data = _data_in(given.get("batch"), factory.name)
    if data is not None:
        del given["batch"]
        if data.stream is None:
            raise ConfigError(f"batch is {data.what}, which has no batches; give batch(step, batch_size, generator)")
        key = f"{factory.fingerprint} {data.key}".strip()
        theirs = {name: getattr(data, name) for name in ("stream", "loss_fn", "optimizer")}
        theirs = {name: value for name, value in theirs.items() if value is not None}
        if "optimizer" in theirs and "optimizer" not in given:
            given["optimizer_words"] = data.optimizer_words
        given = {**theirs, "settings": {**factory.settings, **data.settings}, **given}
        factory = replace(
            factory, fixed={**factory.fixed, **data.fixed}, notes=(*factory.notes, *data.notes), fingerprint=key
        )
    elif given.get("batch") is not None:
        given["stream"] = None
    return replace(factory, **given)


def _beside_a_step(beside: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The functions beside a factory without the optimizer where there is a whole step, and a note on it."""
    given = dict(beside)
    if given.get("step") is None:
        return given, []
    given |= {"loss_words": "step(model, batch, lr)", "plain_loop": True}
    unused = given.pop("optimizer", None) is not None
    return given, ["note: optimizer() is not used: step(model, batch, lr) is a whole step"] if unused else []


def _data_in(batch: Any, name: str) -> Brought | None:
    """What stands in the place of a batch function brings; `None` of a function that draws the batches."""
    if batch is None:
        return None
    try:
        with seeded(0):
            return brought(data_of(batch))
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"{name}: batch() raised {described(error)}") from None
