"""Claims: statements about a result that come out as seen, not seen or undecided, with the numbers.

OPERAND [/ OPERAND | - OPERAND] COMPARISON NUMBER, with OPERAND as EXPERIMENT.METRIC{KEY=VALUE,...}

    grid.validation_loss{variant=post-ln,warmup_steps=0} - grid.validation_loss{variant=pre-ln,warmup_steps=0} > 0.5

Two operands are compared seed by seed. A claim is seen where the whole interval of the median over seeds is what it
says, not seen where none of it is, and undecided otherwise, or where fewer than three seeds have a value.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

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
class Claim:
    """What is said, in words and as an expression; `published`: the paper's own figure, where one is verified."""

    says: str
    text: str
    left: Operand
    how: str  # "/", "-", or "" of one operand
    right: Operand | None
    operator: str
    limit: float
    published: str = ""
    because: str = ""  # why it is not seen where it is not, if that was found


def parse_claim(says: str, text: str, published: str = "", because: str = "") -> Claim:
    """One claim; what is wrong with it is a `ConfigError`."""
    found = _EXPRESSION.fullmatch(" ".join(text.split()))
    if found is None:
        raise ConfigError(
            f"'{text}' is not a claim; write e.g. NAME.max_stable_lr{{variant=a}} / NAME.max_stable_lr{{variant=b}} > 2"
        )
    right = None if found["right"] is None else _operand(found["right"])
    left = _operand(found["left"])
    how = found["how"] or ""
    return Claim(says, text, left, how, right, found["operator"], float(found["limit"]), published, because)


def _operand(text: str) -> Operand:
    experiment, metric, selector = parse_key(text)
    if not experiment:
        raise ConfigError(f"'{text}' does not name its experiment; write EXPERIMENT.{text}")
    return Operand(experiment, metric, selector)
