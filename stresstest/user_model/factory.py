"""The user's own model: a factory in a file or module, or a Hugging Face config, and what stands beside it.

Whatever a scenario or an option names is imported, which runs its code; nothing else is.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from stresstest.errors import ConfigError
from stresstest.registry import did_you_mean
from stresstest.specs.base import AS_BUILT, TrainingSpec
from stresstest.specs.parsing import parse_settings
from stresstest.user_code import UserCodeError, described, meaning, user_code
from stresstest.user_model.carried import leave_averages_alone
from stresstest.user_model.dtypes import with_values
from stresstest.user_model.wrapped import unwrapped

COMPANIONS = ("batch", "loss_fn", "optimizer")
_REQUIRED = inspect.Parameter.empty


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

    def make(self, seed: int, variant: str, depth: int, width: int) -> nn.Module:
        """A freshly initialised model in training mode and the dtypes that it has; the same seed gives the same one."""
        built = unwrapped(self.as_returned(seed, variant, depth, width))
        return leave_averages_alone(with_values(built)).train()

    def as_returned(self, seed: int, variant: str, depth: int, width: int) -> nn.Module:
        """What the factory returns, in its wrappers."""
        swept = {"depth": depth, "width": width, "variant": variant}
        args = {name: value for name, value in swept.items() if name in self.takes and value != AS_BUILT}
        args |= self.args
        with seeded(seed), user_code(f"{self.name}({', '.join(f'{k}={v!r}' for k, v in args.items())})"):
            module = self.build(**args)
            if not isinstance(module, nn.Module):
                raise UserCodeError(f"returned {type(module).__name__}; return a torch.nn.Module")
            return module


def factory_of(spec: TrainingSpec) -> Factory:
    """The factory that settings name; what cannot be is a `ConfigError`."""
    if spec.model in _given:
        return _given[spec.model]
    companions = tuple(getattr(spec, f"{name}_fn" if name != "loss_fn" else name) for name in COMPANIONS)
    return _load(spec.model, spec.set, companions, str(Path.cwd()))


_given: dict[str, Factory] = {}


@contextlib.contextmanager
def register_callable(build: Callable[..., nn.Module], args: Mapping[str, Any], **beside: Any) -> Iterator[str]:
    """A name under which settings of this process may speak of a factory that is an object."""
    name = f"{getattr(build, '__module__', '')}:{getattr(build, '__qualname__', type(build).__name__)}"
    _given[name] = Factory(name, build, _parameters(build), args, "given", **beside)
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
def _load(model: str, settings: tuple[str, ...], companions: tuple[str, ...], folder: str) -> Factory:
    where, _, name = model.rpartition(":")
    args = parse_settings(settings)
    module: ModuleType | None = None
    if where == "hf":
        from stresstest.user_model.hugging_face import causal_language_model

        build, takes, fingerprint = causal_language_model(model, name, args)
        factory = Factory(model, build, takes, args, fingerprint, shifts_labels=True)
    else:
        module, fingerprint = _import(where, model)
        build = _function(module, name, model)
        factory = Factory(model, build, _parameters(build), args, fingerprint)
    unknown = [key for key in args if key not in factory.takes and "**" not in factory.takes]
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
            theirs, fingerprint = _import(where, path) if where else (module, "")
            found[name] = _function(theirs, attribute, path)
            prints.append(f"{name}={attribute}/{fingerprint}")
        elif callable(getattr(module, name, None)):
            found[name] = getattr(module, name)
    baseline = getattr(module, "baseline_loss", None)
    if baseline is not None:
        if isinstance(baseline, bool) or not isinstance(baseline, int | float):
            raise ConfigError(f"{factory.name}: baseline_loss is {baseline!r}; make it a number")
        found["baseline_loss"] = float(baseline)
    return replace(factory, **found, fingerprint=" ".join(prints))


def _function(module: ModuleType | None, name: str, path: str) -> Callable[..., Any]:
    found = getattr(module, name, None)
    if not callable(found):
        there = [key for key, value in vars(module).items() if callable(value)] if module is not None else []
        raise ConfigError(f"{path}: function '{name}' not found{did_you_mean(name, there)}")
    function: Callable[..., Any] = found
    return function


def _parameters(build: Callable[..., Any]) -> dict[str, Any]:
    """Name and default of each parameter that can be given by name; `**` where it takes any."""
    try:
        parameters = inspect.signature(build).parameters.values()
    except (TypeError, ValueError):
        return {}
    takes = {p.name: p.default for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return takes | ({"**": None} if any(p.kind == p.VAR_KEYWORD for p in parameters) else {})


def required(default: Any) -> bool:
    """Whether a parameter with this default must be given."""
    return default is _REQUIRED


def _import(where: str, path: str) -> tuple[ModuleType, str]:
    """Import a file or module, which runs its code; it, and a hash of it and of what it imported beside it."""
    try:
        return _imported(where, str(Path.cwd()))
    except FileNotFoundError:
        if Path(where).is_file():
            raise
        raise ConfigError(f"{path}: file {where} not found; give FILE.py:FUNCTION") from None
    except Exception as error:
        missing = getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and f"{where}.".startswith(f"{missing}."):
            raise ConfigError(f"{path}: module '{where}' not found; give FILE.py:FUNCTION") from None
        raise ConfigError(f"{path} cannot be imported: {described(error)}") from None


@lru_cache(maxsize=32)
def _imported(where: str, folder: str) -> tuple[ModuleType, str]:
    before = set(sys.modules)
    module = _import_file(Path(where)) if where.endswith(".py") else _import_module(where)
    file = getattr(module, "__file__", None)
    digest = hashlib.blake2b(digest_size=8)
    if file is not None:
        own = Path(file).resolve()
        others = {getattr(sys.modules[name], "__file__", None) for name in set(sys.modules) - before}
        paths = {Path(other).resolve() for other in others if other}
        beside = {path for path in paths if own.parent in path.parents and "site-packages" not in path.parts}
        for path in sorted({own, *beside}):
            digest.update(path.name.encode() + meaning(path).encode())
    return module, digest.hexdigest()


def _import_file(file: Path) -> ModuleType:
    if not file.is_file():
        raise FileNotFoundError(file)
    name = f"stresstest_user_{hashlib.blake2b(str(file.resolve()).encode(), digest_size=6).hexdigest()}"
    if name in sys.modules:
        return sys.modules[name]
    found = importlib.util.spec_from_file_location(name, file)
    assert found is not None, "a .py file has a loader"
    assert found.loader is not None, "a .py file has a loader"
    module = importlib.util.module_from_spec(found)
    _look_in(str(file.resolve().parent))  # as `python FILE.py` does: it may import its neighbours
    sys.modules[name] = module
    try:
        found.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import_module(name: str) -> ModuleType:
    _look_in(str(Path.cwd()))  # as `python -m` does
    return importlib.import_module(name)


def _look_in(folder: str) -> None:
    if folder not in sys.path:
        sys.path.insert(0, folder)
