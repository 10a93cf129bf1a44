"""The commands as functions of Python, for notebooks and pytest: they train, and return what they found."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack

from stresstest.diagnosis.call import diagnose, diagnose_losses
from stresstest.diagnosis.records import Diagnosis as Diagnosis  # to be found by its name
from stresstest.errors import ConfigError, InterruptedRunError, StresstestError, path_given
from stresstest.experiments.call_line import call_line
from stresstest.experiments.call_signature import docstring_of, keywords, signature_of
from stresstest.experiments.settings_types import (
    BatchSweepSettings,
    DepthSweepSettings,
    LrRangeSettings,
    RaceSettings,
    ScaleSettings,
    ScenarioSettings,
    ShockSettings,
    WarmupSettings,
)
from stresstest.experiments.table import EXPERIMENTS
from stresstest.gate.claims import Judged as Judged
from stresstest.gate.claims_report import Claims
from stresstest.gate.records import CheckVerdict
from stresstest.pipeline import SILENT, RunListener, plan_experiment, plan_scenario, train_experiment, train_scenario
from stresstest.registry import did_you_mean
from stresstest.results.records import Result
from stresstest.runs.stored import load_result as load_whole_result
from stresstest.runs.stored import load_results
from stresstest.scenario.request import Request, SettingSources, open_scenario, plain, scenario_requests

if TYPE_CHECKING:
    from stresstest.user_model.brought import Brought

__all__ = [
    "batch_sweep",
    "check",
    "compare",
    "depth_sweep",
    "diagnose",
    "diagnose_losses",
    "experiment",
    "from_dataloader",
    "from_lightning",
    "from_trainer",
    "load_result",
    "load_results",
    "lr_range",
    "papers",
    "race",
    "run",
    "scale",
    "shock",
    "warmup",
]

Build = Callable[..., Any]  # build(**kwargs) -> nn.Module
F = TypeVar("F", bound=Callable[..., Result])
# Settings of a model that is a name, and what stands for them beside a factory.
_OF_A_NAME = {
    "set": "args",
    "batch_fn": "batch",
    "optimizer_fn": "optimizer",
    "step_fn": "step",
    "loss_fn": "the function itself",
}


def _described(command: str) -> Callable[[F], F]:
    """A function of an experiment, with the settings in its signature and help."""

    def describe(function: F) -> F:
        function.__doc__ = docstring_of(command, function.__doc__ or "")
        vars(function)["__signature__"] = signature_of(command)
        return function

    return describe


@_described("lr-range")
def lr_range(model: str | Build, **settings: Unpack[LrRangeSettings]) -> Result:
    """Ramp the learning rate every step until the loss explodes, then hold it to check."""
    return _experiment("lr-range", model, settings)


@_described("depth-sweep")
def depth_sweep(model: str | Build, **settings: Unpack[DepthSweepSettings]) -> Result:
    """Find the boundary at growing depth."""
    return _experiment("depth-sweep", model, settings)


@_described("warmup")
def warmup(model: str | Build, **settings: Unpack[WarmupSettings]) -> Result:
    """Map the loss over warm-up x peak LR."""
    return _experiment("warmup", model, settings)


@_described("race")
def race(model: str | Build, **settings: Unpack[RaceSettings]) -> Result:
    """Race to a target loss: steps, tokens and seconds, each variant and optimizer at its best learning rate."""
    return _experiment("race", model, settings)


@_described("batch-sweep")
def batch_sweep(model: str | Build, **settings: Unpack[BatchSweepSettings]) -> Result:
    """Grow the batch at a fixed budget of tokens: stability, and loss at equal tokens."""
    return _experiment("batch-sweep", model, settings)


@_described("scale")
def scale(model: str | Build, **settings: Unpack[ScaleSettings]) -> Result:
    """Measure the boundary along growing sizes and predict that of a size which you cannot afford to break."""
    return _experiment("scale", model, settings)


@_described("shock")
def shock(model: str | Build, **settings: Unpack[ShockSettings]) -> Result:
    """Disturb a run beside its undisturbed twin: what it survives, and how much of it."""
    return _experiment("shock", model, settings)


_FUNCTIONS: Mapping[str, Callable[..., Result]] = {
    "lr-range": lr_range,
    "depth-sweep": depth_sweep,
    "warmup": warmup,
    "race": race,
    "batch-sweep": batch_sweep,
    "scale": scale,
    "shock": shock,
}


def experiment(command: str) -> Callable[..., Result]:
    """The function of an experiment by its command, those that were registered later among them."""
    if not isinstance(command, str) or command not in EXPERIMENTS:
        raise ConfigError(f"unknown experiment '{command}'{did_you_mean(str(command), EXPERIMENTS)}")
    if command in _FUNCTIONS:
        return _FUNCTIONS[command]

    def call(model: str | Build, **settings: Any) -> Result:
        return _experiment(command, model, settings)

    call.__doc__ = EXPERIMENTS[command].summary
    call.__name__ = call.__qualname__ = command.replace("-", "_")
    return _described(command)(call)


def from_dataloader(
    loader: Any,
    build: Any = None,
    *,
    validation: Any = None,
    loss_fn: Callable[[Any, Any], Any] | None = None,
    optimizer: Callable[..., Any] | None = None,
) -> Brought:
    """Train on a DataLoader, or on whatever gives batches each time that it is iterated over: a list of them.

    Batch t of seed s is the same in every run and after a resume: the first epoch's are those of a script that calls
    `torch.manual_seed(s)` (and numpy's and Python's) right before its loop. `validation` is a held-out loader, whose
    first eight batches give the validation loss. With a `build(**kwargs) -> nn.Module`, or a module, it is a model;
    without one it stands where `batch` may. `loss_fn(model, batch)` and `optimizer(params, lr)` are those of a
    model's file.

    Raises `ConfigError` for what cannot be read twice, or gives its batches in no fixed order.
    """
    from stresstest.user_model.dataloader.from_dataloader import from_dataloader as brings

    return brings(loader, build, validation=validation, loss_fn=loss_fn, optimizer=optimizer)


def from_trainer(trainer: Any) -> Brought:
    """What a transformers Trainer trains: its model, data, loss, optimizer and settings.

    Seed s trains as `trainer.train()` does with `TrainingArguments(seed=s)`. Raises `ConfigError` where it cannot.
    """
    from stresstest.user_model.trainer.from_trainer import from_trainer as brings

    return brings(trainer)


def from_lightning(module: Any, datamodule: Any = None, trainer: Any = None, *, monitor: str | None = None) -> Any:
    """Train a LightningModule on the data and by the settings of its own scripts.

    Lightning's own loop takes the steps; optimizers get the LRs that are tested, and schedulers are off. Batches come
    from `datamodule`, from a DataLoader or (loader, validation loader) in its place, or from the module; `trainer`
    brings clipping, accumulation, precision and length. Manual optimization is judged by the loss that it returns, or
    by the number that it logs as `monitor`. A function that returns this is called anew for each seed.

    Raises `ConfigError` where an argument is none of these.
    """
    from stresstest.user_model.lightning.from_lightning import from_lightning as brings

    return brings(module, datamodule, trainer, monitor=monitor)


def run(
    scenario: str | Path,
    *,
    profile: str | None = None,
    run_dir: str | Path | None = None,
    fresh: bool = False,
    jobs: int | None = 1,
    log: str | Sequence[str] | None = None,
    quiet: bool = False,
    **settings: Unpack[ScenarioSettings],
) -> dict[str, Result]:
    """Run every experiment of a scenario, a file or the name of one that comes with stresstest: `stresstest run`.

    `settings` go before what the file says, in every experiment that has them; what the environment and pyproject.toml
    say does not count. The runs are kept in `run_dir`, which the same call goes on with, and nowhere without one.
    `jobs` are worker processes: one trains here, `None` is one a core. `log` are trackers that are told of each cell.

    Returns the results by the experiments' names. Raises `ConfigError` before any training where something is wrong,
    `StresstestError` where a cell ends without a result.
    """
    name, given = _scenario_name(scenario), dict[str, Any](settings)
    if jobs is not None and not isinstance(jobs, int):
        raise ConfigError(f"jobs is {type(jobs).__name__}; give a number of processes, or None for one a core")
    _check_known(given, sorted({setting for spec in EXPERIMENTS.specs.values() for setting in spec.model_fields}))
    loaded = open_scenario(name, profile)
    line = given if profile is None else {"profile": profile, **given}
    options = {"jobs": jobs, "fresh": fresh, "quiet": quiet, "run_dir": _text(run_dir), "log": _trackers(log)}
    requests = scenario_requests(name, loaded, SettingSources(line=line, by="Python"), options)
    plans = plan_scenario(loaded.experiments, requests, _listener(quiet))
    with _folder(run_dir) as (folder, kept):
        from stresstest.runs.directory import choose_folder, write_scenario

        identities = {each.name: plan.identities for each, plan in zip(loaded.experiments, plans, strict=True)}
        chosen = choose_folder(str(folder), loaded.name, identities, fresh)
        write_scenario(chosen, loaded.name, list(identities))
        trained = train_scenario(loaded, plans, requests, chosen, _listener(quiet))
        return {each.name: _whole(ended.result, kept) for each, ended in trained}


def check(
    scenario: str | Path,
    *,
    base: str | None = None,
    baseline: str | Path | None = None,
    lenient: bool = False,
    seeds: int | str | Sequence[int] | None = None,
    profile: Literal["quick", "standard", "full"] | None = None,
    device: str | None = None,
    jobs: int | None = None,
    per_gpu: int | None = None,
    cell_timeout: float | None = None,
    fresh: bool = False,
    quiet: bool = False,
) -> CheckVerdict:
    """Run a scenario, hold its thresholds, and compare it with a base or a baseline: `stresstest check`.

    Without `base`, a revision, and `baseline`, a file or `auto`, the scenario's limits alone are held. Both sides run
    in processes of their own, and their runs are kept under `.stresstest/checks`.

    Returns the verdict: `.verdict` is the worst of its `.lines`, `.exit_code` what the command would end with. Raises
    `ConfigError` where something is wrong.
    """
    from stresstest.commands.check import check_verdict
    from stresstest.commands.check_request import CheckRequest

    name = _scenario_name(scenario)
    if base is not None and baseline is not None:
        raise ConfigError("base and baseline are two ways to compare; give one")
    many = None if seeds is None else seeds if isinstance(seeds, int | str) else plain(tuple(seeds))
    line = {"seeds": _text(many), "profile": profile, "device": device}
    line = {name: value for name, value in line.items() if value is not None}
    options: dict[str, Any] = {"base": base, "baseline": _text(baseline), "lenient": lenient, "fresh": fresh}
    options |= {"jobs": jobs, "per_gpu": per_gpu, "cell_timeout": cell_timeout, "quiet": quiet}
    return check_verdict(CheckRequest.of(name, SettingSources(line=line, by="Python"), options | line))


def papers(
    *names: str,
    profile: Literal["cpu", "full"] = "cpu",
    device: str = "auto",
    run_dir: str | Path | None = None,
    jobs: int | None = 1,
    quiet: bool = False,
    quick: bool = False,
    first_seed: int | None = None,
) -> Claims:
    """Run the papers' experiments, of these names or all, and judge what they claim: `stresstest papers`.

    `cpu` scales them down. `quick` runs the headline claims alone, at their first look; `first_seed` takes other
    confirming seeds than the files name. `run_dir` and `jobs` are those of `run`.

    Returns the claims by the scenarios' names: each has `.claim`, and a `.verdict` that is seen, not seen or undecided.
    """
    from stresstest.commands.papers import choose_papers, examine

    if wrong := [name for name in names if not isinstance(name, str)]:
        raise ConfigError(f"a paper's name is {type(wrong[0]).__name__}; give names, such as papers('rezero-mlp')")
    given = SettingSources(line={"device": device}, by="Python")
    chosen = choose_papers(names, profile, given, {"jobs": jobs, "quiet": quiet}, quick, first_seed)
    with _folder(run_dir) as (folder, _):
        examined = examine(chosen, folder, "stresstest papers", lambda of: _listener(quiet))
    assert examined is not None, "nothing asked it to stop early"
    return Claims(examined.chapters)


def load_result(path: str | Path, *, partial: bool = False) -> Result:
    """The result of a run: its directory or its result.json.

    partial: of a run that lacks cells, as one that still trains, what those that have ended come to. What is not a
    whole result without it, or is of another version, is a `ConfigError`; so is the folder of a scenario, whose
    results `load_results` has.
    """
    from stresstest.experiments.unfinished import is_unfinished, unfinished_result

    folder = path_given(path, "path", "a run directory or a result.json")
    if partial and is_unfinished(folder):
        return unfinished_result(folder).of_run(folder)
    return load_whole_result(folder)


def compare(base: Result | str | Path, head: Result | str | Path) -> CheckVerdict:
    """How `head` differs from `base`, paired by seed: `stresstest compare`.

    Each is a result, or what lies on the disk: a result.json, a run directory or a scenario's folder. Returns the
    verdict, with a line for each metric of each row; one that is not comparable says why.
    """
    from stresstest.commands.compare import compare_runs, stored_runs

    one, other = (
        {side.command: (side, side.run_dir or Path(os.devnull))}
        if isinstance(side, Result)
        else stored_runs(path_given(side, name, "a result, a run directory or a result.json"))
        for name, side in (("base", base), ("head", head))
    )
    a, b = (side.command if isinstance(side, Result) else str(side) for side in (base, head))
    return compare_runs(one, other, a, b)


def _experiment(command: str, model: str | Build, settings: Mapping[str, object]) -> Result:
    given = dict[str, Any](settings)
    _check_known(given, keywords(command))
    run_dir, quiet, log = given.pop("run_dir", None), given.pop("quiet", False), given.pop("log", None)
    reproduce, listener = call_line(command, model, given), _listener(quiet)
    stay = {"run_dir": run_dir, **({"log": log} if log else {})}
    resume = call_line(command, model, {**given, **stay}) if run_dir else ""
    with _named(model, given) as name, _folder(run_dir) as (folder, kept):
        sourced = {key: (value, "Python") for key, value in {"model": name, **given}.items()}
        options = {"jobs": 1, "run_dir": _text(run_dir), "fresh": not isinstance(model, str), "quiet": quiet}
        options["log"] = _trackers(log)
        request = Request.of(command, sourced, options, reproduce, resume, is_call=True)
        path = folder if run_dir else folder / "run"
        return _whole(train_experiment(plan_experiment(request, listener), request, path, listener).result, kept)


def _scenario_name(scenario: object) -> str:
    return str(path_given(scenario, "scenario", "a file, or the name of one that comes with stresstest"))


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _trackers(log: object) -> tuple[str, ...]:
    found = tuple(log) if isinstance(log, list | tuple) else () if log is None else (log,)
    if not all(isinstance(each, str) for each in found):
        raise ConfigError(f"log is {log!r}; give a tracker, such as 'tensorboard:DIR', or a list of them")
    return found


def _listener(quiet: bool) -> RunListener:
    from stresstest.commands.run import OnStderr

    return SILENT if quiet else OnStderr()


class _Kept:
    """A folder that goes when no result that was read from it is left."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="stresstest-"))
        weakref.finalize(self, _remove, self.path, os.getpid())


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:  # and not a copy of it
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _folder(run_dir: str | Path | None) -> Iterator[tuple[Path, _Kept | None]]:
    """Where runs are kept, and what keeps a folder that is not the user's."""
    if run_dir:
        yield path_given(run_dir, "run_dir", "a folder"), None
        return
    kept = _Kept()
    try:
        yield kept.path, kept
    except InterruptedRunError as error:
        again = "interrupted; no cell is kept: give run_dir=FOLDER, with which the same call goes on"
        raise InterruptedRunError(again, error.exit_code) from None


