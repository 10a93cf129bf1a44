"""Claims: their grammar, what they may be about, and what becomes of them."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from stresstest.cli.main import run
from stresstest.commands.papers import choose_papers
from stresstest.errors import ConfigError
from stresstest.experiments.table import EXPERIMENTS
from stresstest.gate import claims, statistics
from stresstest.gate.claim_values import check_claim
from stresstest.gate.claims import Asked, Evidence, judge_claims
from stresstest.results.records import Bracket, Result, SummaryRow, TrendRow, summarise
from stresstest.scenario.claims import Cause, Claim, parse_claim, parse_statement
from stresstest.scenario.claims_reader import ClaimSeeds
from stresstest.scenario.library import PAPERS, find_scenario, shipped_scenarios
from stresstest.scenario.reader import load_scenario
from stresstest.scenario.request import SettingSources
from stresstest.specs.profiles import make_spec

SETTINGS = {"depths": (2, 8), "variant": "post-ln,pre-ln", "measure": "outcome"}
SWEEP = make_spec(EXPERIMENTS["depth-sweep"].spec, "quick", SETTINGS)


def claim(text: str) -> Claim:
    return parse_claim("", text)


def judged(text: str, results: Mapping[str, Result]) -> Evidence:
    """The only claim of a paper, at its only look."""
    ((one,),) = judge_claims([Asked("", [claim(text)], [results])])
    return one.places[0]


def row(variant: str, depth: int, metric: str, values: dict[int, Bracket | float]) -> SummaryRow:
    brackets = {s: v if isinstance(v, Bracket) else Bracket.exactly(v) for s, v in values.items()}
    metrics = {metric: summarise(metric, brackets)}
    return SummaryRow(variant=variant, depth=depth, optimizer="adam", metrics=metrics, outcomes={})


def result(*rows: SummaryRow, trends: tuple[TrendRow, ...] = ()) -> dict[str, Result]:
    settings: dict[str, Any] = {name: {} for name in ("spec", "rules", "environment", "data")}
    settings |= {"command": "depth-sweep", "reproduce": "", "cells": [], "findings": []}
    made = Result(schema_="", summary=list(rows), trends=list(trends), **settings)
    return {"a": made}


def losses(variant: str, *values: float) -> SummaryRow:
    return row(variant, 2, "recipe_loss", dict(enumerate(values)))


POST, PRE = "a.recipe_loss{variant=post-ln,depth=2}", "a.recipe_loss{variant=pre-ln,depth=2}"


def test_a_claim_has_two_operands_a_comparison_and_a_number() -> None:
    found = parse_statement(f"{POST} - {PRE} >= -0.5")
    assert (found.left.experiment, found.left.metric) == ("a", "recipe_loss")
    assert found.left.selector == (("variant", "post-ln"), ("depth", "2"))
    assert found.right is not None
    assert found.right.selector[0] == ("variant", "pre-ln")
    assert (found.how, found.operator, found.limit) == ("-", ">=", -0.5)


def test_options_and_hyphens_in_names_are_no_operators() -> None:
    found = parse_statement(
        "no-warmup.speedup{variant=rezero:alpha=1,optimizer=gi-adam} / b.speedup{variant=pre-ln} < 1e-3"
    )
    assert found.left.experiment == "no-warmup"
    assert found.left.selector == (("variant", "rezero:alpha=1"), ("optimizer", "gi-adam"))
    assert (found.how, found.limit) == ("/", 1e-3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a.recipe_loss", "is not a claim"),
        ("a.recipe_loss > x", "is not a claim"),
        ("recipe_loss > 1", "does not name its experiment"),
        ("a.recipe_los > 1", "did you mean 'recipe_loss'"),
        ("a.recipe_loss{colour=red} > 1", "unknown key 'colour'"),
        ("a.recipe_loss / > 1", "is no"),
    ],
)
def test_what_is_no_claim_is_one_line(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        claim(text)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("b.recipe_loss{variant=pre-ln,depth=2} > 1", "unknown experiment 'b'"),
        ("a.max_stable_lr{variant=pre-ln,depth=2} > 1", "does not measure max_stable_lr"),
        ("a.recipe_loss{variant=pre-ln} > 1", "matches 2 rows"),
        ("a.recipe_loss{variant=rezero,depth=2} > 1", "matches 0 rows"),
        ("a.recipe_loss{variant=pre-ln,depth=2} - a.recipe_loss{variant=pre-ln,depth=3} > 1", "matches 0 rows"),
    ],
)
def test_what_the_experiment_does_not_give_is_one_line(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_claim(claim(text), {"a": SWEEP})


def test_first_and_last_are_the_smallest_and_the_largest() -> None:
    check_claim(claim("a.recipe_loss{variant=pre-ln,depth=last} > 1"), {"a": SWEEP})
    rows = [row("pre-ln", depth, "recipe_loss", dict.fromkeys(range(6), float(depth))) for depth in (2, 16, 8)]
    found = judged("a.recipe_loss{variant=pre-ln,depth=last} > 10", result(*rows))
    assert (found.verdict, found.median.low) == ("seen", 16.0)


@pytest.mark.parametrize(
    ("holding", "contrary", "verdict"),
    [(6, 0, "seen"), (0, 6, "not seen"), (5, 0, "undecided"), (8, 1, "seen"), (5, 1, "undecided"), (1, 8, "not seen")],
)
def test_a_claim_alone_is_decided_by_an_exact_sign_test_at_5_percent(holding: int, contrary: int, verdict: str) -> None:
    """Six seeds that agree, or eight of nine (p = 0.039), decide; five, or five of six, do not."""
    values = [3.0] * holding + [2.0] * contrary
    found = judged(f"{POST} - {PRE} > 0.5", result(losses("post-ln", *values), losses("pre-ln", *[2.0] * len(values))))
    assert found.verdict == verdict
    assert (found.holding, found.contrary, found.seeds) == (holding, contrary, holding + contrary)
    alone = scipy.stats.binomtest(max(holding, contrary), holding + contrary).pvalue
    assert found.p == pytest.approx(alone)


@given(st.integers(1, 60), st.integers(0, 60))
def test_the_sign_test_is_scipys(agreeing: int, others: int) -> None:
    number, one = agreeing + others, max(agreeing, others)
    assert statistics.sign_test(one, number) == pytest.approx(scipy.stats.binomtest(one, number).pvalue)


@pytest.mark.parametrize(("one", "other", "expected"), [(6, 2, None), (9, 3, None), (12, 0, 6), (7, 7, None)])
def test_how_many_seeds_would_decide_is_the_first_number_whose_test_does(
    one: int, other: int, expected: int | None
) -> None:
    """Of seeds that go on as they did, by scipy's test; None where they fall alike."""
    number, found = one + other, statistics.seeds_to_decide(one, other, one + other, 0.05)
    passes = (
        n for n in range(1, 200) if scipy.stats.binomtest(math.floor(max(one, other) * n / number), n).pvalue <= 0.05
    )
    assert found == (None if one == other else next(passes))
    if expected is not None:
        assert found == expected


