"""A run that lacks cells: what those that have ended come to, while it trains or after it was stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stresstest.errors import ConfigError
from stresstest.experiments.reduction import result_of
from stresstest.experiments.result_views import document_of
from stresstest.experiments.table import EXPERIMENTS
from stresstest.reports.document import Block, Details, Document, Fact, Item, Items, Paragraph
from stresstest.reports.progress import describe, duration
from stresstest.results.records import Cell, Result
from stresstest.results.sums import being_read

if TYPE_CHECKING:
    from stresstest.runs.status import RunStatus

MANIFEST_SCHEMA = "stresstest.manifest/1"
_REMEDY = "the files were not changed; read it with the version that wrote it"
_MOST_NAMED = 4  # cells in training
_TOO_FEW = (LookupError, ValueError, ArithmeticError, StopIteration)


def is_unfinished(path: Path) -> bool:
    """Whether a path is a run directory without a result."""
    from stresstest.runs.directory import read_manifest

    return path.is_dir() and not (path / "result.json").exists() and read_manifest(path) is not None


def unfinished_result(path: Path) -> Result:
    """What the cells that have ended come to; where they are too few for that, a `ConfigError`."""
    from stresstest.runs.directory import unsealed_manifest

    manifest, cells = _manifest(path), _cells(path)
    with being_read(unsealed_manifest(path)):
        try:
            return result_of(manifest, cells)
        except _TOO_FEW:
            raise ConfigError(f"the cells of {path} that have ended do not make a table yet; wait for more") from None


def unfinished_document(path: Path, running: bool | None = None) -> Document:
    """The report of a run without a result; `running` whether it trains, by default whether a driver holds it.

    What was written by another version is a `ConfigError`.
    """
    from stresstest.runs.directory import unsealed_manifest
    from stresstest.runs.status import damage_words, read_status

    manifest, status, cells = _manifest(path), read_status(path), _cells(path)
    if running is None:
        running = status.holder is not None
    elif not running:
        status = replace(status, running=[], seconds_left=None)
    with being_read(unsealed_manifest(path)):
        document = _of_cells(manifest, cells)
    ended = sum(status.statuses.values())
    return replace(
        document,
        name=f"{document.name}: {ended} of {status.total} cells",
        state="; ".join([_state(status, ended, running), *damage_words(status)]),
        live=running,
        next=(_next(path, status, ended, running),),
    )


def _manifest(path: Path) -> Mapping[str, Any]:
    from pydantic import ValidationError

    from stresstest.runs.directory import read_manifest

    manifest = read_manifest(path) or {}
    if manifest.get("schema") != MANIFEST_SCHEMA:
        found = manifest.get("schema")
        raise ConfigError(f"{path} has schema {found!r}, this version reads {MANIFEST_SCHEMA!r}; {_REMEDY}")
    try:
        EXPERIMENTS[manifest["command"]].spec.model_validate(manifest["spec"])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{path} has settings of another version ({where}: {first['msg']}); {_REMEDY}") from None
    return manifest


def _cells(path: Path) -> list[Cell]:
    """Those that have ended, in the order of the plan."""
    from stresstest.runs.directory import planned_cells, stored_cells

    stored = stored_cells(path)
    return [stored[key] for key in planned_cells(path) if key in stored]


def _of_cells(manifest: Mapping[str, Any], cells: list[Cell]) -> Document:
    """As a whole run's, where the cells allow it; else what there is to say of each."""
    listed = Items(tuple(Item(describe(cell), "good" if cell.status == "done" else "bad") for cell in cells))
    if any(cell.status == "done" for cell in cells):
        try:
            document = document_of(result_of(manifest, cells))
        except _TOO_FEW:
            pass  # what compares has nothing yet to compare with
        else:
            return replace(document, blocks=(*document.blocks, Details("cells that have ended", (listed,))))
    blocks: tuple[Block, ...] = (listed,) if cells else (Paragraph("No cell has ended yet."),)
    return Document(
        name=f"stresstest {manifest['command']}",
        title=f"{manifest['command']}: what has ended so far",
        blocks=blocks,
        footer=(Fact("again", manifest["reproduce"]),),
    )


def _state(status: RunStatus, ended: int, running: bool) -> str:
    """How much there is, and that it is not all."""
    index, number = status.shard
    part = f" of shard {index} of {number}" if number > 1 else ""
    failed = ", ".join(f"{count} {name}" for name, count in status.statuses.items() if name != "done")
    failed = f" ({failed})" if failed else ""
    if running:
        named = "; ".join(status.running[:_MOST_NAMED])
        more = len(status.running) - _MOST_NAMED
        now = f"{named}{f' and {more} more' if more > 0 else ''}; " if named else ""
        left = f"about {duration(status.seconds_left)} left; " if status.seconds_left else ""
        at = f"{datetime.now():%H:%M:%S}"
        return f"{ended} of {status.total} cells{part}{failed} at {at}; not final: it trains: {now}{left}".rstrip("; ")
    to_come = status.total - ended
    why = (
        f"{to_come} to come" if to_come else "its result is not written" if number == 1 else "other shards are missing"
    )
    return f"{ended} of {status.total} cells{part}{failed}; not final: {why}"


def _next(path: Path, status: RunStatus, ended: int, running: bool) -> Fact:
    if running:
        return Fact("next", f"stresstest status {path}", "how far it is")
    if status.shard[1] > 1 and ended == status.total:
        return Fact("next", f"stresstest merge {path} ...", "join it with the other shards")
    return Fact("next", status.again, "go on with it")
