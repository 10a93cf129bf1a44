"""The user's file or module: imported, which runs its code, with what it prints kept apart from results."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import io
import logging
import multiprocessing
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from stresstest.errors import ConfigError
from stresstest.registry import did_you_mean
from stresstest.user_code import described, heard_once, meaning
from stresstest.user_model.brought import brings
from stresstest.user_model.dataloader.importable import PREFIX
from stresstest.user_model.scripts import ENDS, above_its_package, as_a_script

_MOST_NAMED = 12  # functions of a file, in an error's line


_heard: set[str] = set()


@contextlib.contextmanager
def apart_from_results(name: str) -> Iterator[None]:
    """What a file or factory prints and logs goes to stderr, once: it runs many times, in worker processes too."""
    if name not in _heard and multiprocessing.parent_process() is None:
        _heard.add(name)
        with heard_once():
            yield
        return
    disabled = logging.root.manager.disable
    logging.disable(max(disabled, logging.WARNING))
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def function_in(module: ModuleType | None, name: str, path: str) -> Callable[..., Any]:
    """A function of a file by its name; a `ConfigError` names those that are there."""
    found = getattr(module, name, None)
    if found is not None and not callable(found):
        kind = f"{type(found).__module__}.{type(found).__qualname__}"
        raise ConfigError(f"{path}: '{name}' is a {kind}; give a function, or for the model a torch.nn.Module")
    if not callable(found):
        raise ConfigError(f"{path}: function '{name}' not found{did_you_mean(name, _functions_of(module))}")
    function: Callable[..., Any] = found
    return function


def _functions_of(module: ModuleType | None) -> list[str]:
    """The names of what may be meant in a file: its own functions and classes, and objects that bring a model."""
    there = {"__name__": ""} if module is None else vars(module)
    names = [
        key
        for key, value in there.items()
        if brings(value) or (callable(value) and getattr(value, "__module__", None) == there["__name__"])
    ]
    return [name for name in names if not name.startswith("_")][:_MOST_NAMED]


def imported(where: str, path: str) -> tuple[ModuleType, str]:
    """Import a file or module, which runs its code; it, and a hash of it and of what it imported beside it."""
    try:
        return _imported(where, str(Path.cwd()))
    except ConfigError:  # of from_dataloader and the like
        raise
    except FileNotFoundError:
        if Path(where).is_file():
            raise
        raise ConfigError(f"{path}: file {where} not found; give FILE.py:FUNCTION") from None
    except Exception as error:
        missing = getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and f"{where}.".startswith(f"{missing}."):
            raise ConfigError(f"{path}: module '{where}' not found; give FILE.py:FUNCTION") from None
        raise ConfigError(f"{path} cannot be imported: {described(error)}") from None
    except SystemExit as error:
        raise ConfigError(f"{path} cannot be imported: {ENDS} (exit code {error.code})") from None


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
    name = f"{PREFIX}{hashlib.blake2b(str(file.resolve()).encode(), digest_size=6).hexdigest()}"
    if name in sys.modules:
        return sys.modules[name]
    root = above_its_package(file)
    if root is not None:
        _look_in(str(root))  # as where its package is imported: it may import that by name
    found = importlib.util.spec_from_file_location(name, file)
    assert found is not None, "a .py file has a loader"
    assert found.loader is not None, "a .py file has a loader"
    module = importlib.util.module_from_spec(found)
    _look_in(str(file.resolve().parent))  # as `python FILE.py` does: it may import its neighbours
    sys.modules[name] = module
    try:
        with as_a_script(file), apart_from_results(name):
            found.loader.exec_module(module)
    except ImportError as error:
        del sys.modules[name]
        if root is None or "relative import" not in str(error):
            raise
        return _import_module(".".join(file.resolve().relative_to(root).with_suffix("").parts))
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import_module(name: str) -> ModuleType:
    _look_in(str(Path.cwd()))  # as `python -m` does
    with apart_from_results(name):
        return importlib.import_module(name)


def _look_in(folder: str) -> None:
    if folder not in sys.path:
        sys.path.insert(0, folder)
