"""Claims as a document: a table a paper, counts, and why what was not seen was not."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console

from stresstest.gate.claims import ClaimVerdict, Evidence, Judged
from stresstest.gate.claims_charts import claims_charts
from stresstest.gate.claims_report import Chapter, claims_document
from stresstest.reports.output import FORMATS, render
from stresstest.reports.terminal import print_document
from stresstest.results.records import Bracket
from stresstest.scenario.claims import Cause, parse_claim, parse_statement


def judged(says: str, verdict: ClaimVerdict) -> Judged:
    claim = parse_claim(says, "a.max_stable_lr{variant=pre-ln} > 1", because=Cause("it is <small>"))
    found = Evidence(claim.statements[0], verdict, Bracket.exactly(1.5), 1.2, None, 3, 3, level=0.02)
    return Judged(claim, (found,))


CHAPTERS = [
    Chapter("xiong", "Xiong et al. 2020", [judged("post-ln needs a warm-up, which pre-ln does not", "seen")], 90.0),
    Chapter("bert", "Nobody 2026", [judged("so does | BERT", "not seen"), judged("and more", "undecided")], 6.0),
]


def terminal(width: int, verbose: bool = False) -> str:
    out = io.StringIO()
    print_document(claims_document(CHAPTERS), Console(file=out, width=width), verbose)
    return out.getvalue()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_terminal_has_all_tables_of_one_layout(width: int) -> None:
    out = terminal(width)
    assert [line for line in out.splitlines() if cell_len(line) > width] == []
    assert {line.index("verdict") for line in out.splitlines() if line.startswith("claim")} == {
        line.index("undecided") for line in out.splitlines() if line.startswith("and more")
    }
    for words in ("Xiong et al. 2020: xiong 1.5 min of one core", "3 claims: 1 seen, 1 not seen, 1 undecided"):
        assert words in " ".join(out.split())


def test_a_verdict_a_paper_comes_last_and_v_says_why_a_claim_was_not_seen() -> None:
    brief, whole = terminal(80), terminal(80, verbose=True)
    assert brief.splitlines()[-5:-1] == [
        "+ xiong  1 of 1 claims seen",
        "? bert   0 of 2 claims seen, 1 undecided; not seen: so does | BERT",
        "- 3 claims: 1 seen, 1 not seen, 1 undecided",
        "How sure: exact sign test over 3 paired seeds, 5 % for any wrong verdict among a",
    ]
    assert "it is <small>" not in brief
    assert whole.index("not seen: so does | BERT: it is <small> (not tested)") < whole.index("+ xiong")
    assert "open: and more: 3 of 3 seeds hold: about 7 would decide" in " ".join(whole.split())


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_says_what_became_of_every_claim(kind: str) -> None:
    text = render(claims_document(CHAPTERS, "stresstest papers"), kind)
    for words in ("Xiong et al. 2020", "post-ln needs a warm-up", "1.5 (1.2..more, 3 of 3 seeds)", "stresstest papers"):
        assert words in text
    assert ("so does \\| BERT" in text) == (kind == "md")
    assert "it is &lt;small" in text
    if kind == "html":
        assert [text.count(f'<td class="left {tone}">') for tone in ("good", "bad", "mixed")] == [1, 1, 1]


def of(text: str, middle: float, low: float | None, high: float | None) -> Judged:
    claim = parse_claim("it does", text)
    return Judged(claim, (Evidence(claim.statements[0], "seen", Bracket.exactly(middle), low, high, 3),))


@pytest.mark.parametrize(
    ("text", "figure", "expected"),
    [
        ("a.speedup{variant=p} / a.speedup{variant=q} > 2", (3.0, 4.0, 6.0), (1.5, 2.0, 3.0)),
        ("a.speedup{variant=p} < 10", (2.0, 5.0, 20.0), (0.5, 2.0, 5.0)),
        ("a.speedup{variant=p} - a.speedup{variant=q} > 0.3", (0.1, 0.5, 0.8), (-0.2, 0.2, 0.5)),
        ("a.speedup{variant=p} - a.speedup{variant=q} < 0", (-0.4, -0.1, 0.2), (-0.2, 0.1, 0.4)),
        ("a.speedup{variant=p} > -0.25", (-0.3, -0.2, 0.1), (-0.05, 0.05, 0.35)),
        ("a.speedup{variant=p} / a.speedup{variant=q} > 2", (3.0, 4.0, None), (1.5, 2.0, None)),
        ("a.speedup{variant=p} < 10", (2.0, 5.0, None), (None, 2.0, 5.0)),
    ],
)
def test_a_forest_turns_each_claim_so_that_right_of_its_threshold_it_holds(
    text: str, figure: tuple[float, float, float | None], expected: tuple[float | None, float, float | None]
) -> None:
    low, middle, high = figure
    (chart,) = claims_charts("paper", [of(text, middle, low, high)])
    (dots,) = chart.series
    assert dots.points[0][0] == pytest.approx(expected[1])
    axis = (chart.x.low, chart.x.high)
    ends = [side if end is None else end for end, side in zip((expected[0], expected[2]), axis, strict=True)]
    assert dots.spans[0] == pytest.approx(ends), "an open end goes on to that of the axis"
    assert chart.reference == ("threshold", 1.0 if chart.x.log else 0.0)
    assert chart.y.names == ("it does",)


def test_ratios_stand_together_and_differences_by_their_metric() -> None:
    ratio, difference = "a.speedup{variant=p} / a.speedup{variant=q} > 2", "a.bleu{variant=p} - a.bleu{variant=q} > 0"
    texts = [ratio, difference, "a.speedup{variant=p} > 2"]
    claim = parse_claim("it", texts[0])
    unknown = Judged(claim, (Evidence(claim.statements[0]),))
    charts = [*claims_charts("paper", [*(of(text, 3.0, 2.5, 4.0) for text in texts), unknown])]
    found = [(chart.name, len(chart.y.names)) for chart in charts]
    assert found == [("claims-paper-ratios", 2), ("claims-paper-bleu", 1)]


def test_places_along_a_path_and_the_cause_of_what_was_not_seen_have_rows_of_their_own() -> None:
    because = Cause("it is small", parse_statement("a.speedup{variant=q} > 1"))
    claim = parse_claim("it does", "a.speedup{variant=p,depth=$depth} > 1", {"depth": ["8", "64"]}, because=because)
    small, large, why = (Evidence(one, "not seen", Bracket.exactly(0.5), 0.4, 0.6, 9, 0, 9) for one in claim.tested)
    one = Judged(claim, (small, large), replace(why, verdict="seen"))
    (chart,) = claims_charts("paper", [one])
    assert chart.y.names == ("it does, depth 8", "it does, depth 64", "because it is small")
    text = render(claims_document([Chapter("p", "P", [one], 1.0)]), "md")
    assert "not seen: it does: it is small (seen: 0.5 (0.4..0.6, 0 of 9 seeds))" in text
    (large,) = [line for line in text.splitlines() if line.startswith("| depth 64")]
    assert "| not seen | 0.5 (0.4..0.6, 0 of 9 seeds) |" in large
    seen = Judged(claim, (small, replace(small, statement=claim.statements[1], verdict="seen")), why)
    assert (seen.words, [chart.y.names[-1] for chart in claims_charts("paper", [seen])]) == (
        "seen from depth 64",
        ["it does, depth 64"],
    )
