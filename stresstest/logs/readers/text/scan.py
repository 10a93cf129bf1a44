"""One pass over the lines: each goes to the template of its shape."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from stresstest.logs.readers.text.tables import Table, table_of
from stresstest.logs.readers.text.template import Template, shape, template_of
from stresstest.logs.readers.text.tools import KNOWN_LINES

_SHAPES = 20_000
_RECENT = 4
_LONGEST = 1 << 14  # characters of a line that are looked at: patterns search the whole of it
_ALIKE = 6
_NOTHING = float("nan")
_WORTH = re.compile(r"\d|nan|inf(?![a-z])", re.I)
_WORDS = re.compile(
    r"loss|epoch|step|iter|train|val|test|eval|lr|rate|norm|perplex|ppl|nll|rmse|mae|mse|learn|bpc|batch|cost|objective"
    r"|objf|^s:|^\s*\[\d|^[\s|]*\d|update|round|entropy|error|acc|score|metric|reward",
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
    """Ranks before nearly every line come again and again; an index comes once."""
    values = [found["srun"] for found in hits]
    return 2 * len(set(values)) <= len(values) and len(hits) * 10 >= len(worth) * 9


class _Pass:
    def __init__(self, prefix: re.Pattern[str] | None) -> None:
        self.prefix = prefix
        self.scan = Scan()
        self.shapes: dict[str, list[Template]] = {}
        self.recent: list[Template] = []
        self.place = 0
        self.step_from: Template | None = None
        self.epoch_from: Template | None = None
        self.rank = _NOTHING
        self.table: Table | None = None
        self.rank_numbers: dict[str, float] = {}

    def run(self, lines: Iterable[str]) -> Scan:
        remember = self.scan.tail.append
        prefix = self.prefix
        recent = self.recent
        for place, line in enumerate(lines):
            if len(line) > _LONGEST:
                line = line[:_LONGEST]
            remember(line)
            if prefix is not None:
                line = self._without_rank(line)
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
            beside = self._above() if template.inherits else ()
            template.add(found.groups(), beside if prefix is None else (*beside, self.rank), place)
            if template.step_at is not None:
                self.step_from = template
            if template.epoch_at is not None:
                self.epoch_from = template
        self.scan.num_lines = place + 1 if self.scan.tail else 0
        return self.scan

    def _above(self) -> tuple[float, float]:
        """Step and epoch of the lines above; NaN where none has named one."""
        step, epoch = self.step_from, self.epoch_from
        return (
            _NOTHING if step is None else step.last[step.step_at or 0],
            _NOTHING if epoch is None else epoch.last[epoch.epoch_at or 0],
        )

    def _without_rank(self, line: str) -> str:
        assert self.prefix is not None
        found = self.prefix.match(line)
        if found is None:
            self.rank = _NOTHING
            return line
        name = found["rank"] or found["srun"] or found["pid"]
        number = float(len(self.rank_numbers)) if found["pid"] else float(name)
        self.rank = self.rank_numbers.setdefault(name, number)
        return line[found.end() :]

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
