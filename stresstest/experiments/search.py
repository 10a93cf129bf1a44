"""The search of a warm-up and a peak LR: an Optuna study for each variant, asked and told in whole batches.

By default the studies are a journal in the run directory. In a storage that several drivers share, a
trial belongs to the driver that asked for it. One that was lost (killed, unplugged) is failed and its
setting asked for again: by its own driver when that goes on, or else by another, which sees that the
lost driver's beat has stopped. So the number of trials is a total, and none stays running for ever,
which would keep Optuna's samplers away from its place. What a trial found travels with it, so that
every driver reports all trials; the cells in the run directory stay the record.
"""

from __future__ import annotations

import importlib.util
import json
import random
import socket
import statistics
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stresstest.errors import ConfigError
from stresstest.experiments.plan import CellPlan, Plan
from stresstest.experiments.warmup_map import map_points, point
from stresstest.results import TRAINED, Bracket, Cell, SearchRow, summarise
from stresstest.runs.identity import cell_key
from stresstest.runs.settings import RunSettings
from stresstest.runs.stopping import stop_if_requested
from stresstest.runs.store import RunStore
from stresstest.specs import WarmupSpec

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

JOURNAL = "study.journal"
BEAT_SECONDS = 15.0
LOST_SECONDS = 120.0  # without a beat, by the clock of the driver that looks: its trials are others' to do
_POLL_SECONDS = 1.0
_ATTEMPTS = 4
_SMALL = 200  # trials up to which the Gaussian process answers soon
_ENOUGH = 10  # trials for an importance
_LIMIT = "seeds that do not train"


