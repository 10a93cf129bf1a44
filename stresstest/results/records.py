"""What was found: records that are stored as JSON, and the statistics over seeds.

Learning rates are compared in log2 (octaves); a value that is only known to lie beyond the range
is a bracket with one open side, never a number.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from stresstest.errors import ConfigError
from stresstest.results.bracket import Bracket as Bracket
from stresstest.results.bracket import Record as Record
from stresstest.results.bracket import finite as finite
from stresstest.results.metrics import METRICS
from stresstest.results.outcome import HARMLESS as HARMLESS
from stresstest.results.outcome import TRAINED as TRAINED

RESULT_SCHEMA = "stresstest.result/1"

Status = Literal["done", "crashed", "oom", "timeout", "interrupted"]


class Cell(Record):
    """One finished cell: one experiment at one point for one seed."""

    key: str
    variant: str
    depth: int
    seed: int
    status: Status
    error: str = ""
    seconds: float = 0.0
    probe_seconds: float = 0.0  # of these, what reading the replica while it trained took
    metrics: dict[str, Bracket] = {}
    ramp: dict[str, Any] = {}
    hold: list[dict[str, Any]] = []
    theory: dict[str, Any] = {}  # what critical and predicted LR rest on, and what they took
    why: dict[str, Any] = {}  # why the run that broke did: suspects, what moved first, how often it does anyway
    point: dict[str, Any] = {}  # what the experiment varies beside variant, depth and seed
    recipe: dict[str, Any] = {}  # the run of the fixed recipe
    signal: dict[str, Any] = {}  # signal propagation at initialisation
    signals: dict[int, dict[str, Any]] = {}  # and before these steps of the fixed recipe


class MetricSummary(Record):
    """A metric over seeds.

    median is of the lower sides; low and high bound the median with the stated coverage;
    censored counts seeds whose value lies beyond the range that was looked at.
    """

    median: Bracket
    low: float | None
    high: float | None
    coverage: float
    n: int
    censored: int
    per_seed: dict[str, Bracket]


class SummaryRow(Record):
    """One variant at one depth: its metrics, and what became of its replicas.

    `outcomes` are those of the fixed recipe where that was asked for, or else of the ramp.
    """

    variant: str
    depth: int
    optimizer: str
    metrics: dict[str, MetricSummary]
    outcomes: dict[str, int]
    times_weakest: MetricSummary | None = None
    point: dict[str, Any] = {}  # what the experiment varies beside variant, depth and optimizer
    curve: list[tuple[float, float]] = []


class MapPlace(Record):
    """One warm-up at one peak LR: by seed, what became of the run and its loss at the end.

    The loss is on held-out data, and at most that at initialisation: also where the run broke.
    """

    warmup_steps: int
    peak_lr: float
    outcomes: dict[str, str]
    losses: dict[str, float]

    @property
    def loss(self) -> float:
        """The median over seeds."""
        return statistics.median(self.losses.values())

    @property
    def num_trained(self) -> int:
        """How many seeds trained."""
        return sum(outcome in TRAINED for outcome in self.outcomes.values())


class TrendRow(Record):
    """One variant over all that an experiment varies: the depths of a sweep, the warm-ups and LRs of a map.

    min_warmup: by peak LR, the fewest steps of warm-up that train.
    """

    variant: str
    optimizer: str
    metrics: dict[str, MetricSummary]
    point: dict[str, Any] = {}
    map: list[MapPlace] = []
    min_warmup: dict[str, MetricSummary] = {}


class SearchRow(Record):
    """A variant's best setting, out of how many; those of the search in the order of their learning rates.

    importance: shares of the variance of the loss over the trials by parameter (fANOVA), where it was taken.
    """

    variant: str
    best: dict[str, Any]
    loss: MetricSummary
    settings: int
    trials: int
    trained: int
    importance: dict[str, float] = {}
    places: list[dict[str, Any]] = []


class Finding(Record):
    """A sentence about the result, with its remedy; `kind` is stable for machines."""

    kind: str
    subject: str
    text: str


class Result(Record):
    """A whole result, as `result.json` holds it."""

    schema_: str
    command: str
    reproduce: str
    spec: dict[str, Any]
    rules: dict[str, Any]
    environment: dict[str, Any]
    data: dict[str, Any]
    cells: list[Cell]
    summary: list[SummaryRow]
    trends: list[TrendRow] = []
    searches: list[SearchRow] = []
    findings: list[Finding]
    verdicts: list[dict[str, Any]] = []

    def to_json(self) -> str:
        """The text of `result.json`."""
        return self.model_dump_json(indent=1).replace('"schema_"', '"schema"', 1) + "\n"


def load_result(path: Path) -> Result:
    """Read a `result.json`; what is truncated, foreign or of another schema is a `ConfigError`."""
    import json

    try:
        stored = json.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"no result at {path}; give a run directory or a result.json") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is not a readable result ({error}); it was left as it is") from None
    schema = stored.get("schema") if isinstance(stored, dict) else None
    if schema != RESULT_SCHEMA:
        raise ConfigError(f"{path} has schema {schema!r}, this version reads {RESULT_SCHEMA!r}; it was left as it is")
    try:
        return Result.model_validate({"schema_": stored.pop("schema"), **stored})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{path} does not fit its schema at {where}: {first['msg']}; it was left as it is") from None


def summarise(metric: str, per_seed: Mapping[int, Bracket]) -> MetricSummary:
    """Median over seeds with a distribution-free interval."""
    lows = [_side(b.low, -math.inf) for b in per_seed.values()]
    highs = [_side(b.high, math.inf) for b in per_seed.values()]
    scale = METRICS[metric].scale
    rank, coverage = interval_rank(len(lows))
    return MetricSummary(
        median=Bracket(low=finite(_median(lows, scale)), high=finite(_median(highs, scale))),
        low=finite(sorted(lows)[rank - 1]),
        high=finite(sorted(highs)[-rank]),
        coverage=coverage,
        n=len(lows),
        censored=sum(b.low is None or b.high is None for b in per_seed.values()),
        per_seed={str(seed): bracket for seed, bracket in per_seed.items()},
    )


def interval_rank(n: int, wanted: float = 0.9) -> tuple[int, float]:
    """Which order statistics bound the median, and how often: (k, coverage) for [x_(k), x_(n+1-k)].

    Exact for any continuous distribution (binomial; Conover 1999). When even the
    range covers less than `wanted`, the range it is: 3 seeds cover the median 75 % of the time.
    """
    rank = 1
    while 2 * (rank + 1) <= n + 1 and _coverage(rank + 1, n) >= wanted:
        rank += 1
    return rank, _coverage(rank, n)


def ratios(over: Mapping[str, Bracket], under: Mapping[str, Bracket]) -> dict[int, Bracket]:
    """Paired ratios of last-known-good values, seed by seed; an open side stays open."""
    paired = {}
    for seed in over:
        if seed not in under:
            continue
        a, b = over[seed], under[seed]
        if a.low is None or b.low is None or b.high is None:
            continue  # against a value that is only known to lie above, no ratio is known
        beyond = a.high is None
        paired[int(seed)] = Bracket(low=a.low / b.low, high=None if beyond else a.low / b.low)
    return paired


def _coverage(rank: int, n: int) -> float:
    return float(1 - 2 * sum(math.comb(n, i) for i in range(rank)) / 2**n)


def _side(value: float | None, open_side: float) -> float:
    return open_side if value is None else value


def _median(values: Sequence[float], scale: str) -> float:
    low, high = statistics.median_low(values), statistics.median_high(values)
    if scale == "grid":
        return high
    if scale == "log2" and 0 < low < high < math.inf:
        product = low * high
        return math.sqrt(product) if 0.0 < product < math.inf else math.sqrt(low) * math.sqrt(high)
    return statistics.median(values)


def count(values: Iterable[str]) -> dict[str, int]:
    """How often each value occurs, in order of first occurrence."""
    counts: dict[str, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return counts
