"""A worker's task in a process that stays what it is: what the user's code sets there ends with its cells."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

from stresstest.experiments.training import Group, HoldAhead, MeasureCells, Measured, do_task
from stresstest.process_state import kept_process
from stresstest.runs.worker_process import spoil_process
from stresstest.specs.base import TrainingSpec
from stresstest.specs.kinds import is_user_model
from stresstest.user_code import is_users_file
from stresstest.user_model.user_file import imported

_NAMING = ("model", "batch_fn", "loss_fn", "optimizer_fn", "step_fn")  # settings that may name a file


def do_kept_task(measure: MeasureCells, task: Group | HoldAhead) -> list[Measured]:
    """`do_task`; the user's files are imported before, since what an import sets is meant for all cells."""
    group = task if isinstance(task, Group) else task.group
    import_sources(group.spec)
    if is_user_model(group.spec.model):
        torch.set_num_threads(1)  # whatever the import has set: the driver itself trains with one too
    before = set(threading.enumerate())
    try:
        with kept_process():
            found = do_task(measure, task)
    except BaseException:
        spoil_process()
        raise
    if any(one.cell.status != "done" for one in found) or _threads_stay(before):
        spoil_process()
    return found


def _threads_stay(before: set[threading.Thread]) -> bool:
    """Whether threads of the user's own code still work: they could draw from the generators of a next cell."""
    new = {thread.ident for thread in threading.enumerate() if thread not in before}
    frames = [frame for ident, frame in sys._current_frames().items() if ident in new]
    return any(is_users_file(entry.filename) for frame in frames for entry in traceback.extract_stack(frame))


@contextmanager
def kept_while_planned(spec: TrainingSpec) -> Iterator[None]:
    """What the user's model sets in the driver while it is tried ends with that; what its file sets does not."""
    if not is_user_model(spec.model):
        yield
        return
    import_sources(spec)
    with kept_process():
        yield


def import_sources(spec: TrainingSpec) -> None:
    """Import the files that settings name; what cannot be imported is an error where it is used."""
    if not is_user_model(spec.model) or spec.model.startswith("hf:"):
        return
    for path in (str(getattr(spec, name, "")) for name in _NAMING):
        where = path.rpartition(":")[0]
        if where.endswith(".py"):
            with suppress(Exception):
                imported(where, path)
