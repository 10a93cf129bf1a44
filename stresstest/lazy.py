"""Packages that take long to import, by names that import them when something of them is used first.

`stresstest list` shows tables whose entries compute with numpy once they are called, and does without it.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as numpy


class _Lazy(ModuleType):
    def __getattr__(self, name: str) -> Any:
        value = getattr(import_module(self.__name__), name)
        setattr(self, name, value)  # found without this function from now on
        return value


if not TYPE_CHECKING:
    numpy = _Lazy("numpy")
