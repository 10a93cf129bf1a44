"""What a path of sizes says: of hand-made cells along known laws."""

from __future__ import annotations

import html
import io
import math
import re
import shlex
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console
from syrupy.assertion import SnapshotAssertion

from stresstest.commands.show_result import print_result, result_text
from stresstest.experiments.scale.document import document
from stresstest.experiments.scale.law.fit import Prediction
from stresstest.experiments.scale.law.leave_outs import LeaveOut
from stresstest.experiments.scale.laws import Along, Fitted
from stresstest.experiments.scale.naming import arm, longer
from stresstest.experiments.scale.rows import reduce
from stresstest.experiments.scale.sentences import bend_words, checks
from stresstest.experiments.scale.spec import ScaleSpec
from stresstest.reports.document import Chart, Document, Series, Table
from stresstest.reports.output import FORMATS
from stresstest.results.records import Bracket, Result, TrendRow
from stresstest.specs.profiles import make_spec
from tests.reports.scale_results import (
    DATA,
    POST,
    PRE,
    PRE_LAWS,
    WIDTHS,
    cell,
    law,
    on_a_law,
    result_of,
    spec_of,
    stored,
    two_variants,
)


@pytest.fixture(scope="module")
def two() -> Result:
    return two_variants()


@pytest.fixture(scope="module")
def refused() -> Result:
    return result_of(PRE, {"pre-ln": [law("max_stable_lr", 0.25, -1.0, 2048)]}, 2048)


def said(result: Result) -> dict[str, str]:
    return {verdict.subject: verdict.answer for verdict in document(result).verdicts}


def terminal(result: Result, width: int, verbose: bool = False, encoding: str = "utf-8") -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    shown = Console(file=file, width=width, highlight=False, color_system=None)
    print_result(result, shown, "runs/one", verbose=verbose)
    file.seek(0)
    return file.read()


