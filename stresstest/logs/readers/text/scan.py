"""One pass over the lines: each goes to the template of its shape."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from stresstest.logs.readers.text.tables import Table, table_of
from stresstest.logs.readers.text.template import Template, shape, template_of
from stresstest.logs.readers.text.tools import KNOWN_LINES

_SHAPES = 20_000
_RECENT = 4
_ALIKE = 6
_WORTH = re.compile(r"\d|nan|inf(?![a-z])", re.I)
_WORDS = re.compile(
    r"loss|epoch|step|iter|train|val|test|eval|lr|rate|norm|perplex|ppl|nll|rmse|mae|mse|learn|bpc|batch|cost|objective"
    r"|objf|^s:|^\s*\[\d|^[\s|]*\d|update|round|entropy|error",
    re.I,
)
_OVERFLOW = re.compile(
    r"overflow.*(?:skip|reduc)|skipping (?:this )?step|gradient overflow|step skipped|skipped step", re.I
)
_RANK = re.compile(
    r"(?:\[(?:rank|default|worker)[ :_]?(?P<rank>\d+)\]:?|(?P<srun>\d{1,4}):"
    r"|\(\w+ (?:rank=\d+, )?pid=(?P<pid>\d+)[^)]*\))\s",
    re.I,
)


@dataclass
class Scan:
    """What a pass over the lines leaves. overflows: how many steps the lines say were skipped."""

    templates: list[Template] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=200))
    overflows: int = 0
    num_lines: int = 0
    ranks: int = 0


def scan(lines: Iterable[str], head: Sequence[str]) -> Scan:
    """Read every line; the head says whether lines begin with a rank."""
    return _Pass(_prefix_of(head)).run(lines)


def _prefix_of(head: Sequence[str]) -> re.Pattern[str] | None:
    """The pattern of ranks before lines, where most of the lines have one."""
    worth = [line for line in head if line.strip()]
    hits = [found for line in worth if (found := _RANK.match(line))]
    plain = [found for found in hits if not found["srun"]]
    if plain and len(plain) * 10 >= len(worth):
        return _RANK
    return _RANK if worth and len(hits) * 2 >= len(worth) and _several(hits, worth) else None


def _several(hits: Sequence[re.Match[str]], worth: Sequence[str]) -> bool:
    """`0: ` before nearly every line is a rank; `0:`, `1:`, `2:` in turn is an index."""
    values = [int(found["srun"] or 0) for found in hits]
    turns = sum(later == earlier + 1 for earlier, later in pairwise(values))
    return turns * 2 < len(values) and len(hits) * 10 >= len(worth) * 9


class _Pass:
    def __init__(self, prefix: re.Pattern[str] | None) -> None:
        self.prefix = prefix
        self.scan = Scan()
        self.shapes: dict[str, list[Template]] = {}
        self.recent: list[Template] = []
        self.place = 0
        self.step_from: tuple[Template, int] | None = None
        self.epoch_from: Template | None = None
        self.context: tuple[float, float] = (float("nan"), float("nan"))
        self.table: Table | None = None
        self.rank_numbers: dict[str, float] = {}

    def run(self, lines: Iterable[str]) -> Scan:
        remember = self.scan.tail.append
        prefix = self.prefix
        recent = self.recent
        rank = float("nan")
        for place, line in enumerate(lines):
            remember(line)
            if prefix is not None:
                line, rank = self._without_rank(line)
            for template in recent:
                found = template.match(line)
                if found is not None:
                    break
            else:
                self.place = place
                slow = self._slow(line)
                if slow is None:
                    continue
                template, found = slow
            self._keep(template, found, place)
            if prefix is not None:
                template.ranks.append(rank)
        self.scan.num_lines = place + 1 if self.scan.tail else 0
        self.scan.ranks = len(self.rank_numbers)
        return self.scan

    def _keep(self, template: Template, found: re.Match[str], place: int) -> None:
        template.add(found.groups(), place)
        if template.inherits:
            step = float("nan") if self.step_from is None else self._last_step()
            epoch = self.epoch_from
            template.steps.append(step)
            template.epochs.append(float("nan") if epoch is None else epoch.values[epoch.epoch_at or 0][-1])
        if template.step_at is not None:
            self.step_from = (template, place)
        if template.epoch_at is not None:
            self.epoch_from = template

    def _last_step(self) -> float:
        assert self.step_from is not None
        template = self.step_from[0]
        return template.values[template.step_at or 0][-1]

    def _without_rank(self, line: str) -> tuple[str, float]:
        assert self.prefix is not None
        found = self.prefix.match(line)
        if found is None:
            return line, float("nan")
        name = found["rank"] or found["srun"] or found["pid"]
        if found["pid"]:
            number = self.rank_numbers.setdefault(name, float(len(self.rank_numbers)))
        else:
            number = self.rank_numbers.setdefault(name, float(name))
        return line[found.end() :], number

    def _slow(self, line: str) -> tuple[Template, re.Match[str]] | None:
        """The template of a line that none of the last few templates fits."""
        if self.table is not None:
            if self.table.add(line, self.place):
                return None
            if self.table.ended:
                self.table = None
        if not _WORTH.search(line):
            self._header(line)
            return None
        form = shape(line)
        known = self.shapes.get(form)
        if known is None:
            known = [] if (made := self._new(line)) is None else [made]
            if len(self.shapes) < _SHAPES:
                self.shapes[form] = known
            if made is None:
                self._header(line)
        found = None
        for template in known:
            found = template.match(line)
            if found is not None:
                break
        else:
            self.scan.overflows += bool(_OVERFLOW.search(line))
            if not known or len(known) >= _ALIKE:
                return None
            # Lines of one shape, of which a number is another's name: a template for each.
            made = self._new(line)
            if made is None:
                return None
            known.append(made)
            template, found = made, made.match(line)
        if _OVERFLOW.search(template.example):
            self.scan.overflows += 1
            return None
        if found is None:
            return None
        self._freshen(template)
        return template, found

    def _freshen(self, template: Template) -> None:
        if template in self.recent:
            return
        self.recent.insert(0, template)
        del self.recent[_RECENT:]

    def _new(self, line: str) -> Template | None:
        for known in KNOWN_LINES:
            if known.pattern.fullmatch(line):
                template = Template(known.fields, known.pattern.fullmatch, line, tool=known.tool)
                self.scan.templates.append(template)
                return template
        if not _WORDS.search(line):
            return None
        made = template_of(line)
        if made is not None:
            self.scan.templates.append(made)
        return made

    def _header(self, line: str) -> None:
        table = table_of(line)
        if table is not None:
            self.table = table
            self.scan.tables.append(table)
