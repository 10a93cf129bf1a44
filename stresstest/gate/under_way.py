"""The checks that go on now: each says in a file how far it is."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from stresstest.results.progress import Progress

CHECKS = Path(".stresstest/checks")
_FRESH_SECONDS = 20.0  # since it was written: of a check that was killed nobody writes it again


def progress_file(scenario: str) -> Path:
    """Where the check of a scenario says it."""
    return CHECKS.resolve() / f"{scenario}.progress.json"


def checks_under_way() -> dict[Path, Progress]:
    """How far each check is that runs in this folder, by the file that says it."""
    found = {}
    for path in sorted(CHECKS.glob("*.progress.json")):
        with contextlib.suppress(OSError):
            fresh = time.time() - path.stat().st_mtime < _FRESH_SECONDS
            if fresh and (progress := Progress.from_json(path.read_text())):
                found[path] = progress
    return found