def several(*pairs: tuple[int, int]) -> tuple[list[Claim], dict[str, Result]]:
    """Claims that hold in so many seeds, and do not in so many."""
    claims = [claim(f"a.recipe_loss{{variant=pre-ln,depth={depth}}} > 0") for depth in range(1, len(pairs) + 1)]
    values = [[1.0] * yes + [-1.0] * no for yes, no in pairs]
    rows = [row("pre-ln", depth, "recipe_loss", dict(enumerate(mine))) for depth, mine in enumerate(values, 1)]
    return claims, result(*rows)


def test_holm_goes_over_all_claims_of_a_paper_and_no_other() -> None:
    """Two-sided 2^-5 of six seeds passes alone; as one of two it needs the other one's 2^-9 first."""
    six, ten = (6, 0), (10, 0)
    claims, results = several(six, six)
    (alike,) = judge_claims([Asked("P", claims, [results])])
    assert [one.verdict for one in alike] == ["undecided", "undecided"]
    claims, results = several(ten, six)
    (stepped,) = judge_claims([Asked("P", claims, [results])])
    assert [one.verdict for one in stepped] == ["seen", "seen"]
    ((first,), (second,)) = judge_claims([Asked(name, claims[1:], [results]) for name in ("P", "Q")])
    assert (first.verdict, second.verdict) == ("seen", "seen")
    ((held_back,),) = judge_claims([Asked("P", claims[1:], [results])], {"P": 9})
    assert held_back.verdict == "undecided", "eight claims of the paper were not run"
    assert held_back.places[0].p == pytest.approx(9 * 2 / 2**6)


