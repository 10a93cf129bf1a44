"""Holds are lent to other workers only where they have the same bits by themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from stresstest.engine import native
from stresstest.experiments import cells
from stresstest.experiments.lr_range.measure import plan
from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.runs.executor import Hooks, Local
from stresstest.runs.settings import RunSettings
from stresstest.runs.store import open_run
from stresstest.specs.profiles import make_spec


class SeenError(Exception):
    """The tasks are known."""


@pytest.mark.parametrize(
    ("kernel", "seeds", "lent"), [("torch", "0,1", False), ("torch", "0,", True), ("native", "0,1", True)]
)
def test_those_of_several_seeds_that_torch_trains_at_once_are_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kernel: Any, seeds: str, lent: bool
) -> None:
    if kernel == "native" and not native.ready():
        kernel, lent = "torch", False  # as there
    seen: list[bool] = []

    def run(self: Local, work: Any, tasks: Sequence[Any], hooks: Hooks = Hooks()) -> Iterator[Any]:
        seen.extend(task.shared is not None for task in tasks)
        raise SeenError
        yield

    monkeypatch.setattr(Local, "run", run)
    small = {"model": "mlp", "variant": "rezero,pre-ln", "depth": 2, "width": 5, "batch_size": 4, "device": "cpu"}
    planned = plan(make_spec(LrRangeSpec, "quick", small | {"kernel": kernel, "seeds": seeds}))
    about = {"identity": planned.identity, "command": "", "again": ""}
    with open_run(tmp_path, about) as store, pytest.raises(SeenError):
        cells.run(planned, store, RunSettings(jobs=2))
    assert seen == [lent, lent]
