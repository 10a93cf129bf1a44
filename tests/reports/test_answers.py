"""The answer in a terminal: what the last screenful says, and what it leaves to the report."""

from __future__ import annotations

import io
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console
from syrupy.assertion import SnapshotAssertion

from stresstest.cli.commands import cli
from stresstest.commands.show_result import document_of, print_result
from stresstest.experiments.answers import answered, try_again
from stresstest.experiments.race.spec import RaceSpec
from stresstest.experiments.table import EXPERIMENTS
from stresstest.reports.document import Document, Verdict
from stresstest.reports.verdict_lines import verdict_lines
from stresstest.results.records import Result
from stresstest.specs.profiles import make_spec
from tests.reports import test_contest_reports as contest
from tests.reports import test_depth_reports as depth
from tests.reports import test_reports as lr_range
from tests.reports import test_warmup_reports as warmup

COPIED = ("  stresstest ", "again: ", "run: ")  # lines that a terminal may wrap

DEFAULT_VARIANTS = [
    *lr_range.variant_cells("rmsnorm", 0.25, 0.5),
    *lr_range.PRE_LN,
    *lr_range.POST_LN,
    *lr_range.NORMFORMER,
    *lr_range.PLAIN,
]


def answer(result: Result, width: int = 80, where: str | Path = "runs/one", **console: Any) -> str:
    file = io.StringIO()
    given = {"color_system": None, **console}
    print_result(result, Console(file=file, width=width, highlight=False, **given), str(where))
    return file.getvalue()


def verdicts(result: Result) -> dict[str, tuple[str, str]]:
    """(tone, answer) of each."""
    return {verdict.subject: (verdict.tone, verdict.answer) for verdict in document_of(result).verdicts}


def test_the_answer_of_an_lr_range_test_looks_like_this(snapshot: SnapshotAssertion) -> None:
    assert answer(lr_range.result_of(DEFAULT_VARIANTS)) == snapshot


def test_five_variants_fit_one_screen_and_the_report_has_the_rest() -> None:
    out = answer(lr_range.result_of(DEFAULT_VARIANTS))
    assert len(out.splitlines()) <= 24
    for words in ("Median over", "against the ramp's LR", "- pre-ln", "synthetic"):
        assert words not in out


@pytest.mark.parametrize("width", [60, 70, 80, 100, 120])
def test_only_what_is_to_be_copied_may_be_wider_than_the_terminal(width: int) -> None:
    lines = answer(lr_range.result_of(DEFAULT_VARIANTS), width).splitlines()
    wide = [line for line in lines if cell_len(line) > width]
    assert all(line.startswith(COPIED) for line in wide)


def test_a_mark_tells_the_tone_of_a_verdict_without_colour() -> None:
    out = answer(lr_range.result_of(DEFAULT_VARIANTS))
    assert re.findall(r"^([+?x-]) (\S+)  ", out, re.MULTILINE) == [
        ("+", "normformer"),
        ("+", "pre-ln"),
        ("+", "rmsnorm"),
        ("+", "post-ln"),
        ("x", "plain"),
    ]
    assert "\x1b[" not in out


def test_the_page_is_a_link_where_a_terminal_takes_it_and_a_path_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "a [b] c"
    folder.mkdir()
    page = folder / "report.html"
    page.touch()
    result = lr_range.result_of(lr_range.GOOD)
    assert f"report: {page}\n" in answer(result, where=folder)
    linked = answer(result, where=folder, color_system="standard", force_terminal=True)
    assert f";{page.as_uri()}\x1b\\" in linked
    assert str(page) in linked


def test_a_cell_without_a_result_is_told_of_beside_the_verdicts() -> None:
    out = answer(lr_range.result_of([*lr_range.GOOD, lr_range.cell("rezero", 0, None, status="oom")]))
    assert "x oom: rezero depth 6 seed 0 has no result" in out


