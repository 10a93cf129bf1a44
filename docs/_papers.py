"""The page of the papers: what each scenario asks and claims, and what came out when it was last run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from _markdown import code, page, plain, table
from _package import PAPERS, SHIPPED, load_scenario, shipped_scenarios

# What `stresstest papers --json` wrote, and once more with other seeds (`--first-seed`).
RECORDED = Path(__file__).parent / "papers" / "recorded.json"
AGAIN = Path(__file__).parent / "papers" / "recorded-again.json"
PICTURES = RECORDED.parents[1] / "images" / "papers"
VERDICTS = ("seen", "not seen", "undecided")


def claims_page() -> str:
    """All papers' scenarios with their claims and the recorded verdicts."""
    recorded, again = _read(RECORDED), _read(AGAIN)
    names = [name.removeprefix(f"{PAPERS}/") for name in shipped_scenarios() if name.startswith(f"{PAPERS}/")]
    verdicts = [_verdict(claim) for one in recorded.values() for claim in one["claims"]]
    counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in VERDICTS)
    minutes = sum(one["seconds"] for one in recorded.values()) / 60
    devices = ", ".join(dict.fromkeys(one["device"] for one in recorded.values()))
    newer = len(set(names) - set(recorded))
    more = f" {newer} of {len(names)} scenarios are newer than that run." if newer else ""
    parts = [
        f"The last recorded run, on {devices}: {minutes:.0f} minutes of one core. Of {len(verdicts)} claims: "
        f"{counts}.{more}",
        _moved(recorded, again),
        "seen: it holds in more than half of all seeds; not seen: in more than half it does not; undecided: the seeds "
        "cannot tell ([how](../explanation/statistics.md#claims)). Figures are this run's: the median, its interval, "
        "and in how many seeds the claim holds; published ones are those of the paper at its own size. [How the papers "
        "are re-run](index.md).",
        *(_scenario(name, recorded.get(name)) for name in names),
    ]
    return page("Claims and results", f"the papers' scenarios and docs/papers/{RECORDED.name}", *parts)


def _read(path: Path) -> dict[str, Any]:
    return {one["scenario"]: one for one in json.loads(path.read_text())["scenarios"]} if path.exists() else {}


def _verdict(claim: Mapping[str, Any]) -> str:
    """Without the place from which on it is seen."""
    return "seen" if claim["verdict"].startswith("seen") else str(claim["verdict"])


def _moved(recorded: Mapping[str, Any], again: Mapping[str, Any]) -> str:
    """How the verdicts of a second run with other seeds differ."""
    if not again:
        return ""
    pairs = [
        (name, claim["says"], _verdict(claim), _verdict(other))
        for name, one in recorded.items()
        for claim, other in zip(one["claims"], again[name]["claims"], strict=True)
    ]
    turned = [pair for pair in pairs if {*pair[2:]} == {"seen", "not seen"}]
    open_ = [pair for pair in pairs if pair[2] != pair[3] and "undecided" in pair[2:]]
    seeds = ", ".join(str(seed) for seed in dict.fromkeys(one["first_seed"] for one in again.values()))
    lines = [f"- {name}: {plain(says)}: {first}, then {second}" for name, says, first, second in (*turned, *open_)]
    text = (
        f"A second run with other seeds (from {seeds} on): "
        f"{len(turned)} of {len(pairs)} claims went from seen to not seen or back, {len(open_)} to or from undecided."
    )
    return "\n\n".join([text, "\n".join(lines)]) if lines else text


def _scenario(name: str, recorded: Mapping[str, Any] | None) -> str:
    scenario = load_scenario(SHIPPED / PAPERS / f"{name}.yaml")
    comment, claims = _comment(name), [] if recorded is None else recorded["claims"]
    parts = [f"## {name}", f"{scenario.paper}. {plain(comment.get('', ''))}"]
    if recorded is None or [claim.says for _, claim in scenario.claims] != [claim["says"] for claim in claims]:
        rows = ([plain(claim.says), "not recorded", "", claim.published or "-"] for _, claim in scenario.claims)
        parts.append(f"{code(f'stresstest papers {name}')}: its claims are newer than the last recorded run.")
    else:
        rows = (row for claim in claims for row in _rows(claim))
        explored = () if scenario.seeds is None else scenario.seeds.explored
        seeds = f"; explored with seeds {', '.join(map(str, explored))}" if explored else ""
        parts.append(
            f"{code(f'stresstest papers {name}')}: {recorded['seconds'] / 60:.1f} minutes of one core; "
            f"{recorded['size']}; confirmed with seeds from {recorded['first_seed']} on{seeds}."
        )
    parts += [
        table(["claim", "verdict", "figure", "published"], rows),
        _picture(name),
        _reasons(claims),
        *(f"{title}: {plain(text)}" for title, text in comment.items() if title),
    ]
    return "\n\n".join(filter(None, parts))


def _picture(name: str) -> str:
    """What `report RUN -o svg:FOLDER` drew of one of its runs, where that was kept."""
    shown = []
    for path in sorted(PICTURES.glob(f"{name}-*.svg")):
        experiment = path.stem.removeprefix(f"{name}-")
        shown.append(f"![The losses of {experiment}, seed by seed](../images/papers/{path.name})")
    return "\n\n".join(shown)


def _rows(claim: Mapping[str, Any]) -> Iterator[list[str]]:
    """A row a claim, and along a path one more for each place."""
    path = claim["places"] if len(claim["places"]) > 1 else []
    figure = "" if path else claim["places"][0]["figure"]
    yield [plain(claim["says"]), claim["verdict"], plain(figure), claim["published"] or "-"]
    for place in path:
        yield [place["at"], place["verdict"], plain(place["figure"]), ""]


def _reasons(claims: Sequence[Mapping[str, Any]]) -> str:
    """Why what was not seen was not, as tested, and what would decide what is open."""
    lines = []
    for claim in claims:
        if claim["because"] and _verdict(claim) != "seen":
            tested = (
                "not tested" if claim["cause"] is None else f"{claim['cause']['verdict']}: {claim['cause']['figure']}"
            )
            lines.append(f"- {plain(claim['says'])}: {plain(claim['because'])} ({plain(tested)})")
        for place in claim["places"]:
            if place["verdict"] == "undecided":
                needed = f"about {place['needed']} seeds" if place["needed"] else "no number of seeds in reach"
                lines.append(f"- {' '.join(filter(None, (plain(claim['says']), place['at'])))}: {needed} would decide")
    return "Why not, and what would decide:\n\n" + "\n".join(lines) if lines else ""


def _comment(name: str) -> dict[str, str]:
    """What the comment at the top of a file says: the question, and the texts after Cost:, Sources: and the like."""
    parts: dict[str, str] = {"": ""}
    title = ""
    for line in (SHIPPED / PAPERS / f"{name}.yaml").read_text().splitlines():
        if not line.startswith("# "):
            break
        text = line.removeprefix("# ").strip()
        start, colon, rest = text.partition(": ")
        if colon and start in ("Cost", "Full", "Sources", "Expected", "Explored"):
            title, text = start, rest
        parts[title] = f"{parts.get(title, '')} {text}".strip()
    return parts
