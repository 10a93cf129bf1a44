"""The page of the papers: what each scenario asks and claims, and what came out when it was last run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from _markdown import code, page, plain, table
from _package import PAPERS, SHIPPED, load_scenario, shipped_scenarios

RECORDED = Path(__file__).parent / "papers" / "recorded.yaml"


def claims_page() -> str:
    """All papers' scenarios with their claims and the recorded verdicts."""
    recorded = yaml.safe_load(RECORDED.read_text())
    names = [name.removeprefix(f"{PAPERS}/") for name in shipped_scenarios() if name.startswith(f"{PAPERS}/")]
    strange = set(recorded["scenarios"]) ^ set(names)
    if strange:
        raise SystemExit(f"{RECORDED.name} and the scenarios differ in {', '.join(sorted(strange))}")
    verdicts = [claim["verdict"] for one in recorded["scenarios"].values() for claim in one["claims"]]
    counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in ("seen", "not seen", "undecided"))
    parts = [
        f"The last recorded run: {recorded['date']}, {recorded['device']}; {recorded['cost']}. Of {len(verdicts)} "
        f"claims: {counts}.",
        "seen: it holds in more than half of all seeds; not seen: in more than half it does not; undecided: the seeds "
        "cannot tell ([how](../explanation/statistics.md#claims)). Figures are this run's, published ones those of the "
        "paper at its own size. [How the papers are re-run](index.md).",
        *(_scenario(name, recorded["scenarios"][name]) for name in names),
    ]
    return page("Claims and results", "the papers' scenarios and docs/papers/recorded.yaml", *parts)


def _scenario(name: str, recorded: Mapping[str, Any]) -> str:
    scenario = load_scenario(SHIPPED / PAPERS / f"{name}.yaml")
    comment = _comment(name)
    claims = [claim for _, claim in scenario.claims]
    results = _results(name, [claim.says for claim in claims], recorded["claims"])
    rows = (
        [
            plain(claim.says),
            results[claim.says]["verdict"],
            plain(results[claim.says]["figure"]),
            claim.published or "-",
        ]
        for claim in claims
    )
    reasons = [
        f"- {plain(claim.says)}: {plain(claim.because.says)}"
        for claim in claims
        if claim.because and results[claim.says]["verdict"] == "not seen"
    ]
    parts = [
        f"## {name}",
        f"{scenario.paper}. {plain(comment.get('', ''))}",
        f"{code(f'stresstest run {PAPERS}/{name}')}; recorded: {recorded['minutes']} minutes of one core.",
        table(["claim", "verdict", "figure", "published"], rows),
        "Why not, where that was found:\n\n" + "\n".join(reasons) if reasons else "",
        *(f"{title}: {plain(text)}" for title, text in comment.items() if title),
    ]
    return "\n\n".join(filter(None, parts))


def _results(name: str, says: Sequence[str], recorded: Sequence[Mapping[str, str]]) -> dict[str, Mapping[str, str]]:
    found = {claim["says"]: claim for claim in recorded}
    strange = set(found) ^ set(says)
    if strange:
        raise SystemExit(
            f"{RECORDED.name}, {name}: the scenario and the record differ in: {'; '.join(sorted(strange))}"
        )
    return found


def _comment(name: str) -> dict[str, str]:
    """What the comment at the top of a file says: the question, and the texts after Cost:, Sources: and the like."""
    parts: dict[str, str] = {"": ""}
    title = ""
    for line in (SHIPPED / PAPERS / f"{name}.yaml").read_text().splitlines():
        if not line.startswith("# "):
            break
        text = line.removeprefix("# ").strip()
        start, colon, rest = text.partition(": ")
        if colon and start in ("Cost", "Sources", "Expected"):
            title, text = start, rest
        parts[title] = f"{parts.get(title, '')} {text}".strip()
    return parts
