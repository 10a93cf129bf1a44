"""SIGINT and SIGTERM: the first asks a run to stop, the second ends it. Ctrl-Z stops its workers too."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from stresstest.errors import ExitCode, InterruptedRunError, StoppedError

SIGNALS = (signal.SIGINT, signal.SIGTERM)

_requested = False


@contextlib.contextmanager
def signals_blocked() -> Iterator[None]:
    """What is started here, threads and processes, leaves the signals to the main thread."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def stop_if_requested() -> None:
    """Raise `StoppedError` in a process that was asked to stop: for work that can be taken up again."""
    if _requested:
        raise StoppedError("asked to stop")


def listen(number: int = 0, frame: FrameType | None = None) -> None:
    """The handler of a worker: what it does can be taken up again where it looks."""
    global _requested
    _requested = True


def pause(number: int, frame: FrameType | None) -> None:
    """Stop until SIGCONT, with the workers, whose groups a terminal does not stop."""
    _tell_workers(signal.SIGSTOP)
    os.kill(os.getpid(), signal.SIGSTOP)
    _tell_workers(signal.SIGCONT)


def _tell_workers(number: signal.Signals) -> None:
    for child in multiprocessing.active_children():
        if child.pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, number)


class Stopping:
    """The signals that came, as the driver knows them.

    What a handler raises is lost inside a destructor or a callback of the garbage collector, so that
    whoever waits also looks here.
    """

    def __init__(self, on_stop: Callable[[], None]) -> None:
        self.code: ExitCode | None = None
        self._insisted = False
        self._on_stop = on_stop

    def take(self, number: int, frame: FrameType | None) -> None:
        """The driver's handler."""
        self._insisted = self.code is not None
        self.code = ExitCode.INTERRUPTED if number == signal.SIGINT else ExitCode.TERMINATED
        listen()
        if self._insisted:
            self.check()
        self._on_stop()

    def check(self) -> None:
        """Raise where a second signal came."""
        if self._insisted:
            raise self.error

    @property
    def heard_here(self) -> bool:
        """Whether Ctrl-C still comes to this handler: the user's code may have set another one."""
        return signal.getsignal(signal.SIGINT) in (self.take, listen)

    @property
    def error(self) -> InterruptedRunError:
        """What the run ends with."""
        assert self.code is not None, "a signal came"
        return InterruptedRunError("interrupted", self.code)


@contextlib.contextmanager
def stopping(on_stop: Callable[[], None]) -> Iterator[Stopping]:
    """Take SIGINT and SIGTERM until the end of the block; then they mean what they meant."""
    global _requested
    found = Stopping(on_stop)
    if threading.current_thread() is not threading.main_thread():
        yield found  # Python delivers signals to the main thread only
        return
    handlers = dict.fromkeys(SIGNALS, found.take)
    if signal.getsignal(signal.SIGTSTP) == signal.SIG_DFL:  # and not ignored, as under some shells
        handlers[signal.SIGTSTP] = pause
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield found
    finally:
        _requested = False
        for number, handler in before.items():
            signal.signal(number, handler)
