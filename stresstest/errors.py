"""What can go wrong, in the user's words, and the exit code each kind ends with."""

from __future__ import annotations

import os
from enum import IntEnum
from pathlib import Path


class ExitCode(IntEnum):
    """The public exit codes of every command."""

    OK = 0
    INTERNAL = 1
    USAGE = 2
    NO_VERDICT = 3
    MODEL_FAILED = 4
    NOTHING_TO_RUN = 5
    GATE_CROSSED = 99
    INTERRUPTED = 130
    TERMINATED = 143


class StresstestError(Exception):
    """Base of the errors that the command line turns into one line and an exit code."""

    exit_code = ExitCode.INTERNAL


class ConfigError(StresstestError, ValueError):
    """A wrong setting, found before the first training step: what, where, and what to do."""

    exit_code = ExitCode.USAGE


class ModelError(ConfigError):
    """The user's model cannot be built or tried: found before the first training step."""


class TooLargeError(ModelError):
    """A model that does not fit the memory; `brief` is what it needs, in a few words."""

    def __init__(self, message: str, brief: str = "it does not fit the memory") -> None:
        super().__init__(message)
        self.brief = brief


class StorageError(StresstestError):
    """The disk failed during a run; what was finished before is on it."""


class StoppedError(StresstestError):
    """Work that was asked to stop and can be taken up again."""


class InterruptedReadingError(StresstestError):
    """The user stopped a command that only reads."""

    exit_code = ExitCode.INTERRUPTED


class InterruptedRunError(StresstestError):
    """The user or the system stopped the run; what had finished is saved."""

    def __init__(self, message: str, exit_code: ExitCode) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def path_given(value: object, name: str, instead: str) -> Path:
    """What was given as a path; what is none is a `ConfigError` that says what to give `instead`."""
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str):
        raise ConfigError(f"{name} is {type(value).__name__}; give {instead}")
    return Path(value)
