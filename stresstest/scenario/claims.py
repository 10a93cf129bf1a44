"""Claims: statements about a result that come out as seen, not seen or undecided, with the numbers.

OPERAND [/ OPERAND | - OPERAND] COMPARISON NUMBER, with OPERAND as EXPERIMENT.METRIC{KEY=VALUE,...}

    grid.validation_loss{variant=post-ln,warmup_steps=0} - grid.validation_loss{variant=pre-ln,warmup_steps=0} > 0.5

Two operands are compared seed by seed. Along a path the same is said of several sizes: `$NAME` stands for each of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from stresstest.errors import ConfigError
from stresstest.scenario.thresholds import parse_key

_EXPRESSION = re.compile(
    r"(?P<left>[^{}]+?(?:\{[^{}]*\})?)\s*(?:(?<=[\s}])(?P<how>[/-])\s+(?P<right>[^{}]+?(?:\{[^{}]*\})?))?\s*"
    r"(?P<operator>>=|<=|>|<)\s*(?P<limit>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)"
)


@dataclass(frozen=True)
class Operand:
    """A metric of one row of an experiment's result."""

    experiment: str
    metric: str
    selector: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Statement:
    """One comparison; `at` is its place along a path, such as `depth 64`."""

    text: str
    left: Operand
    how: str  # "/", "-", or "" of one operand
    right: Operand | None
    operator: str
    limit: float
    at: str = ""

    @property
    def experiments(self) -> set[str]:
        """The experiments that it is about."""
        return {operand.experiment for operand in (self.left, self.right) if operand is not None}


@dataclass(frozen=True)
class Cause:
    """Why a claim does not hold: in words, and where that was tested, as a comparison."""

    says: str
    statement: Statement | None = None


@dataclass(frozen=True)
class Claim:
    """What is said, in words and as comparisons: one, or one for each place along a path, in the path's order.

    published: the paper's own figure, where one is verified. headline: one of the few that `--quick` runs.
    """

    says: str
    statements: tuple[Statement, ...]
    published: str = ""
    because: Cause | None = None
    headline: bool = False

    @property
    def tested(self) -> Iterator[Statement]:
        """All comparisons, that of the cause last."""
        yield from self.statements
        if self.because is not None and self.because.statement is not None:
            yield self.because.statement

    @property
    def text(self) -> str:
        """The comparisons as they are written."""
        return "; ".join(statement.text for statement in self.statements)


def parse_claim(
    says: str,
    holds: str,
    along: Mapping[str, Sequence[str]] | None = None,
    published: str = "",
    because: Cause | None = None,
    headline: bool = False,
) -> Claim:
    """One claim; what is wrong with it is a `ConfigError`. `along`: a name and the values that `$NAME` stands for."""
    statements = [parse_statement(holds)] if not along else []
    for name, values in (along or {}).items():
        if f"${name}" not in holds:
            raise ConfigError(f"'{holds}' does not contain ${name}, which stands for the values of along; write it in")
        for value in values:
            made = parse_statement(holds.replace(f"${name}", value))
            statements.append(replace(made, at=f"{name.replace('_', ' ')} {value}"))
    return Claim(says, tuple(statements), published, because, headline)


def parse_statement(text: str) -> Statement:
    """One comparison; what is wrong with it is a `ConfigError`."""
    found = _EXPRESSION.fullmatch(" ".join(text.split()))
    if found is None:
        raise ConfigError(
            f"'{text}' is not a claim; write e.g. NAME.max_stable_lr{{variant=a}} / NAME.max_stable_lr{{variant=b}} > 2"
        )
    right = None if found["right"] is None else _operand(found["right"])
    return Statement(text, _operand(found["left"]), found["how"] or "", right, found["operator"], float(found["limit"]))


def _operand(text: str) -> Operand:
    experiment, metric, selector = parse_key(text)
    if not experiment:
        raise ConfigError(f"'{text}' does not name its experiment; write EXPERIMENT.{text}")
    return Operand(experiment, metric, selector)
