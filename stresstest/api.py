"""The commands as functions of Python, for notebooks and pytest: they train in this process and return the result."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_origin

from stresstest.errors import ConfigError, StresstestError
from stresstest.experiments.table import SPECS
from stresstest.pipeline import Request, plan_experiment, train_experiment
from stresstest.results.records import Result
from stresstest.runs.settings import RunSettings
from stresstest.specs.profiles import resolve

_BESIDE = ("batch", "loss_fn", "baseline_loss")
Build = Callable[..., Any]


def lr_range(model: str | Build, **settings: Any) -> Result:
    """Ramp the learning rate until the loss explodes, then hold it to check: `stresstest lr-range`.

    `model` is a factory, `build(**kwargs) -> nn.Module`, or what `--model` takes; `settings` are those of the
    command, and beside them

    - `args`: a mapping of the factory's other arguments;
    - `batch(step, batch_size, generator)`, `loss_fn(model, batch)`, `optimizer(params, lr)`: functions beside it;
    - `baseline_loss`: the loss of the best constant predictor;
    - `profile`, `run_dir` (kept, and gone on with where `model` is a name), `quiet`.

    Raises `ConfigError` before any training where something is wrong, `StresstestError` where a cell has no result.
    """
    return _run("lr-range", model, settings)


def depth_sweep(model: str | Build, **settings: Any) -> Result:
    """The boundary at growing depth: `stresstest depth-sweep`. See `lr_range`."""
    return _run("depth-sweep", model, settings)


def warmup(model: str | Build, **settings: Any) -> Result:
    """The loss over warm-up x peak LR: `stresstest warmup`. See `lr_range`."""
    return _run("warmup", model, settings)


def race(model: str | Build, **settings: Any) -> Result:
    """Steps, tokens and seconds to a target loss: `stresstest race`. See `lr_range`."""
    return _run("race", model, settings)


def batch_sweep(model: str | Build, **settings: Any) -> Result:
    """Stability and loss at equal tokens against the batch size: `stresstest batch-sweep`. See `lr_range`."""
    return _run("batch-sweep", model, settings)


def _run(command: str, model: str | Build, settings: dict[str, Any]) -> Result:
    profile, run_dir = settings.pop("profile", "quick"), settings.pop("run_dir", None)
    quiet = settings.pop("quiet", False)
    with _named(model, settings) as name, tempfile.TemporaryDirectory() as folder:
        given = {key: _as_given(command, key, value) for key, value in settings.items()}
        request = Request(
            command=command,
            spec=resolve(SPECS[command], profile, {"model": name, **given}),
            sources={},
            reproduce=f"stresstest.{command.replace('-', '_')}({name})",
            resume="",
            settings=RunSettings(jobs=1),
            run_dir=run_dir,
            fresh=not isinstance(model, str),
            outputs=(),
            as_json=False,
            quiet=quiet,
            verbose=False,
            dry_run=False,
        )
        plan = plan_experiment(request)
        _, result, _ = train_experiment(plan, request, Path(run_dir) if run_dir else Path(folder) / "run")
    assert result is not None, "nothing asked it to stop early"
    failed = [cell for cell in result.cells if cell.status != "done"]
    if failed:
        raise StresstestError(f"{failed[0].variant} seed {failed[0].seed} {failed[0].status}: {failed[0].error}")
    return result


@contextmanager
def _named(model: str | Build, settings: dict[str, Any]) -> Iterator[str]:
    """The model as settings name it; while this lasts, a name may stand for an object."""
    if isinstance(model, str):
        if settings.get("args"):
            settings["set"] = tuple(f"{key}={value}" for key, value in settings.pop("args").items())
        yield model
        return
    if not callable(model):
        raise ConfigError(f"model is {type(model).__name__}; give build(**kwargs) -> nn.Module, or a value of --model")
    from stresstest.user_model.factory import given

    beside: dict[str, Any] = {name: settings.pop(name) for name in _BESIDE if name in settings}
    if callable(settings.get("optimizer")):
        beside["optimizer"] = settings.pop("optimizer")
    with given(model, settings.pop("args", {}), **beside) as name:
        yield name


def _as_given(command: str, name: str, value: Any) -> Any:
    """A setting as a scenario file has it: 3 seeds are `seeds: 3`."""
    field = SPECS[command].model_fields.get(name)
    if field is not None and get_origin(field.annotation) is tuple and not isinstance(value, list | tuple):
        return str(value)
    return tuple(value) if isinstance(value, list) else value
