"""Running one side: `stresstest run` in a process of its own, inside its own tree, with proof of whose code it was."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from stresstest.errors import ExitCode, StresstestError
from stresstest.gate.git import Tree
from stresstest.gate.under_way import CHECKS
from stresstest.json_text import parse_json
from stresstest.reports.numbers import cell_name
from stresstest.reports.progress import is_cell
from stresstest.results.records import Result, read_result
from stresstest.runs.directory import manifest_of, planned_cells, stored_status
from stresstest.specs.base import TrainingSpec


class SideError(StresstestError):
    """A side could not run the scenario; the message says why."""

    exit_code = ExitCode.USAGE


@dataclass(frozen=True)
class Ran:
    """What a side came to: its results by experiment, where they lie, how many cells were trained for them."""

    results: dict[str, Result]
    paths: dict[str, Path]
    trained: int

    @property
    def cells(self) -> int:
        """How many cells the results rest on."""
        return sum(len(result.cells) for result in self.results.values())

    @property
    def failures(self) -> list[str]:
        """Cells without a result, a line each."""
        return [
            f"{name}: {cell_name(cell)}: {cell.status} {cell.error.splitlines()[-1] if cell.error else ''}".rstrip()
            for name, result in self.results.items()
            for cell in result.cells
            if cell.status != "done"
        ]

    def and_then(self, later: Ran) -> Ran:
        """With the results of a later look in the place of earlier ones."""
        return Ran(self.results | later.results, self.paths | later.paths, self.trained + later.trained)

    def stored(self, experiment: str) -> tuple[Result, Path]:
        """A result and its run directory."""
        return self.results[experiment], self.paths[experiment]


@dataclass
class Side:
    """One of the two trees. Its runs are kept by the tree's content: those of a base serve until it changes.

    `take_from` is a tree whose cells may be taken over.
    """

    name: str  # head or base
    tree: Tree | None  # None: the folder is not a repository
    other: Tree | None  # the one that it must not run
    scenario: str
    words: Sequence[str]
    take_from: str = ""
    process: subprocess.Popen[str] | None = None

    @property
    def path(self) -> Path:
        """The folder of this scenario's runs."""
        return self.folder / self.scenario

    @property
    def folder(self) -> Path:
        """Where its runs are kept, beside those of other scenarios."""
        return (CHECKS / (self.tree.tree[:16] if self.tree else "untracked")).resolve()

    def stored_share(self, name: str, spec: TrainingSpec, code: str, cells: int) -> float:
        """Of so many cells of an experiment, how many it need not train, as far as one sees beforehand; 0 to 1."""
        if "--fresh" in self.words:
            return 0.0
        if self.take_from:
            return 1.0  # the other side runs first
        manifest, settings = manifest_of(self.path / name), spec.model_dump(mode="json", exclude={"seeds"})
        if manifest.get("code") != code or not settings.items() <= manifest.get("spec", {}).items():
            return 0.0
        stored = stored_status(self.path / name)
        return min(1.0, sum(stored.get(key) == "done" for key in planned_cells(self.path / name)) / max(1, cells))

    def run(
        self,
        experiments: dict[str, dict[str, object]],
        code: Callable[[], ExitCode | None],
        keep: bool,
        tell: Callable[[str], None],
    ) -> Ran:
        """Train what is missing of these experiments; a `SideError` where that cannot be.

        `code` tells whether somebody asked to stop; with `keep`, --fresh is for what is not there; `tell` hears each
        line that the run says.
        """
        path = self.path
        path.mkdir(parents=True, exist_ok=True)
        file = self.folder / f"{self.scenario}.yaml"
        file.write_text(json.dumps({"experiments": experiments}, indent=1) + "\n")  # JSON is YAML
        asked = [word for word in self.words if word != "--fresh" or not keep]
        trained, last = self._train([str(file), "--run-dir", str(path), *asked], tell)
        status = self.process.returncode if self.process is not None else 0
        if code() is None and status not in (ExitCode.OK, ExitCode.MODEL_FAILED):
            raise SideError(last or f"stresstest run ended with {status}")
        if code() is not None:
            return Ran({}, {}, trained)
        paths = {name: path / name for name in experiments}
        for where in paths.values():
            self._check_modules(where)
        results = {name: read_result(where / "result.json") for name, where in paths.items()}
        return Ran(results, paths, trained)

    def _train(self, words: Sequence[str], tell: Callable[[str], None]) -> tuple[int, str]:
        """Cells that were trained, and the last line that was said."""
        trained, last = 0, ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "stresstest", "run", *words],
            cwd=self._here(),
            env=self._env(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C reaches it through us alone: the second one would end it at once
        )
        assert self.process.stderr is not None, "it is a pipe"
        with self.process, contextlib.ExitStack() as ending:
            ending.callback(self.kill)
            for line in self.process.stderr:
                if line.strip():
                    last = line.strip().removeprefix("stresstest: ")
                    trained += is_cell(line)
                    tell(line.rstrip())
            self.process.wait()
        return trained, last

    def stop(self, number: int) -> None:
        """Pass a signal on."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def kill(self) -> None:
        """End it and its workers, where it goes on."""
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def _here(self) -> Path:
        """The folder that the check was started in, in this side's tree."""
        here = Path.cwd().resolve()
        if self.name == "head" or self.tree is None or self.other is None:
            return here
        there = self.tree.root / here.relative_to(self.other.root)
        if not there.is_dir():
            raise SideError(f"it has no folder {here.relative_to(self.other.root)}")
        return there

    def _env(self) -> dict[str, str]:
        """Ours, with this side's tree first on the path, and every path within the other's tree as one within it."""
        taken = CHECKS / self.take_from[:16] if self.take_from else self.folder
        settings = [name for name in os.environ if name.startswith("STRESSTEST_")]  # the scenario holds them all
        env = {name: value for name, value in os.environ.items() if name not in settings}
        env["STRESSTEST_RUNS"] = str(taken.resolve())
        if self.tree is None:
            return env
        asked = [Path(part).resolve() for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
        paths = [self._here(), self.tree.root, self.tree.root / "src", *map(self._mine, asked)]
        return {**env, "PYTHONPATH": os.pathsep.join(str(path) for path in paths if path.exists())}

    def _mine(self, path: Path) -> Path:
        inside = self.tree and self.other and path.is_relative_to(self.other.root)
        return self.tree.root / path.relative_to(self.other.root) if inside and self.tree and self.other else path

    def _check_modules(self, path: Path) -> None:
        """That no module came from the other tree, and that something came from this one."""
        if self.tree is None:
            return
        modules = parse_json((path / "manifest.json").read_text()).get("modules")
        if modules is None:
            raise SideError("its stresstest is too old to record which code it ran; update it")
        own, theirs = self.tree.root, self.other.root if self.other is not None else None
        for name, file in modules.items():
            foreign = theirs is not None and Path(file).is_relative_to(theirs) and not Path(file).is_relative_to(own)
            if foreign:
                raise SideError(
                    f"module {name} was imported from the other side's tree ({file}), where it is installed from; "
                    "install it without -e, or run the check where it is not installed"
                )
        if not any(Path(file).is_relative_to(own) for file in modules.values()):
            raise SideError(
                "no module came from this repository: its models are built in, or come from a package "
                "installed elsewhere"
            )
