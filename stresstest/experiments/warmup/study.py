"""An Optuna study of warm-up and peak LR: where it lies, what it searches, by which sampler."""

from __future__ import annotations

import importlib.util
import json
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from stresstest.errors import ConfigError, StorageError
from stresstest.experiments.arms import point
from stresstest.experiments.plan import Plan
from stresstest.experiments.warmup.map import notes, objective, untrained
from stresstest.experiments.warmup.spec import WarmupSpec
from stresstest.installation import install_hint
from stresstest.results.records import Cell
from stresstest.runs.identity import cell_key
from stresstest.runs.settings import RunSettings
from stresstest.runs.store import RunStore

if TYPE_CHECKING:
    import optuna

JOURNAL = "study.journal"
LIMIT = "seeds that do not train"  # the constraint
_ATTEMPTS = 4
_SMALL = 200  # trials up to which the Gaussian process answers soon


@contextmanager
def quiet() -> Iterator[Any]:
    """Optuna without its log and its notes on what is experimental."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield optuna
    optuna.logging.set_verbosity(before)


@contextmanager
def storage_errors(settings: RunSettings) -> Iterator[None]:
    """A storage that fails during a search is a `StorageError`."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        raise StorageError(
            f"storage {settings.shown_storage} failed during the search ({_reason(error)}); completed cells are saved"
        ) from None


def open_study(plan: Plan, settings: RunSettings, variant: str, store: RunStore | None = None) -> optuna.Study:
    """The study of a variant, which is of this search; one of another is a `ConfigError`."""
    name = variant if settings.storage is None else f"{settings.study}/{variant}"
    study = _opened(name, settings, store)
    ours, theirs = _identity(plan), study.user_attrs.get("search")
    if theirs is None:
        study.set_user_attr("search", ours)
        return study
    different = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
    if different:
        values = "; ".join(f"{key} {theirs.get(key)} there, {ours.get(key)} here" for key in different)
        raise ConfigError(
            f"storage {settings.shown_storage} already has a different search named {name} ({values}); give another "
            "--study"
        )
    return study


def _opened(name: str, settings: RunSettings, store: RunStore | None) -> optuna.Study:
    """A study, made where it is not there yet; of two drivers that make the tables at once, one has to look again."""
    import optuna
    from sqlalchemy.exc import IntegrityError, ProgrammingError

    for attempt in range(_ATTEMPTS):
        try:
            return optuna.create_study(study_name=name, storage=_storage(settings, store), load_if_exists=True)
        except ConfigError:
            raise
        except Exception as error:  # whatever a database or its driver says
            if isinstance(error, IntegrityError | ProgrammingError) and attempt + 1 < _ATTEMPTS:
                time.sleep(1.0)
                continue
            raise ConfigError(
                f"storage {settings.shown_storage} cannot be used: {_reason(error)}; check --storage"
            ) from None
    raise AssertionError("the last attempt returns or raises")


def _reason(error: BaseException) -> str:
    """The first line of what a database or its driver says."""
    original = getattr(error, "orig", None) or getattr(error.__cause__, "orig", None) or error
    return (str(original).strip().splitlines() or [type(original).__name__])[0]


def _identity(plan: Plan) -> dict[str, Any]:
    """All that decides a trial's objective, and the space of the search."""
    spec: Any = plan.spec
    searched = {name: getattr(spec, name) for name in ("seeds", "optimizer", "warmup", "start_lr", "end_lr")}
    searched |= {"warmup_steps": [spec.warmup_steps[0], spec.warmup_steps[-1]], "rules": cell_key(plan.rules)}
    found: dict[str, Any] = json.loads(json.dumps({**plan.settings, **searched}))
    return found


def _storage(settings: RunSettings, store: RunStore | None) -> Any:
    import optuna
    from optuna.storages.journal import JournalFileBackend
    from sqlalchemy.pool import NullPool

    if settings.storage is None:
        assert store is not None, "a journal lies in a run directory"
        return optuna.storages.JournalStorage(JournalFileBackend(str(store.path / JOURNAL)))
    kind, separator, rest = settings.storage.partition("://")
    if not separator:
        raise ConfigError(
            f"storage '{settings.shown_storage}' is not a URL; give postgresql://USER:PASSWORD@HOST/DATABASE"
        )
    if rest.partition("?")[0].count("@") > 1:  # or a driver takes what follows the first for the host, and prints it
        raise ConfigError(f"storage {settings.shown_storage}: write an @ of the user or the password as %40")
    if kind.startswith("sqlite"):
        raise ConfigError("several drivers cannot share a sqlite file; use postgresql://..., or leave out --storage")
    url = settings.storage
    if kind in ("postgresql", "postgres"):
        if importlib.util.find_spec("psycopg") is None:
            raise ConfigError(f"psycopg is not installed; {install_hint('postgres')}, or leave out --storage")
        url = url.replace(kind, "postgresql+psycopg", 1)
    # A connection is closed after use: between two batches it would idle for minutes.
    return optuna.storages.RDBStorage(url, engine_kwargs={"poolclass": NullPool})


def sampler(spec: WarmupSpec, name: str, entropy: str) -> optuna.samplers.BaseSampler:
    """Optuna's sampler of a name, or by `auto`; its draws depend on the search's seed and `entropy` alone."""
    import optuna

    seed = int(cell_key({"seed": spec.search_seed, "entropy": entropy})[:8], 16) >> 1
    if name == "auto":
        small = len(space(spec)) == 2 and spec.trials <= _SMALL
        name = "gp" if small and importlib.util.find_spec("scipy") is not None else "tpe"
    if name == "gp":
        return optuna.samplers.GPSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed) if name == "tpe" else optuna.samplers.RandomSampler(seed=seed)


def space(spec: WarmupSpec) -> dict[str, Any]:
    """The parameters that are searched, on logarithmic scales; 1 step of warm-up is none."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    space: dict[str, Any] = {
        "warmup_steps": IntDistribution(max(1, spec.warmup_steps[0]), spec.warmup_steps[-1], log=True),
        "peak_lr": FloatDistribution(spec.start_lr, spec.end_lr, log=True),
    }
    for name, choices in (("warmup", spec.warmup), ("optimizer", spec.optimizer)):
        if len(choices) > 1:
            space[name] = CategoricalDistribution(choices)
    return space


def point_of(spec: WarmupSpec, params: Mapping[str, Any]) -> dict[str, Any]:
    """The setting that a trial asks for."""
    shape, optimizer = params.get("warmup", spec.warmup[0]), params.get("optimizer", spec.optimizer[0])
    return point(optimizer, shape, params["warmup_steps"], params["peak_lr"])


def params_of(spec: WarmupSpec, where: Mapping[str, Any]) -> dict[str, Any]:
    """The other way round; without a warm-up any of its shapes stands for all."""
    there = dict(where) | {"warmup_steps": max(1, where["warmup_steps"])}
    if there["warmup"] not in spec.warmup:
        there["warmup"] = spec.warmup[0]
    return {name: there[name] for name in space(spec)}


def add_trial(
    study: optuna.Study, spec: WarmupSpec, params: Mapping[str, Any], cells: Sequence[Cell], marks: Mapping[str, Any]
) -> None:
    """Tell a study of a setting that nobody asked it for."""
    import optuna

    study.add_trial(
        optuna.trial.create_trial(
            value=objective(cells),
            params=dict(params),
            distributions=space(spec),
            user_attrs={**notes(cells), **marks},
            constraints={LIMIT: untrained(cells)},
        )
    )
