"""The queue that jobs of Slurm empty."""

from __future__ import annotations

from pathlib import Path

import pytest

from stresstest.runs.executor import Done
from stresstest.runs.slurm import _Queue


def test_a_job_taken_for_lost_and_its_successor_may_answer_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = _Queue(tmp_path / "queue")
    queue.fill(len, ["abc"])
    late = next(queue.take("1"))
    queue.put_back(0)
    successor = next(queue.take("2"))
    move = Path.rename

    def rename(path: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "rename", move)
        queue.answer(successor, Done("abc", 3))  # while the late one has written and not yet moved its answer
        return move(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    queue.answer(late, Done("abc", 3))
    assert [(number, done.answer) for number, done in queue.answers({0})] == [(0, 3)]
    assert sorted(path.suffix for path in queue.folder.iterdir()) == [".done", ".pkl"]
