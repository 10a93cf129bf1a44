"""What people bring, with the hand loop's answer beside the tool's: python -m tests.benchmarks.situations_table."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from stresstest.runs.identity import environment
from tests.user_model import test_optimizers as optimizers
from tests.user_model import zoo
from tests.user_model.hand_loop import trained
from tests.user_model.situation import Told, ask
from tests.user_model.table import SITUATIONS

_NOWHERE = [2.0**-10, 2.0**-6, 2.0**-3]  # where the hand loop looks if the tool found nothing


def main() -> None:
    """Print both tables as Markdown."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print(f"Made by `tests/benchmarks/situations_table.py` on {environment('cpu', 'float32')['key']}.")
    print(
        "By hand: the loss of fresh batches at the end of a plain loop at both LRs of the tool's bracket, or at three"
    )
    print("LRs where it has none. `right`: the first trains and the second does not, or none does.\n")
    for title, rows in (("Losses, models and data", _situations()), ("Optimizers", _optimizers())):
        print(f"## {title}\n\n| situation | the tool | by hand | |\n|---|---|---|---|")
        verdicts = Counter[str]()
        for name, by_hand, told, verdict in rows:
            verdicts[verdict] += 1
            print(f"| {name} | {told} | {by_hand} | {verdict} |", flush=True)
        counted = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items())
        print(f"\n{sum(verdicts.values())} situations: {counted}.\n")


def _situations() -> Iterator[tuple[str, str, str, str]]:
    for situation in SITUATIONS:
        with tempfile.TemporaryDirectory() as folder:
            told = ask(situation, Path(folder))
        if situation.words:
            honest = told.code and all(words in told.line for words in situation.words)
            yield situation.name, "-", _shown(told), "declined" if honest else "WRONG"
            continue
        judge = situation.trains
        assert judge is not None, "what is not declined has an answer"
        lrs = _NOWHERE if told.low is None else [lr for lr in (told.low, told.high) if lr is not None]
        found = [trained(situation.by_hand(), judge, lr) for lr in lrs]
        right = [good for good, _ in found] == ([False] * 3 if situation.never else [True, False][: len(lrs)])
        right &= told.code == 0 and (told.low is None) == situation.never
        yield situation.name, _ends(lrs, [loss for _, loss in found]), _shown(told), "right" if right else "WRONG"


def _ends(lrs: Sequence[float], losses: Sequence[float]) -> str:
    return ", ".join(f"{lr:.2g}: {loss:.3g}" for lr, loss in zip(lrs, losses, strict=True))


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
        lrs = [lr for lr in (low, high) if lr is not None]
        ends = [optimizers.by_hand(getattr(zoo, name), lr)[1] for lr in lrs]
        right = bool(ends) and ends[0] < optimizers.NOTHING and not any(end < optimizers.SOMETHING for end in ends[1:])
        told = "none" if low is None else f"> {low:.2g}" if high is None else f"{low:.2g}..{high:.2g}"
        yield name, _ends(lrs, ends), told, "right" if right else "WRONG"


if __name__ == "__main__":
    main()