def test_alpha_is_spent_over_two_looks_and_what_is_decided_stays() -> None:
    """At the second look a claim that was seen is not asked again, and frees its share for the others."""
    claims, first = several((12, 0), (6, 6))
    _, second = several((12, 24), (34, 2))
    (found,) = judge_claims([Asked("P", claims, [first, second], looks=2)])
    assert [one.verdict for one in found] == ["seen", "seen"]
    assert [one.seeds for one in found] == [12, 36]
    (once,) = judge_claims([Asked("P", claims, [first], looks=2)])
    assert [one.verdict for one in once] == ["seen", "undecided"]
    six, results = several((6, 0))
    ((spent,),) = judge_claims([Asked("P", six, [results], looks=2)])
    assert spent.verdict == "undecided", "0.031 is above the half of alpha that one of two looks has"


@pytest.mark.parametrize(
    ("look", "most", "looks"),
    [
        (12, 36, (12, 18, 36)),
        (12, 76, (12, 18, 76)),
        (6, 7, (6, 7)),
        (12, 12, (12,)),
        (12, 18, (12, 18)),
        (1, 2, (1, 2)),
    ],
)
def test_a_look_between_has_half_as_many_seeds_more(look: int, most: int, looks: tuple[int, ...]) -> None:
    assert ClaimSeeds(look=look, most=most).looks == looks


def test_one_contrary_seed_of_eighteen_decides_at_the_second_look_in_the_largest_family_of_a_paper() -> None:
    (one,), first = several((11, 1))
    _, second = several((17, 1))
    families = choose_papers([], "cpu", SettingSources(), {}).families
    family = {"P": max(families.values())}
    ((before,),) = judge_claims([Asked("P", [one], [first], looks=3)], family)
    ((after,),) = judge_claims([Asked("P", [one], [first, second], looks=3)], family)
    assert (before.verdict, after.verdict) == ("undecided", "seen")


def test_chance_alone_is_called_in_at_most_5_percent_of_papers() -> None:
    """Ten claims that hold in every other seed, 100 papers, all looks: binomial, 1 % limit."""
    toss, wrong = random.Random(0), 0
    for _ in range(100):
        seeds = [[toss.choice((1.0, -1.0)) for _ in range(36)] for _ in range(10)]
        claims = [claim(f"a.recipe_loss{{variant=pre-ln,depth={depth}}} > 0") for depth in range(10)]
        looks = [
            result(*(row("pre-ln", d, "recipe_loss", dict(enumerate(mine[:n]))) for d, mine in enumerate(seeds)))
            for n in ClaimSeeds().looks
        ]
        (found,) = judge_claims([Asked("P", claims, looks, looks=len(looks))])
        wrong += any(one.verdict != "undecided" for one in found)
    assert wrong <= scipy.stats.binom.ppf(0.99, 100, 0.05)


def test_along_a_path_a_claim_is_seen_from_where_it_begins_to_hold() -> None:
    at = "a.recipe_loss{variant=pre-ln,depth=$depth} > 0"
    one = parse_claim("it trains", at, {"depth": ["1", "2", "3"]})
    assert [statement.at for statement in one.statements] == ["depth 1", "depth 2", "depth 3"]
    for pairs, words in (
        (((0, 12), (12, 0), (12, 0)), "seen from depth 2"),
        (((12, 0), (12, 0), (12, 0)), "seen"),
        (((12, 0), (12, 0), (0, 12)), "not seen"),
        (((12, 0), (0, 12), (12, 0)), "seen from depth 3"),
        (((12, 0), (12, 0), (6, 6)), "undecided"),
    ):
        _, results = several(*pairs)
        ((found,),) = judge_claims([Asked("P", [one], [results])])
        assert found.words == words
        assert found.figure.startswith("depth 1: ")
    with pytest.raises(ConfigError, match=r"does not contain \$depth"):
        parse_claim("it trains", "a.recipe_loss{variant=pre-ln} > 0", {"depth": ["1"]})


def test_a_cause_is_tested_with_the_claims_and_open_where_the_claim_is_not_seen() -> None:
    (holds, why), results = several((0, 12), (12, 0))
    one = replace(holds, because=Cause("of that", why.statements[0]))
    ((found,),) = judge_claims([Asked("P", [one], [results])])
    assert found.cause is not None
    assert (found.verdict, found.cause.verdict, found.open) == ("not seen", "seen", [])
    assert found.cause.p == pytest.approx(2 * 2 / 2**12), "one of a family of two"
    _, results = several((12, 0), (6, 6))
    ((unasked,),) = judge_claims([Asked("P", [one], [results])])
    assert unasked.open == [], "a claim that is seen needs no cause"


