"""How far off the time left is while a run goes on, and whether its range holds what came. Run by hand:

    python tests/benchmarks/estimate_error.py [--only NAME] [--jobs N] [--full] [--markdown]

Each command runs as a user starts it, in a process of its own, and this script reads what `stresstest status` reads,
twice a second. Afterwards the time left is compared with what came: before the first step, and at a tenth, half and
nine tenths of the time from there on. --full takes each command's defaults, some two hours on two cores; without it the
commands are smaller, as the table says. A check runs in a repository made for it, whose last commit changed the model:
with --full the shipped scenario `ci` on that model. Its range ends at what it takes at most, with all its looks.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tables import show

from stresstest.errors import ExitCode
from stresstest.runs.identity import environment
from stresstest.scenario.library import find_scenario

VERDICTS = (ExitCode.OK, ExitCode.NO_VERDICT, ExitCode.GATE_CROSSED)
SHARES = (0.1, 0.5, 0.9)
MAP = "--trials 0 --warmup-steps 0,20,60 --num-lrs 4"
RUNS = {
    "lr-range": ("lr-range", "", "--depth 2 --num-steps 100 --hold-steps 80"),
    "depth-sweep": (
        "depth-sweep",
        "",
        "--depths 1,2,4 --variant pre-ln,post-ln,rezero --num-steps 80",
    ),
    "depth-sweep, mlp": (
        "depth-sweep",
        "--model mlp --depths 10,100,1000,10000 --seeds 2",
        "--model mlp --variant rezero,plain --depths 10,100,1000 --seeds 2",
    ),
    "warmup, map": ("warmup", "--trials 0", f"--depth 2 --train-steps 100 {MAP}"),
    "warmup, search": (
        "warmup",
        "--no-map --trials 20",
        "--no-map --trials 8 --trials-at-once 4 --depth 2 --train-steps 100 --warmup-steps 0,20,60",
    ),
    "race": ("race", "", "--depth 2 --train-steps 120"),
    "batch-sweep": ("batch-sweep", "", "--tokens 60k --batch-sizes 8,32,128 --num-lrs 4"),
    "check": ("check", "gate.yaml --base HEAD~1", "gate.yaml --base HEAD~1 --seeds 7"),
}
SMALLER = {"150": "60", "depth: 4": "depth: 2", "[post-ln, pre-ln, rezero]": "pre-ln"}  # than the scenario ci


@dataclass(frozen=True)
class Told:
    """What was told of the time left at one moment; seconds."""

    at: float
    share: float
    seconds: float
    low: float
    high: float
    at_most: float | None


def follow(words: list[str], folder: Path) -> tuple[list[Told], float]:
    """Run a command in a folder and read what it tells; that, and when it ended."""
    told: list[Told] = []
    command, file = [sys.executable, "-m", "stresstest", *words], folder / "run" / "progress.json"
    if words[0] == "check":
        file = folder / ".stresstest" / "checks" / "gate.progress.json"
    else:
        command += ["--run-dir", "run"]
    with (folder / "out").open("w") as out, subprocess.Popen(command, stdout=out, stderr=out, cwd=folder) as process:
        while process.poll() is None:
            time.sleep(0.5)
            try:
                said = json.loads(file.read_text())
            except (OSError, ValueError):
                continue
            if said.get("left") and (not told or said["at"] > told[-1].at):
                told.append(Told(said["at"], said["share"], **said["left"]))
    if process.returncode not in VERDICTS:
        raise SystemExit((folder / "out").read_text())
    trained = [each.at for each in told if each.share < 1.0]
    return told, max(trained, default=time.time())


def make_repository(folder: Path, full: bool) -> None:
    """A model of its own, which the last commit changed, and the scenario `ci` on it."""
    gate = Path(find_scenario("ci")).read_text().replace("defaults:", "defaults:\n  model: model.py:build")
    for was, instead in {"    heads: 2\n": "", **({} if full else SMALLER)}.items():
        gate = gate.replace(was, instead)
    subprocess.run([sys.executable, "-m", "stresstest", "init", "."], cwd=folder, check=True, capture_output=True)
    (folder / "gate.yaml").write_text(gate)
    _git(folder, "init", "-q", ".")
    for factor in ("4", "3"):
        model = (folder / "model.py").read_text()
        (folder / "model.py").write_text(model.replace("4 * width", f"{factor} * width"))
        _git(folder, "add", "gate.yaml", "model.py")
        _git(folder, "-c", "user.name=A", "-c", "user.email=a@example.org", "commit", "-q", "-m", f"wide {factor}")


def _git(folder: Path, *words: str) -> None:
    subprocess.run(["git", *words], cwd=folder, check=True)


def row(name: str, words: list[str], full: bool) -> list[str]:
    """One line of the table."""
    with tempfile.TemporaryDirectory() as folder:
        if name == "check":
            make_repository(Path(folder), full)
        told, end = follow(words, Path(folder))
    first = told[0]
    came = end - first.at
    cells = [name, f"`{' '.join(words)}`", _minutes(came), f"{_minutes(first.seconds)} ({_held(first, end)})"]
    for share in SHARES:
        at = next(each for each in told if each.at >= first.at + share * came)
        left = end - at.at
        cells.append(f"{at.seconds / max(left, 1e-9) - 1.0:+.0%} ({_held(at, end)})")
    return cells


def _held(told: Told, end: float) -> str:
    high = told.high if told.at_most is None else told.at_most
    inside = "held" if told.low <= end - told.at <= high else "not"
    return f"{_minutes(told.low)} to {_minutes(high)}: {inside}"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f}"


def main() -> None:
    """Run what was asked for and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=list(RUNS), help="a run; may be given several times")
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--markdown", action="store_true")
    asked = parser.parse_args()
    rows = []
    for name in asked.only or RUNS:
        command, full, small = RUNS[name]
        words = [command, *(full if asked.full else small).split()]
        rows.append(row(name, words if asked.jobs is None else [*words, "-j", str(asked.jobs)], asked.full))
        print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    heads = ["run", "command", "came, min", "before, min", *(f"error at {share:.0%}" for share in SHARES)]
    print(f"{environment('cpu', 'float32')['device_name']}\n")
    show(heads, rows, asked.markdown)


if __name__ == "__main__":
    main()
