"""`stresstest papers`: the scenarios that claim what a paper does, one after the other, and one table of all claims."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stresstest.commands.run import OnStderr, print_plan
from stresstest.commands.show_claims import show_claims
from stresstest.commands.validate import check_claims
from stresstest.errors import ExitCode
from stresstest.gate.claims_report import Chapter, claims_document
from stresstest.gate.tables import claims_tables
from stresstest.pipeline import SILENT, RunListener, chapter_of, exit_code, plan_scenario, train_scenario
from stresstest.reports.output import Made, parse_output, write_outputs
from stresstest.results.records import Result
from stresstest.scenario.library import PAPERS, find_scenario, shipped_scenarios
from stresstest.scenario.reader import Scenario, load_scenario
from stresstest.scenario.request import Request, SettingSources, scenario_requests

if TYPE_CHECKING:
    from stresstest.experiments.plan import Plan

DEFAULT_FOLDER = ".stresstest/papers"


@dataclass(frozen=True)
class Paper:
    """One scenario and its requests."""

    name: str
    scenario: Scenario
    requests: Sequence[Request]


def choose_papers(names: Sequence[str], profile: str, given: SettingSources, options: Mapping[str, Any]) -> list[Paper]:
    """The papers' scenarios of these names, or all, read with a profile of theirs."""
    known = [name for name in shipped_scenarios() if name.startswith(f"{PAPERS}/")]
    chosen = []
    for name in [name if "/" in name else f"{PAPERS}/{name}" for name in names] or known:
        loaded = load_scenario(find_scenario(name), profile)
        chosen.append(Paper(Path(name).stem, loaded, scenario_requests(name, loaded, given, options)))
    return chosen


def run_papers(
    papers: Sequence[Paper], folder: Path, outputs: Sequence[str], as_json: bool, line: str, verbose: bool = False
) -> int:
    """Check all, then train what is missing of each, print the table and write it; the same line goes on."""
    written = [parse_output(text, {}) for text in outputs]
    plans = plan_papers(papers, OnStderr())
    if any(request.dry_run for paper in papers for request in paper.requests):
        for paper in papers:
            for plan, request in zip(plans[paper.name], paper.requests, strict=True):
                print_plan(plan, request)
        return ExitCode.OK
    chapters, code = [], int(ExitCode.OK)
    for paper in papers:
        trained = train_paper(paper, plans[paper.name], folder, line, OnStderr(of=f"{paper.name}: "))
        if trained is None:
            return ExitCode.OK  # stopped early, as it has said
        chapters.append(trained[0])
        code = max(code, trained[1])
    if as_json:
        sys.stdout.write(json.dumps({"schema": "stresstest.claims/1", "claims": stored(chapters)}, indent=1) + "\n")
    else:
        show_claims(chapters, folder, line, verbose)
    write_outputs(written, Made(lambda: claims_document(chapters, line), lambda: claims_tables(chapters), {}))
    return code


def plan_papers(papers: Sequence[Paper], listener: RunListener = SILENT) -> dict[str, list[Plan]]:
    """The plans of all, by name, whose claims can be told; what cannot be is a `ConfigError`."""
    plans = {paper.name: plan_scenario(paper.scenario.experiments, paper.requests, listener) for paper in papers}
    for paper in papers:
        check_claims(paper.scenario, [plan.spec for plan in plans[paper.name]])
    return plans


def train_paper(
    paper: Paper, plans: Sequence[Plan], folder: Path, line: str, listener: RunListener = SILENT
) -> tuple[Chapter, int] | None:
    """What became of a paper's claims and the exit code of its runs, or `None` where one was stopped early.

    `line` goes on with it.
    """
    requests = [replace(request, resume=line, run_dir=None) for request in paper.requests]
    results: dict[str, Result] = {}
    code = int(ExitCode.OK)
    for experiment, trained in train_scenario(paper.scenario, plans, requests, folder / paper.name, listener):
        if trained.result is None:
            return None
        results[experiment.name] = trained.result
        code = max(code, exit_code([cell.status for cell in trained.result.cells]))
    return chapter_of(paper.name, paper.scenario, results), code


def stored(chapters: Sequence[Chapter]) -> list[dict[str, object]]:
    """Every claim as JSON has it."""
    return [
        {
            "scenario": chapter.name,
            "paper": chapter.paper,
            "says": one.claim.says,
            "holds": one.claim.text,
            "verdict": one.verdict,
            "median": one.median.model_dump(),
            "low": one.low,
            "high": one.high,
            "seeds": one.seeds,
            "published": one.claim.published,
        }
        for chapter in chapters
        for one in chapter.judged
    ]
