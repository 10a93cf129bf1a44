"""`stresstest check`: run a scenario, hold its thresholds, and compare it with a base; one verdict."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stresstest.commands.check_progress import CheckProgress, showing
from stresstest.commands.check_request import CheckRequest
from stresstest.commands.run import OnStderr
from stresstest.errors import ConfigError, ExitCode, InterruptedRunError, ModelError, StresstestError
from stresstest.gate import judge
from stresstest.gate.baseline import Baseline, baseline_file, baseline_results, find_baseline, load_baseline
from stresstest.gate.equality import same_cells, why_incomparable
from stresstest.gate.git import Tree, head_tree, merge_base, same_but_for_comments, worktree
from stresstest.gate.history import keep_record
from stresstest.gate.planning import extended, gate_thresholds, in_kernels_of, kernel_words, planned_looks
from stresstest.gate.records import CheckVerdict, GatedRow, GateLine
from stresstest.gate.report import parse_verdict_output, show_verdict
from stresstest.gate.sides import Ran, Side, SideError
from stresstest.gate.thresholds import metrics_of
from stresstest.gate.under_way import CHECKS
from stresstest.pipeline import plan_scenario
from stresstest.runs.identity import PACKAGE
from stresstest.runs.stopping import Stopping, stopping
from stresstest.scenario.thresholds import Threshold
from stresstest.specs.base import TrainingSpec
from stresstest.specs.kinds import is_user_model, kind_of

if TYPE_CHECKING:
    from stresstest.experiments.plan import Plan


@dataclass
class _Check:
    """One check under way."""

    asked: CheckRequest
    stop: Stopping
    sides: list[Side]
    plans: Sequence[Plan] = ()
    specs: dict[str, TrainingSpec] = field(default_factory=dict)
    lacks: dict[str, set[str]] = field(default_factory=dict)  # settings that an experiment's model does not have
    commands: dict[str, str] = field(default_factory=dict)
    absolute: list[Threshold] = field(default_factory=list)
    relative: list[Threshold] = field(default_factory=list)
    looks: list[int] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def take(self, plans: Sequence[Plan]) -> None:
        """What was planned, and its settings."""
        self.plans = plans
        for experiment, plan in zip(self.asked.scenario.experiments, plans, strict=True):
            self.specs[experiment.name], self.commands[experiment.name] = plan.spec, experiment.command
            self.lacks[experiment.name] = _lacks(plan.spec)

    def experiments(self, names: Sequence[str], seeds: int | None) -> dict[str, dict[str, object]]:
        """The settings of these experiments, in full, so that both sides run the same; with so many seeds."""
        found = {}
        for name in names:
            spec = self.specs[name]
            given = spec.model_dump(mode="json", exclude=self.lacks[name])
            given["seeds"] = list(spec.seeds if seeds is None else extended(spec.seeds, seeds))
            found[name] = {"command": self.commands[name], **given}
        return found

    def run_alone(self, tree: Tree | None) -> Ran:
        """Train the head, once. Stopping raises."""
        side = _side(self, "head", tree, None)
        with showing(self.asked, self.plans, [side]) as shown:
            return self.run(side, list(self.specs), shown)

    def run(self, side: Side, names: Sequence[str], shown: CheckProgress, look: int = 0, seeds: int = 0) -> Ran:
        """Train one side, from the second look on with so many seeds; what was trained stays. Stopping raises."""
        self._stop_if_asked()
        self.sides.append(side)
        asked = self.experiments(names, seeds if look else None)
        with shown.running(side, names, look):
            try:
                ran = side.run(asked, lambda: self.stop.code, keep=look > 0, tell=shown.said)
            finally:
                side.kill()
        self._stop_if_asked()
        return ran

    def _stop_if_asked(self) -> None:
        if self.stop.code is not None:
            raise InterruptedRunError(
                f"interrupted; the cells that were finished are saved; to go on: {self.asked.reproduce}", self.stop.code
            )

    @property
    def alpha(self) -> float:
        """What each look may spend."""
        return self.asked.scenario.gate.alpha / max(1, len(self.looks))

    @property
    def reproduce(self) -> dict[str, str]:
        """By experiment, the line that gives its result again."""
        asked = zip(self.specs, self.asked.requests, self.plans, strict=True)
        return {name: f"{request.reproduce}{kernel_words(plan)}" for name, request, plan in asked}

    def look(self, lines: int) -> judge.InterimLook:
        """One look at what was run."""
        resolutions = {
            (name, metric): finest for name, spec in self.specs.items() for metric, finest in metrics_of(spec).items()
        }
        return judge.InterimLook(lines, self.alpha, resolutions, self.reproduce)


def check(asked: CheckRequest) -> int:
    """Check, print the verdict, and return its exit code."""
    outputs = [parse_verdict_output(text) for text in asked.outputs]
    verdict = check_verdict(asked)
    keep_record(verdict, CHECKS, datetime.now(UTC))
    show_verdict(verdict, CHECKS, outputs, asked.as_json)
    return verdict.exit_code


def check_verdict(asked: CheckRequest) -> CheckVerdict:
    """Run what is asked for and judge it."""
    sides: list[Side] = []
    with _taken_signals(sides) as stop:
        try:
            return _check(asked, stop, sides)
        except StresstestError:
            if stop.code is None:
                raise
            raise InterruptedRunError(
                f"interrupted; the cells that were finished are saved; to go on: {asked.reproduce}", stop.code
            ) from None


def _lacks(spec: TrainingSpec) -> set[str]:
    """The settings that a model does not have: a factory need not take a depth or a width."""
    lacks = {*kind_of(spec.model).lacks, *(["kernel"] if spec.model != "mlp" else [])}
    if not is_user_model(spec.model):
        return lacks
    from stresstest.user_model.factory import factory_of

    takes = factory_of(spec).takes
    return lacks | ({"depth", "width"} - set(takes) if "**" not in takes else set())


@contextlib.contextmanager
def _taken_signals(sides: Sequence[Side]) -> Iterator[Stopping]:
    """Pass signals on to the side that runs: it saves what it can, and ends."""

    def pass_on() -> None:
        for side in sides:
            side.stop(signal.SIGINT if stop.code == ExitCode.INTERRUPTED else signal.SIGTERM)

    with stopping(pass_on) as stop:
        yield stop


def _check(asked: CheckRequest, stop: Stopping, sides: list[Side]) -> CheckVerdict:
    scenario = asked.scenario
    check = _Check(asked, stop, sides)
    try:
        plans = plan_scenario(scenario.experiments, asked.requests)
    except ModelError as error:
        return _verdict(check, {}, [], failures=[str(error)])
    check.take(plans)
    check.absolute, relative, lines = gate_thresholds(scenario, check.specs)
    if asked.base is None and asked.baseline is None:
        if not check.absolute:
            raise ConfigError(
                f"{scenario.source} has no limits to check and nothing to compare with; give --base REV, "
                "--baseline auto, or thresholds: {max_stable_lr: 'med >= 0.003'}"
            )
        return _verdict(check, {}, [], check.run_alone(_tree()))
    check.relative = relative
    check.looks = planned_looks(scenario, check.specs, relative, lines, once=asked.base is None)
    if asked.base is not None:
        return _against_base(check, lines)
    key = plans[0].environment["key"]
    baseline = find_baseline(asked.baseline or "", scenario.name, key)  # before anything is trained
    check.take(plans if baseline is None else in_kernels_of(baseline, scenario.experiments, plans))
    return _against_baseline(check, baseline, check.run_alone(_tree()), key)


def _tree() -> Tree | None:
    with contextlib.suppress(ConfigError):
        return head_tree(Path.cwd())
    return None


def _side(check: _Check, name: str, tree: Tree | None, other: Tree | None, take_from: str = "") -> Side:
    return Side(name, tree, other, check.asked.scenario.name, check.asked.words, take_from)


def _against_base(check: _Check, number: int) -> CheckVerdict:
    asked = check.asked
    assert asked.base is not None, "there is a base"
    head = head_tree(Path.cwd())
    if not any(is_user_model(spec.model) for spec in check.specs.values()) and not PACKAGE.is_relative_to(head.root):
        raise ConfigError(
            f"{asked.scenario.source} trains only built-in models and none of this repository's code; "
            "name your model: model: FILE.py:FUNCTION"
        )
    with worktree(head, merge_base(head, asked.base)) as base:
        same = head.tree == base.tree
        comments = not same and same_but_for_comments(head, base)
        if same:
            check.warnings.append(
                f"nothing has changed since the common commit of HEAD and {asked.base}; give an earlier --base, or "
                "commit the change"
            )
        sides = _side(check, "head", head, base, base.tree if comments else ""), _side(check, "base", base, head)
        facts = {"ref": asked.base, "commit": base.short, "changed": "comments" if comments else "" if same else "code"}
        with showing(asked, check.plans, sides[::-1], check.looks) as shown:
            return _looks(check, shown, *sides, number, facts)


def _looks(
    check: _Check, shown: CheckProgress, ours: Side, theirs: Side, number: int, facts: dict[str, Any]
) -> CheckVerdict:
    """Look at both sides, with more seeds as long as a line that counts is open."""
    names, why = list(check.specs), ""
    settled: list[GateLine] = []
    all_head, all_base = Ran({}, {}, 0), Ran({}, {}, 0)
    for look, seeds in enumerate(check.looks or [0]):
        base = None
        if not why:
            try:
                base = check.run(theirs, names, shown, look, seeds)
            except SideError as error:
                why = f"the base cannot run it: {error}"
        head = check.run(ours, names, shown, look, seeds)
        all_head, all_base = all_head.and_then(head), all_base.and_then(base) if base else all_base
        if failures := head.failures:
            return _verdict(check, facts, [], all_head, all_base, failures=failures)
        lines = _look(check, head, base, why, settled, number)
        undecided = [line for line in lines if line.verdict in ("inconclusive", "insufficient-seeds")]
        names = list(dict.fromkeys(line.place.experiment for line in undecided if line.level == "error"))
        last = not names or look == len(check.looks) - 1
        settled += [line for line in lines if last or line not in undecided or line.place.experiment not in names]
        if last:
            break
        shown.note(f"{seeds} seeds do not settle {', '.join(names)}: {check.looks[look + 1]} seeds now")
    return _verdict(check, facts, settled, all_head, all_base)


def _look(
    check: _Check, ran: Ran, base: Ran | None, why: str, settled: Sequence[GateLine], number: int
) -> list[GateLine]:
    done = {(line.place.model_dump_json(), line.metric, line.threshold) for line in settled}
    asked = [
        (threshold, place)
        for threshold in check.relative
        for place in judge.places(threshold, ran.results)
        if (place.model_dump_json(), threshold.metric, threshold.text) not in done
    ]

    def same(place: GatedRow) -> bool:
        return base is not None and same_cells(place, ran.stored(place.experiment), base.stored(place.experiment))

    lines = judge.judge(asked, ran.results, base.results if base is not None else {}, same, check.look(number))
    if base is None:
        return [line.model_copy(update={"reason": why}) if line.verdict == "no-baseline" else line for line in lines]
    differ = {
        name: reason for name in ran.results if (reason := why_incomparable(ran.results[name], base.results[name]))
    }
    return [
        line.model_copy(update={"verdict": "incomparable", "p": None, "reason": differ[line.place.experiment]})
        if line.place.experiment in differ
        else line
        for line in lines
    ]


def _against_baseline(check: _Check, baseline: Baseline | None, ran: Ran, key: str) -> CheckVerdict:
    facts = {} if baseline is None else {"commit": baseline.commit[:10], "updated": baseline.created}
    if failures := ran.failures:
        return _verdict(check, facts, [], ran, failures=failures)
    differs = "" if baseline is None else baseline.differs(ran.results, key)
    base = {} if baseline is None or differs else baseline_results(baseline, ran.results)
    asked = [(threshold, place) for threshold in check.relative for place in judge.places(threshold, ran.results)]
    lines = judge.judge(asked, ran.results, base, lambda place: False, check.look(len(asked)))
    reason = differs or ("" if baseline else f"no baseline of {check.asked.scenario.name}; stresstest baseline update")
    if reason:
        told = {"verdict": "incomparable" if differs else "no-baseline", "reason": reason}
        lines = [line.model_copy(update=told) for line in lines]
    return _verdict(check, facts, lines, ran)


def _verdict(
    check: _Check,
    base: dict[str, Any],
    lines: Sequence[GateLine],
    head: Ran | None = None,
    ran_base: Ran | None = None,
    failures: Sequence[str] = (),
) -> CheckVerdict:
    asked, tree, names = check.asked, _tree(), list(check.specs)
    facts: dict[str, Any] = {"commit": tree.short if tree else ""}
    if head is not None:
        facts |= {"cells": head.cells, "trained": head.trained}
        facts["environment"] = next(iter(head.results.values())).environment["key"]
        others = sorted({result.kernel for result in head.results.values()} - {"torch"})
        facts |= {"kernel": "/".join(others)} if others else {}
    if ran_base is not None and ran_base.results:
        base = base | {"cells": ran_base.cells, "trained": ran_base.trained}
    return CheckVerdict(
        scenario=asked.scenario.name,
        mode="base" if asked.base is not None else "baseline" if asked.baseline is not None else "limits",
        base=base,
        head=facts,
        alpha=asked.scenario.gate.alpha,
        looks=check.looks,
        seeds=max((line.n for line in lines), default=0),
        lines=sorted(lines, key=lambda line: names.index(line.place.experiment)),
        limits=judge.limits(check.absolute, head.results, check.reproduce) if head and not failures else [],
        failures=list(failures),
        warnings=check.warnings,
        lenient=asked.lenient,
        reproduce=asked.reproduce,
    )


def run_for_baseline(asked: CheckRequest) -> tuple[Tree, dict[str, TrainingSpec], Ran, Baseline | None]:
    """The tree, the settings and the results of a scenario that is to become a baseline, and the one before it.

    What makes it none, changes that are not committed or a baseline that was edited, is found before any training.
    """
    sides: list[Side] = []
    with _taken_signals(sides) as stop:
        check, head = _Check(asked, stop, sides), _tree()
        if head is None or head.dirty:
            what = "no git repository" if head is None else f"uncommitted changes on top of {head.commit[:10]}"
            raise ConfigError(f"a baseline belongs to a commit, and the working tree has {what}; commit first")
        plans = plan_scenario(asked.scenario.experiments, asked.requests, OnStderr())
        check.take(plans)
        path = baseline_file(asked.scenario.name, plans[0].environment["key"])
        before = load_baseline(path) if path.exists() else None
        return head, check.specs, check.run_alone(head), before