def test_seeds_are_paired() -> None:
    """Each seed differs by 0.1, though the seeds themselves scatter by far more."""
    values = [float(seed) for seed in range(6)]
    rows = losses("post-ln", *(value + 0.1 for value in values)), losses("pre-ln", *values)
    found = judged(f"{POST} - {PRE} > 0.05", result(*rows))
    assert found.verdict == "seen"
    assert found.low == pytest.approx(0.1)


def test_the_interval_covers_the_median_95_percent_of_the_time_from_six_seeds_on() -> None:
    """Order statistics (binomial): all of six, the third of twelve and the twelfth of 36 from both ends."""
    for number, rank in ((6, 1), (8, 1), (12, 3), (36, 12)):
        found = judged(f"{POST} > 0.5", result(losses("post-ln", *map(float, range(1, number + 1)))))
        assert (found.low, found.high) == (rank, number + 1 - rank)
        assert 1 - 2 * scipy.stats.binom.cdf(rank - 1, number, 0.5) >= 0.95


def test_a_bracket_counts_as_the_last_that_was_good() -> None:
    """A depth between 100, which trained, and 10,000, which did not, is no 10,000."""
    trend = TrendRow(variant="pre-ln", optimizer="adam", metrics={})
    values = dict.fromkeys(range(6), Bracket(low=100.0, high=10_000.0))
    trend = trend.model_copy(update={"metrics": {"max_trainable_depth": summarise("max_trainable_depth", values)}})
    asked = "a.max_trainable_depth{variant=pre-ln} >= 10000"
    assert judged(asked, result(trends=(trend,))).verdict == "not seen"


LR = "a.max_stable_lr{variant=%s,depth=2}"


@pytest.mark.parametrize(
    ("over", "under", "limit", "verdict"),
    [
        (Bracket(low=8.0, high=16.0), Bracket(low=2.0, high=4.0), "> 3", "seen"),
        (Bracket(low=8.0, high=None), Bracket(low=2.0, high=4.0), "> 3", "seen"),  # at least four times
        (Bracket(low=8.0, high=None), Bracket(low=2.0, high=4.0), "> 5", "undecided"),  # how much more, nobody knows
        (Bracket(low=2.0, high=4.0), Bracket(low=8.0, high=None), "< 0.5", "seen"),
        (Bracket(low=8.0, high=None), Bracket(low=8.0, high=None), "> 1", "undecided"),  # both beyond the range
        (Bracket(low=2.0, high=4.0), Bracket(low=None, high=1.0), "> 1.5", "seen"),  # b is below 1
        (Bracket(low=None, high=None), Bracket(low=2.0, high=4.0), "< 1", "seen"),  # a trains nowhere
        (Bracket(low=2.0, high=4.0), Bracket(low=None, high=None), "> 1", "seen"),
        (Bracket(low=None, high=None), Bracket(low=None, high=None), "> 1", "undecided"),
    ],
)
def test_a_side_that_is_open_stays_open(over: Bracket, under: Bracket, limit: str, verdict: str) -> None:
    rows = [
        row(variant, 2, "max_stable_lr", dict.fromkeys(range(6), bracket))
        for variant, bracket in (("pre-ln", over), ("post-ln", under))
    ]
    assert judged(f"{LR % 'pre-ln'} / {LR % 'post-ln'} {limit}", result(*rows)).verdict == verdict


def test_a_seed_that_leaves_it_open_counts_on_neither_side() -> None:
    values: dict[int, Bracket | float] = {**dict.fromkeys(range(6), 3.0), 6: Bracket(low=1.0, high=None)}
    found = judged(f"{POST} > 2", result(row("post-ln", 2, "recipe_loss", values)))
    assert (found.holding, found.contrary, found.seeds, found.verdict) == (6, 0, 7, "undecided")


@given(st.lists(st.floats(-5, 5), min_size=6, max_size=9), st.floats(-5, 5))
def test_a_claim_and_its_contrary_are_never_both_seen(values: list[float], limit: float) -> None:
    rows = result(losses("post-ln", *values))
    above, below = (judged(f"{POST} {sign} {limit!r}", rows).verdict for sign in (">", "<="))
    assert {above, below} in ({"seen", "not seen"}, {"undecided"})


def test_nothing_is_undecided() -> None:
    found = judged(f"{POST} > 0.5", result())
    assert (found.verdict, found.figure) == ("undecided", "no value")


