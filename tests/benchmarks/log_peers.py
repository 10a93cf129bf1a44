"""Other tools that read training logs, on the same labelled logs, as they come: their own reader, their own rules.

    python -m tests.benchmarks.log_peers FOLDER --bin DIR

FOLDER has the logs and their `labels.csv`; DIR has the commands of `losslint`, `trainspotter` and `runmedic`, e.g. of
a virtual environment with `losslint[tb] trainspotter[tensorboard] runmedic`. What is not installed is left out.

Each tool's findings become one verdict, the worst of: nonfinite, broken (exploded, relapsed, rising), spiked, never
learns, stable. Findings about the train loss count, and a gradient norm of NaN where the tool calls that an error.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WORST = ("nonfinite", "broken", "spiked", "never learns", "stable")
_BROKEN_LABELS = ("exploded", "relapsed")
_SECONDS = 120.0
_HEADER = (
    "| tool | judged / no loss seen / refused | right | false alarms on stable | spiked | exploded, relapsed "
    "| non-finite | never learns |\n|---|---|---|---|---|---|---|---|"
)

Answer = str | None  # a verdict, "no loss" where it read a file and saw none, or None where it refused


@dataclass(frozen=True)
class Peer:
    """A tool: its command before the file, and what its JSON says."""

    name: str
    command: tuple[str, ...]
    answer: Callable[[Any], Answer]


def worst_of(found: Sequence[str]) -> str:
    """The worst verdict among these; stable if there is none."""
    return next((word for word in WORST if word in found), "stable")


def _losslint(said: Any) -> Answer:
    if not any({"loss", "train_loss"} & set(run["series"]) for run in said["runs"]):
        return "no loss"
    words = {"nan_inf": "nonfinite", "divergence": "broken", "loss_spike": "spiked", "stagnation": "never learns"}
    return worst_of([words[each["check"]] for each in said["findings"] if each["check"] in words])


def _trainspotter(said: Any) -> Answer:
    if "train/loss" not in said["run"]["metrics"]:
        return "no loss"
    words = {"spikes": "spiked", "plateau": "never learns"}
    found = [
        "nonfinite" if "nan" in each["title"].lower() else words.get(each["detector"], "broken")
        for each in said["findings"]
        if each["metric"] == "train/loss" and each["detector"] in ("divergence", *words)
    ]
    return worst_of(found)


def _runmedic(said: Any) -> Answer:
    if not any(run["roles"].get("train_loss") for run in said):
        return "no loss"
    words = {
        "non_finite": "nonfinite",
        "divergence": "broken",
        "loss_spikes": "spiked",
        "no_learning": "never learns",
    }
    findings = [each for run in said for each in run["findings"]]
    return worst_of([words[each["check"]] for each in findings if each["check"] in words])


def _stresstest(said: Any) -> Answer:
    words = {"exploded": "broken", "relapsed": "broken", "rising": "broken", "flat": "never learns"}
    words["failed-to-train"] = "never learns"
    outcomes = [run["outcome"] for run in said["runs"]]
    return worst_of([words.get(word, word) for word in outcomes if word]) if any(outcomes) else "declined"


PEERS = (
    Peer("losslint", ("losslint", "check", "--format", "json"), _losslint),
    Peer("trainspotter", ("trainspotter", "analyze", "--output", "json"), _trainspotter),
    Peer("runmedic", ("runmedic", "diagnose", "--json"), _runmedic),
    Peer("stresstest", ("stresstest", "diagnose", "--json"), _stresstest),
)


def ask(peer: Peer, program: str, file: Path) -> Answer:
    """What a tool says of a file."""
    try:
        done = subprocess.run(
            [program, *peer.command[1:], str(file)], capture_output=True, text=True, timeout=_SECONDS, check=False
        )
        return peer.answer(json.loads(done.stdout))
    except (ValueError, KeyError, subprocess.TimeoutExpired):
        return None


def labelled(folder: Path) -> list[tuple[Path, str]]:
    """The files with a label that can be judged."""
    with (folder / "labels.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    return [
        (folder / row["file"], row["label"]) for row in rows if row["label"] not in ("", "n/a", "appended", "loss0")
    ]


def _same(label: str, answer: Answer) -> bool:
    return answer == ("broken" if label in _BROKEN_LABELS else label)


def row_of(name: str, said: Mapping[Path, tuple[str, Answer]]) -> str:
    """A tool's line: what it read, how often it was right, and how it fared on each label."""
    judged = [(label, answer) for label, answer in said.values() if answer in WORST]
    no_loss = sum(answer == "no loss" for _, answer in said.values())
    refused = sum(answer is None for _, answer in said.values())
    cells = [f"{len(judged)} / {no_loss} / {refused}", f"{sum(_same(*each) for each in judged)} of {len(judged)}"]
    for labels in (("stable",), ("spiked",), _BROKEN_LABELS, ("nonfinite",), ("never learns",)):
        own = [each for each in judged if each[0] in labels]
        hits = sum(_same(*each) for each in own)
        cells.append(f"{len(own) - hits if labels == ('stable',) else hits} of {len(own)}")
    return f"| {name} | " + " | ".join(cells) + " |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bin", type=Path, required=True)
    asked = parser.parse_args()
    files = labelled(asked.folder)
    print(
        "| tool | judged / no loss seen / refused | right | false alarms on stable | spiked | exploded, relapsed ",
        end="",
    )
    print("| non-finite | never learns |\n|---|---|---|---|---|---|---|---|")
    for peer in PEERS:
        folder = Path(sys.executable).parent if peer.name == "stresstest" else asked.bin
        program = shutil.which(peer.command[0], path=str(folder))
        if program is not None:
            print(row_of(peer.name, {file: (label, ask(peer, program, file)) for file, label in files}), flush=True)


if __name__ == "__main__":
    main()
