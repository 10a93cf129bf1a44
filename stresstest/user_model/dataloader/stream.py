"""Batches of a loader by seed and step: what has been drawn is kept in memory, what has not is read in order."""

from __future__ import annotations

import contextlib
import copy
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stresstest.tasks.task import TRAINING, VALIDATION
from stresstest.user_code import UserCodeError, described, is_users_file, user_code
from stresstest.user_model.dataloader.batch_parts import digest_of, size_of
from stresstest.user_model.dataloader.epochs import Epochs, Loader, own_generators

_MOST_BYTES = 1 << 28  # of batches that are kept
_MOST_ALIVE = 8  # orders that are read from at once, each with workers of its own: the rows of a population
_IDLE = 64  # draws after which an order that was not asked for gives its workers and its memory back
_IN_WORKER = re.compile(r"Caught (\w+) in DataLoader worker process (\d+)\.")
_FRAME = re.compile(r'File "([^"]+)", line (\d+), in (\S+)')


@dataclass
class _Order:
    """The batches of one seed and stream: the first ones as they are kept, and where its reading stands."""

    kept: list[Any] = field(default_factory=list)  # from step 0 on
    size: int = 0  # bytes of these
    digests: dict[int, bytes] = field(default_factory=dict)  # of all that were ever drawn, by step
    last: tuple[int, Any] = (-1, None)
    epochs: Epochs | None = None
    at: int = 0  # the step that `epochs` gives next
    used: int = 0  # when it was asked for last

    def stop(self) -> None:
        """End its workers."""
        if self.epochs is not None:
            self.epochs.close()
            self.epochs = None

    def forget(self) -> None:
        """Give its memory back."""
        self.kept, self.size, self.last = [], 0, (-1, None)


class LoaderStream:
    """Batches of a loader by seed and step; see `BatchStream`.

    `seconds` are those that went to batches which were drawn once more, to get at a later one: after a resume, or
    where they do not fit the memory.
    """

    def __init__(self, loader: Any, validation: Any = None) -> None:
        self.held_out = validation is not None
        self.seconds = 0.0
        self._loader = Loader(loader)
        self._validation = Loader(validation) if self.held_out else self._loader
        self._orders: dict[tuple[int, int], _Order] = {}
        self._draws = 0
        self._checked = False

    def draw(self, seed: int, step: int, stream: int) -> Any:
        """The batch; a `UserCodeError` where there is none."""
        order = self._orders.setdefault((seed, stream), _Order())
        self._draws += 1
        order.used = self._draws
        if step < len(order.kept):
            return _copied(order.kept[step])
        if step == order.last[0]:
            return _copied(order.last[1])
        self._make_room(order)
        try:
            return self._read(order, seed, step, stream)
        except BaseException:
            order.stop()
            raise

    def check_repeatable(self) -> None:
        """Two readers of one seed, in turn, draw the same two batches; else a `UserCodeError`."""
        if self._checked:
            return
        for stream in (TRAINING, VALIDATION) if self.held_out else (TRAINING,):
            loader = self._loader if stream == TRAINING else self._validation
            one, other = self._epochs(stream, 0), self._epochs(stream, 0)
            try:
                with _reading(self.named(0, stream)):
                    if digest_of(next(one)) != digest_of(next(other)):
                        raise UserCodeError(_another(loader))
                with _reading(self.named(1, stream)):
                    after = digest_of(next(other))
                    if digest_of(next(one)) != after:
                        raise UserCodeError(_disturbed(loader))
            finally:
                one.close()
                other.close()
        self._checked = True

    def named(self, step: int, stream: int) -> str:
        """A batch in words."""
        return f"batch {step} of {self._words_of(stream)}"

    def words(self) -> str:
        """Where batches come from, in words."""
        count = self._loader.num_workers
        workers = f", {count} worker{'s' if count > 1 else ''}" if count else ""
        return f"the DataLoader{workers}{' and the held-out one' if self.held_out else ''}"

    def description(self) -> Mapping[str, int | str | float]:
        """What a result stores."""
        return {"num_workers": self._loader.num_workers}

    def close(self) -> None:
        """End all workers."""
        for order in self._orders.values():
            order.stop()

    def _loader_of(self, stream: int) -> Loader:
        return self._validation if stream == VALIDATION else self._loader

    def _epochs(self, stream: int, seed: int, first: int = 0) -> Epochs:
        """What reads an order, from an epoch on; the held-out data as if it were training's."""
        held_out = stream == VALIDATION and self.held_out
        return Epochs(self._loader_of(stream), seed, TRAINING if held_out else stream, first)

    def _words_of(self, stream: int) -> str:
        return "the held-out DataLoader" if stream == VALIDATION and self.held_out else "the DataLoader"

    def _read(self, order: _Order, seed: int, step: int, stream: int) -> Any:
        """Read on to a step; where it lies behind, from the start of its epoch, or of all where no length is known."""
        loader = self._loader_of(stream)
        if order.epochs is None or order.at > step:
            order.stop()
            length = loader.known_length
            epoch = step // length if length else 0
            order.epochs, order.at = self._epochs(stream, seed, epoch), epoch * (length or 0)
        started, first = time.perf_counter(), order.at
        for at in range(first, step):
            self._next(order, at, stream)
        if first < step:
            self.seconds += time.perf_counter() - started
        return self._next(order, step, stream)

    def _next(self, order: _Order, at: int, stream: int) -> Any:
        with _reading(self.named(at, stream)):
            assert order.epochs is not None, "whoever reads has begun"
            data = next(order.epochs)
            digest = digest_of(data)
            if order.digests.setdefault(at, digest) != digest:
                raise UserCodeError(_another(self._validation if stream == VALIDATION else self._loader))
            order.at = at + 1
            spare = _copied(data)
        order.last = at, spare
        if at == len(order.kept) and self._has_room(order, size_of(spare)):
            order.kept.append(spare)
            order.size += size_of(spare)
        return data

    def _has_room(self, order: _Order, size: int) -> bool:
        """Whether a batch can be kept too; what was not asked for lately makes room."""
        taken = sum(one.size for one in self._orders.values())
        for one in sorted(self._orders.values(), key=lambda one: one.used):
            if taken + size <= _MOST_BYTES:
                break
            if one is not order and one.used < self._draws - _IDLE:
                taken -= one.size
                one.forget()
        return taken + size <= _MOST_BYTES

    def _make_room(self, order: _Order) -> None:
        """Let few orders be read from at once: what was not asked for lately ends."""
        alive = [one for one in self._orders.values() if one.epochs is not None and one is not order]
        alive.sort(key=lambda one: one.used)
        for place, one in enumerate(alive):
            if one.used < self._draws - _IDLE or len(alive) - place >= _MOST_ALIVE:
                one.stop()


