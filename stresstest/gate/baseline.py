"""A committed baseline: per-seed values of what is gated, small and sorted so that its diff can be reviewed.

One file for a scenario and an environment. What was measured under other settings, on other data or in
another environment is incomparable, and never a pass.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from stresstest.errors import ConfigError
from stresstest.gate.judge import Results
from stresstest.json_text import parse_json
from stresstest.results.metrics import METRICS
from stresstest.results.records import Bracket, Record, Result, SummaryRow, TrendRow, summarise
from stresstest.runs.identity import cell_key

BASELINES = Path("stresstest-baselines")
BASELINE_SCHEMA = "stresstest.baseline/1"
_LARGEST = 4 << 20  # bytes; a baseline is a few kB
_LEFT = "the file was not changed; check it out again, or write a new one: stresstest baseline update"
_NOT_SETTINGS = ("seeds", "variant", "device", "kernel", "probes", "theory")  # what changes no value of a seed


class BaselineRow(Record):
    """One row of a result: by metric and seed, from the last known good to the first known bad."""

    variant: str
    depth: int | None
    optimizer: str
    point: dict[str, Any] = {}
    metrics: dict[str, dict[str, tuple[float | None, float | None]]]


class BaselineExperiment(Record):
    """One experiment: what it was, as keys that must agree, and its rows."""

    command: str
    settings: str
    data: str
    kernel: str = Field("torch", exclude_if=lambda name: name == "torch")  # as files are that are older
    rows: list[BaselineRow] = Field(min_length=1)


class Baseline(Record):
    """A whole baseline file."""

    schema_: str
    scenario: str
    environment: str
    commit: str
    created: str
    reason: str
    experiments: dict[str, BaselineExperiment]
    digest: str = ""

    def kernel_of(self, experiment: str) -> str:
        """The kernel that trained an experiment; empty where it is not in the file."""
        found = self.experiments.get(experiment)
        return "" if found is None else found.kernel

    @property
    def true_digest(self) -> str:
        """A hash of all the rest: what was edited by hand has another one."""
        return cell_key(self.model_dump(mode="json", exclude={"digest"}))

    def to_json(self) -> str:
        """Its text: sorted, one value a line."""
        stored = self.model_dump(mode="json") | {"digest": self.true_digest}
        stored["schema"] = stored.pop("schema_")
        return re.sub(r"\[\s+(\S+),\s+(\S+)\s+\]", r"[\1, \2]", json.dumps(stored, indent=1, sort_keys=True)) + "\n"

    def differs(self, results: Results, environment: str) -> str:
        """Why results cannot be held against it, or nothing."""
        if environment != self.environment:
            return f"the baseline was made on {self.environment}, this is {environment}"
        for name, theirs in self.experiments.items():
            if name in results:
                ours = _experiment(results[name], ())
                if (ours.command, ours.settings) != (theirs.command, theirs.settings):
                    return f"the settings of {name} differ from the baseline's"
                if ours.data != theirs.data:
                    return f"the data of {name} differ from the baseline's"
                if ours.kernel != theirs.kernel:
                    return _kernels_differ(name, ours.kernel, theirs.kernel)
        return ""


def _kernels_differ(name: str, ours: str, theirs: str) -> str:
    tells = " (stresstest doctor tells whether it is here)" if theirs == "native" else ""
    return f"train {name} with kernel {theirs}, as its baseline was{tells}, or write a new one: this is kernel {ours}"


def baseline_file(scenario: str, environment: str) -> Path:
    """Where the baseline of a scenario and an environment lies."""
    return BASELINES / scenario / f"{re.sub(r'[^A-Za-z0-9.]+', '-', environment).strip('-')}.json"


def find_baseline(named: str, scenario: str, environment: str) -> Baseline | None:
    """The baseline of that name; with `auto` that of this environment, or else of another, or `None`."""
    if named != "auto":
        return load_baseline(Path(named))
    path = baseline_file(scenario, environment)
    others = sorted(path.parent.glob("*.json"))
    return load_baseline(path if path.exists() else others[0]) if others else None


def load_baseline(path: Path) -> Baseline:
    """Read a baseline; a `ConfigError` if it is incomplete or of another version. Nothing is written."""
    try:
        if path.stat().st_size > _LARGEST:
            raise ConfigError(f"{path} is too large for a baseline ({path.stat().st_size >> 20} MiB); {_LEFT}")
        stored = parse_json(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"baseline {path} not found; write one: stresstest baseline update") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is not a readable baseline ({error}); {_LEFT}") from None
    schema = stored.pop("schema", None) if isinstance(stored, dict) else None
    if schema != BASELINE_SCHEMA:
        raise ConfigError(f"{path} has schema {schema!r}, this version reads {BASELINE_SCHEMA!r}; {_LEFT}")
    try:
        baseline = Baseline.model_validate({"schema_": schema, **stored})
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}; {_LEFT}") from None
    for name, experiment in baseline.experiments.items():
        unknown = [metric for row in experiment.rows for metric in row.metrics if metric not in METRICS]
        if unknown:
            raise ConfigError(f"{path}: experiments.{name}: unknown metric '{unknown[0]}'; {_LEFT}")
    if baseline.digest != baseline.true_digest:
        raise ConfigError(f"{path} was edited by hand (its digest does not match); {_LEFT}")
    return baseline


def make_baseline(
    scenario: str, results: Results, gated: Mapping[str, Collection[str]], commit: str, created: str, reason: str
) -> Baseline:
    """The baseline of results: of each experiment the metrics that are gated, and those that say what to gate."""
    return Baseline(
        schema_=BASELINE_SCHEMA,
        scenario=scenario,
        environment=next(iter(results.values())).environment["key"],
        commit=commit,
        created=created,
        reason=reason,
        experiments={name: _experiment(results[name], metrics) for name, metrics in gated.items() if metrics},
    )


def _experiment(result: Result, metrics: Collection[str]) -> BaselineExperiment:
    settings = {name: value for name, value in result.spec.items() if name not in _NOT_SETTINGS}
    found: list[SummaryRow | TrendRow] = [*result.summary, *result.trends]
    rows = [_row(row, metrics) for row in found]
    told = [row for row in rows if row.metrics or not metrics]
    return BaselineExperiment(
        command=result.command,
        settings=cell_key({**settings, "rules": result.rules}),
        data=str(result.data.get("hash", "")),
        kernel=result.kernel,
        rows=told,
    )


def _row(row: SummaryRow | TrendRow, metrics: Collection[str]) -> BaselineRow:
    return BaselineRow(
        variant=row.variant,
        depth=getattr(row, "depth", None),
        optimizer=row.optimizer,
        point=row.point,
        metrics={
            name: {seed: (value.low, value.high) for seed, value in row.metrics[name].per_seed.items()}
            for name in metrics
            if name in row.metrics
        },
    )


def baseline_results(baseline: Baseline, like: Results) -> dict[str, Result]:
    """The baseline as results: those of `like`, with the baseline's values in their rows."""
    return {
        name: like[name].model_copy(update={"summary": _summary(theirs), "trends": _trends(theirs)})
        for name, theirs in baseline.experiments.items()
        if name in like
    }


def _summary(experiment: BaselineExperiment) -> list[SummaryRow]:
    return [
        SummaryRow(depth=row.depth, outcomes={}, **_common(row)) for row in experiment.rows if row.depth is not None
    ]


def _trends(experiment: BaselineExperiment) -> list[TrendRow]:
    return [TrendRow(**_common(row)) for row in experiment.rows if row.depth is None]


def _common(row: BaselineRow) -> dict[str, Any]:
    metrics = {
        name: summarise(name, {int(seed): Bracket(low=low, high=high) for seed, (low, high) in values.items()})
        for name, values in row.metrics.items()
    }
    return {"variant": row.variant, "optimizer": row.optimizer, "point": row.point, "metrics": metrics}
