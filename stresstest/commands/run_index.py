"""`stresstest report --index`: a page over all runs below a folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from stresstest.errors import ConfigError
from stresstest.experiments.document_parts import model_words
from stresstest.experiments.result_views import document_of
from stresstest.experiments.scale.sentences import Checks, checks, together
from stresstest.experiments.unfinished import MANIFEST_SCHEMA
from stresstest.json_text import parse_json
from stresstest.reports.document import (
    TERMINAL,
    WRITTEN,
    Block,
    Column,
    Document,
    Fact,
    Heading,
    Item,
    Items,
    Paragraph,
    Table,
    Tone,
    Value,
)
from stresstest.reports.output import Tables
from stresstest.results.records import read_result
from stresstest.results.sums import AGAIN, check_file, checked_json

_PARTS = ("manifest.json", "result.json", "cells.jsonl")  # one of them makes a folder a run's
_IN_TERMINAL = 20  # of the newest runs
_SHORT = 2  # verdicts of a run
_DAMAGE = (ConfigError, OSError, ValueError, LookupError, TypeError, AttributeError)


@dataclass(frozen=True)
class IndexedRun:
    """One run, as a row of the index; a `damaged` one has what is wrong with it in the place of its verdict."""

    path: Path
    scenario: str  # the folder that it belongs to; empty of a run by itself
    changed: float  # seconds since the epoch
    experiment: str = ""
    model: str = ""
    cells: str = ""
    verdict: str = ""
    tone: Tone = ""
    left_out: Checks | None = None  # of the laws of a path of sizes


def index_runs(root: Path) -> list[IndexedRun]:
    """Every run below a folder, the newest first; a `ConfigError` where there is none."""
    if not root.is_dir():
        raise ConfigError(f"{root} is not a folder; give one that holds runs: stresstest report --index FOLDER")
    runs = [_indexed(path, scenario) for path, scenario in _run_folders(root)]
    if not runs:
        raise ConfigError(f"no run below {root}; run stresstest lr-range first, or give a folder that holds runs")
    return sorted(runs, key=lambda run: -run.changed)


def index_document(root: Path, runs: Sequence[IndexedRun]) -> Document:
    """The runs by themselves first, then those of each scenario, the newest first; links are relative to `root`."""
    alone = [run for run in runs if not run.scenario]
    scenarios: dict[str, list[IndexedRun]] = {}
    for run in runs:
        if run.scenario:
            scenarios.setdefault(run.scenario, []).append(run)
    blocks: list[Block] = [Items(tuple(map(_item, runs[:_IN_TERMINAL])), formats=TERMINAL)]
    if alone:
        blocks.append(_table(alone, root))
    for name, some in scenarios.items():
        blocks += [Heading(f"scenario {_printable(name)}", formats=WRITTEN), _table(some, root)]
    if laws := [run.left_out for run in runs if run.left_out and run.left_out.counted]:
        blocks.append(Paragraph(_over_all(laws)))
    damaged = sum(run.tone == "bad" for run in runs)
    return Document(
        name=f"stresstest: {len(runs)} runs",
        title=f"{len(runs)} run{'s' * (len(runs) > 1)} in {_printable(str(root))}",
        subtitle=f"{damaged} of them cannot be read" if damaged else "",
        blocks=tuple(blocks),
        footer=(Fact("again", f"stresstest report --index {_printable(str(root))}"),),
    )


def _over_all(laws: Sequence[Checks]) -> str:
    """How often the laws of all paths of sizes were right about sizes that they did not see."""
    runs = f"{len(laws)} run{'s' * (len(laws) > 1)}"
    return f"Laws of max_stable_lr over size: over {runs} of stresstest scale, {together(laws).words}."


def index_tables(runs: Sequence[IndexedRun]) -> Tables:
    """The same as a table of plain columns."""
    names = ("scenario", "experiment", "model", "cells", "verdict")
    paths = {"run": [_printable(str(run.path)) for run in runs]}
    return {"runs": paths | {name: [_printable(getattr(run, name)) for run in runs] for name in names}}


def _run_folders(root: Path) -> Iterator[tuple[Path, str]]:
    """(run directory, scenario) down to two levels."""
    for folder in _folders(root):
        if _is_run(folder):
            yield folder, ""
            continue
        yield from ((inner, folder.name) for inner in _folders(folder) if _is_run(inner))


def _folders(path: Path) -> list[Path]:
    try:
        with os.scandir(path) as found:
            return sorted(Path(entry.path) for entry in found if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []


def _is_run(path: Path) -> bool:
    return any((path / name).exists() for name in _PARTS)


def _indexed(path: Path, scenario: str) -> IndexedRun:
    changed = max((_changed(path / name) for name in _PARTS), default=0.0)
    try:
        return IndexedRun(path, scenario, changed, **_facts(path))
    except _DAMAGE as error:
        return IndexedRun(path, scenario, changed, verdict=f"cannot be read: {error}", tone="bad")


def _changed(path: Path) -> float:
    try:
        found = path.stat()
    except OSError:
        return 0.0
    return found.st_mtime if stat.S_ISREG(found.st_mode) else 0.0


def _facts(path: Path) -> dict[str, Any]:
    from stresstest.runs.status import read_status

    finished = (path / "result.json").exists()
    if finished and not (path / "manifest.json").exists():
        result = read_result(path / "result.json")
        total = len(result.cells)
        told = (result.command, result.spec, result.data)
        return {**_row(*told, f"{total} of {total}", _verdicts(path), ""), **_left_out(path, result.command)}
    manifest = parse_json((path / "manifest.json").read_text())
    if manifest.get("schema") != MANIFEST_SCHEMA:
        raise ConfigError(f"schema {manifest.get('schema')!r}, this version reads {MANIFEST_SCHEMA!r}")
    status = read_status(path)
    ended = sum(status.statuses.values())
    failed = "".join(f", {number} {name}" for name, number in status.statuses.items() if name != "done")
    damaged = f", {len(status.damaged)} damaged" if status.damaged else ""
    cells = f"{ended} of {status.total}{failed}{damaged}"
    told = (manifest["command"], manifest["spec"], manifest["data"])
    if finished:
        return {**_row(*told, cells, _verdicts(path), ""), **_left_out(path, manifest["command"])}
    return _row(*told, cells, "trains now" if status.holder else f"not finished; go on: {status.again}", "mixed")


def _left_out(path: Path, command: str) -> dict[str, Checks]:
    """What became of the leave-outs of a path of sizes, without reading its cells as records."""
    if command != "scale":
        return {}
    content = (path / "result.json").read_bytes()
    check_file(path / "result.json", content, AGAIN)
    trends = parse_json(content)["trends"]
    laws = [law for trend in trends for law in trend.get("laws", ())]
    return {"left_out": checks(law for law in laws if law["metric"] == "max_stable_lr")}


def _row(
    command: str, spec: Mapping[str, Any], data: Mapping[str, Any], cells: str, verdict: str, tone: Tone
) -> dict[str, Any]:
    return {
        "experiment": command,
        "model": model_words(spec, data),
        "cells": cells,
        "verdict": verdict,
        "tone": tone,
    }


def _verdicts(path: Path) -> str:
    """The first of a result's verdicts, as they were written beside it or else by its report."""
    kept = path / "answer.json"
    if _changed(kept) >= _changed(path / "result.json"):
        answer = checked_json(parse_json(kept.read_text()), kept, AGAIN)
        told = [str(text) for text in answer["verdicts"]]
    else:
        told = [verdict.text for verdict in document_of(read_result(path / "result.json")).verdicts]
    more = len(told) - _SHORT
    return "; ".join(told[:_SHORT]) + (f"; {more} more" if more > 0 else "")


