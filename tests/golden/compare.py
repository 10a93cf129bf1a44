"""Golden runs: `mapping.yaml` turns what the version before wrote into what this one writes, and nothing else differs.

    python -m tests.golden.runs CHECKOUT_BEFORE BEFORE
    python -m tests.golden.runs . AFTER
    python -m tests.golden.compare BEFORE AFTER

Every cell is matched by what it trains (variant, depth, seed, point), since its key differs; its curves must be
bit-equal. All other fields must be equal, sentences after their words are put as the mapping says.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

MAPPING = Path(__file__).parent / "mapping.yaml"
VERDICT = "check.json"
SENTENCES = ("text", "reason", "error")


@dataclass(frozen=True)
class Mapping:
    """What differs on purpose."""

    ignored: list[str]
    fields: dict[str, str]
    words: list[tuple[str, str]]
    used: set[str] = field(default_factory=set)

    def renewed(self, value: Any, path: str = "") -> Any:
        """The old value as this version would write it."""
        if isinstance(value, dict):
            return {
                self.fields.get(f"{path}.{name}".lstrip("."), name): self._sentence(inner)
                if name in SENTENCES and isinstance(inner, str)
                else self.renewed(inner, f"{path}.{name}")
                for name, inner in value.items()
            }
        return [self.renewed(inner, path) for inner in value] if isinstance(value, list) else value

    def _sentence(self, text: str) -> str:
        for old, new in self.words:
            put = re.sub(old, new, text)
            self.used.update({old} if put != text else ())
            text = put
        return text


@dataclass
class Comparison:
    """One file before and after: what was compared, and what is different."""

    name: str
    cells: int = 0
    arrays: int = 0
    findings: int = 0
    reworded: int = 0
    differences: list[str] = field(default_factory=list)  # each as a path and both values

    def __str__(self) -> str:
        counts = f"{self.cells} cells, {self.arrays} arrays of curves" if self.cells else "verdict"
        sentences = f", {self.findings} findings, {self.reworded} of them reworded" if self.findings else ""
        lines = [f"{self.name}: {counts}{sentences}: {len(self.differences)} differences", *self.differences]
        return "\n    ".join(lines)


def load_mapping(path: Path = MAPPING) -> Mapping:
    """The checked-in mapping."""
    return Mapping(**yaml.safe_load(path.read_text()))


def compare_runs(before: Path, after: Path, mapping: Mapping) -> list[Comparison]:
    """Every result.json and verdict under `before` with that of the same path under `after`."""
    files = [*sorted(before.rglob("result.json")), *sorted(before.glob(VERDICT))]
    return [_compare_file(path, after / path.relative_to(before), path.relative_to(before), mapping) for path in files]


def _compare_file(old_path: Path, new_path: Path, name: Path, mapping: Mapping) -> Comparison:
    comparison = Comparison(name.as_posix() if name.name == VERDICT else name.parent.as_posix())
    if not new_path.is_file():
        comparison.differences.append("missing after")
        return comparison
    old, new = (json.loads(path.read_text()) for path in (old_path, new_path))
    comparison.findings = len(old.get("findings", []))
    pairs = zip(old.get("findings", []), new.get("findings", []), strict=False)
    comparison.reworded = sum(one["text"] != other["text"] for one, other in pairs)
    if "cells" in old:
        _compare_curves(old, new, old_path.parent / "curves", new_path.parent / "curves", comparison)
    comparison.differences += differences(mapping.renewed(_by_setting(old)), _by_setting(new), set(mapping.ignored))
    return comparison


def _by_setting(result: dict[str, Any]) -> dict[str, Any]:
    return {**result, "cells": sorted(result["cells"], key=_setting)} if "cells" in result else result


def _setting(cell: dict[str, Any]) -> str:
    return json.dumps([cell[name] for name in ("variant", "depth", "seed", "point")], sort_keys=True)


def _compare_curves(
    old: dict[str, Any], new: dict[str, Any], old_folder: Path, new_folder: Path, comparison: Comparison
) -> None:
    keys = {_setting(cell): cell["key"] for cell in new["cells"]}
    comparison.cells = len(old["cells"])
    for cell in old["cells"]:
        setting = _setting(cell)
        if setting not in keys:
            comparison.differences.append(f"no cell {setting}")
            continue
        paths = old_folder / f"{cell['key']}.npz", new_folder / f"{keys[setting]}.npz"
        one, other = (dict(np.load(path)) if path.exists() else {} for path in paths)
        comparison.arrays += len(one)
        if not one or not _bit_equal(one, other):
            comparison.differences.append(f"{'curves' if one else 'no curves'} of {setting}")


def _bit_equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
        for a, b in ((one[name], other[name]) for name in one)
    )


def differences(old: Any, new: Any, ignored: set[str], path: str = "") -> list[str]:
    """Where two values differ, by path, but in what is ignored."""
    return list(_differences(old, new, ignored, path))


def _differences(old: Any, new: Any, ignored: set[str], path: str) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(({*old, *new}) - ignored):
            if name in old and name in new:
                yield from _differences(old[name], new[name], ignored, f"{path}.{name}")
            else:
                yield f"{path}.{name}: only {'before' if name in old else 'after'}"
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from _differences(one, other, ignored, f"{path}[{index}]")
    elif json.dumps(old) != json.dumps(new):  # NaN equals NaN, 1 does not equal 1.0
        yield f"{path}: {old!r} before, {new!r} after"


def main(before: str, after: str) -> int:
    """Prints what was compared; 1 where something is different."""
    mapping = load_mapping()
    compared = compare_runs(Path(before), Path(after), mapping)
    print(*compared, sep="\n")
    unused = [old for old, _ in mapping.words if old not in mapping.used]
    print(*(f"not needed by these runs: {old}" for old in unused), sep="\n", end="\n" if unused else "")
    totals = [sum(getattr(one, name) for one in compared) for name in ("cells", "arrays", "findings", "reworded")]
    count = sum(len(one.differences) for one in compared)
    print("{} cells, {} arrays, {} findings, {} of them reworded:".format(*totals), f"{count} differences")
    return int(count > 0 or not compared)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
