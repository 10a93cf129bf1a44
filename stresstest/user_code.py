"""Running the user's code: what it raises becomes one line that says where, with the traceback kept."""

from __future__ import annotations

import ast
import contextlib
import io
import os
import sys
import sysconfig
import threading
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from stresstest.process_state import end_where_forked

_PACKAGE = str(Path(__file__).resolve().parent)
_LIBRARIES = tuple({sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib")})
_OUT_OF_MEMORY = ("can't allocate memory", "out of memory")


class UserCodeError(Exception):
    """The user's code raised, or returned what cannot be used; `text` is its traceback, or empty."""

    def __init__(self, line: str, text: str = "") -> None:
        super().__init__(line, text)
        self.line = line
        self.text = text

    def __str__(self) -> str:
        """The traceback with the one line at its end."""
        return f"{self.text}{self.line}"


@contextlib.contextmanager
def user_code(what: str) -> Iterator[None]:
    """Give an error of what is called here, `what`, the place in the user's code where it happened.

    Running out of memory stays what it is: it says nothing about the code; and so does Ctrl-C. What ends a program,
    as sys.exit does, is an error here. A fork that the code returns from twice ends.
    """
    process = os.getpid()
    try:
        yield
    except UserCodeError as error:
        raise UserCodeError(f"{what} {error.line}" if not error.text else error.line, error.text) from None
    except (MemoryError, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        if any(words in str(error) for words in _OUT_OF_MEMORY):
            raise
        raise UserCodeError(f"{what} raised {described(error)}", traceback.format_exc()) from None
    finally:
        end_where_forked(process)


_MOST_LINES = 20
_LONGEST_LINE = 2000  # characters
_heard: set[str] = set()


class _Heard(io.TextIOBase):
    """Passes each line on the first time that it is printed, and no more than some of them."""

    def __init__(self, to: TextIO) -> None:
        self._to = to
        self._begun = ""

    def write(self, text: str) -> int:
        *lines, begun = text.split("\n")
        if lines:
            lines[0] = f"{self._begun}{lines[0]}"
            self._begun = ""
        self._begun += begun[: max(0, _LONGEST_LINE - len(self._begun))]  # or a line without end would fill the memory
        for line in (whole[:_LONGEST_LINE] for whole in lines):
            if line in _heard or len(_heard) > _MOST_LINES:
                continue
            _heard.add(line)
            more = "\n(what else the model's code prints is not shown)" if len(_heard) > _MOST_LINES else ""
            self._to.write(f"{line}{more}\n")
        return len(text)

    def close(self) -> None:
        if self._begun:
            self.write("\n")


@contextlib.contextmanager
def heard_once() -> Iterator[None]:
    """What the user's code prints goes to stderr, apart from results; a line or a warning is shown once a process."""
    shown, before, failed = warnings.showwarning, sys.stdout, threading.excepthook

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        warning = f"{category.__name__} {filename}:{lineno} {message}"
        if warning not in _warned:
            _warned.add(warning)
            shown(message, category, filename, lineno, file, line)

    stream = _Heard(sys.stderr)

    def fail(what: threading.ExceptHookArgs) -> None:
        if what.exc_value is not None:
            stream.write(f"a thread of the model's code raised {described(what.exc_value)}\n")

    warnings.showwarning, sys.stdout, threading.excepthook = show, stream, fail
    try:
        yield
    finally:
        warnings.showwarning, sys.stdout, threading.excepthook = shown, before, failed
        stream.close()


_warned: set[str] = set()


def described(error: BaseException) -> str:
    """Type, message and the innermost place in the user's own code."""
    message = " ".join(str(error).split())
    name = type(error).__name__ + (f": {message[:300]}" if message else "")
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if is_users_file(frame.filename)]
    if not frames:
        return name
    last = frames[-1]
    return f"{name} ({Path(last.filename).name}:{last.lineno}, in {last.name})"


def is_users_file(file: str) -> bool:
    """Whether a source file is neither a library's nor this package's."""
    return not file.startswith((_PACKAGE, "<", *_LIBRARIES))


def meaning(path: Path) -> str:
    """What a Python source says: the same for two that differ in comments or layout alone, or else its bytes."""
    content = path.read_bytes()
    try:
        return ast.dump(ast.parse(content))
    except (SyntaxError, ValueError):
        return repr(content)


def loaded_sources() -> dict[str, str]:
    """File of each loaded module that does not belong to a library: the user's, and this package's own."""
    files = {name: getattr(module, "__file__", None) for name, module in list(sys.modules.items())}
    theirs = {
        name: str(Path(file).resolve())
        for name, file in files.items()
        if file and Path(file).is_absolute() and is_users_file(file)  # a few of torch's have no place
    }
    return {**theirs, "stresstest": _PACKAGE}
