"""What the last lines say of how a program ended: notes, never a verdict."""

from __future__ import annotations

import re
from collections.abc import Sequence

_ENDINGS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("out of memory", re.compile(r"out ?of ?memory(?:error)?(?![\w/.])|\boom[- ]?kill", re.I)),
    ("an NCCL failure", re.compile(r"nccl.*(?:error|timeout|timed out|abort|watchdog caught)", re.I)),
    ("a CUDA error", re.compile(r"cuda error|cublas_status|cudnn_status|device-side assert", re.I)),
    ("a stop by the keyboard", re.compile(r"^\s*KeyboardInterrupt")),
    ("a kill from outside", re.compile(r"sigterm|sigkill|slurmstepd: error|due to time limit", re.I)),
    ("a failure", re.compile(r"^(?:\[?\w+[ \]:]*)?Traceback \(most recent call last\)|^\w*Error: |core dumped")),
)


def ending(tail: Sequence[str]) -> str | None:
    """A sentence about the end, with the line that says it; None of an ordinary one."""
    for what, pattern in _ENDINGS:
        said = next((line for line in reversed(tail) if pattern.search(line)), None)
        if said is not None:
            return f'the log ends with {what}: "{said.strip()[:120]}"'
    return None
