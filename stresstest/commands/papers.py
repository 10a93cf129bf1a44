"""`stresstest papers`: the scenarios that claim what a paper does, one after the other, and one table of all claims."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stresstest.commands.run import OnStderr, print_plan
from stresstest.commands.show_claims import show_claims
from stresstest.commands.validate import check_claims
from stresstest.errors import ConfigError, ExitCode
from stresstest.gate.claims import Asked, Evidence, Judged, family_size, judge_claims
from stresstest.gate.claims_report import Chapter, claims_document
from stresstest.gate.tables import claims_tables
from stresstest.pipeline import SILENT, RunListener, chapter_of, exit_code, plan_scenario, stored_result, train_scenario
from stresstest.reports.output import Made, console, parse_output, write_outputs
from stresstest.results.records import Result
from stresstest.scenario.claims import Claim
from stresstest.scenario.claims_reader import ClaimSeeds
from stresstest.scenario.library import PAPERS, find_scenario, shipped_scenarios
from stresstest.scenario.reader import Scenario, load_scenario
from stresstest.scenario.request import Request, SettingSources, scenario_requests

if TYPE_CHECKING:
    from stresstest.experiments.plan import Plan

ListenerOf = Callable[[str], RunListener]
DEFAULT_FOLDER = ".stresstest/papers"
CLAIMS_SCHEMA = "stresstest.claims/2"


@dataclass(frozen=True)
class Paper:
    """One scenario, and what was given for its experiments beside it."""

    name: str
    scenario: Scenario
    given: SettingSources
    options: Mapping[str, Any]

    def requests(self) -> list[Request]:
        """Its experiments, to be run."""
        return scenario_requests(f"{PAPERS}/{self.name}", self.scenario, self.given, self.options)

    @property
    def looks(self) -> tuple[int, ...]:
        """Seeds at each look; one look, whatever its seeds, of a scenario that names none that confirm."""
        return (1,) if self.scenario.seeds is None else self.scenario.seeds.looks

    def at_look(self, look: int, left: Sequence[Judged]) -> Paper | None:
        """With more seeds, what its open claims are about; `None` where all is decided, or all are trained."""
        seeds = self.scenario.seeds
        needed = {name for one in left for tested in one.open for name in tested.statement.experiments}
        if seeds is None or look >= len(self.looks) or not needed:
            return None
        return replace(self, scenario=self.scenario.only(needed, ()).with_seeds(seeds, self.looks[look]))


@dataclass(frozen=True)
class Papers:
    """What is to be examined, the size of each paper's family of claims, and how often it is looked at."""

    papers: Sequence[Paper]
    families: Mapping[str, int]
    looks: int


@dataclass(frozen=True)
class Examined:
    """What became of the claims, and the exit code of the runs."""

    chapters: Sequence[Chapter]
    code: int


def choose_papers(
    names: Sequence[str],
    profile: str,
    given: SettingSources,
    options: Mapping[str, Any],
    quick: bool = False,
    first_seed: int | None = None,
) -> Papers:
    """The papers' scenarios of these names, or all, read with a profile of theirs.

    quick: of their headline claims alone, at the first look. first_seed: of other confirming seeds than the files'.
    """
    known = [name for name in shipped_scenarios() if name.startswith(f"{PAPERS}/")]
    asked = [name if "/" in name else f"{PAPERS}/{name}" for name in names] or known
    loaded = {name: load_scenario(find_scenario(name), profile) for name in dict.fromkeys((*known, *asked))}
    loaded = {name: _headlines(one) if quick else one for name, one in loaded.items()}
    families: dict[str, int] = {}
    for one in loaded.values():
        families[one.paper] = families.get(one.paper, 0) + family_size([claim for _, claim in one.claims])
    chosen = {name: loaded[name] for name in dict.fromkeys(asked) if loaded[name].claims}
    if not chosen:
        raise ConfigError(f"{', '.join(names)}: no claim there is a headline; leave out --quick")
    papers = [Paper(Path(name).stem, _from(one, first_seed), given, options) for name, one in chosen.items()]
    return Papers(papers, families, 1 if quick else max(len(paper.looks) for paper in papers))


def run_papers(
    asked: Papers,
    folder: Path,
    outputs: Sequence[str],
    as_json: bool,
    line: str,
    verbose: bool = False,
    shard: tuple[int, int] = (1, 1),
) -> int:
    """Check all, then train what is missing of each, print the table and write it; the same line goes on."""
    written = [parse_output(text, {}) for text in outputs]
    if any(request.dry_run for paper in asked.papers for request in paper.requests()):
        for paper in asked.papers:
            requests = paper.requests()
            for plan, request in zip(plan_paper(paper, requests, OnStderr()), requests, strict=True):
                print_plan(plan, request)
        return ExitCode.OK
    examined = examine(asked, folder, line, OnStderr, shard)
    if examined is None:
        return ExitCode.OK  # stopped early, as it has said
    chapters = examined.chapters
    if as_json:
        sys.stdout.write(json.dumps({"schema": CLAIMS_SCHEMA, "scenarios": stored(chapters)}, indent=1) + "\n")
    else:
        show_claims(chapters, folder, line, verbose)
    write_outputs(written, Made(lambda: claims_document(chapters, line), lambda: claims_tables(chapters), {}))
    return examined.code


