"""What people bring, each with the hand loop's answer beside the tool's: right, or declined in one honest line."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

import pytest

from tests.user_model.hand_loop import FOLDER, trained
from tests.user_model.situation import Situation, ask
from tests.user_model.table import SITUATIONS

_HIGHEST = 8.0  # of the grid below the ramp's end
_SMALL_TO_LARGE = (2.0**-10, 2.0**-6, 2.0**-3)

pytestmark = pytest.mark.filterwarnings("ignore")  # those of the libraries that the users' files import


def of(kind: str) -> list[Situation]:
    return [one for one in SITUATIONS if one.kind == kind]


def named(situation: Situation) -> str:
    return situation.name.replace(" ", "-")


@pytest.mark.parametrize("situation", of("boundary"), ids=named)
def test_the_edge_is_where_a_plain_loop_has_it(situation: Situation, tmp_path: Path) -> None:
    _needs_its_library(situation)
    told = ask(situation, tmp_path)
    assert told.code == 0, told.line
    assert told.low is not None, told.outcomes
    code, judge = situation.by_hand(), situation.trains
    assert judge is not None
    good, loss = trained(code, judge, told.low)
    assert good, f"{told}: at {told.low:.3g} the loop ends at {loss:.4g}; {told.outcomes}"
    if told.high is None:
        assert told.low == _HIGHEST
        return
    # Rounding decides at the edge: weights 1e-6 elsewhere may fail there, where these did not.
    starts = (trained(code, judge, told.high, nudge=nudge) for nudge in range(11))
    ends = list(takewhile(lambda end: end[0], starts))
    assert len(ends) < 11, f"{told}: at {told.high:.3g} the loop ends at {ends}; {told.outcomes}"


@pytest.mark.parametrize("situation", of("never"), ids=named)
def test_what_cannot_train_has_no_boundary_and_trains_by_hand_at_no_learning_rate(
    situation: Situation, tmp_path: Path
) -> None:
    told = ask(situation, tmp_path)
    assert (told.code, told.low) == (0, None), told
    code, judge = situation.by_hand(), situation.trains
    assert judge is not None
    assert not any(trained(code, judge, lr)[0] for lr in _SMALL_TO_LARGE)


@pytest.mark.parametrize("situation", of("declined"), ids=named)
def test_what_cannot_be_judged_is_declined_in_one_line_that_says_why(situation: Situation, tmp_path: Path) -> None:
    told = ask(situation, tmp_path)
    assert told.code == situation.code, told
    for words in situation.words:
        assert words in told.line


def test_a_hundred_situations_of_all_three_kinds_each_have_a_name_of_their_own() -> None:
    assert len({one.name for one in SITUATIONS}) == len(SITUATIONS) >= 100
    assert {one.kind for one in SITUATIONS} == {"boundary", "never", "declined"}


def test_every_model_and_batch_in_the_files_is_asked_about() -> None:
    asked = {(one.path, name) for one in SITUATIONS for name in one.uses()}
    there = {(path, name) for path in FOLDER.glob("*.py") for name in _functions_of_the_table(path)}
    assert there <= asked


def _functions_of_the_table(path: Path) -> set[str]:
    """Factories, which take nothing, and what is called after them."""
    functions = {node.name: node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}
    factories = {
        name for name, node in functions.items() if not (node.args.args or node.args.kwarg or node.decorator_list)
    }
    return factories | {name for name in functions if name.endswith(("_batch", "_loss"))}


def _needs_its_library(situation: Situation) -> None:
    libraries: Sequence[str] = {"hugging.py": ["transformers"], "forms.py": ["pytorch_lightning"]}.get(
        situation.path.name, []
    )
    for library in libraries:
        pytest.importorskip(library)