def test_what_a_user_names_is_text_and_no_markup() -> None:
    name = "[red]own[/red]"
    assert f"+ {name}  use LR up to 2" in answer(lr_range.result_of(lr_range.variant_cells(name, 2.0, 3.0)))


ANSWERS: dict[str, Result] = {
    "a race": contest.race_result(),
    "a batch sweep": contest.sweep_result(),
    "a fixed recipe": depth.result_of(depth.OUTCOMES).model_copy(
        update={"reproduce": "stresstest depth-sweep --measure outcome"}
    ),
    "a hold over depths": depth.result_of(depth.HOLDS),
    "initialisation": depth.result_of(depth.INIT, init_only=True),
    "a warm-up map": warmup.result_of(),
    "a search": warmup.result_of(map=False),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_the_answer_looks_like_this(kind: str, snapshot: SnapshotAssertion) -> None:
    assert answer(ANSWERS[kind]) == snapshot


@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize("width", [60, 80, 120])
def test_every_answer_fits_the_width_and_what_it_proposes_can_be_parsed(kind: str, width: int) -> None:
    lines = answer(ANSWERS[kind], width).splitlines()
    assert [line for line in lines if cell_len(line) > width and not line.startswith(COPIED)] == []
    proposed = [line.strip() for line in lines if line.startswith("  stresstest ")]
    assert proposed
    for line in proposed:
        assert_parses(line)


def assert_parses(line: str) -> None:
    """Whether a command line names options that its command has, with values that it takes."""
    _, command, *words = shlex.split(line)
    context = cli.make_context("stresstest", [command])
    parsed = cli.get_command(context, command)
    assert parsed is not None
    given = parsed.make_context(command, list(words), parent=context).params
    fields = EXPERIMENTS[command].spec.model_fields
    typed = {name: value for name, value in given.items() if name in fields and f"--{name.replace('_', '-')}" in words}
    assert len(typed) == sum(word.startswith("--") for word in words)
    make_spec(EXPERIMENTS[command].spec, "quick", typed)


def raced(steps: dict[str, tuple[int, ...]]) -> Result:
    """Entrants by the steps that each seed takes to the target; 0: never there."""
    spec = make_spec(RaceSpec, "quick", {"variant": ",".join(steps), "num_lrs": 1, "end_lr": 1e-3, "seeds": "3"})
    point = {"optimizer": "adam", "warmup": "none", "warmup_steps": 0, "peak_lr": 1e-3}
    cells = [
        contest.cell(variant, seed, point, 2.0, False).model_copy(
            update={"recipe": {**RECIPE, "progress": [(4, 3.0), *([(number, 2.0)] if number else [])]}}
        )
        for variant, numbers in steps.items()
        for seed, number in enumerate(numbers)
    ]
    return contest.result_of("race", spec, cells)


RECIPE = {"outcome": "stable", "loss": 2.0, "cap": 5.6, "baseline_loss": 3.18, "initial_loss": 5.6}


def test_a_race_says_who_is_first_who_cannot_be_told_from_it_and_who_is_not_there() -> None:
    told = verdicts(
        raced({"post-ln": (90, 100, 110), "pre-ln": (50, 40, 60), "rezero": (45, 50, 55), "plain": (0, 0, 0)})
    )
    assert list(told) == ["pre-ln", "rezero", "post-ln", "plain"]
    assert told["pre-ln"] == ("mixed", "first: 50 steps at LR 0.001; rezero may be as fast")
    assert told["rezero"] == (
        "mixed",
        "not separable from pre-ln: 50 steps at LR 0.001, 0.92 times as many (0.9..1.25)",
    )
    assert told["post-ln"] == ("", "slower: 100 steps at LR 0.001, 1.83 times as many as pre-ln (1.8..2.5)")
    assert told["plain"] == ("bad", "does not reach the target in 400 steps at any LR")


def test_where_every_other_is_slower_the_first_wins() -> None:
    assert verdicts(raced({"post-ln": (90, 100, 110), "pre-ln": (50, 40, 60)}))["pre-ln"][0] == "good"


def test_a_race_of_one_seed_separates_nobody() -> None:
    spec_of = raced({"post-ln": (100,), "pre-ln": (50,)})
    assert verdicts(spec_of)["post-ln"] == (
        "mixed",
        "not separable from pre-ln: 100 steps at LR 0.001, 2 times as many",
    )


@pytest.mark.parametrize(
    ("asked", "settings", "line"),
    [
        ("stresstest race", {"seeds": 5}, "stresstest race --seeds 5"),
        ("stresstest race --seeds 3 --depth 2", {"seeds": 5}, "stresstest race --seeds 5 --depth 2"),
        ("torchrun -m stresstest race --map", {"bisect": True}, "torchrun -m stresstest race --map --bisect"),
        ("stresstest race --model 'a b.py:f'", {"end_lr": 1e-5}, "stresstest race --model 'a b.py:f' --end-lr 1e-05"),
        ("stresstest race --seeds 3,", {"depths": (2, 4)}, "stresstest race --seeds 3, --depths 2,4"),
        ("stresstest.race('decoder', seeds=3)", {"seeds": 5}, "stresstest.race('decoder', seeds=5)"),
        ("stresstest.race(my.build, depth=2)", {"depths": (2, 4)}, "stresstest.race(my.build, depth=2, depths=(2, 4))"),
    ],
)
def test_a_line_is_made_again_with_other_settings(asked: str, settings: dict[str, Any], line: str) -> None:
    again = try_again(contest.race_result().model_copy(update={"reproduce": asked}), "why", settings)
    assert again is not None
    assert again.text == line


def test_the_line_of_another_command_leaves_out_what_that_lacks() -> None:
    result = lr_range.result_of(lr_range.GOOD).model_copy(
        update={"reproduce": "stresstest lr-range --depth 2 --no-theory --hold-steps 50 --variant pre-ln,post-ln"}
    )
    [line] = [fact.text for fact in document_of(result).next if "warmup" in fact.text]
    assert line == "stresstest warmup --depth 2 --variant post-ln --start-lr 0.0312 --end-lr 1"
    assert_parses(line)


def test_a_call_that_python_cannot_read_again_proposes_nothing() -> None:
    result = lr_range.result_of(lr_range.GOOD).model_copy(update={"reproduce": "stresstest.lr_range(<lambda>)"})
    assert document_of(result).next == ()


def test_one_seed_is_no_measure_of_scatter_and_more_are_proposed_first() -> None:
    document = document_of(lr_range.result_of([lr_range.cell("pre-ln", 0, 2.0, 3.0)]))
    assert document.sure.startswith("one seed")
    assert document.next[0].text == "stresstest lr-range --seeds 3"


def test_seeds_that_are_far_apart_make_a_verdict_uncertain() -> None:
    apart = [lr_range.cell("pre-ln", seed, 2.0**-k, 3.0) for seed, k in enumerate((1, 5, 3))]
    assert verdicts(lr_range.result_of(apart))["pre-ln"] == (
        "mixed",
        "use LR up to 0.12 (0.031..0.5 over seeds); at 0.25 it loses what it learned",
    )


def test_an_experiment_without_an_answer_of_its_own_has_its_findings() -> None:
    result = lr_range.result_of(lr_range.GOOD)
    bare = answered(Document("a", "b", findings=tuple(finding.text for finding in result.findings)), result)
    assert [verdict.answer for verdict in bare.verdicts] == [finding.text for finding in result.findings[:2]], (
        "one a subject"
    )
    assert bare.sure.startswith("3 seeds")


def test_a_long_name_stands_above_its_answer_and_leaves_the_others_their_column() -> None:
    long = "boundary.max_stable_lr{variant=pre-ln}"
    told = verdict_lines([Verdict("pre-ln", "use it", "good"), Verdict(long, "REGRESSED by far", "bad")], 30)
    assert [lines for _, lines in told] == [["+ pre-ln  use it"], [f"x {long}", "          REGRESSED by far"]]