def examine(
    asked: Papers, folder: Path, line: str, listener: ListenerOf = lambda of: SILENT, shard: tuple[int, int] = (1, 1)
) -> Examined | None:
    """Train all at the first look, and what is open then with more seeds; `None` where it was stopped early.

    `line` goes on with it. `listener` is made for each scenario, of the words that name it. A shard (i, n) trains every
    n-th scenario from the i-th on; the others have to be in the folder, or it ends there.
    """
    parts: dict[str, Paper] = {paper.name: paper for paper in asked.papers}
    plans = {name: plan_paper(paper, paper.requests(), listener("")) for name, paper in parts.items()}
    results: dict[str, list[dict[str, Result]]] = {name: [] for name in parts}
    judged: list[list[Judged]] = []
    code = int(ExitCode.OK)
    for look in range(asked.looks):
        missing = []
        for place, (name, part) in enumerate(parts.items()):
            requests = [replace(request, resume=line, run_dir=None) for request in part.requests()]
            mine = place % shard[1] == shard[0] - 1
            how = listener(f"{name}: ")
            planned = plans.pop(name) if look == 0 else plan_paper(part, requests, how)
            found = (
                _train(part, planned, requests, folder / name, how) if mine else _stored(part, planned, folder / name)
            )
            if found is None and mine:
                return None
            if found is None:
                missing.append(name)
                continue
            code = max(code, *(exit_code([cell.status for cell in one.cells]) for one in found.values()))
            results[name].append({**(results[name][-1] if results[name] else {}), **found})
        if missing:
            _say_missing(missing, folder, shard, line)
            return None
        judged = judge_claims([_asked(paper, results[paper.name]) for paper in asked.papers], asked.families)
        more = [paper.at_look(look + 1, left) for paper, left in zip(asked.papers, judged, strict=True)]
        parts = {part.name: part for part in more if part is not None}
        if not parts:
            break
    return Examined([*_chapters(asked.papers, judged, results)], code)


def plan_paper(paper: Paper, requests: Sequence[Request], listener: RunListener = SILENT) -> list[Plan]:
    """The plans of its experiments, whose claims can be told; what cannot be is a `ConfigError`."""
    plans = plan_scenario(paper.scenario.experiments, requests, listener)
    check_claims(paper.scenario, [plan.spec for plan in plans])
    return plans


def stored(chapters: Sequence[Chapter]) -> list[dict[str, object]]:
    """Every scenario with its claims, as JSON has them."""
    return [
        {
            "scenario": chapter.name,
            "paper": chapter.paper,
            "seconds": chapter.seconds,
            "size": chapter.size,
            "command": chapter.command,
            "first_seed": chapter.first_seed,
            "device": chapter.device,
            "claims": [_claim(one) for one in chapter.judged],
        }
        for chapter in chapters
    ]


def _headlines(scenario: Scenario) -> Scenario:
    """Its headline claims, without causes, and the experiments that they are about."""
    claims = [(at, replace(claim, because=None)) for at, claim in scenario.claims if claim.headline]
    return scenario.only(_experiments([claim for _, claim in claims]), claims)


def _experiments(claims: Sequence[Claim]) -> Collection[str]:
    return {name for claim in claims for statement in claim.tested for name in statement.experiments}


def _from(scenario: Scenario, first: int | None) -> Scenario:
    """With confirming seeds from another one on."""
    if first is None or scenario.seeds is None:
        return scenario
    seeds: ClaimSeeds = replace(scenario.seeds, first=first)
    try:
        seeds.check()
    except ConfigError as error:
        raise ConfigError(f"{scenario.source}: {error}") from None
    return scenario.with_seeds(seeds, seeds.look)


def _train(
    paper: Paper, plans: Sequence[Plan], requests: Sequence[Request], folder: Path, listener: RunListener
) -> dict[str, Result] | None:
    results = {}
    for experiment, trained in train_scenario(paper.scenario, plans, requests, folder, listener):
        if trained.result is None:
            return None
        results[experiment.name] = trained.result
    return results


def _stored(paper: Paper, plans: Sequence[Plan], folder: Path) -> dict[str, Result] | None:
    """The results of a scenario that another shard has trained; `None` where one is missing."""
    named = zip(paper.scenario.experiments, plans, strict=True)
    found = {experiment.name: stored_result(plan, folder / experiment.name) for experiment, plan in named}
    return None if None in found.values() else {name: one for name, one in found.items() if one is not None}


def _say_missing(missing: Sequence[str], folder: Path, shard: tuple[int, int], line: str) -> None:
    text = (
        f"shard {shard[0]} of {shard[1]} has ended; {len(missing)} scenario{'s' * (len(missing) > 1)} of other shards "
        f"({', '.join(missing)}) are not in {folder}: copy the other shards' folders into it, then: {line}"
    )
    console(stderr=True).print(text, markup=False, soft_wrap=True)


def _asked(paper: Paper, results: Sequence[Mapping[str, Result]]) -> Asked:
    scenario = paper.scenario
    return Asked(scenario.paper, [claim for _, claim in scenario.claims], results, len(paper.looks))


def _chapters(
    papers: Sequence[Paper], judged: Sequence[Sequence[Judged]], results: Mapping[str, Sequence[Mapping[str, Result]]]
) -> Iterator[Chapter]:
    for paper, found in zip(papers, judged, strict=True):
        yield chapter_of(paper.name, paper.scenario.paper, found, results[paper.name][-1])


def _claim(one: Judged) -> dict[str, object]:
    because = one.claim.because
    return {
        "says": one.claim.says,
        "verdict": one.words,
        "published": one.claim.published,
        "headline": one.claim.headline,
        "places": [_tested(place) for place in one.places],
        "because": None if because is None else because.says,
        "cause": None if one.cause is None else _tested(one.cause),
    }


def _tested(one: Evidence) -> dict[str, object]:
    return {
        "at": one.statement.at,
        "holds": one.statement.text,
        "verdict": one.verdict,
        "figure": one.figure,
        "median": one.median.model_dump(),
        "low": one.low,
        "high": one.high,
        "seeds": one.seeds,
        "holding": one.holding,
        "contrary": one.contrary,
        "p": one.p,
        "needed": one.needed,
    }
