"""A gate over commits: the records of its checks, and the baselines that the repository has had."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from stresstest.errors import ConfigError
from stresstest.gate.baseline import BASELINE_SCHEMA, BASELINES, Baseline
from stresstest.gate.git import commits_of, versions_of
from stresstest.gate.records import VERDICT_SCHEMA, CheckVerdict, GatedRow, GateLine, LimitLine
from stresstest.json_text import parse_json
from stresstest.results.records import Bracket, MetricSummary, summarise

_MOST_KEPT = 300  # records of a scenario
_NAME = re.compile(r"(\d{8}T\d{6}\d*)-.*\.verdict\.json")

FAILED = ("regressed", "failed", "errored")

Place = tuple[str, str]  # (the row of a gated metric as JSON, the metric)


@dataclass(frozen=True)
class Entry:
    """One check, or one baseline: what it found of the head."""

    commit: str
    subject: str
    when: str  # UTC, as ISO 8601 to the minute
    verdict: str
    values: Mapping[Place, MetricSummary]
    verdicts: Mapping[Place, str] = field(default_factory=dict)
    order: tuple[int, str] = (0, "")  # of the commit, then of the time


@dataclass(frozen=True)
class History:
    """The checks of a scenario, the oldest first, and what was left out of them."""

    scenario: str
    entries: tuple[Entry, ...]
    left_out: tuple[str, ...] = ()


def keep_record(verdict: CheckVerdict, checks: Path, now: datetime) -> None:
    """Keep a verdict beside the earlier ones of its scenario, the oldest of which go once there are too many."""
    folder = _folder(checks, verdict.scenario)
    commit = re.sub(r"[^0-9a-f+]", "", verdict.head.get("commit", "")) or "none"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{now:%Y%m%dT%H%M%S%f}-{commit}.verdict.json").write_text(verdict.to_json())
        for old in sorted(folder.glob("*.verdict.json"))[:-_MOST_KEPT]:
            old.unlink()
    except OSError as error:
        raise ConfigError(f"{error.filename} cannot be written ({error.strerror}); give another folder") from None


def read_history(scenario: str, checks: Path, limit: int) -> History:
    """The last so many of them; a `ConfigError` where there is none."""
    known = commits_of(Path.cwd())
    places = {commit: place for place, commit in enumerate(known)}
    damaged = 0
    found: list[tuple[str, Entry]] = []
    for path in sorted(_folder(checks, scenario).glob("*.verdict.json")):
        try:
            found.append(_of_record(path, known, places))
        except (OSError, ValueError, KeyError):
            damaged += 1
    found += _of_baselines(scenario, known, places)
    if not found:
        left = f" ({damaged} records of another version)" if damaged else ""
        raise ConfigError(
            f"no check of {scenario} is on record here{left}; each check leaves one: "
            f"stresstest check {scenario} --base origin/main"
        )
    newest = max((each for each in found if each[0]), key=lambda each: each[1].when, default=found[0])[0]
    mine = [entry for environment, entry in found if environment in (newest, "")]  # "": no cell was trained
    entries = sorted(_last_of_each(mine), key=lambda entry: entry.order)
    left_out = {
        "of another environment or kernel": len(found) - len(mine),
        "that cannot be read by this version": damaged,
        "older ones (--limit)": max(0, len(entries) - limit),
    }
    words = tuple(f"{number} {why}" for why, number in left_out.items() if number)
    return History(scenario, tuple(entries[-limit:]), words)


def _folder(checks: Path, scenario: str) -> Path:
    return checks / "history" / scenario


def _of_record(path: Path, known: Mapping[str, str], places: Mapping[str, int]) -> tuple[str, Entry]:
    """(environment, entry) of a verdict."""
    stored = parse_json(path.read_text())
    if stored.pop("schema") != VERDICT_SCHEMA:
        raise ValueError("another schema")
    found, _ = stored.pop("verdict"), stored.pop("exit_code")
    verdict = CheckVerdict.model_validate(stored)
    stamp = _NAME.fullmatch(path.name)
    if stamp is None:
        raise ValueError("no time in its name")
    when = datetime.strptime(stamp[1][:15], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    commit = str(verdict.head.get("commit", ""))
    entry = Entry(
        commit=commit,
        subject=known.get(commit.rstrip("+"), ""),
        when=f"{when:%Y-%m-%d %H:%M}",
        verdict=str(found),
        values={_at(line.place, line.metric): line.head for line in _lines(verdict) if line.head is not None},
        verdicts=_worst(verdict),
        order=(places.get(commit.rstrip("+"), len(places)), stamp[1]),
    )
    return _where(str(verdict.head.get("environment", "")), [str(verdict.head.get("kernel", ""))]), entry


def _where(environment: str, kernels: Sequence[str]) -> str:
    """What must be equal for two values to stand in one history."""
    return "/".join([environment, *sorted(set(kernels) - {"", "torch"})])


def _of_baselines(scenario: str, known: Mapping[str, str], places: Mapping[str, int]) -> Iterator[tuple[str, Entry]]:
    """(environment, entry) of each version of a scenario's baselines that was committed."""
    for text in versions_of(Path.cwd(), str(BASELINES / scenario)):
        try:
            stored = parse_json(text)
            if stored.pop("schema") != BASELINE_SCHEMA:
                continue
            baseline = Baseline.model_validate({"schema_": BASELINE_SCHEMA, **stored})
        except (ValueError, KeyError, AttributeError):
            continue  # was no baseline of this version then
        commit = baseline.commit[:10]
        yield (
            _where(baseline.environment, [each.kernel for each in baseline.experiments.values()]),
            Entry(
                commit=commit,
                subject=known.get(commit, ""),
                when=baseline.created,
                verdict="baseline",
                values={_at(place, metric): value for place, metric, value in _baseline_values(baseline)},
                order=(places.get(commit, len(places)), baseline.created),
            ),
        )


def _baseline_values(baseline: Baseline) -> Iterator[tuple[GatedRow, str, MetricSummary]]:
    for name, experiment in baseline.experiments.items():
        for row in experiment.rows:
            at = row.model_dump(include={"variant", "depth", "optimizer", "point"})
            place = GatedRow(experiment=name, **at)
            for metric, values in row.metrics.items():
                per_seed = {int(seed): Bracket(low=low, high=high) for seed, (low, high) in values.items()}
                yield place, metric, summarise(metric, per_seed)


def _last_of_each(entries: Sequence[Entry]) -> list[Entry]:
    """One of each commit, and each of a working tree with changes: what was checked again counts by its last check."""
    found: dict[tuple[str, ...], Entry] = {}
    for entry in entries:
        own = (entry.when,) if entry.commit.endswith("+") or not entry.commit else ()
        found[(entry.commit, "baseline" * (entry.verdict == "baseline"), *own)] = entry
    return list(found.values())


def _lines(verdict: CheckVerdict) -> list[GateLine | LimitLine]:
    return [*verdict.lines, *verdict.limits]


def _worst(verdict: CheckVerdict) -> dict[Place, str]:
    """What became of each place; of a line and a limit on it, what is worse."""
    found: dict[Place, str] = {}
    for line in _lines(verdict):
        at, word = _at(line.place, line.metric), _word(line)
        found[at] = max(found.get(at, word), word, key=lambda each: each in FAILED)
    return found


def _word(line: GateLine | LimitLine) -> str:
    return line.verdict if isinstance(line, GateLine) else "passed" if line.passed else "failed"


def _at(place: GatedRow, metric: str) -> Place:
    return place.model_dump_json(), metric
