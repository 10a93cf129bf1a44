"""Something that happens again and again while something else is done."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def meanwhile(deed: Callable[[], object], pause: Callable[[], float]) -> Iterator[None]:
    """Do it in a thread of its own, each time after a pause of so many seconds."""
    over = threading.Event()

    def do() -> None:
        while not over.wait(pause()):
            deed()

    thread = threading.Thread(target=do)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
