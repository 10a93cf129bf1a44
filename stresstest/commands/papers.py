"""`stresstest papers`: the scenarios that claim what a paper does, one after the other, and one table of all claims."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stresstest.commands.validate import check_claims
from stresstest.errors import ExitCode
from stresstest.gate.claims_report import Chapter, claims_document
from stresstest.pipeline import Request, chapter_of, exit_code, plan_scenario, print_plan, train_experiment
from stresstest.reports.output import console, parse_output, render, write_output
from stresstest.reports.terminal import print_document
from stresstest.results.records import Result
from stresstest.scenario.reader import Scenario

DEFAULT_FOLDER = ".stresstest/papers"


@dataclass(frozen=True)
class Paper:
    """One scenario and its requests."""

    name: str
    scenario: Scenario
    requests: Sequence[Request]


def run_papers(papers: Sequence[Paper], folder: Path, outputs: Sequence[str], as_json: bool, line: str) -> int:
    """Check all, then train what is missing of each, print the table and write it; the same line goes on."""
    written = [parse_output(text, {}) for text in outputs]
    plans = {paper.name: plan_scenario(paper.scenario.experiments, paper.requests) for paper in papers}
    for paper in papers:
        check_claims(paper.scenario, [plan.spec for plan in plans[paper.name]])
    if any(request.dry_run for paper in papers for request in paper.requests):
        for paper in papers:
            for plan, request in zip(plans[paper.name], paper.requests, strict=True):
                print_plan(plan, request)
        return ExitCode.OK
    chapters, statuses = [], []
    for paper in papers:
        results: dict[str, Result] = {}
        for experiment, plan, asked in zip(paper.scenario.experiments, plans[paper.name], paper.requests, strict=True):
            request = replace(asked, resume=line, run_dir=None)
            if not request.quiet:
                console(stderr=True).print(f"{paper.name}: {experiment.name}: {experiment.command}", markup=False)
            _, result, _ = train_experiment(plan, request, folder / paper.name / experiment.name)
            if result is None:
                return ExitCode.OK  # stopped early, as it has said
            results[experiment.name] = result
            statuses += [cell.status for cell in result.cells]
        chapters.append(chapter_of(paper.name, paper.scenario, results))
    if as_json:
        sys.stdout.write(json.dumps({"schema": "stresstest.claims/1", "claims": stored(chapters)}, indent=1) + "\n")
    else:
        print_document(claims_document(chapters), console())
    for kind, path in written:
        write_output(path, render(claims_document(chapters, line), kind))
    return exit_code(statuses)


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
