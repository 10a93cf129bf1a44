"""The answer in lines of text, the same in a terminal and in Python: a mark, the name, what to do."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from stresstest.reports.document import Tone, Verdict

MARKS: Mapping[Tone, str] = {"": "-", "good": "+", "mixed": "?", "dull": "-", "bad": "x"}  # tells the tone uncoloured
_LONGEST_NAME = 24  # characters; a longer name stands above the others' column


def verdict_lines(verdicts: Sequence[Verdict], width: int) -> list[tuple[Verdict, list[str]]]:
    """Each verdict with its lines, answers under each other, wrapped at a width in characters."""
    names = [len(verdict.subject) for verdict in verdicts if len(verdict.subject) <= _LONGEST_NAME]
    column = max(names, default=0)
    return [(verdict, _lines(verdict, column, width)) for verdict in verdicts]


def _lines(verdict: Verdict, column: int, width: int) -> list[str]:
    above = len(verdict.subject) > _LONGEST_NAME
    name = f"{verdict.subject:<{column}}  " if verdict.subject and not above else ""
    mark, indent = f"{MARKS[verdict.tone]} ", " " * (4 + column if verdict.subject else 2)
    lines = textwrap.wrap(
        verdict.answer,
        width,
        initial_indent=indent if above else mark + name,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [mark + verdict.subject, *lines] if above else lines
