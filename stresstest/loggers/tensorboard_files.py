"""TensorBoard: event files by torch's writer, in a folder for each cell."""

from __future__ import annotations

import re
from pathlib import Path

from stresstest.errors import ConfigError
from stresstest.loggers.scalars import LoggedCell


class EventFiles:
    """A folder of runs, as `tensorboard --logdir` takes it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def log(self, cell: LoggedCell) -> None:
        """Scalars by step, metrics at the last one, settings and metrics for the HParams tab, outcomes as text."""
        from torch.utils.tensorboard import SummaryWriter

        folder = self._folder / folder_name(cell)
        for before in folder.glob("events.out.tfevents.*"):
            before.unlink()  # of a run that was killed in between, or is trained anew: two would be one zigzag
        with SummaryWriter(str(folder)) as writer:
            for step, row in enumerate(cell.rows):
                for name, value in row.items():
                    writer.add_scalar(name, value, step)
            for name, outcome in cell.outcomes.items():
                writer.add_text(name, outcome)
            metrics = {f"metrics/{name}": value for name, value in cell.metrics.items()}
            writer.add_hparams(dict(cell.config), metrics, run_name=".", global_step=max(0, len(cell.rows) - 1))


def open_tracker(place: str) -> EventFiles:
    """Make the folder; one that cannot be written is a `ConfigError`."""
    folder = Path(place)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--log tensorboard:{place} cannot be written ({error.strerror}); give another DIR") from None
    return EventFiles(folder)


def folder_name(cell: LoggedCell) -> str:
    """A name that every file system takes, with the cell's key, as two names may differ in other signs alone."""
    return f"{re.sub(r'[^A-Za-z0-9.=_-]+', '-', cell.name).strip('-.')[:100]}-{cell.key[:8]}"