def numbers(text: str) -> list[float]:
    return [float(found) for found in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", text)]


def kinds(result: Result, subject: str) -> dict[str, str]:
    return {finding.kind: finding.text for finding in result.findings if finding.subject == subject}


def test_a_verdict_names_the_lr_of_cells_on_a_known_law_with_its_interval() -> None:
    """Fitted: 0.25 x (width / 16)^-1 at twice the largest width is 0.03125."""
    widths = (16, 24, 32, 44, 64)
    cells = on_a_law("pre-ln", widths, 0.25, -1.0, -1.0)
    spec = spec_of(variant="pre-ln", depth=1, seeds="3", widths=widths)
    result = stored(spec, cells, reduce(spec, cells, DATA))
    words = said(result)["pre-ln"]
    width, lr, median, low, high, exponent, least, most = numbers(words.replace("..", " "))
    assert words.startswith("width 128: use LR up to")
    assert width == 128
    assert median == pytest.approx(0.03125, rel=0.1)
    assert lr == low < 0.03125 < high
    assert exponent == pytest.approx(-1.0, abs=0.1)
    assert least < -1.0 < most
    assert document(result).sure.startswith("inside in 9 of 9 when the largest sizes were left out, up to 1 octave")
    assert result_of_json(result).trends == result.trends


def result_of_json(result: Result) -> Result:
    return Result.model_validate_json(result.to_json().replace('"schema"', '"schema_"', 1))


def test_the_interval_that_is_named_is_that_of_the_law(two: Result) -> None:
    boundary = "a new seed's boundary is 0.016 (0.012 to 0.021)"
    assert said(two)["pre-ln"] == f"width 256: use LR up to 0.012; {boundary}; falls as width^-1.00 (-1.15..-0.85)"
    sure = "inside in 36 of 36 when the largest sizes were left out, up to 1 octave ahead; 19 of 20 new seeds"
    assert document(two).sure.startswith(sure)


def test_a_target_beyond_what_the_leave_outs_looked_at_gets_no_number_and_a_size_to_run_next(refused: Result) -> None:
    assert said(refused)["pre-ln"].startswith(
        "no number for width 2048: it lies 4 octaves beyond the largest size, and the leave-outs looked 2 octaves ahead"
    )
    (fact, *_) = document(refused).next
    words = shlex.split(fact.text)
    widths = tuple(map(int, words[words.index("--widths") + 1].split(",")))
    assert words[words.index("--target") + 1] == "width=2048", "which would move with the largest size"
    assert widths[: len(WIDTHS)] == WIDTHS, "what was trained is not trained again"
    assert widths[-2] / widths[2] < 2048 / widths[-2], "one size fewer would not do"
    assert widths[-1] / widths[2] >= 2048 / widths[-1], "three sizes remain, from which the leave-outs look as far"


def test_the_next_sizes_grow_together_along_the_path_and_fit_the_heads() -> None:
    spec = make_spec(ScaleSpec, "quick", {"widths": "64,128,256", "depths": "2,4,8", "target": "width=1024"})
    found = longer(spec, 500.0)
    assert found == {"widths": (64, 128, 256, 384, 512), "depths": (2, 4, 8, 12, 16)}


def test_without_a_law_the_reason_is_said() -> None:
    why = {"target": 256.0, "reach": 0.0, "no_law": "no law: it takes 3 sizes with an answer, and 2 of 7 have one"}
    few = result_of(PRE[:6], {"pre-ln": [{"metric": "max_stable_lr"} | why]})
    assert said(few) == {"pre-ln": "no law: it takes 3 sizes with an answer, and 2 of 7 have one"}
    assert "no-law" in kinds(few, "pre-ln")
    assert document(few).sure.startswith("not checked: no size could be left out")


def test_a_variant_that_trains_at_no_lr_of_a_size_gets_no_number() -> None:
    none = [cell("pre-ln", width, seed, Bracket(low=None, high=1e-4), None) for width in (92, 128) for seed in range(3)]
    kept = [each for each in PRE if each.point["width"] < 92]
    result = result_of([*kept, *none], {"pre-ln": [each | {"predicted": None} for each in PRE_LAWS]})
    assert said(result)["pre-ln"].startswith("no number for width 256: it trains at no LR at width 92, 128; ")
    assert [verdict.tone for verdict in document(result).verdicts] == ["bad"]
    assert "--hold-steps" in document(result).next[0].text


@pytest.mark.parametrize("low", [0.001, None])
def test_a_law_names_no_target_beyond_sizes_that_train_at_no_lr(low: float | None) -> None:
    """Post-LN at depth 32: the exponent of the depths that train says 8e-6 for depth 64."""
    seeds = (*(Bracket(low=low, high=0.002),) * 2, Bracket(low=0.001, high=0.002))
    cells = tuple(dict(enumerate(seeds)) for _ in range(4))
    looked = LeaveOut(Prediction(8.0, 1.0, 0.001, 0.0015, 0.002), (1.0, 2.0, 4.0), seeds)
    found = Fitted(Along("max_stable_lr", (1.0, 2.0, 4.0, 8.0), cells), 16.0, None, "", (looked,))
    assert found.within_reach == (low is not None)


def test_where_a_law_bends_the_larger_sizes_are_to_be_run_alone() -> None:
    change = {"change": {"low": -1.5, "median": -1.0, "high": -0.5}, "seen": True, "smallest": 0.61}
    result = result_of(PRE, {"pre-ln": [law("max_stable_lr", 0.25, -1.0) | {"bend": change}]})
    (verdict,) = document(result).verdicts
    assert "19 of 20" not in document(result).sure
    assert verdict.tone == "mixed"
    assert ": do not extrapolate: the slope changes by " in verdict.answer
    assert "use LR" not in verdict.answer
    words = shlex.split(document(result).next[0].text)
    assert words[words.index("--widths") + 1] == "44,64,92,128,184"
    assert words[words.index("--target") + 1] == "width=256"


@pytest.mark.parametrize(
    ("settings", "asked"),
    [
        ({}, "sp,mup"),
        ({"parametrization": "mup"}, ""),
        ({"optimizer": "adam:weight_decay=0.1"}, ""),
        ({"model": "resnet", "task": "images"}, ""),
    ],
)
def test_a_best_lr_that_moves_with_width_asks_for_mup_where_the_model_has_it(
    settings: dict[str, Any], asked: str
) -> None:
    several = result_of(PRE, {"pre-ln": PRE_LAWS})
    changed = several.model_copy(update={"spec": several.spec | settings})
    texts = [shlex.split(fact.text) for fact in document(changed).next]
    found = [words[words.index("--parametrization") + 1] for words in texts if "--parametrization" in words]
    assert found == [asked] * bool(asked)


def test_where_the_highest_lr_still_trains_the_range_is_widened() -> None:
    top = [cell("pre-ln", 16, seed, Bracket(low=0.5, high=None), 0.1) for seed in range(3)]
    result = result_of([*top, *PRE[3:]], {"pre-ln": PRE_LAWS})
    assert "at width 16; the law takes it as a bound" in kinds(result, "pre-ln")["unanswered"]
    assert "--end-lr" in document(result).next[0].text


def test_a_law_that_was_wrong_about_what_it_did_not_see_is_not_trusted() -> None:
    shown = document(result_of(PRE, {"pre-ln": [law("max_stable_lr", 0.25, -1.0, wrong=True)]}))
    (verdict,) = shown.verdicts
    assert "19 of 20" not in shown.sure
    assert verdict.tone == "mixed"
    assert verdict.answer.endswith("; but inside in only 6 of 18 leave-outs")


def test_leave_outs_that_look_farther_than_the_target_do_not_flatter_it(two: Result) -> None:
    laws = [law for trend in two.trends for law in trend.laws if law["metric"] == "max_stable_lr"]
    far = [each for law in laws for each in law["left_out"] if each["octaves_ahead"] > 1.05]
    assert far
    assert checks(laws).counted == sum(len(law["left_out"]) * 3 for law in laws) - 3 * len(far)


def test_findings_say_what_each_law_says_which_loses_most_and_whether_the_margin_stays(two: Result) -> None:
    assert kinds(two, "post-ln")["loses-most"].startswith(
        "post-ln loses most with size: its max_stable_lr goes as width^"
    )
    assert kinds(two, "pre-ln")["margin"].endswith("no change seen.")
    assert "that margin changes with size" in kinds(two, "post-ln")["margin"]
    assert "width 44 seed 1" in kinds(two, "pre-ln")["not-monotone"]
    laws = [finding.text for finding in two.findings if finding.kind == "law"]
    assert [text.partition(" falls")[0] for text in laws] == [
        *("pre-ln: max_stable_lr", "pre-ln: best_lr", "post-ln: max_stable_lr", "post-ln: best_lr")
    ]


def test_variants_whose_exponents_overlap_are_not_ranked() -> None:
    found = {f.kind for f in result_of([*PRE, *POST], {"pre-ln": PRE_LAWS, "post-ln": PRE_LAWS}).findings}
    assert "not-separable" in found
    assert "loses-most" not in found


def test_no_bend_is_never_said_without_the_smallest_that_would_have_shown() -> None:
    change = {"low": -0.4, "median": -0.1, "high": 0.2}
    assert bend_words({}) == ""
    straight = {"bend": {"seen": False, "change": change, "smallest": 0.61}}
    assert bend_words(straight) == "no bend seen, and one of 0.6 or more would have shown"
    result = result_of(PRE, {"pre-ln": [law("max_stable_lr", 0.25, -1.0) | straight]})
    everywhere = [document(result).sure, kinds(result, "pre-ln")["law"], result_text(result, "md")]
    assert all("0.6 or more" in text for text in everywhere)
    bent = {"bend": {"seen": True, "change": {"low": -1.5, "median": -1.0, "high": -0.5}, "smallest": 0.61}}
    assert bend_words(bent) == "bends: the slope changes by -1.00 (-1.50..-0.50); do not extrapolate"


def test_a_parametrization_is_part_of_a_rows_name() -> None:
    def named(**point: Any) -> str:
        return arm(TrendRow(variant="pre-ln", optimizer="adam", metrics={}, point=point))

    assert [named(), named(parametrization="sp"), named(parametrization="mup")] == ["pre-ln", "pre-ln", "pre-ln muP"]


def charts_of(shown: Document, kind: str) -> list[Chart]:
    return [picture for _, picture in shown.pictures(kind) if isinstance(picture, Chart)]


def of_kind(chart: Chart, name: str, kind: str) -> list[Series]:
    return [each for each in chart.series if (each.name, each.kind) == (name, kind)]


def test_the_picture_has_every_seeds_bracket_and_the_law_to_the_target(two: Result) -> None:
    stable, best = charts_of(document(two), "html")
    assert [stable.name, best.name] == ["max-stable-lr-over-width", "best-lr-over-width"]
    seeds, predicted = of_kind(stable, "pre-ln", "dots")
    stored = [each.metrics["max_stable_lr"] for each in PRE]
    assert list(seeds.spans) == [(bracket.low, bracket.high) for bracket in stored]
    beside = [math.log2(x / each.point["width"]) for (x, _), each in zip(seeds.points, PRE, strict=True)]
    assert max(map(abs, beside)) < 0.1, "of octaves between sizes of 0.5"
    (line,) = of_kind(stable, "pre-ln", "line")
    assert (line.points[0][0], line.points[-1][0]) == (16.0, 256.0)
    assert predicted.points[0][1] == pytest.approx(line.points[-1][1])
    assert predicted.spans[0] == pytest.approx(line.spans[-1])


def test_where_the_target_may_not_be_named_the_line_ends_at_the_largest_size(refused: Result) -> None:
    (stable,) = charts_of(document(refused), "html")
    (line,) = of_kind(stable, "pre-ln", "line")
    assert line.points[-1][0] == pytest.approx(128.0)
    assert len(of_kind(stable, "pre-ln", "dots")) == 1, "nothing is drawn at the target"
    assert stable.series[-1].points[0][0] == 2048.0


def test_what_was_left_out_stands_beside_what_was_measured(two: Result) -> None:
    tables = [block for block in document(two).shown_in("md") if isinstance(block, Table)]
    left = next(table for table in tables if table.columns[0].header == "left out")
    first = [value.text for value in left.rows[0]]
    law = next(law for law in two.trends[0].laws if law["metric"] == "max_stable_lr")
    mine = next(each for each in law["left_out"] if each["size"] == 128 and each["octaves_ahead"] == pytest.approx(1.0))
    assert first[:3] == ["pre-ln", "128", "1 octave"]
    assert numbers(first[3].replace("..", " ")) == pytest.approx([mine["low"], mine["high"]], rel=0.05)
    assert len(first[4].split(", ")) == 3
    assert first[5] == "3/3"


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_answer_in_a_terminal(two: Result, refused: Result, width: int, snapshot: SnapshotAssertion) -> None:
    texts = [terminal(result, width) for result in (two, refused)]
    lines = [line for text in texts for line in text.splitlines() if "stresstest scale" not in line]
    assert max(map(cell_len, lines)) <= width
    assert "\n".join(texts) == snapshot


def test_at_length_it_fits_a_narrow_terminal_and_plain_letters(two: Result) -> None:
    text = terminal(two, 80, verbose=True, encoding="ascii")
    lines = [line for line in text.splitlines() if "stresstest scale" not in line]
    assert max(map(len, lines)) <= 80
    assert "post-ln law" in text
    assert "Its own check: best_lr" in text


def test_what_carries_over_is_the_ratio_at_the_target_with_its_interval(two: Result) -> None:
    tables = [block for block in document(two).shown_in("html") if isinstance(block, Table)]
    (row,) = next(table for table in tables if table.columns[0].header == "variants").rows
    assert [(value.text, value.interval) for value in row] == [
        *(("pre-ln over post-ln", ""), ("8x", "5.5x..11x"), ("8x", "5.5x..11x"))
    ]


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_has_the_answer(two: Result, kind: str) -> None:
    text = html.unescape(result_text(two, kind))
    for verdict in document(two).verdicts:
        assert verdict.answer in text
