"""Claims as a document: a table a paper, counts, and why what was not seen was not."""

from __future__ import annotations

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from stresstest.gate.claims import ClaimVerdict, Judged
from stresstest.gate.claims_report import Chapter, claims_document
from stresstest.reports.output import FORMATS, render
from stresstest.reports.terminal import print_document
from stresstest.results.records import Bracket
from stresstest.scenario.claims import parse_claim


def judged(says: str, verdict: ClaimVerdict) -> Judged:
    claim = parse_claim(says, "a.max_stable_lr{variant=pre-ln} > 1", because="it is <small>")
    return Judged(claim, verdict, Bracket(low=1.5, high=1.5), 1.2, None, 3)


CHAPTERS = [
    Chapter("xiong", "Xiong et al. 2020", [judged("post-ln needs a warm-up, which pre-ln does not", "seen")], 90.0),
    Chapter("bert", "Nobody 2026", [judged("so does | BERT", "not seen"), judged("and more", "undecided")], 6.0),
]


def terminal(width: int) -> str:
    out = io.StringIO()
    print_document(claims_document(CHAPTERS), Console(file=out, width=width))
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
    assert out.index("not seen: so does | BERT: it is <small>") < out.index("3 claims:")


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_says_what_became_of_every_claim(kind: str) -> None:
    text = render(claims_document(CHAPTERS, "stresstest papers"), kind)
    for words in ("Xiong et al. 2020", "post-ln needs a warm-up", "1.5 (1.2..more, 3 seeds)", "stresstest papers"):
        assert words in text
    assert ("so does \\| BERT" in text) == (kind == "md")
    assert "it is &lt;small" in text
    if kind == "html":
        assert [text.count(f'<td class="left {tone}">') for tone in ("good", "bad", "mixed")] == [1, 1, 1]
