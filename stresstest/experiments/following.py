"""A run as it goes: hears of its cells and reads what its workers tell, forecasts the time left, and tells others."""

from __future__ import annotations

import math
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import Self

from stresstest.errors import StorageError
from stresstest.experiments.cells import layout
from stresstest.experiments.plan import Plan
from stresstest.experiments.step_time import time_steps
from stresstest.experiments.workload import shape_of, steps_taken, to_come, works_of
from stresstest.measurements.base import CellPlan
from stresstest.reports.numbers import cell_name, number
from stresstest.results.progress import Progress, TimeLeft
from stresstest.results.records import Cell
from stresstest.runs.forecast import STARTUP_SECONDS, Forecast, Work
from stresstest.runs.live import ENDED, LiveRecord, read_records
from stresstest.runs.settings import RunSettings
from stresstest.runs.stopping import signals_blocked
from stresstest.runs.store import RunStore
from stresstest.specs.kinds import is_user_model
from stresstest.user_model.factory import factory_of
from stresstest.user_model.parallel.settings import is_parallel

LOOK_SECONDS = 0.5
_FEW = 100  # cells, whose time left is soon known: of very many it is not reckoned anew at each of them
_LOOK_SHARE = 0.005  # of the time, at most: looking must not slow down a worker that is this process


def forecast_of(plan: Plan, settings: RunSettings) -> tuple[Progress, int]:
    """What is known of a plan before anything is trained, with some steps timed; and how many groups train at once."""
    groups, at_once = layout(plan, settings)
    forecast = Forecast(at_once, STARTUP_SECONDS if at_once > 1 else 0.0)
    forecast.expect(works_of(plan, [cell for group in groups for cell in group]))
    forecast.groups = [tuple(cell.key for cell in group) for group in groups]
    more = to_come(plan, plan.cells) if settings.storage is None else []
    forecast.more = more if settings.max_cells is None else more[: max(0, settings.max_cells - len(forecast.works))]
    if _may_be_timed(plan):
        _time(plan, forecast, max((len(group) for group in groups), default=1))
    left = forecast.left(0.0) if forecast.can_tell else None
    sizes = forecast.sizes() if forecast.can_tell else ()
    return Progress(0, len(forecast.works) + len(forecast.more), 0.0, left, sizes=sizes), at_once


def _may_be_timed(plan: Plan) -> bool:
    """Whether steps outside the training leave it as it is: of the user's own model where it has no loop or loader."""
    if not is_user_model(plan.spec.model):
        return True
    factory = factory_of(plan.spec)
    return factory.step is None and factory.stream is None and not is_parallel(plan.spec)


def _time(plan: Plan, forecast: Forecast, replicas: int) -> None:
    """Time a step of what is not known from cells that were trained before.

    Along a path of shapes one kind of each is timed, and all kinds at the smallest alone, whose ratios hold for others.
    """
    works: list[Work] = [*forecast.works.values(), *forecast.more]
    kinds = list(dict.fromkeys(work.kind for work in works if work.kind not in forecast.timed))
    shapes = {"": (plan.spec, plan.own)}
    shapes |= {shape_of(plan, cell): (plan.spec_of(cell), plan.own_of(cell)) for cell in plan.cells}
    with suppress(Exception):  # what fails here fails in the training too, where it is recorded
        ratios: dict[tuple[str, str], float] = {}
        for shape, (spec, own) in shapes.items():
            alike = [kind for kind in kinds if kind.shape == shape]
            asked = alike[:1] if ratios else alike
            timed = time_steps(spec, plan.device, asked, replicas, {} if own is None else own.constants)
            first = next(iter(timed), None)
            if first is None:
                continue
            if not ratios:
                ratios = {(kind.variant, kind.optimizer): seconds / timed[first] for kind, seconds in timed.items()}
            own_ratio = ratios.get((first.variant, first.optimizer), 1.0)
            for kind in alike:
                ratio = ratios.get((kind.variant, kind.optimizer), own_ratio) / own_ratio
                forecast.timed[kind] = timed.get(kind, timed[first] * ratio)


