"""What people bring, with the hand loop's answer beside the tool's: python -m tests.benchmarks.situations_table."""

from __future__ import annotations

import contextlib
import io
import math
import os
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch

from stresstest.runs.identity import environment
from tests.user_models import test_optimizers as optimizers
from tests.user_models import zoo
from tests.user_models.hand_loop import edge, trained
from tests.user_models.situation import Situation, Told, ask
from tests.user_models.table import SITUATIONS

_OCTAVES = range(-14, 4)  # the hand loop's learning rates, as powers of 2
_KNOWS = 2.65  # the loss of fresh batches below which an optimizer's model knows more than nothing


def main() -> None:
    """Print both tables as Markdown."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print(f"Made by `tests/benchmarks/situations_table.py` on {environment('cpu', 'float32')['key']}.")
    print("`right`: the hand loop trains at the last LR of the bracket and not at the first beyond it.\n")
    for title, rows in (("Losses, models and data", _situations()), ("Optimizers", _optimizers())):
        print(f"## {title}\n\n| situation | by hand, octaves | the tool | |\n|---|---|---|---|")
        verdicts = Counter[str]()
        for name, by_hand, told, verdict in rows:
            verdicts[verdict] += 1
            print(f"| {name} | {by_hand} | {told} | {verdict} |", flush=True)
        counted = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items())
        print(f"\n{sum(verdicts.values())} situations: {counted}.\n")


def _situations() -> Iterator[tuple[str, str, str, str]]:
    for situation in SITUATIONS:
        with tempfile.TemporaryDirectory() as folder:
            told = ask(situation, Path(folder))
        yield situation.name, _by_hand(situation), _shown(told), _verdict(situation, told)


def _by_hand(situation: Situation) -> str:
    if situation.trains is None:
        return "-"
    return str(edge(situation.by_hand(), situation.trains))


def _verdict(situation: Situation, told: Told) -> str:
    if situation.words:
        return "declined" if told.code and all(words in told.line for words in situation.words) else "WRONG"
    if situation.never:
        return "right" if told.code == 0 and told.low is None else "WRONG"
    if told.code or told.low is None or situation.trains is None:
        return "WRONG"
    code = situation.by_hand()
    good = trained(code, situation.trains, told.low)[0]
    bad = told.high is None or not trained(code, situation.trains, told.high)[0]
    return "right" if good and bad else "WRONG"


def _shown(told: Told) -> str:
    """The bracket, or what was said, without the place of the file."""
    said = str(told)
    return said.rpartition(".py:")[2] if told.code else said


def _optimizers() -> Iterator[tuple[str, str, str, str]]:
    before = Path.cwd()
    for name in [*optimizers.TABLE, "rprop", "relative_adafactor", "hf_relative", "ignores_lr"]:
        said = io.StringIO()
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            os.chdir(folder)
            with contextlib.redirect_stderr(said):
                code = optimizers.ask(name, "--num-steps", optimizers.LONGER.get(name, str(optimizers.STEPS)))
            cell = optimizers.holds()[0] if code == 0 else None
            os.chdir(before)
        if cell is None:
            yield name, "-", said.getvalue().strip().rpartition(".py:")[2], "declined"
            continue
        low, high = (cell["metrics"]["max_stable_lr"][side] for side in ("low", "high"))
        good = low is not None and _knows(name, low)
        bad = high is None or not _knows(name, high)
        told = "none" if low is None else f"> {low:.2g}" if high is None else f"{low:.2g}..{high:.2g}"
        yield name, _octaves(name), told, "right" if good and bad else "WRONG"


def _knows(name: str, lr: float) -> bool:
    end = optimizers.by_hand(getattr(zoo, name), lr)[1]
    return math.isfinite(end) and end < _KNOWS


def _octaves(name: str) -> str:
    last = None
    for k in _OCTAVES:
        if _knows(name, 2.0**k):
            last = k
        elif last is not None:
            return f"{2.0**last:.2g}..{2.0**k:.2g}"
    return "trains nowhere" if last is None else f"> {2.0**last:.2g}"


if __name__ == "__main__":
    main()
