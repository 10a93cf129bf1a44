"""Power cuts: writes lost, torn or out of order since the last fsync, replayed from a log of the store's own calls.

    python -m tests.torture.power_cuts [--count 10000] [--seed 0]

A run is stored once and its calls are recorded. For each try a cut is drawn, and a disk is made up as POSIX allows it:
what was synced is there; of later writes each 512-byte sector is there or holds zeros; a new or renamed file may have
its new name, or not, unless its folder was synced. Then the run is opened: every cell whose storing had ended before
the cut is there and unchanged, and going on gives all cells.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from stresstest.runs.directory import stored_status
from tests.torture.calls import Call, watched
from tests.torture.stored import MOST, Tally, arguments, faults, go_on, key_of

_SECTOR = 512  # bytes that a disk writes at once or not at all


class _Disk:
    """The files of a folder as the disk may have them after a cut."""

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw
        self._contents: list[bytearray] = []  # of each file, as written
        self._durable: list[bytes] = []  # of each, at its last sync
        self._now: dict[str, int] = {}  # the name of each file, as the process sees it
        self._synced: dict[str, int] = {}  # the names that are surely on the disk
        self._folders: list[str] = []

    def make(self, call: Call) -> None:
        """One call of the log."""
        if call.name == "open" and call.path not in self._now:
            self._contents.append(bytearray())
            self._durable.append(b"")
            self._now[call.path] = len(self._contents) - 1
        elif call.name == "open" and call.data.startswith(b"w"):
            del self._contents[self._now[call.path]][:]
        elif call.name == "write":
            content = self._contents[self._now[call.path]]
            content.extend(b"\0" * (call.offset - len(content)))
            content[call.offset : call.offset + len(call.data)] = call.data
        elif call.name == "truncate":
            del self._contents[self._now[call.path]][call.size :]
        elif call.name == "rename":
            self._now[call.other] = self._now.pop(call.path)
        elif call.name == "unlink":
            self._now.pop(call.path, None)
        elif call.name == "mkdir":
            self._folders.append(call.path)
        elif call.name == "fsync" and call.path in self._now:
            place = self._now[call.path]
            self._durable[place] = bytes(self._contents[place])
        elif call.name == "fsync":
            self._sync_names(call.path)

    def _sync_names(self, folder: str) -> None:
        inside = {name: place for name, place in self._now.items() if str(Path(name).parent) == folder}
        self._synced = {name: at for name, at in self._synced.items() if str(Path(name).parent) != folder} | inside

    def write(self, source: Path, target: Path) -> None:
        """Make up the folder after a cut."""
        for folder in (str(source), *self._folders):
            (target / Path(folder).relative_to(source)).mkdir(parents=True, exist_ok=True)
        names = dict(self._synced)
        for name in sorted({*self._synced, *self._now}):
            if self._draw.random() < 0.5:  # the change of this name has reached the disk
                names.pop(name, None)
                if name in self._now:
                    names[name] = self._now[name]
        for name, place in names.items():
            (target / Path(name).relative_to(source)).write_bytes(self._torn(place))

    def _torn(self, place: int) -> bytes:
        """A file's content, of which later writes have reached the disk in part."""
        durable, written = self._durable[place], bytes(self._contents[place])
        length = self._draw.choice((len(durable), len(written), self._draw.randint(0, len(written))))
        length = max(length, min(len(durable), len(written)))
        sectors = []
        for start in range(0, length, _SECTOR):
            end = min(length, start + _SECTOR)
            old = durable[start:end].ljust(end - start, b"\0")
            sectors.append(written[start:end].ljust(end - start, b"\0") if self._draw.random() < 0.5 else old)
        return b"".join(sectors)


def recorded(path: Path) -> tuple[list[Call], dict[int, int]]:
    """The calls of a whole run that goes on twice, and after how many of them each cell was acknowledged."""
    calls: list[Call] = []
    after: dict[int, int] = {}
    with watched(path, calls.append):
        go_on(path, lambda number: after.setdefault(number, len(calls)), MOST // 2)
        go_on(path, lambda number: after.setdefault(number, len(calls)))
    return calls, after


def power_cuts(count: int, seed: int) -> Tally:
    """So many cuts."""
    draw, tally = random.Random(seed), Tally("power cuts: cells lost, doubled or changed")
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "source" / "run", Path(folder) / "target" / "run"
        source.parent.mkdir()
        calls, after = recorded(source)
        for _ in range(count):
            cut = draw.randrange(len(calls) + 1)
            wrong = _cut(calls[:cut], {number for number, at in after.items() if at <= cut}, source, target, draw)
            tally.tries += 1
            tally.wrong += [f"cut after call {cut}: {fault}" for fault in wrong]
            tally.note("cells acknowledged", sum(at <= cut for at in after.values()))
    return tally


def _cut(calls: Sequence[Call], acknowledged: set[int], source: Path, target: Path, draw: random.Random) -> list[str]:
    """What is wrong after one cut."""
    shutil.rmtree(target.parent, ignore_errors=True)
    disk = _Disk(draw)
    for call in calls:
        disk.make(call)
    disk.write(source, target)
    wrong = [fault for fault in faults(target, acknowledged) if not fault.startswith("told")]
    if draw.random() < 0.02:  # it takes a while
        go_on(target, lambda number: None)
        wrong += [f"after going on: {fault}" for fault in faults(target, set(range(MOST)))]
        if set(stored_status(target)) != {key_of(number) for number in range(MOST)}:
            wrong.append("after going on not all cells are there")
    return wrong


if __name__ == "__main__":
    given = arguments(__doc__, 10_000)
    sys.exit(power_cuts(given.count, given.seed).end())
