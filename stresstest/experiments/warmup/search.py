"""The search of a warm-up and a peak LR: an Optuna study for each variant, asked and told in whole batches.

By default the studies are a journal in the run directory. In a storage that several drivers share, a
trial belongs to the driver that asked for it. One that was lost (killed, unplugged) is failed and its
setting asked for again: by its own driver when that goes on, or else by another, which sees that the
lost driver's beat has stopped. So the number of trials is a total, and none stays running for ever,
which would keep Optuna's samplers away from its place. What a trial found travels with it, so that
every driver reports all trials; the cells in the run directory stay the record.
"""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stresstest.errors import ConfigError
from stresstest.experiments.plan import Plan
from stresstest.experiments.warmup.map import map_points, notes, objective, untrained
from stresstest.experiments.warmup.study import (
    JOURNAL,
    LIMIT,
    add_trial,
    open_study,
    params_of,
    point_of,
    quiet,
    sampler,
    space,
    storage_errors,
)
from stresstest.measurements.base import CellPlan
from stresstest.results.records import Cell
from stresstest.runs.settings import RunSettings
from stresstest.runs.stopping import stop_if_requested
from stresstest.runs.store import RunStore

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

BEAT_SECONDS = 15.0
LOST_SECONDS = 120.0  # without a beat, by the clock of the driver that looks: its trials are others' to do
_POLL_SECONDS = 1.0


def check_storage(plan: Plan, settings: RunSettings) -> None:
    """A storage that cannot be reached, or holds another search under this name, is a `ConfigError`."""
    if plan.spec.trials == 0:  # type: ignore[attr-defined]  # the plan of a warm-up search
        raise ConfigError("--storage shares a search, and this run has none; add --trials 20")
    if plan.cells:
        raise ConfigError(
            "with --storage every driver would train the whole map; add --no-map (to share a map, use --shard)"
        )
    with quiet():
        for variant in plan.spec.variant:
            open_study(plan, settings, variant)


