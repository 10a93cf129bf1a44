"""Results that lie on the disk, by the path that a user has: a result.json, a run directory, a scenario's folder."""

from __future__ import annotations

from pathlib import Path

from stresstest.errors import ConfigError, path_given
from stresstest.results.records import Result
from stresstest.results.records import read_result as read_file
from stresstest.runs.directory import read_manifest, runs_in

_INSTEAD = "a run directory or a result.json"


def result_file(path: Path) -> Path:
    """The result.json of a run directory, or the file itself; a run that has none yet is a `ConfigError`."""
    file = path / "result.json" if path.is_dir() else path
    if file.exists() or not path.is_dir():
        return file
    manifest = read_manifest(path)
    if manifest is not None:
        raise ConfigError(f"the run in {path} is incomplete and has no result yet; to go on: {manifest['again']}")
    if (path / "manifest.json").exists():
        raise ConfigError(f"the run in {path} is incomplete and has no result yet")
    inside = [run.name for run in runs_in(path) if run != path]
    if inside:
        raise ConfigError(
            f"{path} holds the runs of a scenario, {', '.join(inside)}; name one of them, e.g. {path / inside[0]}"
        )
    return file


def load_result(path: str | Path) -> Result:
    """The result of a run: its directory or its result.json.

    What is not a whole result, or is of another version, is a `ConfigError`; so is the folder of a scenario, whose
    results `load_results` has.
    """
    return read_file(result_file(path_given(path, "path", _INSTEAD)))


def load_results(path: str | Path) -> dict[str, Result]:
    """The results of a scenario's folder by the experiments' names; a single run is one of its folder's name."""
    folder = path_given(path, "path", _INSTEAD)
    if not folder.is_dir():
        return {folder.absolute().parent.name: load_result(folder)}
    return {run.absolute().name: load_result(run) for run in runs_in(folder)}