@pytest.mark.parametrize("name", [name for name in shipped_scenarios() if name.startswith(f"{PAPERS}/")])
@pytest.mark.parametrize("profile", ["cpu", "full"])
def test_a_papers_scenario_can_answer_its_claims(name: str, profile: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Both sizes; the full one is estimated, though it does not fit this machine."""
    assert run(["validate", name, "--profile", profile]) == 0
    said = capsys.readouterr().out
    assert ("over its metrics" if profile == "cpu" else "GPU hours in total") in said
    scenario = load_scenario(find_scenario(name), profile)
    assert scenario.paper
    assert scenario.claims


MANY, FEW = (f"sweep.parameters{{variant=pre-ln,depth={which}}}" for which in ("last", "first"))
NOISE = "sweep.recipe_loss{variant=pre-ln,depth=1} - sweep.recipe_loss{variant=rezero,depth=1} > 0"
SMALL = f"""
paper: Nobody 2026
seeds: {{explored: [0, 1], look: 6, most: 7}}
defaults: {{variant: [pre-ln, rezero], width: 8, heads: 2, seq_len: 8, batch_size: 4, probes: "off"}}
experiments:
  sweep: {{command: depth-sweep, measure: outcome, peak_lr: 0.01}}
  other: {{command: depth-sweep, measure: outcome, peak_lr: 0.01, depths: [1]}}
profiles:
  cpu: {{sweep: {{depths: [1, 2], train_steps: 20}}, other: {{train_steps: 30}}}}
  full: {{sweep: {{depths: [1, 64], train_steps: 5000}}}}
claims:
  - {{says: more blocks have more parameters, holds: "{MANY} / {FEW} > 1", published: ten, headline: true}}
  - says: fewer do
    holds: "{MANY} / {FEW} < 1"
    because: {{says: more do, holds: "{MANY} / {FEW} >= 1"}}
  - says: from two blocks on there are more than with one
    along: {{depth: [1, 2]}}
    holds: "sweep.parameters{{variant=pre-ln,depth=$depth}} / other.parameters{{variant=pre-ln,depth=1}} > 1"
"""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A scenario, alone: with alpha so large that six seeds decide four statements."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(claims, "ALPHA", 0.4)
    (tmp_path / "small.yaml").write_text(SMALL)
    return tmp_path


def test_papers_prints_one_table_and_goes_on_where_it_was(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["papers", "./small.yaml", "-j", "1", "--run-dir", "runs", "-o", "papers.md", "-o", "papers.html"]
    assert run([*line, "-v"]) == 0
    first = capsys.readouterr()
    assert "Nobody 2026" in first.out
    assert "? small  2 of 3 claims seen; not seen: fewer do" in first.out
    assert "not seen: fewer do: more do (seen: " in " ".join(first.out.split())
    assert "report: runs/claims.html" in first.out
    page = (small / "runs/claims.html").read_text()
    assert '<td class="left good">seen from depth 2</td>' in page
    assert "decoder; depth 1, 2; width 8; batch 4; steps 20, 30" in page
    assert first.err.count("sweep: depth-sweep") == 1, "all is decided at the first look"
    assert "| more blocks have more parameters | seen |" in (small / "papers.md").read_text()
    before = (small / "runs/small/sweep/cells.jsonl").read_bytes()
    assert run([*line, "--json"]) == 0
    assert (small / "runs/small/sweep/cells.jsonl").read_bytes() == before
    (stored,) = json.loads(capsys.readouterr().out)["scenarios"]
    assert [one["verdict"] for one in stored["claims"]] == ["seen", "not seen", "seen from depth 2"]
    assert [place["seeds"] for one in stored["claims"] for place in one["places"]] == [6] * 4


def test_what_is_open_is_trained_with_more_seeds_and_nothing_else(
    small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The loss of two variants after 20 steps is noise; `other` has nothing to do with it."""
    (small / "small.yaml").write_text(SMALL + f'  - {{says: one is better, holds: "{NOISE}"}}\n')
    assert run(["papers", "./small.yaml", "-j", "1", "-q", "--run-dir", "runs", "--json"]) == 0
    (stored,) = json.loads(capsys.readouterr().out)["scenarios"]
    assert [claim["places"][0]["seeds"] for claim in stored["claims"]] == [6, 6, 6, 7]
    assert len({line["seed"] for line in cells(small / "runs/small/sweep")}) == 7
    assert {line["seed"] for line in cells(small / "runs/small/other")} == set(range(1000, 1006))


def cells(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "cells.jsonl").read_text().splitlines()]