def _item(run: IndexedRun) -> Item:
    cells = f", {run.cells} cells" if run.cells else ""
    name = f"{run.scenario}/{run.path.name}" if run.scenario else run.path.name
    text = f"{_day(run.changed)}  {_printable(name)}: {_printable(run.experiment or 'damaged')}{cells}"
    return Item(text, run.tone, _printable(run.verdict))


def _day(changed: float) -> str:
    return f"{datetime.fromtimestamp(changed):%Y-%m-%d %H:%M}" if changed else "-"


def _table(runs: Sequence[IndexedRun], root: Path) -> Table:
    rows = tuple(
        (
            Value(_printable(run.path.name), link=_link(run, root, "report.html")),
            Value(_printable(run.verdict), tone=run.tone),
            Value(_printable(run.experiment)),
            Value(_printable(run.model)),
            Value(run.cells or "-"),
            Value(_day(run.changed)),
            Value("result.json" if (at := _link(run, root, "result.json")) else "-", link=at),
        )
        for run in runs
    )
    columns = (
        Column("run", "left"),
        Column("verdict", "left"),
        Column("experiment", "left"),
        Column("model", "left"),
        Column("cells"),
        Column("changed"),
        Column("data", "left"),
    )
    return Table(columns, rows, formats=WRITTEN)


def _link(run: IndexedRun, root: Path, name: str) -> str:
    """From the index to a file of a run; nothing where it is not there."""
    file = run.path / name
    if not file.exists():
        return ""
    return "./" + quote(os.fsencode(file.relative_to(root)))


def _printable(text: str) -> str:
    """Without what would move a terminal's cursor, or could not be written."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
