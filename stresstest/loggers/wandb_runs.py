"""Weights & Biases: a run for each cell, grouped by the run directory."""

from __future__ import annotations

from pathlib import Path

from stresstest.loggers.scalars import LoggedCell


class WandbRuns:
    """A project; where runs go, and whether at once, is said by wandb's own environment and login."""

    def __init__(self, project: str) -> None:
        self._project = project

    def log(self, cell: LoggedCell) -> None:
        """The history by step, metrics and outcomes in the summary, settings as config."""
        import wandb

        run = wandb.init(
            project=self._project,
            name=cell.name,
            group=Path(str(cell.config["run_dir"])).name,
            config=dict(cell.config),
            reinit="create_new",  # a run of the user's own stays as it is
            settings=wandb.Settings(console="off", silent=True),
        )
        try:
            for step, row in enumerate(cell.rows):
                run.log(dict(row), step=step)
            run.summary.update({**cell.metrics, **cell.outcomes})
        finally:
            run.finish()


def open_tracker(place: str) -> WandbRuns:
    """Log in, unless wandb is offline; raises what wandb raises where that is not possible."""
    import wandb

    if wandb.setup().settings.mode in (None, "online", "shared"):
        wandb.login()
    return WandbRuns(place)