def test_quick_runs_the_headlines_and_first_seed_confirms_with_others(
    small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["papers", "./small.yaml", "-j", "1", "-q", "--quick", "--json"]
    assert run([*line, "--first-seed", "50"]) == 0
    (stored,) = json.loads(capsys.readouterr().out)["scenarios"]
    assert [one["says"] for one in stored["claims"]] == ["more blocks have more parameters"]
    (folder,) = (small / ".stresstest/papers/cpu-50/small").glob("*")
    assert folder.name == "sweep"
    assert {cell["seed"] for cell in cells(folder)} == set(range(50, 56))
    assert run([*line, "--first-seed", "0"]) == 2
    assert "seed 0 was explored and cannot confirm; give a first beyond 1" in capsys.readouterr().err
    (small / "small.yaml").write_text(SMALL.replace("headline: true", "headline: false"))
    assert run(line) == 2
    assert "no claim there is a headline; leave out --quick" in capsys.readouterr().err


def test_shards_train_their_scenarios_and_the_folder_of_all_is_judged(
    small: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second shard alone says what is missing; with the first one's runs beside its own it judges all."""
    monkeypatch.setattr(claims, "ALPHA", 0.9)  # twice as many statements of one paper
    (small / "more.yaml").write_text(SMALL)
    line = ["papers", "./small.yaml", "./more.yaml", "-j", "1", "-q", "--run-dir", "runs"]
    assert run([*line, "--shard", "2/2"]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert "shard 2 of 2 has ended; 1 scenario of other shards (small) are not in runs" in said.err
    assert [path.name for path in (small / "runs").iterdir()] == ["more"]
    assert run([*line, "--shard", "1/2"]) == 0
    assert "6 claims: 4 seen, 2 not seen" in capsys.readouterr().out


def test_run_prints_the_claims_too_and_takes_the_files_own_profile(
    small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["run", "small.yaml", "--profile", "cpu", "-j", "1", "-q"]) == 0
    assert "2 of 3 claims seen; not seen: fewer do" in capsys.readouterr().out
    assert run(["run", "small.yaml", "--profile", "full", "--dry-run"]) == 0
    assert "1,64" in capsys.readouterr().out
    assert run(["run", "small.yaml", "--profile", "quick"]) == 2
    assert "has no 'quick'" in capsys.readouterr().err
    assert run(["validate", "papers/xiong-bert", "--profile", "ful"]) == 2
    first, last = capsys.readouterr().err.splitlines()
    assert "profiles: has no 'ful'; did you mean 'full'?" in first
    assert "1 error in" in last


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("says: fewer do\n    ", "", "needs says: (the claim in words) and holds:"),
        (f"{MANY} / ", MANY.replace("parameters", "bleu") + " / ", "does not measure bleu"),
        ("full: {sweep:", "full: {swep:", "unknown experiment; did you mean 'sweep'"),
        ("train_steps: 20}", "trials: 20}", "depth-sweep has no setting trials"),
        ("train_steps: 20}", "seeds: 3}", "experiments.sweep.seeds: are those of the claims"),
        ('> 1", pub', '> much", pub', "is not a claim"),
        ("says: more do, ", "", "claims.2.because: needs says: (the cause in words) and holds:"),
        (">= 1", ">= much", "claims.2.because: 'sweep"),
        ("{depth: [1, 2]}", "{depth: 2}", "claims.3.along: is not one path"),
        ("{depth: [1, 2]}", "{depth: [1, 3]}", "matches 0 rows"),
        ("{depth: [1, 2]}", "{width: [1, 2]}", "does not contain $width"),
        ("headline: true", "headline: much", "claims.1.headline: expects true or false"),
        ("look: 6", "look: 8", "seeds: look 8 and most 7: give 1 <= look <= most"),
        ("most: 7", "most: 4294960000", "most 4294960000: give 1 <= look <= most <= 1000"),
        ("look: 6", "look: few", "seeds.look: is not a whole number"),
        ("[0, 1]", "[0, 1004]", "seeds: seed 1004 was explored and cannot confirm"),
    ],
)
def test_what_is_wrong_with_claims_or_profiles_is_said_before_any_training(
    small: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, said: str
) -> None:
    assert old in SMALL
    profile = "full" if old.startswith("full") else "cpu"
    (small / "small.yaml").write_text(SMALL.replace(old, new))
    assert run(["papers", "./small.yaml", "--profile", profile, "--run-dir", "runs"]) == 2
    assert said in capsys.readouterr().err
    assert not (small / "runs").exists()