class Following:
    """Follows one run from its first cell to its last; `tell` hears of it about twice a second, from another thread.

    As a context manager it looks by itself; `shown` asks for an estimate before the first step, told by `estimate`.
    """

    def __init__(
        self,
        plan: Plan,
        store: RunStore,
        settings: RunSettings,
        tell: Callable[[Progress], None],
        estimate: Callable[[Progress, int], None] | None = None,
    ) -> None:
        self.trained: set[str] = set()
        self.ended = self.total = 0
        self._plan, self._store, self._settings = plan, store, settings
        self._tell, self._estimate = tell, estimate
        self._forecast = Forecast(timed={})
        self._cells: dict[str, CellPlan] = {}
        self._running: dict[str, list[CellPlan]] = {}  # by the first cell of a group
        self._records: dict[str, LiveRecord] = {}
        self._last_end: float | None = None
        self._foreseen: tuple[TimeLeft | None, float, float] = None, 0.0, 0.0  # time left, share that is done, when
        self._foresee_at = 0.0  # or as soon as so many cells have ended:
        self._foresee_with = 0
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._folder = store.path / "live"
        self._thread = threading.Thread(target=self._look_again, daemon=True)

    def __enter__(self) -> Self:
        shutil.rmtree(self._folder, ignore_errors=True)
        with suppress(OSError):
            self._folder.mkdir()
        with signals_blocked():
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        shutil.rmtree(self._folder, ignore_errors=True)

    def cells_known(self, cells: Sequence[CellPlan], finished: Sequence[Cell]) -> None:
        """These cells belong to the run, of which some are on the disk."""
        with self._lock:
            now, stored = time.monotonic(), {cell.key for cell in finished}
            self._cells |= {cell.key: cell for cell in cells}
            self.total, self.ended = len(self._cells), self.ended + len(finished)
            missing = [cell for cell in cells if cell.key not in stored]
            most = None if self._settings.max_cells is None else max(0, self._settings.max_cells - len(self.trained))
            self._forecast.expect(works_of(self._plan, cells))
            for cell in finished:
                self._forecast.ended(cell.key, cell.seconds, steps_taken(cell))
            for left in missing[most:] if most is not None else ():
                self._forecast.works.pop(left.key)
            self._expect_more(len(missing), now)
            self._foresee_at = 0.0

    def grouped(self, groups: Sequence[Sequence[CellPlan]], at_once: int) -> None:
        """How the cells that are missing are trained."""
        with self._lock:
            self._forecast.groups = [tuple(cell.key for cell in group) for group in groups]
            self._forecast.at_once = max(1, min(at_once, len(groups)))
            self._forecast.startup = STARTUP_SECONDS if self._forecast.at_once > 1 else 0.0
            self._foresee_at = 0.0
        if self._estimate is not None and groups and not self.trained:
            if not is_user_model(self._plan.spec.model):  # whose code may count how often it is called
                _time(self._plan, self._forecast, max(len(group) for group in groups))
            self._foresee_at = 0.0
            sizes = self._forecast.sizes() if self._forecast.can_tell else ()
            self._estimate(replace(self._progress(), sizes=sizes), self._forecast.at_once)

    def cell_started(self, cells: Sequence[CellPlan]) -> None:
        """A group of cells was handed to a worker."""
        with self._lock:
            self._running[cells[0].key] = list(cells)
            self._forecast.began([cell.key for cell in cells], time.monotonic())
            self._forecast.at_once = max(self._forecast.at_once, len(self._running))
        self.look()

    def cell_ended(self, cell: Cell) -> Progress:
        """A cell has a result, or failed; how far the run is then."""
        with self._lock:
            self._hear()
            self.trained.add(cell.key)
            self.ended += 1
            self._forecast.ended(cell.key, cell.seconds, steps_taken(cell))
            self._last_end = time.monotonic()
            for first, group in list(self._running.items()):
                if {one.key for one in group} <= self.trained:
                    del self._running[first]
        return self.look()

    def look(self) -> Progress:
        """Read what the workers tell, write it down for `stresstest status`, and tell it."""
        with self._lock:
            self._hear()
            progress = self._progress()
            with suppress(StorageError):  # whoever stores a cell finds out
                self._store.write_progress(progress)
        self._tell(progress)
        return progress

    def _look_again(self) -> None:
        pause = LOOK_SECONDS
        while not self._over.wait(pause):
            started = time.thread_time()
            self.look()
            pause = max(LOOK_SECONDS, (time.thread_time() - started) / _LOOK_SHARE)

    def _hear(self) -> None:
        now = time.monotonic()
        for record in read_records(self._folder):
            self._forecast.heard(record, now)
            if record.cells:
                self._records[record.cells[0]] = record

    def _progress(self) -> Progress:
        with self._lock:
            now, forecast = time.monotonic(), self._forecast
            if now >= self._foresee_at or len(self.trained) >= self._foresee_with or len(forecast.works) < _FEW:
                began = time.thread_time()
                left = forecast.left(now) if forecast.can_tell else None
                share = forecast.share(now) if forecast.can_tell else self.ended / max(1, self.total)
                self._foreseen = left, share, now
                self._foresee_at = now + (time.thread_time() - began) / _LOOK_SHARE
                self._foresee_with = 2 * len(self.trained) + 1
            left, share, then = self._foreseen
            left = left if left is None or then == now else _later(left, now - then)
            running = tuple(in_words(group, self._records.get(first)) for first, group in self._running.items())
            return Progress(self.ended, self.total, share, left, running)

    def _expect_more(self, missing: int, now: float) -> None:
        """The cells of a search that are still to be asked for, and the pauses between its rounds."""
        alone = self._settings.max_cells is None and self._settings.storage is None
        self._forecast.more = to_come(self._plan, list(self._cells.values())) if alone else []
        pause = now - self._last_end if self._last_end is not None else 1.0
        rounds = math.ceil(len(self._forecast.more) / missing) if missing else 0
        self._forecast.pauses = pause * rounds


def _later(left: TimeLeft, seconds: float) -> TimeLeft:
    """The same time left, so many seconds on."""
    mean, low, high = (max(0.0, each - seconds) for each in (left.seconds, left.low, left.high))
    return replace(left, seconds=mean, low=low, high=high)


def in_words(group: Sequence[CellPlan], record: LiveRecord | None) -> str:
    """What trains, and how far it is: "pre-ln depth 6 seed 1, hold at 0.031, step 80 of 150, loss 2.31"."""
    name = cell_name(group[0])
    if len(group) > 1:
        name = f"{group[0].variant} depth {group[0].depth}, {len(group)} cells"
    if record is None or record.doing == ENDED:
        return name
    if not record.num_steps:
        return f"{name}, {record.doing}" if record.doing else name
    lrs = " to ".join(dict.fromkeys(number(lr) for lr in record.lrs))
    doing = "" if record.doing == "schedule" else f", {record.doing} at {lrs}"
    loss = "not finite" if record.loss is None else f"{record.loss:.2f}"
    return f"{name}{doing}, step {record.step} of {record.num_steps}, loss {loss}"
