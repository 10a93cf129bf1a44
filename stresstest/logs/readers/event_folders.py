"""Which event files are of one run, and what their tags are called in it.

TensorBoard takes each folder for a run. Keras writes two, `train` and `validation`; `add_scalars("loss", {"a": ...})`
one for each line, `loss_a` (torch) or `loss/a` (tensorboardX), with the tag `loss` in all of them; and a Trainer puts
its settings into one below.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from stresstest.logs.files import LogFile
from stresstest.logs.readers.event import Event, read_event
from stresstest.logs.readers.tfrecords import batches

_SPLITS = frozenset({"train", "validation"})


def run_folder(file: LogFile, folders: Collection[Path]) -> Path:
    """The folder of the run that a file belongs to; `folders` are all that hold event files."""
    own = file.path.parent
    if own.name in _SPLITS and any(own.parent / other in folders for other in _SPLITS - {own.name}):
        return own.parent
    above = next((parent for parent in (own.parent, own.parent.parent) if parent in folders), None)
    if above is None:
        return own
    tags = _first_tags(file)
    line = own.relative_to(above).as_posix()
    return above if not tags or (len(tags) == 1 and _line_of(line, tags[0]) is not None) else own


def name_in_run(tag: str, file: LogFile, folder: Path) -> str:
    """What a file's tag is called among those of its run."""
    below = file.path.absolute().parent.relative_to(folder).as_posix()
    if below == ".":
        return tag
    line = _line_of(below, tag)
    return f"{below}/{tag}" if line is None else f"{tag}/{line}"


def common_folder(files: Sequence[LogFile]) -> Path:
    """The folder above them all."""
    return Path(os.path.commonpath([file.path.absolute().parent for file in files]))


def in_order(files: Sequence[LogFile]) -> list[LogFile]:
    """Folder by folder, in each by the time of the first event."""
    root = common_folder(files)
    return sorted(files, key=lambda file: (_depth(file, root), str(file.path.parent), _began(file), file.path.name))


def _depth(file: LogFile, root: Path) -> int:
    return len(file.path.absolute().parent.parts) - len(root.parts)


def _line_of(folder: str, tag: str) -> str | None:
    """`a` of the folder `loss_a` or `loss/a` and the tag `loss`."""
    for start in (f"{tag.replace('/', '_')}_", f"{tag}/", f"{tag.replace('/', '_')}/"):
        if folder.startswith(start):
            return folder.removeprefix(start)
    return None


def _began(file: LogFile) -> float:
    for event, record in _events(file):
        start, stop = event.time
        return float(np.frombuffer(record[start:stop], "<f8")[0]) if stop > start else 0.0
    return 0.0


def _first_tags(file: LogFile) -> list[str]:
    """The tags of the scalars at its beginning."""
    return list(dict.fromkeys(scalar.tag for event, _ in _events(file) for scalar in event.scalars))


def _events(file: LogFile) -> list[tuple[Event, bytes]]:
    found: list[tuple[Event, bytes]] = []
    batch = next(iter(batches(file.path)))
    for start, length in zip(batch.starts[:200], batch.lengths[:200], strict=True):
        record = batch.buffer[start : start + length].tobytes()
        try:
            found.append((read_event(record), record))
        except ValueError:
            break
    return found
