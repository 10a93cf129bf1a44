"""`stresstest compare` and `stresstest baseline`: stored results side by side, and values kept in the repository."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from stresstest.commands.check import run_for_baseline
from stresstest.commands.check_request import CheckRequest
from stresstest.errors import ConfigError, ExitCode
from stresstest.experiments.table import EXPERIMENTS
from stresstest.gate import judge
from stresstest.gate.baseline import BASELINES, Baseline, baseline_file, baseline_results, load_baseline, make_baseline
from stresstest.gate.equality import Stored, same_cells, why_incomparable
from stresstest.gate.planning import gate_thresholds
from stresstest.gate.records import CheckVerdict, GatedRow, GateLine
from stresstest.gate.report import parse_verdict_output, show_verdict
from stresstest.gate.thresholds import metrics_of
from stresstest.gate.verdict_words import difference_words, line_names, place_name
from stresstest.json_text import parse_json
from stresstest.reports.numbers import with_unit
from stresstest.reports.output import console
from stresstest.results.metrics import METRICS
from stresstest.results.records import Result, read_result
from stresstest.scenario.thresholds import Threshold, parse_threshold

_COMPARED = (
    "max_stable_lr onset_lr explosion_lr max_trainable_depth recipe_loss steps_to_target validation_loss "
    "lr_sensitivity warmup_sensitivity shock_tolerance break_tolerance"
).split()
_MAY_DIFFER = ("seeds", "variant", "shock", "guard", "model", "set", "device", "kernel", "probes")
_ALPHA = 0.05
_STALE_DAYS = 90


def compare(a: str, b: str, as_json: bool, folder: Path, outputs: Sequence[str] = ()) -> int:
    """Print how B differs from A, line by line; what is not comparable is said, and no verdict ends it."""
    written = [parse_verdict_output(text) for text in outputs]
    one, other = stored_runs(Path(a)), stored_runs(Path(b))
    with _being_read(one, other):
        show_verdict(compare_runs(one, other, a, b), folder, written, as_json)
    return ExitCode.OK


def compare_runs(one: Mapping[str, Stored], other: Mapping[str, Stored], a: str, b: str) -> CheckVerdict:
    """How the runs of B differ from those of A, each by the experiment's name."""
    with _being_read(one, other):
        return _compared(one, other, a, b)


@contextmanager
def _being_read(*sides: Mapping[str, Stored]) -> Iterator[None]:
    """Within, each result of these sides is being read."""
    with ExitStack() as reading:
        for result, _ in (stored for side in sides for stored in side.values()):
            reading.enter_context(result.being_read())
        yield


def _compared(one: Mapping[str, Stored], other: Mapping[str, Stored], a: str, b: str) -> CheckVerdict:
    shared = [name for name in one if name in other]
    if not shared and len(one) == len(other) == 1:
        other = {next(iter(one)): next(iter(other.values()))}
        shared = list(one)
    if not shared:
        raise ConfigError(f"{a} and {b} share no experiment name; give two runs of the same experiment or scenario")
    base, head = ({name: side[name][0] for name in shared} for side in (one, other))
    why = {name: reason for name in shared if (reason := _differs(base[name], head[name]))}
    asked = [
        (threshold, place)
        for name in shared
        if base[name].command == head[name].command
        for threshold in _thresholds(name, base[name])
        for place in judge.places(threshold, head)
    ]

    def same(place: GatedRow) -> bool:
        return same_cells(place, other[place.experiment], one[place.experiment])

    reproduce = {name: head[name].reproduce for name in shared}
    lines = judge.judge(asked, head, base, same, judge.InterimLook(0, _ALPHA, {}, reproduce))
    lines = [_incomparable(line, why.get(line.place.experiment, "")) for line in lines]
    return CheckVerdict(
        scenario="compare",
        mode="compare",
        base={"commit": a},
        head={"commit": b},
        alpha=_ALPHA,
        looks=[],
        seeds=max((line.n for line in lines), default=0),
        lines=lines,
        limits=[],
        warnings=[f"{name}: {reason}" for name, reason in why.items()],
        reproduce=f"stresstest compare {a} {b}",
    )


def stored_runs(path: Path) -> dict[str, Stored]:
    """The results of a run, or of each of a scenario's, with their run directories."""
    from stresstest.runs.directory import runs_in

    folders = [path.parent] if path.is_file() else runs_in(path)
    return {
        folder.name: (read_result(path if path.is_file() else folder / "result.json"), folder) for folder in folders
    }


def _differs(one: Result, other: Result) -> str:
    if one.command != other.command:
        return f"one is a {one.command} run, the other a {other.command} run"
    if why := why_incomparable(other, one):
        return why
    differ = {name for name, value in one.spec.items() if other.spec.get(name) != value} - set(_MAY_DIFFER)
    return f"settings differ: {', '.join(sorted(differ))}" if differ else ""


def _incomparable(line: GateLine, why: str) -> GateLine:
    return line.model_copy(update={"verdict": "incomparable", "reason": why, "p": None}) if why else line


def _thresholds(name: str, result: Result) -> list[Threshold]:
    measured = metrics_of(EXPERIMENTS[result.command].spec.model_validate(result.spec))
    found = []
    for metric in _COMPARED:
        if metric in measured:
            higher = METRICS[metric].direction == "higher"
            amount = f"{max(0.5, measured[metric]):.3g}oct" if METRICS[metric].scale == "log2" else "10%"
            found.append(parse_threshold(f"{name}.{metric}", f"med vs base {'>= -' if higher else '<= '}{amount}"))
    return found


