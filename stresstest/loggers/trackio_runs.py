"""Trackio: a run for each cell, grouped by the run directory."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from stresstest.loggers.scalars import LoggedCell


class TrackioRuns:
    """A project, in the folder of TRACKIO_DIR, or on the Space of TRACKIO_SPACE_ID."""

    def __init__(self, project: str) -> None:
        self._project = project

    def log(self, cell: LoggedCell) -> None:
        """The history by step, metrics with its last one, settings and outcomes as config."""
        import trackio

        rows = [dict(row) for row in cell.rows] or [{}]
        rows[-1] |= cell.metrics
        with contextlib.redirect_stdout(io.StringIO()):  # stdout has the report, or its JSON and nothing else
            run = trackio.init(
                project=self._project,
                name=f"{cell.name} {cell.key[:8]}",
                group=Path(str(cell.config["run_dir"])).name,
                config={**cell.config, **cell.outcomes},
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
            for step, row in enumerate(rows):
                run.log(row, step=step)
            trackio.finish()


def open_tracker(place: str) -> TrackioRuns:
    """The project is made with its first run."""
    return TrackioRuns(place)