@dataclass
class Search:
    """The searches of one run: `refine` gives the cells of the trials so far and of those to come."""

    studies: dict[str, optuna.Study] = field(default_factory=dict)  # by variant
    live: dict[str, dict[int, optuna.Trial]] = field(default_factory=dict)  # asked for in this process, not told
    beats: dict[tuple[str, str], tuple[int, float]] = field(default_factory=dict)  # by variant and driver, since when
    over: threading.Event | None = None
    path: Path | None = None  # the run directory that the studies are of

    def refine(self, plan: Plan, cells: Sequence[Cell], store: RunStore, settings: RunSettings) -> list[CellPlan]:
        """Tell what has ended, ask for what is left of the trials; the cells of those that have ended or are ours."""
        ended = {cell.key: cell for cell in cells}
        with quiet(), storage_errors(settings):
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
        if self.path == store.path:
            return
        self.path = store.path
        if settings.storage is None:
            _drop_cut_line(store.path / JOURNAL)
            if not _fits(plan, store, settings):
                store.set_aside(JOURNAL)  # of other ranges: this run directory was used for another search
        self.studies = {variant: open_study(plan, settings, variant, store) for variant in plan.spec.variant}
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
        self.seen: set[int] = set()  # trials that had ended when they were last taken over

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
        from optuna.exceptions import UpdateFinishedTrialError

        for number, trial in list(self.live.items()):
            cells = [self.ended.get(cell.key) for cell in self._cells(trial.params)]
            found = [cell for cell in cells if cell is not None]
            if len(found) < len(cells):
                continue
            del self.live[number]
            # Another driver may have taken us for lost: it finds the same there.
            with suppress(ValueError, UpdateFinishedTrialError):
                self._hand_in(trial, found)

    def _hand_in(self, trial: optuna.Trial, cells: Sequence[Cell]) -> None:
        for name, value in notes(cells).items():
            trial.set_user_attr(name, value)
        if self.shared:
            trial.set_user_attr("cells", [cell.model_dump_json() for cell in cells])
        if any(cell.status != "done" for cell in cells):
            trial.set_user_attr("failed", True)
            self.study.tell(trial.number, state=_state("FAIL"))
        else:
            trial.set_constraint(LIMIT, untrained(cells))
            self.study.tell(trial.number, objective(cells))

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
            if trial.params.keys() == space(self.spec).keys() and "failed" not in trial.user_attrs:
                self.study.enqueue_trial(trial.params, user_attrs={"again": trial.number})

    def _is_lost(self, driver: str) -> bool:
        beat, now = int(self.study.user_attrs.get(f"beat {driver}", 0)), time.monotonic()
        last, since = self.search.beats.get((self.variant, driver), (-1, now))
        if beat != last:
            last, since = beat, now
        self.search.beats[self.variant, driver] = last, since
        return now - since > LOST_SECONDS

    def _take_over(self) -> list[FrozenTrial]:
        """The trials that have ended; the cells of other drivers' are stored."""
        done = [trial for trial in self._trials() if _counts(trial) and trial.state.is_finished()]
        self.seen = {trial.number for trial in done}
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
        self.study.sampler = sampler(self.spec, self.spec.sampler, entropy)
        asked: list[optuna.Trial] = []
        while len(asked) < min(self.spec.trials_at_once, left):
            trial = self.study.ask(space(self.spec))
            before = [other for other in self._trials() if other.number < trial.number]
            if sum(_counts(other) for other in before) >= self.spec.trials:
                self.study.tell(trial, state=_state("FAIL"))
                break
            if any(other.state.name != "FAIL" and other.params == trial.params for other in before):
                self.study.tell(trial, state=_state("FAIL"))  # a corner of the space, once more
                self.study.sampler = sampler(self.spec, "random", f"{entropy} {trial.number}")
                continue
            trial.set_user_attr("driver", self.me)
            self.live[trial.number] = trial
            asked.append(trial)
        return asked

    @property
    def waits(self) -> bool:
        """Whether other drivers' trials are under way, have ended since we looked, or are still to be asked for."""
        if not self.shared:
            return False
        trials = self._trials()
        known = self.seen | self.live.keys()
        under_way = any(
            trial.state.name == "RUNNING" or _counts(trial) for trial in trials if trial.number not in known
        )
        return under_way or sum(map(_counts, trials)) < self.spec.trials

    def _learn_from_the_map(self) -> None:
        """Tell the sampler what the map found, once."""
        known = [trial.params for trial in self._trials() if "map" in trial.user_attrs]
        for where in map_points(self.spec) if self.spec.map else ():
            found = [self.ended.get(cell.key) for cell in self._at(where)]
            cells = [cell for cell in found if cell is not None and cell.status == "done"]
            params = params_of(self.spec, where)
            if len(cells) == len(self.spec.seeds) and params not in known:
                add_trial(self.study, self.spec, params, cells, {"map": True})
                known.append(params)

    def _trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _cells(self, params: Mapping[str, Any]) -> list[CellPlan]:
        return self._at(point_of(self.spec, params))

    def _at(self, where: Mapping[str, Any]) -> list[CellPlan]:
        return [self.plan.cell(self.variant, self.spec.depth, seed, where) for seed in self.spec.seeds]


def _drop_cut_line(journal: Path) -> None:
    """What a driver was killed in writing: Optuna would go on in the middle of the line."""
    if journal.exists() and not (content := journal.read_bytes()).endswith(b"\n"):
        os.truncate(journal, content.rfind(b"\n") + 1)


def _fits(plan: Plan, store: RunStore, settings: RunSettings) -> bool:
    try:
        for variant in plan.spec.variant:
            open_study(plan, settings, variant, store)
    except ConfigError:
        return False
    return True


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


def _state(name: str) -> Any:
    from optuna.trial import TrialState

    return TrialState[name]


def _counts(trial: FrozenTrial) -> bool:
    """Whether it is one of the trials that were asked for: not of the map, and not one that another replaces."""
    return "map" not in trial.user_attrs and (trial.state.name != "FAIL" or "failed" in trial.user_attrs)