@contextmanager
def _quiet() -> Iterator[Any]:
    """Optuna without its log and its notes on what is experimental."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield optuna
    optuna.logging.set_verbosity(before)


def check_storage(plan: Plan, settings: RunSettings) -> None:
    """A storage that cannot be reached, or holds another search under this name, is a `ConfigError`."""
    if plan.spec.trials == 0:  # type: ignore[attr-defined]  # the plan of a warm-up search
        raise ConfigError("--storage shares a search, and none is asked for; use --trials 20")
    if plan.cells:
        raise ConfigError(
            "--storage shares the search between drivers, and each would train the map; add --no-map "
            "(a map is shared by --shard)"
        )
    with _quiet():
        for variant in plan.spec.variant:
            _study(plan, settings, variant)


@dataclass
class Search:
    """The searches of one run: `refine` gives the cells of the trials so far and of those to come."""

    studies: dict[str, optuna.Study] = field(default_factory=dict)  # by variant
    live: dict[str, dict[int, optuna.Trial]] = field(default_factory=dict)  # asked for in this process, not told
    beats: dict[str, tuple[int, float]] = field(default_factory=dict)  # of other drivers, and since when it is that
    over: threading.Event | None = None

    def refine(self, plan: Plan, cells: Sequence[Cell], store: RunStore, settings: RunSettings) -> list[CellPlan]:
        """Tell what has ended, ask for what is left of the trials; the cells of those that have ended or are ours."""
        ended = {cell.key: cell for cell in cells}
        with _quiet():
            self._open(plan, store, settings)
            shared = settings.storage is not None
            studies = [_OneStudy(self, plan, store, shared, variant, ended) for variant in plan.spec.variant]
            while True:
                asked = [cell for study in studies for cell in study.cells()]
                if any(cell.key not in ended for cell in asked) or not any(study.waits for study in studies):
                    break
                stop_if_requested()
                time.sleep(_POLL_SECONDS)
        if self.over is not None and all(cell.key in ended for cell in asked):
            self.over.set()
        return asked

    def _open(self, plan: Plan, store: RunStore, settings: RunSettings) -> None:
        if self.studies:
            return
        if settings.storage is None and not _fits(plan, store, settings):
            store.set_aside(JOURNAL)  # of other ranges: this run directory was used for another search
        self.studies = {variant: _study(plan, settings, variant, store) for variant in plan.spec.variant}
        if settings.storage is not None:
            self.over = threading.Event()
            beat = (list(self.studies.values()), f"beat {_me(store)}", self.over)
            threading.Thread(target=_beat, args=beat, daemon=True).start()


@dataclass
class _OneStudy:
    """The search of one variant, in one round."""

    search: Search
    plan: Plan
    store: RunStore
    shared: bool
    variant: str
    ended: dict[str, Cell]

    def __post_init__(self) -> None:
        self.spec: Any = self.plan.spec
        self.study = self.search.studies[self.variant]
        self.me = _me(self.store)
        self.live = self.search.live.setdefault(self.variant, {})

    def cells(self) -> list[CellPlan]:
        """The cells of the trials that have ended or are ours."""
        self._learn_from_the_map()
        while True:
            self._tell()
            self._reclaim()
            done = self._take_over()
            asked = self._ask() if not self.live else []
            mine = [cell for trial in self.live.values() for cell in self._cells(trial.params)]
            if not asked or any(cell.key not in self.ended for cell in mine):
                break
        return [*mine, *(cell for trial in done for cell in self._cells(trial.params))]

    def _tell(self) -> None:
        """Hand in the trials whose cells have all ended."""
        for number, trial in list(self.live.items()):
            cells = [self.ended.get(cell.key) for cell in self._cells(trial.params)]
            found = [cell for cell in cells if cell is not None]
            if len(found) < len(cells):
                continue
            del self.live[number]
            failed = any(cell.status != "done" for cell in found)
            for name, value in _notes(found).items():
                trial.set_user_attr(name, value)
            if self.shared:
                trial.set_user_attr("cells", [cell.model_dump_json() for cell in found])
            if failed:
                trial.set_user_attr("failed", True)
            else:
                trial.set_constraint(_LIMIT, _untrained(found))
            with suppress(ValueError):  # another driver took us for lost: what it finds there is the same
                self.study.tell(number, state=_state("FAIL")) if failed else self.study.tell(number, _objective(found))

    def _reclaim(self) -> None:
        """Fail the running trials that nobody trains, and have their settings asked for again."""
        for trial in self._trials():
            if trial.state.name != "RUNNING" or trial.number in self.live:
                continue
            driver = trial.user_attrs.get("driver", "")
            if self.shared and driver != self.me and not self._is_lost(driver or f"of trial {trial.number}"):
                continue
            try:
                self.study.tell(trial.number, state=_state("FAIL"))
            except ValueError:
                continue  # told, or reclaimed by another driver, in this moment
            if trial.params.keys() == _space(self.spec).keys() and "failed" not in trial.user_attrs:
                self.study.enqueue_trial(trial.params, user_attrs={"again": trial.number})

    def _is_lost(self, driver: str) -> bool:
        beat, now = int(self.study.user_attrs.get(f"beat {driver}", 0)), time.monotonic()
        last, since = self.search.beats.get(driver, (-1, now))
        if beat != last:
            last, since = beat, now
        self.search.beats[driver] = last, since
        return now - since > LOST_SECONDS

    def _take_over(self) -> list[FrozenTrial]:
        """The trials that have ended; the cells of other drivers' are stored."""
        done = [trial for trial in self._trials() if _counts(trial) and trial.state.is_finished()]
        others = [trial for trial in done if trial.user_attrs.get("driver") != self.me]
        for line in (line for trial in others for line in trial.user_attrs.get("cells", ())):
            cell = Cell.model_validate_json(line)
            if cell.key not in self.ended:
                self.store.append(cell, {})
                self.ended[cell.key] = cell
        return done

    def _ask(self) -> list[optuna.Trial]:
        """The next batch, no more than are left; those that two drivers asked for at once are failed."""
        trials = self._trials()
        left = self.spec.trials - sum(_counts(trial) and trial.state.name != "WAITING" for trial in trials)
        entropy = f"{self.variant} {len(trials)} {self.me if self.shared else ''}"
        self.study.sampler = _sampler(self.spec, self.spec.sampler, entropy)
        asked: list[optuna.Trial] = []
        while len(asked) < min(self.spec.trials_at_once, left):
            trial = self.study.ask(_space(self.spec))
            before = [other for other in self._trials() if other.number < trial.number]
            if sum(_counts(other) for other in before) >= self.spec.trials:
                self.study.tell(trial, state=_state("FAIL"))
                break
            if any(other.state.name != "FAIL" and other.params == trial.params for other in before):
                self.study.tell(trial, state=_state("FAIL"))  # a corner of the space, once more
                self.study.sampler = _sampler(self.spec, "random", f"{entropy} {trial.number}")
                continue
            trial.set_user_attr("driver", self.me)
            self.live[trial.number] = trial
            asked.append(trial)
        return asked

    @property
    def waits(self) -> bool:
        """Whether other drivers' trials are under way, or waiting to be done again."""
        return self.shared and any(not trial.state.is_finished() for trial in self._trials())

    def _learn_from_the_map(self) -> None:
        """Tell the sampler what the map found, once."""
        known = [trial.params for trial in self._trials() if "map" in trial.user_attrs]
        for where in map_points(self.spec) if self.spec.map else ():
            found = [self.ended.get(cell.key) for cell in self._at(where)]
            cells = [cell for cell in found if cell is not None and cell.status == "done"]
            params = _params(self.spec, where)
            if len(cells) == len(self.spec.seeds) and params not in known:
                _add(self.study, self.spec, params, cells, {"map": True})
                known.append(params)

    def _trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _cells(self, params: Mapping[str, Any]) -> list[CellPlan]:
        return self._at(_point(self.spec, params))

    def _at(self, where: Mapping[str, Any]) -> list[CellPlan]:
        return [self.plan.cell(self.variant, self.spec.depth, seed, where) for seed in self.spec.seeds]


