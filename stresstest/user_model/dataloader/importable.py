"""Let processes that are started anew import the user's file, which was imported by its path."""

from __future__ import annotations

import atexit
import shutil
import sys
import tempfile
from functools import lru_cache
from pathlib import Path

PREFIX = "stresstest_user_"  # of the modules' names

_STAND_IN = """\
import importlib.util, sys
spec = importlib.util.spec_from_file_location(__name__, {file!r})
sys.modules[__name__] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
"""


def let_children_import() -> None:
    """Put modules of these names where a child looks, which has our `sys.path`: they import the files."""
    named = [(name, module.__file__) for name, module in sys.modules.items() if name.startswith(PREFIX)]
    for name, file in named:
        stand_in = _folder() / f"{name}.py"
        if file is not None and not stand_in.exists():
            stand_in.write_text(_STAND_IN.format(file=file), encoding="utf-8")


@lru_cache(maxsize=1)
def _folder() -> Path:
    """A folder of this process, at the end of `sys.path`."""
    folder = tempfile.mkdtemp(prefix="stresstest-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    sys.path.append(folder)
    return Path(folder)
