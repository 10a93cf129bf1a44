"""Run directories as they lie on the disk: which there are, which one a run goes on in, and what one holds."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stresstest.errors import ConfigError
from stresstest.json_text import parse_json
from stresstest.results.sums import DamagedError, checked_json
from stresstest.runs import cell_lines

if TYPE_CHECKING:
    from stresstest.results.records import Cell

DEFAULT_ROOT = Path(os.environ.get("STRESSTEST_RUNS") or ".stresstest/runs")
_AGAIN = "the line that made the run writes it anew"


def choose_directory(run_dir: str | None, identities: Collection[str], command: str, fresh: bool) -> Path:
    """`--run-dir`, or the newest run of the same settings, or a new directory named by the time."""
    if run_dir is not None:
        return Path(run_dir)
    if not fresh:
        for path in _runs(command):
            if path.parent == DEFAULT_ROOT and manifest_of(path).get("identity") in identities:
                return path
    return _unused(DEFAULT_ROOT / f"{datetime.now():%Y%m%dT%H%M%S}-{command}")


def choose_folder(run_dir: str | None, name: str, identities: Mapping[str, Collection[str]], fresh: bool) -> Path:
    """`--run-dir`, or the scenario's newest folder, if its runs are of the same settings, or a new one."""
    if run_dir is not None:
        if read_manifest(Path(run_dir)) is not None:
            raise ConfigError(f"run directory {run_dir} holds a run of a single experiment; give another --run-dir")
        return Path(run_dir)
    for folder in sorted(DEFAULT_ROOT.glob(f"*-{name}"), reverse=True) if not fresh else ():
        found = {run.name: manifest_of(run) for run in runs_in(folder) if run != folder}
        if found and all(manifest.get("identity") in identities.get(run, ()) for run, manifest in found.items()):
            return folder
    return _unused(DEFAULT_ROOT / f"{datetime.now():%Y%m%dT%H%M%S}-{name}")


def other_runs(path: Path, command: str) -> list[Path]:
    """The stored runs of a command but this one, the newest first: those of scenarios too."""
    return [other for other in _runs(command) if other != path]


def write_scenario(folder: Path, name: str, experiments: Sequence[str]) -> None:
    """Which runs belong into a scenario's folder, for `merge`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "scenario.json").write_text(json.dumps({"scenario": name, "experiments": list(experiments)}) + "\n")
    except OSError as error:
        raise ConfigError(f"run directory {folder} cannot be written: {error.strerror}; give another") from None


def scenario_runs(folder: Path) -> list[str]:
    """The names of the runs that belong into a scenario's folder."""
    try:
        return list(parse_json((folder / "scenario.json").read_text())["experiments"])
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(f"{folder} does not hold the runs of a scenario; give the folders of its shards") from None


def runs_in(path: Path) -> list[Path]:
    """A run directory itself, or those of a scenario's experiments in a folder."""
    inside = [manifest.parent for manifest in sorted(path.glob("*/manifest.json"))]
    return inside if inside and read_manifest(path) is None else [path]


def newest_run(*names: str) -> Path:
    """The run directory whose file of one of these names is the newest; a `ConfigError` where there is none."""
    found = [path for name in names for depth in ("*", "*/*") for path in DEFAULT_ROOT.glob(f"{depth}/{name}")]
    if not found:
        raise ConfigError(f"no run under {DEFAULT_ROOT}; run stresstest lr-range first, or give a RUN")
    return max(found, key=lambda path: path.stat().st_mtime).parent


# What is read of a manifest, where no checksum vouches for it.
_KINDS: Mapping[str, type] = {
    **dict.fromkeys(("identity", "command", "again", "reproduce"), str),
    **dict.fromkeys(("spec", "rules", "environment", "data"), dict),
}


def planned_cells(path: Path, of: Literal["cells", "mine"] = "cells") -> list[str]:
    """The keys of the cells that belong to a run, or of its shard's; a plan that is damaged is a `DamagedError`."""
    plan = _read_json(path / "plan.json")
    keys = plan[of] if isinstance(plan, dict) and of in plan else []
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise DamagedError(f"{path / 'plan.json'} is damaged (its {of} are not keys); {_AGAIN}")
    return keys


def stored_status(path: Path) -> dict[str, str]:
    """The status of each cell on the disk, by key; the later line counts, and one that is damaged does not."""
    return cell_lines.condition(path).statuses


def stored_cells(path: Path) -> dict[str, Cell]:
    """The cells on the disk, by key, as far as they are whole; one of another version is a `ConfigError`."""
    try:
        return {key: cell_lines.cell_of(line) for key, _, line in cell_lines.whole_lines(path)}
    except cell_lines.ForeignCellError as error:
        raise ConfigError(f"{path} holds cells of another version ({error}); the files were not changed") from None


def read_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest of a run directory; `None` where it is none, a `DamagedError` where it is not what was written."""
    file = path / "manifest.json"
    manifest = _read_json(file)
    if not isinstance(manifest, dict) or not manifest.keys() >= {"identity", "command", "again"}:
        return None
    wrong = [name for name, kind in _KINDS.items() if name in manifest and not isinstance(manifest[name], kind)]
    if not _is_shard(manifest.get("shard", [1, 1])):
        wrong.append("shard")
    if "schema" in manifest:
        wrong += sorted(_KINDS.keys() - manifest.keys())
    if wrong:
        raise DamagedError(f"{file} is damaged ({', '.join(wrong)}: not what was written); {_AGAIN}")
    return manifest


def _is_shard(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(type(part) is int for part in value)


def unsealed_manifest(path: Path) -> Path | None:
    """The manifest of a run directory where it has no checksum, as those of earlier versions have none."""
    file = path / "manifest.json"
    return None if "sum" in parse_json(file.read_bytes()) else file


def _read_json(file: Path) -> Any:
    """What is in a file, `None` where there is none; what is not what was written is a `DamagedError`."""
    try:
        stored = parse_json(file.read_bytes())
    except OSError:
        return None
    except ValueError:
        raise DamagedError(f"{file} is damaged (it cannot be read); {_AGAIN}") from None
    return checked_json(stored, file, _AGAIN) if isinstance(stored, dict) else stored


def holder_of(path: Path) -> str | None:
    """Who holds a run directory, or `None`."""
    try:
        with (path / "lock").open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return lock.read().strip() or "another process"
    except OSError:
        pass
    return None


def _runs(command: str) -> list[Path]:
    paths = [path.parent for path in (*DEFAULT_ROOT.glob("*/manifest.json"), *DEFAULT_ROOT.glob("*/*/manifest.json"))]
    return [path for path in sorted(paths, reverse=True) if manifest_of(path).get("command") == command]


def manifest_of(path: Path) -> Mapping[str, Any]:
    """The manifest; empty where there is none, and where it is damaged, which a driver that opens the run tells."""
    with contextlib.suppress(DamagedError):
        return read_manifest(path) or {}
    return {}


def _unused(path: Path) -> Path:
    free, number = path, 1
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}_{number}")
    return free