def search_rows(spec: WarmupSpec, cells: Sequence[Cell]) -> list[SearchRow]:
    """The best setting of each variant that trains with every seed, out of how many."""
    mapped = map_points(spec) if spec.map else []
    rows = []
    for variant in spec.variant:
        places: dict[str, list[Cell]] = {}
        for cell in cells:
            if cell.variant == variant and cell.status == "done":
                places.setdefault(json.dumps(cell.point), []).append(cell)
        whole = [
            sorted(found, key=lambda cell: cell.seed) for found in places.values() if len(found) == len(spec.seeds)
        ]
        whole.sort(key=lambda found: (found[0].point["peak_lr"], json.dumps(found[0].point)))
        if not whole:
            continue
        searched = [found for found in whole if found[0].point not in mapped]
        best = min(whole, key=lambda found: (_untrained(found), _objective(found)))
        rows.append(
            SearchRow(
                variant=variant,
                best=best[0].point,
                loss=summarise("validation_loss", {c.seed: Bracket.exactly(c.recipe["loss"]) for c in best}),
                settings=len(whole),
                trials=len(searched),
                trained=sum(not _untrained(found) for found in whole),
                importance={} if spec.map else _importance(spec, searched),  # a map has exact shares
                places=[{**found[0].point, **_notes(found)} for found in searched],
            )
        )
    return rows


def _importance(spec: WarmupSpec, searched: Sequence[Sequence[Cell]]) -> dict[str, float]:
    """fANOVA's shares of the variance by parameter; empty below ten trials, or where scikit-learn is missing."""
    if len(searched) < _ENOUGH or importlib.util.find_spec("sklearn") is None:
        return {}
    with _quiet() as optuna:
        study = optuna.create_study()
        for found in searched:
            _add(study, spec, _params(spec, found[0].point), found, {})
        if len({trial.value for trial in study.trials}) == 1:
            return {}
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))


def _study(plan: Plan, settings: RunSettings, variant: str, store: RunStore | None = None) -> optuna.Study:
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
        raise ConfigError(f"storage {_shown(settings)} holds another search as {name} ({values}); give another --study")
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
                time.sleep(_POLL_SECONDS)
                continue
            reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
            raise ConfigError(f"storage {_shown(settings)} cannot be used: {reason}; check --storage") from None
    raise AssertionError("the last attempt returns or raises")


def _fits(plan: Plan, store: RunStore, settings: RunSettings) -> bool:
    try:
        for variant in plan.spec.variant:
            _study(plan, settings, variant, store)
    except ConfigError:
        return False
    return True


def _identity(plan: Plan) -> dict[str, Any]:
    """All that decides a trial's objective, and the space of the search."""
    kept = {**plan.settings, **plan.search, "seeds": plan.spec.seeds, "rules": cell_key(plan.rules)}
    found: dict[str, Any] = json.loads(json.dumps(kept))
    return {name: value for name, value in found.items() if name not in ("variant", "search_seed")}


