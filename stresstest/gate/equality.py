"""Whether two sides found the same to the last bit: the cells' records, and every curve that they kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stresstest.gate.records import GatedRow
from stresstest.results.records import Cell, Result

_OF_THE_RUN = ("key", "seconds", "probe_seconds", "replay_seconds", "curves_sum")
_TIMED = ("seconds_per_step", "peak_bytes")

Stored = tuple[Result, Path]  # a result and its run directory


def why_incomparable(head: Result, base: Result) -> str:
    """Why two results under the same settings are not comparable, or nothing."""
    if head.environment["key"] != base.environment["key"]:
        return f"the environments differ: {base.environment['key']} and {head.environment['key']}"
    if head.kernel != base.kernel:
        return f"the kernels differ: {base.kernel} and {head.kernel}; train both with --kernel torch"
    return "the data differ" if head.data.get("hash") != base.data.get("hash") else ""


def same_cells(place: GatedRow, one: Stored, other: Stored) -> bool:
    """Whether all cells of a row, of every seed, are the same on both sides, but for the time they took."""
    ours, theirs = (_cells(place, result) for result, _ in (one, other))
    return ours.keys() == theirs.keys() and all(
        _told(ours[at]) == _told(theirs[at]) and _same_curves(one[1], ours[at].key, other[1], theirs[at].key)
        for at in ours
    )


def _cells(place: GatedRow, result: Result) -> dict[str, Cell]:
    """Those of a variant, at one depth or at all, by where they stand."""
    mine = [c for c in result.cells if c.variant == place.variant and place.depth in (None, c.depth)]
    return {repr((c.depth, c.seed, sorted(c.point.items()))): c for c in mine}


def _told(cell: Cell) -> dict[str, Any]:
    record = cell.model_dump(mode="json")
    record["metrics"] = {name: value for name, value in record["metrics"].items() if name not in _TIMED}
    return {name: value for name, value in record.items() if name not in _OF_THE_RUN}


def _same_curves(ours: Path, our_key: str, theirs: Path, their_key: str) -> bool:
    import numpy as np

    files = ours / "curves" / f"{our_key}.npz", theirs / "curves" / f"{their_key}.npz"
    if not all(file.exists() for file in files):
        return not any(file.exists() for file in files)
    with np.load(files[0]) as one, np.load(files[1]) as other:
        return set(one.files) == set(other.files) and all(
            one[name].dtype == other[name].dtype
            and one[name].shape == other[name].shape
            and one[name].tobytes() == other[name].tobytes()
            for name in one.files
        )