def _another(loader: Loader) -> str:
    where = found[0] if (found := own_generators(loader)) else "its dataset, sampler or collate_fn"
    return (
        f"is another when it is drawn again with the same seed: {where} keeps random numbers of its own; draw from "
        "the global generators of torch, numpy or Python, which are seeded"
    )


def _disturbed(loader: Loader) -> str:
    if own_generators(loader):
        return _another(loader)
    return (
        "is another when the loader is read by two in turn: its dataset or sampler keeps the place it has got to; keep "
        "it in a variable of __iter__, and yield"
    )


@contextlib.contextmanager
def _reading(what: str) -> Iterator[None]:
    """As `user_code`, where a worker's error is told by the line of the user's that raised it there."""
    try:
        with user_code(what):
            yield
    except UserCodeError as error:
        said = _said_in_worker(error.text)
        line = f"raised {said}" if said else error.line.removeprefix(f"{what} ")
        raise UserCodeError(f"{what} {line}", error.text) from None


def _said_in_worker(text: str) -> str | None:
    """Type, message and place of what a worker raised, out of the traceback that it sent."""
    caught = _IN_WORKER.search(text)
    if caught is None:
        return None
    kind, worker = caught.groups()
    theirs = text[caught.end() :]
    lines = [line.strip() for line in theirs.splitlines() if line.strip()]
    message = next((line for line in reversed(lines) if line.startswith((f"{kind}:", kind))), kind)[:300]
    frames = [frame for frame in _FRAME.findall(theirs) if is_users_file(frame[0])]
    place = f"{Path(frames[-1][0]).name}:{frames[-1][1]}, in {frames[-1][2]}, " if frames else ""
    return f"{message} ({place}worker {worker})"


def _copied(data: Any) -> Any:
    """The caller's own, who may change it; in memory of this process alone where a worker has shared its."""
    try:
        return copy.deepcopy(data)
    except Exception as error:
        raise UserCodeError(
            f"cannot be copied ({described(error)}), so that a model could change what the next one reads; let "
            "collate_fn return tensors, in tuples, dicts or dataclasses"
        ) from None
