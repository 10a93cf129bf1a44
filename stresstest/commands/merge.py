"""`stresstest merge`: the cells of shards, joined into one run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stresstest.commands.show_claims import show_reports
from stresstest.commands.show_result import print_result, show_result
from stresstest.errors import ConfigError, ExitCode
from stresstest.pipeline import exit_code, finish_run
from stresstest.reports.document import Document
from stresstest.reports.output import console, parse_output
from stresstest.results.records import Result
from stresstest.runs.cell_lines import NAME, condition


def merge_runs(
    paths: Sequence[Path], run_dir: str | None, outputs: Sequence[str], as_json: bool, verbose: bool = False
) -> int:
    """Join the cells of shards into one run and print its result; cells that no shard has are a `ConfigError`.

    Folders of scenarios are joined experiment by experiment.
    """
    from stresstest.runs.directory import choose_directory, choose_folder, runs_in, scenario_runs, write_scenario

    written = [parse_output(text) for text in outputs]
    inside = [[run.name for run in runs_in(path) if run != path] for path in paths]
    if not any(inside):
        manifest, wanted = _check_complete(paths)
        target = choose_directory(run_dir, (), manifest["command"], fresh=True)
        result, document = _merge(paths, manifest, wanted, target)
        show_result(result, str(target), written, as_json, verbose, document)
        return exit_code([cell.status for cell in result.cells])
    if written or as_json:
        raise ConfigError("a scenario has several results; leave out --output and --json, and report each run")
    names = list(dict.fromkeys(name for path in paths for name in scenario_runs(path)))
    shards = {name: [path / name for path in paths] for name in names}
    checked = {name: _check_complete(runs) for name, runs in shards.items()}
    folder = choose_folder(run_dir, "merged", {}, fresh=True)
    write_scenario(folder, "merged", names)
    code = int(ExitCode.OK)
    for name, runs in shards.items():
        result, document = _merge(runs, *checked[name], folder / name)
        console().rule(f"{name}: {result.command}", style="dim")
        print_result(result, console(), str(folder / name), verbose, document)
        code = max(code, exit_code([cell.status for cell in result.cells]))
    show_reports(folder, names)
    return code


def _shard_manifest(path: Path) -> dict[str, Any]:
    from stresstest.runs.directory import read_manifest

    manifest = read_manifest(path)
    if manifest is None:
        raise ConfigError(f"{path} is not a run directory; give the directories of the shards")
    return manifest


def _check_complete(paths: Sequence[Path]) -> tuple[Mapping[str, Any], list[str]]:
    """The manifest of the shards and the keys of all cells, which they together have."""
    from stresstest.runs.directory import planned_cells

    manifests = [_shard_manifest(path) for path in paths]
    for path, manifest in zip(paths, manifests, strict=True):
        different = _differences(manifests[0], manifest)
        if different:
            raise ConfigError(f"{paths[0]} and {path} are not shards of the same run: {different}")
    wanted = planned_cells(paths[0])
    found = {path: condition(path) for path in paths}
    ended = {key for one in found.values() for key in one.statuses}
    missing = len(set(wanted) - ended)
    if not wanted:
        raise ConfigError(f"{paths[0]} has not planned its cells yet; merge the shards after all have ended")
    if missing:
        damaged = [str(path / NAME) for path, one in found.items() if one.damaged]
        instead = f"{', '.join(damaged)} holds damaged lines: go on with that shard" if damaged else ""
        raise ConfigError(
            f"{missing} of {len(wanted)} cells are missing from these runs; "
            f"{instead or 'merge the shards after all have ended'}"
        )
    return manifests[0], wanted


def _merge(
    paths: Sequence[Path], manifest: Mapping[str, Any], wanted: Sequence[str], target: Path
) -> tuple[Result, Document]:
    from stresstest.runs.store import open_run

    again = f"{manifest['reproduce']} --run-dir {shlex.quote(str(target))}"
    with open_run(target, {**manifest, "shard": [1, 1], "again": again}) as store:
        store.write_plan(wanted, wanted)
        for statuses in ({"done"}, {"crashed", "oom", "timeout"}):
            there = {key for key, cell in store.finished().items() if cell.status in {"done", *statuses}}
            store.take_over(set(wanted) - there, paths, statuses)
        cells = store.finished()
        lost = [key for key in wanted if key not in cells]
        if lost:
            raise ConfigError(
                f"{len(lost)} of {len(wanted)} cells are damaged in these runs, e.g. {lost[0]}; go on with each shard, "
                "which trains them again, and merge once more"
            )
        return finish_run(store, manifest, [cells[key] for key in wanted])


def _differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """What keeps two runs from being parts of one, in words; nothing if they are."""
    if ours["identity"] == theirs["identity"]:
        return ""
    found = [f"{name} {ours[name]} and {theirs[name]}" for name in ("command", "code") if ours[name] != theirs[name]]
    for part, names in (("spec", ours["spec"]), ("environment", ["key"]), ("data", ["hash"])):
        for name in names:
            one, other = ours[part].get(name), theirs[part].get(name)
            if one != other and name != "device":
                found.append(f"{name if part == 'spec' else part} {one} and {other}")
    return "; ".join(found) or "other cells"
