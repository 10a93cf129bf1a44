"""A user's file as it is where its author runs it: in its package, and with no options of ours."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

ENDS = (
    "it ends the program, as a script does that needs arguments or trains when it is imported; "
    "put that under if __name__ == '__main__'"
)


def above_its_package(file: Path) -> Path | None:
    """The folder from which a file's package is imported; `None` of a file in no package."""
    folder = own = file.resolve().parent
    while (folder / "__init__.py").is_file():
        folder = folder.parent
    return None if folder == own else folder


@contextlib.contextmanager
def as_a_script(file: Path) -> Iterator[None]:
    """A file that reads the command line sees its own name alone, not our options."""
    ours = sys.argv
    sys.argv = [str(file)]
    try:
        yield
    finally:
        sys.argv = ours