def _storage(settings: RunSettings, store: RunStore | None) -> Any:
    import optuna
    from optuna.storages.journal import JournalFileBackend
    from sqlalchemy.pool import NullPool

    if settings.storage is None:
        assert store is not None, "a journal lies in a run directory"
        return optuna.storages.JournalStorage(JournalFileBackend(str(store.path / JOURNAL)))
    kind, separator, _ = settings.storage.partition("://")
    if not separator:
        raise ConfigError(f"storage '{settings.storage}' is no URL; give postgresql://USER:PASSWORD@HOST/DATABASE")
    if kind.startswith("sqlite"):
        raise ConfigError("sqlite is no storage for several drivers; use postgresql://..., or leave out --storage")
    url = settings.storage
    if kind in ("postgresql", "postgres"):
        if importlib.util.find_spec("psycopg") is None:
            raise ConfigError("psycopg is not installed; pip install '.[postgres]', or leave out --storage")
        url = url.replace(kind, "postgresql+psycopg", 1)
    # A connection is closed after use: between two batches it would idle for minutes.
    return optuna.storages.RDBStorage(url, engine_kwargs={"poolclass": NullPool})


def _shown(settings: RunSettings) -> str:
    """The storage without its password."""
    kind, separator, rest = (settings.storage or "of the run").partition("://")
    return f"{kind}{separator}{rest.rpartition('@')[2]}"


def _me(store: RunStore) -> str:
    """A driver is who holds a run directory."""
    return f"{socket.gethostname()}:{store.path.resolve()}"


def _beat(studies: Sequence[optuna.Study], name: str, over: threading.Event) -> None:
    """Count up while this driver lives."""
    beat = random.randrange(1 << 30)
    while True:
        for study in studies:
            with suppress(Exception):  # the storage is away for a while: others may do our trials, and nothing is lost
                study.set_user_attr(name, beat)
        if over.wait(BEAT_SECONDS):
            return
        beat += 1


def _sampler(spec: WarmupSpec, name: str, entropy: str) -> optuna.samplers.BaseSampler:
    import optuna

    seed = int(cell_key({"seed": spec.search_seed, "entropy": entropy})[:8], 16) >> 1
    if name == "auto":
        small = len(_space(spec)) == 2 and spec.trials <= _SMALL
        name = "gp" if small and importlib.util.find_spec("scipy") is not None else "tpe"
    if name == "gp":
        return optuna.samplers.GPSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed) if name == "tpe" else optuna.samplers.RandomSampler(seed=seed)


def _space(spec: WarmupSpec) -> dict[str, Any]:
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


def _point(spec: WarmupSpec, params: Mapping[str, Any]) -> dict[str, Any]:
    shape, optimizer = params.get("warmup", spec.warmup[0]), params.get("optimizer", spec.optimizer[0])
    return point(optimizer, shape, params["warmup_steps"], params["peak_lr"])


def _params(spec: WarmupSpec, where: Mapping[str, Any]) -> dict[str, Any]:
    """The other way round; without a warm-up any of its shapes stands for all."""
    there = dict(where) | {"warmup_steps": max(1, where["warmup_steps"])}
    if there["warmup"] not in spec.warmup:
        there["warmup"] = spec.warmup[0]
    return {name: there[name] for name in _space(spec)}


def _add(
    study: optuna.Study, spec: WarmupSpec, params: Mapping[str, Any], cells: Sequence[Cell], marks: Mapping[str, Any]
) -> None:
    import optuna

    study.add_trial(
        optuna.trial.create_trial(
            value=_objective(cells),
            params=dict(params),
            distributions=_space(spec),
            user_attrs={**_notes(cells), **marks},
            constraints={_LIMIT: _untrained(cells)},
        )
    )


def _state(name: str) -> Any:
    from optuna.trial import TrialState

    return TrialState[name]


def _counts(trial: FrozenTrial) -> bool:
    """Whether it is one of the trials that were asked for: not of the map, and not one that another replaces."""
    return "map" not in trial.user_attrs and (trial.state.name != "FAIL" or "failed" in trial.user_attrs)


def _objective(cells: Sequence[Cell]) -> float:
    """Mean over seeds of the loss, each at most that of having learned nothing: always finite."""
    return statistics.fmean(cell.recipe["loss"] for cell in cells)


def _untrained(cells: Sequence[Cell]) -> float:
    """The share of seeds that did not train: the constraint, met at 0."""
    return sum(cell.recipe["outcome"] not in TRAINED for cell in cells) / len(cells)


def _notes(cells: Sequence[Cell]) -> dict[str, Any]:
    """What became of each seed, in the order of the seeds."""
    ordered = sorted(cells, key=lambda cell: cell.seed)
    return {
        "outcomes": [cell.recipe.get("outcome", cell.status) for cell in ordered],
        "losses": [cell.recipe.get("loss") for cell in ordered],
    }
