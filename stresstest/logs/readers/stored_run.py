"""A run that stresstest itself stored: the curves of its cells, a run each."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stresstest.errors import ConfigError
from stresstest.logs.curve import Curve, Floats, FormatFacts, RawLog
from stresstest.logs.files import LogFile
from stresstest.results.sums import DamagedError, digest, unseal

_CELL = re.compile(r'\{"key":"[0-9a-f]+","variant":')
_FACTS = FormatFacts(roles={"loss": "loss", "lr": "lr", "grad_norm": "grad_norm"}, row_kind="sample")


class StoredRun:
    """`cells.jsonl` of a run directory with the curves beside it, or one cell's curves."""

    name = "stresstest run"
    reads = "cells.jsonl, or a file in curves/, of a run that stresstest stored"

    def fits(self, file: LogFile) -> bool:
        """A cell in the first line, or a cell's curves."""
        if file.suffix == ".npz":
            return file.head.startswith(b"PK") and file.path.parent.name == "curves"
        return _CELL.match(file.head_text) is not None

    def read(self, file: LogFile) -> Iterator[RawLog]:
        """Each curve with a loss."""
        if file.suffix == ".npz":
            cells = _cells(file.path.parent.parent / "cells.jsonl", {file.path.stem})
            yield from _runs(next(iter(cells), {"key": file.path.stem}), file.path, file)
            return
        for cell in _cells(file.path, None):
            curves = file.path.parent / "curves" / f"{cell['key']}.npz"
            if curves.is_file():
                yield from _runs(cell, curves, file)


def _cells(path: Path, wanted: set[str] | None) -> Iterator[dict[str, Any]]:
    """The cells of a run, without a last line that a crash cut short."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                unseal(line.encode())
                cell = json.loads(line)
            except DamagedError as error:
                raise ConfigError(
                    f"{path}:{number} is damaged ({error}); the line that made the run trains it again"
                ) from None
            except ValueError:
                continue
            key = str(cell.get("key")) if isinstance(cell, dict) else ""
            if re.fullmatch("[0-9a-f]+", key) and (wanted is None or key in wanted):
                yield cell


def _runs(cell: Mapping[str, Any], path: Path, file: LogFile) -> Iterator[RawLog]:
    try:
        content = path.read_bytes()
        if cell.get("curves_sum", "") not in ("", digest(content)):
            raise ValueError("the checksum does not fit")
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            arrays = {name: np.asarray(stored[name], dtype=np.float64) for name in stored.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise ConfigError(f"{file.shown}: the curves in {path.name} are damaged ({error})") from None
    for name, losses in arrays.items():
        part = name.removesuffix("loss")
        if part == name or losses.ndim not in (1, 2):
            continue
        label = " ".join([_label(cell), part.strip("_")]).strip()
        lr, norm = arrays.get(f"{part}lr"), arrays.get(f"{part}grad_norm")
        if losses.ndim == 1:
            yield RawLog(StoredRun.name, _curves(losses, lr, norm), _FACTS, label)
        elif lr is not None:
            yield from (_held(cell, part.strip("_"), label, i, row, float(lr[i])) for i, row in enumerate(losses))


def _held(cell: Mapping[str, Any], part: str, label: str, trial: int, losses: Floats, lr: float) -> RawLog:
    losses = losses[: _steps(cell, part, trial, losses)]
    return RawLog(StoredRun.name, _curves(losses, np.full(len(losses), lr), None), _FACTS, f"{label} at LR {lr:.3g}")


def _curves(losses: Floats, lr: Floats | None, grad_norm: Floats | None) -> dict[str, Curve]:
    given = {"loss": losses, "lr": lr, "grad_norm": grad_norm}
    return {
        name: Curve(np.arange(len(values), dtype=np.float64), values, np.arange(len(values), dtype=np.int64))
        for name, values in given.items()
        if values is not None and len(values) == len(losses)
    }


def _steps(cell: Mapping[str, Any], part: str, trial: int, padded: Floats) -> int:
    """How many steps a trial took: the rows are padded with NaN to the longest."""
    records = cell.get(part)
    if isinstance(records, list) and trial < len(records) and isinstance(records[trial].get("steps"), int):
        return int(records[trial]["steps"])
    finite = np.flatnonzero(np.isfinite(padded))
    return int(finite[-1]) + 1 if len(finite) else 1


def _label(cell: Mapping[str, Any]) -> str:
    if "variant" not in cell:
        return str(cell["key"])
    return f"{cell['variant']}, depth {cell.get('depth')}, seed {cell.get('seed')},"
