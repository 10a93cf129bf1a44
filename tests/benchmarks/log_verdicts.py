"""What the rules on logs say of logs labelled by eye: python tests/benchmarks/log_verdicts.py FOLDER [--markdown].

FOLDER holds the logs and their `labels.csv`: what one person saw on each curve before any rule was applied. A label is
met by the same outcome; "never learns" by `flat` and `failed-to-train`, "spiked" also by a lasting spike that is listed
beside a later break. Unlabelled files, losses that are not to be judged (`n/a`, `loss0`) and several runs in one file
(`appended`) are read and shown, not scored. FOLDER/made, if it is there, holds logs of runs whose truth is known.

Where the label can be argued: 002.csv (spiked) comes back from its second spike to a quarter of what it had learned
above its best and stays there, which is just short of `relapsed`; 206.out has no label and is `spiked` as its siblings
207 to 209 are.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from labelled_logs import Labelled, read, read_labelled
from tables import show

from stresstest.diagnosis import levels, spikes, tail
from stresstest.diagnosis.course import Course, courses_of

WORST = ("nonfinite", "exploded", "relapsed", "rising", "failed-to-train", "spiked", "flat", "stable")
MET_BY = {
    "stable": {"stable"},
    "spiked": {"spiked"},
    "never learns": {"flat", "failed-to-train"},
    "relapsed": {"relapsed", "rising"},
    "exploded": {"exploded"},
    "nonfinite": {"nonfinite"},
}
GRID: tuple[tuple[ModuleType, str, tuple[float, ...]], ...] = (
    (levels, "PERSISTENCE", (3, 5, 8)),
    (levels, "FALSE_ALARMS", (0.1, 0.01, 0.001)),
    (levels, "BEFORE", (7, 11, 21)),
    (levels, "MOST_STRETCH", (1.0, 2.0, 3.0)),
    (spikes, "SPIKE_SHARE", (0.1, 0.2, 0.3, 0.5)),
    (spikes, "LEFT_OPEN", (0.25, 0.5, 0.75)),
    (spikes, "LARGE_SHARE", (0.5, 1.0, 2.0)),
    (tail, "EXPLOSION_SHARE", (0.05, 0.1, 0.3)),
    (tail, "RELAPSE_SHARE", (0.3, 0.5, 0.7)),
    (tail, "RISING_SHARE", (0.05, 0.1, 0.15, 0.3)),
    (tail, "RISING_SIGMAS", (3.0, 5.0, 8.0)),
    (tail, "LEAST_SHARE", (0.01, 0.015, 0.03)),
    (tail, "FLAT_SIGMAS", (3.0, 4.0, 6.0)),
    (tail, "FLAT_SHARE", (0.03, 0.05, 0.1)),
)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--files", action="store_true", help="one line for each file that was not met")
    asked = parser.parse_args()
    files = list(read_labelled(asked.folder))
    print(f"files read: {sum(bool(f.logs) for f in files)} of {len(files)}")
    verdicts(files, asked.markdown, asked.files)
    left_out(files, asked.markdown)
    if (asked.folder / "made").is_dir():
        made(asked.folder / "made", asked.markdown)


def verdicts(files: Sequence[Labelled], markdown: bool, each: bool) -> None:
    """Label by outcome, and the bars."""
    found = {file.file: outcome_of(file) for file in files}
    shown = [word for word in (*WORST, "undecided", "declined", "not read") if word in found.values()]
    counts = Counter((file.label or "-", found[file.file]) for file in files)
    labels = [*MET_BY, *sorted({file.label or "-" for file in files} - set(MET_BY))]
    rows = [[label, *(str(counts[label, word] or "") for word in shown)] for label in labels]
    show(["label", *shown], [row for row in rows if any(row[1:])], markdown)
    scored = [(label, [f for f in files if f.label == label]) for label in MET_BY]
    show(
        ["label", "files", "met"],
        [[label, str(len(of)), str(sum(map(is_met, of)))] for label, of in scored if of],
        markdown,
    )
    stable = [found[f.file] for f in files if f.label == "stable"]
    print(f"false alarms on stable: {sum(word in WORST[:-1] for word in stable)} of {len(stable)}")
    for file in files if each else ():
        if file.label in MET_BY and not is_met(file):
            print(f"{file.file}: {file.label}, found {found[file.file]} {file.error}")
    for file in files:
        if not file.logs:
            print(f"not read: {file.file}: {file.error}")


def courses(file: Labelled) -> list[Course]:
    """The courses of every segment of every run."""
    return [course for log in file.logs for course in courses_of(log.segments)]


def outcome_of(file: Labelled) -> str:
    """The worst outcome in a file."""
    if file.logs and all(log.declined for log in file.logs):
        return "declined"
    return worst([course.outcome for course in courses(file)]) if file.logs else "not read"


def worst(outcomes: Sequence[str | None]) -> str:
    """The worst of them that is known."""
    return next((word for word in WORST if word in outcomes), "undecided")


def is_met(file: Labelled) -> bool:
    """Whether the rules say what the label says."""
    found = courses(file)
    if file.label == "spiked" and any(spike.lasting for course in found for spike in course.spikes):
        return True
    return worst([course.outcome for course in found]) in MET_BY[file.label]


def left_out(files: Sequence[Labelled], markdown: bool) -> None:
    """Each constant chosen anew on all repositories but one, and scored on that one."""
    scored = [file for file in files if file.label in MET_BY and file.logs]
    plain = [is_met(file) for file in scored]
    rows = []
    for module, name, values in GRID:
        chosen = getattr(module, name)
        met = {value: plain if value == chosen else met_with(scored, module, name, value) for value in values}
        right = sum(_without(scored, met, chosen, repository) for repository in {file.repository for file in scored})
        each = ", ".join(f"{value:g}: {sum(of)}" for value, of in met.items())
        rows.append([name, f"{chosen:g}", each, f"{right} of {len(scored)}"])
    print(f"met with the constants as they are: {sum(plain)} of {len(scored)}")
    show(["constant", "is", "met with", "met, chosen on the other repositories"], rows, markdown)


def _without(files: Sequence[Labelled], met: dict[float, list[bool]], chosen: float, repository: str) -> int:
    """How many of a repository are met with the value that is best on all others; the nearest to `chosen` of equals."""

    def elsewhere(value: float) -> tuple[int, float]:
        right = sum(ok for ok, file in zip(met[value], files, strict=True) if file.repository != repository)
        return right, -abs(value - chosen)

    best = max(met, key=elsewhere)
    return sum(ok for ok, file in zip(met[best], files, strict=True) if file.repository == repository)


def met_with(files: Sequence[Labelled], module: ModuleType, name: str, value: float) -> list[bool]:
    """Which files are met when a constant has another value."""
    with _set(module, name, value):
        return [is_met(file) for file in files]


@contextmanager
def _set(module: ModuleType, name: str, value: float) -> Iterator[None]:
    users = [other for other in (levels, spikes, tail) if hasattr(other, name)]
    before = getattr(module, name)
    for user in users:
        setattr(user, name, type(before)(value))
    try:
        yield
    finally:
        for user in users:
            setattr(user, name, before)


def made(folder: Path, markdown: bool) -> None:
    """Logs of runs whose truth is known: the worst that must be found in each."""
    rows = []
    with (folder / "index.csv").open(encoding="utf-8") as stream:
        entries = [row for row in csv.DictReader(stream) if not row["file"].endswith("truth.json")]
    for entry in entries:
        logs, error = read(folder / entry["file"])
        found = worst([course.outcome for log in logs for course in courses_of(log.segments)]) if logs else error
        rows.append([entry["file"], entry["truth"], found])
    show(["file", "truth", "found"], rows, markdown)


if __name__ == "__main__":
    sys.exit(main())