def update_baseline(asked: CheckRequest, reason: str, today: date) -> int:
    """Run a scenario and keep the values of what it gates; a `ConfigError` if the run is incomplete or has errors."""
    if not reason.strip():
        raise ConfigError("--reason is empty; say why the baseline changes")
    head, specs, ran, before = run_for_baseline(asked)
    name = asked.scenario.name
    if failed := ran.failures:
        raise ConfigError(f"{len(failed)} cells failed, so no baseline was written: {failed[0]}")
    _, relative, _ = gate_thresholds(asked.scenario, specs)
    gated = {
        experiment: {t.metric for t in relative if t.experiment in ("", experiment) and t.metric in metrics_of(spec)}
        for experiment, spec in specs.items()
    }
    made = make_baseline(name, ran.results, gated, head.commit, today.isoformat(), reason)
    path = baseline_file(name, made.environment)
    lines = _against(before, relative, ran.results, made.environment) if before else []
    undecided = [line for line in lines if line.verdict == "inconclusive"]
    if undecided:
        line = undecided[0]
        raise ConfigError(
            f"{line_names(lines)[id(line)]} is inconclusive against the current baseline "
            f"({difference_words(line)} in {line.n} seeds); give more --seeds"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(made.to_json())
    out = console()
    for line in lines:
        out.print(f"  {line_names(lines)[id(line)]}: {difference_words(line)}, {line.verdict}", markup=False)
    out.print(f"wrote {path}; commit it", markup=False, soft_wrap=True)
    return ExitCode.OK


def _against(baseline: Baseline, relative: Sequence[Threshold], results: dict[str, Result], key: str) -> list[GateLine]:
    if baseline.differs(results, key):
        return []
    asked = [(t, place) for t in relative for place in judge.places(t, results)]
    base = baseline_results(baseline, results)
    return judge.judge(asked, results, base, lambda place: False, judge.InterimLook(0, _ALPHA, {}, {}))


def _files(scenario: str | None) -> list[Path]:
    found = sorted(BASELINES.glob(f"{scenario or '*'}/*.json"))
    if not found:
        raise ConfigError(f"no baseline under {BASELINES}; make one: stresstest baseline update FILE --reason TEXT")
    return found


def show_baselines(scenario: str | None) -> int:
    """Print every value of the baselines of a scenario, or of all."""
    from stresstest.reports.numbers import bracket
    from stresstest.results.records import Bracket

    out = console()
    for path in _files(scenario):
        baseline = load_baseline(path)
        out.print(f"{path}\n  {_facts(baseline)}", markup=False, soft_wrap=True)
        for name, experiment in baseline.experiments.items():
            several = len({row.optimizer for row in experiment.rows}) > 1
            for row in experiment.rows:
                place = GatedRow(
                    experiment=name, variant=row.variant, depth=row.depth, optimizer=row.optimizer, point=row.point
                )
                for metric, values in row.metrics.items():
                    shown = " ".join(
                        f"{seed}:{bracket(Bracket(low=low, high=high))}" for seed, (low, high) in values.items()
                    )
                    out.print(f"  {place_name(place, metric, several)}  {shown}", markup=False, soft_wrap=True)
    return ExitCode.OK


def _facts(baseline: Baseline) -> str:
    return f"commit {baseline.commit[:10]}, {baseline.created}, {baseline.environment}: {baseline.reason}"


def baseline_status(scenario: str | None, here: str, folder: Path) -> int:
    """Print how old each baseline is, whether it is of this environment, what it covers, and how far it lags behind."""
    out, today = console(), datetime.now(UTC).date()
    for path in _files(scenario):
        baseline = load_baseline(path)
        age = (today - date.fromisoformat(baseline.created)).days
        rows = sum(len(row.metrics) for experiment in baseline.experiments.values() for row in experiment.rows)
        fits = "same environment" if baseline.environment == here else f"other environment, {baseline.environment}"
        stale = "; old: update it" if age > _STALE_DAYS else ""
        out.print(
            f"{path}: {age} days old{stale}; {fits}; {rows} lines in {len(baseline.experiments)} experiments",
            markup=False,
            soft_wrap=True,
        )
        for line in _slack(folder / f"{baseline.scenario}.verdict.json"):
            out.print(f"  {line}", markup=False, soft_wrap=True)
    return ExitCode.OK


def _slack(path: Path) -> list[str]:
    """What the last check against a baseline found better by more than its tolerance: so much could be lost unseen."""
    try:
        stored: dict[str, Any] = parse_json(path.read_text())
        lines = [GateLine.model_validate(line) for line in stored["lines"]] if stored["mode"] == "baseline" else []
    except (OSError, ValueError, KeyError):
        return []
    found = []
    for line in lines:
        better = line.median[0]
        if line.verdict == "improved" and better is not None:
            found.append(
                f"{line_names(lines)[id(line)]} is {difference_words(line)} from the baseline, so a loss of "
                f"{with_unit(f'{better + line.tolerance:.3g}', line.unit)} would pass; update it"
            )
    unknown = sum(line.verdict == "no-baseline" for line in lines)
    return [*found, *([f"{len(lines) - unknown} of {len(lines)} gated lines have a baseline"] if lines else [])]