def _whole(result: Result | None, kept: _Kept | None) -> Result:
    """A result of which no cell failed, with its folder."""
    assert result is not None, "nothing asked it to stop early"
    failed = [cell for cell in result.cells if cell.status != "done"]
    if failed:
        raise StresstestError(f"{failed[0].variant} seed {failed[0].seed} {failed[0].status}: {failed[0].error}")
    assert result.run_dir is not None, "it was trained in one"
    return result.of_run(result.run_dir, kept)


def _check_known(settings: Mapping[str, Any], known: Sequence[str]) -> None:
    for name in settings:
        if name not in known:
            raise ConfigError(f"unknown setting '{name}'{did_you_mean(name, known)}")


@contextmanager
def _named(model: str | Build, settings: dict[str, Any]) -> Iterator[str]:
    """The model as settings name it; while this lasts, a name may stand for an object."""
    args, beside = settings.pop("args", None) or {}, _companions(settings)
    if not isinstance(args, Mapping):
        raise ConfigError(f"args is {type(args).__name__}; give the factory's arguments by name: {{'n_layer': 4}}")
    if isinstance(model, str):
        if beside:
            raise ConfigError(f"{min(beside)} goes with a factory that is an object, and model '{model}' is a name")
        if args:
            settings["set"] = tuple(f"{key}={value}" for key, value in args.items())
        yield model
        return
    from stresstest.user_model.brought import as_model

    if isinstance(model, os.PathLike):
        raise ConfigError(
            f"model is the path {os.fspath(model)}; write it as text with what it has: 'FILE.py:FUNCTION'"
        )
    if as_model(model) is None and not callable(model):
        raise ConfigError(f"model is {type(model).__name__}; give build(**kwargs) -> nn.Module, or a value of --model")
    for name, instead in _OF_A_NAME.items():
        if settings.get(name):
            raise ConfigError(f"{name} goes with a model that is a name; beside a factory give {instead}")
    from stresstest.user_model.factory import register_callable

    with register_callable(model, args, **beside) as name:
        yield name


def _companions(settings: dict[str, Any]) -> dict[str, Any]:
    """What stands beside a factory that is an object, taken out of the settings."""
    asked = {name: settings.pop(name, None) for name in ("batch", "baseline_loss", "step")}
    asked |= {name: settings.pop(name) for name in ("loss_fn", "optimizer") if callable(settings.get(name))}
    return {name: value for name, value in asked.items() if value is not None}
