"""`Watch`: the rules inside a training loop, with probes, copies to go back to, and a log beside the run."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor, nn

from stresstest.errors import ConfigError
from stresstest.watch.alarm import Alarm, Event
from stresstest.watch.copies import Copies, Keep, Stateful
from stresstest.watch.given import as_list, check_choice, check_parts, check_steps, parts_of, single, whole
from stresstest.watch.journal import Journal
from stresstest.watch.probes import Level, Probes
from stresstest.watch.ranks import is_first, mean_over_ranks
from stresstest.watch.readings import Readings
from stresstest.watch.signals import Signals
from stresstest.watch.verdict import Moved, TrainingBrokeError, Verdict, line_of

OnBreak = Literal["warn", "stop", "raise"]
_STATES = {"waiting": 0.0, "calm": 0.0, "alarm": 1.0, "broken": 2.0}


class Watch:
    """Watches a run that trains now.

    Call `update(loss, step)` after each optimizer step, on every rank. An alarm is provisional within two steps of a
    blow-up; the rules confirm it or take it back.

    model, optimizer: what the probes read and what is copied; without them the loss alone is watched. `optimizer` may
    be several. also: more to copy, by name, such as a scheduler. scaler: the GradScaler, so that steps it skips are
    no break. on_break: what a confirmed break does besides a line on stderr: nothing ("warn"), `should_stop`
    ("stop"), or a `TrainingBrokeError` ("raise"). checkpoint: a folder for the state from before a break; a copy is
    taken every `save_every` steps and kept in "memory" or on "disk" (`keep`). log: the JSON lines that `stresstest
    diagnose` reads, a row every `log_every` steps; None for none. probes: "economy", "full" (every step) or "off".
    baseline: the loss of the best constant predictor, where it is known.

    `goes_on` says that the run began before this watch, as one whose first step is above 1 did: what it learned before
    is not seen, so "never learned" is not said.
    """

    def __init__(
        self,
        model: nn.Module | None = None,
        optimizer: Any = None,
        *,
        on_break: OnBreak = "warn",
        checkpoint: str | Path | None = None,
        save_every: int = 200,
        keep: Keep = "memory",
        log: str | Path | None = "watch.jsonl",
        log_every: int = 1,
        probes: Level = "economy",
        scaler: Any = None,
        also: Mapping[str, Stateful] | None = None,
        baseline: float | None = None,
    ) -> None:
        check_choice("on_break", on_break, get_args(OnBreak))
        check_choice("keep", keep, get_args(Keep))
        check_choice("probes", probes, get_args(Level))
        check_steps("save_every", save_every)
        check_steps("log_every", log_every)
        optimizers = as_list(optimizer)
        check_parts(model, optimizers, scaler, checkpoint)
        self.on_break = on_break
        self.should_stop = self.goes_on = False
        self._log_every = log_every
        self._device = next((parameter.device for parameter in model.parameters()), None) if model else None
        self._alarm = Alarm(baseline, skips_nonfinite=scaler is not None and scaler.is_enabled())
        self._readings, self._signals = Readings(), Signals()
        self._probes = Probes(model, optimizers, probes, scaler)
        self._given: int | None = None  # the last step handed over
        self._judged: int | None = None  # the last step whose loss has arrived
        self._updates = self._alarms = 0
        self._latest: dict[str, float] = {}
        self._unwritten: tuple[int, dict[str, float]] | None = None  # the last row that was left out
        self._verdict = Verdict("")
        self._closed = self._copy_failed = False
        self._copies: Copies | None = None
        if checkpoint is not None and is_first():
            parts = parts_of(model, optimizers, scaler, also or {})
            self._copies = Copies(parts, Path(checkpoint), save_every, keep)
            self._take(None)
        settings = {"on_break": on_break, "probes": probes, "log_every": log_every, "baseline": baseline}
        self._journal = Journal(Path(log), settings) if log is not None and is_first() else None

    def update(self, loss: float | Tensor, step: int, grad_norm: float | Tensor | None = None) -> None:
        """Take the loss of a step, after the optimizer's; `grad_norm` is what a clipping function returned.

        A loss on a GPU is judged at the next update, so that nothing waits for it. Raises a `ConfigError` on a loss
        of more than one number, or a step that does not go up.
        """
        loss, step = single(loss, "loss"), self._next_step(step)
        given = {} if grad_norm is None else {"grad_norm": single(grad_norm, "gradient norm")}
        self.goes_on |= self._given is None and step > 1
        self._given = step
        device = self._device if self._device is not None else torch.device("cpu")
        self._readings.put(step, {"loss": mean_over_ranks(loss, device), **self._probes.collect(), **given})
        self._updates += 1
        self._judge(everything=False)
        self._probes.look(self.state == "alarm", self._updates)
        self._copy(step)

    def gradients(self) -> None:
        """Read the gradients now, between `backward` and clipping; without this call, at the optimizer's step."""
        self._probes.gradients()

    @property
    def state(self) -> Literal["waiting", "calm", "alarm", "broken"]:
        """Waiting for a scale (20 losses), calm, provisionally alarmed, or broken as the rules confirmed."""
        return self._alarm.state

    @property
    def verdict(self) -> Verdict:
        """What became of the run so far; "never learned" is said by `close` alone."""
        return self._verdict

    def scalars(self, prefix: str = "watch/") -> dict[str, float]:
        """The latest loss and probes, and `alarm`: 0 calm, 1 provisional, 2 broken; for any logger."""
        latest = {**self._latest, "alarm": _STATES[self.state]}
        return {f"{prefix}{name}": value for name, value in latest.items()}

    def restore(self) -> int | None:
        """Set model, optimizer and the watch back to the copy from before the break; returns its step.

        None: from before the first step. The learning rate that broke the run comes back with the optimizer: lower it.
        """
        copy = None if self._copies is None else self._copies.before(self._first_bad_step())
        if self._copies is None or copy is None:
            raise ConfigError("watch: there is no copy to restore; give checkpoint= a folder")
        try:
            state = self._copies.restore(copy)
        except (OSError, RuntimeError) as error:
            raise ConfigError(f"watch: the copy of step {copy.step} cannot be read: {_first_line(error)}") from None
        self._alarm.load_state_dict(state)
        self._readings, self.should_stop = Readings(), False
        self._signals.forget_after(copy.step)
        self._given = self._judged = copy.step
        self._verdict = Verdict("")
        if self._journal is not None:
            self._journal.event("restored", -1 if copy.step is None else copy.step)
        return copy.step

    def state_dict(self) -> dict[str, Any]:
        """For the run's own checkpoints: what a resumed run needs to know of the losses so far."""
        return {"step": self._judged, "goes_on": self.goes_on, "alarm": self._alarm.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint, once model and optimizer have theirs.

        Raises a `ConfigError` on what no `state_dict` of a watch gave.
        """
        try:
            self._alarm.load_state_dict(state["alarm"])
            self._given = self._judged = state["step"]
            self.goes_on = state["goes_on"]
        except (KeyError, TypeError, AttributeError, ValueError):
            raise ConfigError("watch: load_state_dict takes what watch.state_dict() gave; this is another") from None
        if self._copies is not None:
            self._take(self._judged)
        if self._journal is not None and self._judged is not None:
            self._journal.event("resumed", self._judged)

    def close(self) -> Verdict:
        """End the watch: every hook is off, the log is closed; returns the verdict on the whole run.

        It is printed too, unless the break was.
        """
        if self._closed:
            return self._verdict
        self._judge(everything=True)
        self._closed = True
        self._probes.close()
        if not self._verdict.broken:
            outcome = self._alarm.outcome()
            if self.goes_on and outcome in ("flat", "failed-to-train"):
                outcome = "stable"
            self._verdict = Verdict(outcome, last_step=self._judged, alarms=self._alarms)
        if self._journal is not None:
            self._journal.event("closed", -1 if self._judged is None else self._judged, **_facts(self._verdict))
            self._journal.close()
        if not self._verdict.broken:
            self._say(str(self._verdict))
        return self._verdict

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.on_break = self.on_break if error is None else "warn"
        self.close()

    # A step

    def _next_step(self, step: int) -> int:
        if self._closed:
            raise ConfigError("watch: update after close; make a new Watch")
        step = whole(step)
        if self._given is not None and step <= self._given:
            raise ConfigError(
                f"watch: step {step} after step {self._given}: count every step once; "
                "after going back to a checkpoint call load_state_dict or restore, or make a new Watch"
            )
        return step

    def _judge(self, everything: bool) -> None:
        for step, values in self._readings.take(everything):
            self._latest, self._judged = values, step
            self._signals.add(step, {name: value for name, value in values.items() if name != "loss"})
            events = self._alarm.update(values["loss"], step)
            self._write_row(step, values, bool(events))
            for event in events:
                self._tell(event)

    def _write_row(self, step: int, values: dict[str, float], tells: bool) -> None:
        """Every so many steps; during an alarm each, with the one before it."""
        if self._journal is None:
            return
        if step % self._log_every and not tells and self.state != "alarm":
            self._unwritten = step, values
            return
        if tells and self._unwritten is not None:
            self._journal.row(*self._unwritten)
        self._unwritten = None
        if not math.isfinite(values["loss"]) and not self._alarm.over:  # the scaler skips this step
            values = {name: value for name, value in values.items() if name != "loss"} | {"skipped": 1}
        self._journal.row(step, values)

    def _copy(self, step: int) -> None:
        calm = self.state in ("waiting", "calm") and self._judged is not None
        if self._copies is not None and calm and self._copies.due(step):
            self._take(step)

    def _take(self, step: int | None) -> None:
        """Copy what is there; training goes on where the disk fails."""
        assert self._copies is not None
        try:
            self._copies.take(step, self._alarm.state_dict())
            self._copy_failed = False
        except (OSError, RuntimeError) as error:
            self._copies.skip(step)
            if not self._copy_failed:
                self._say(f"no copy at step {step}, nor while this lasts: {_first_line(error)}")
            self._copy_failed = True

    # An event

    def _tell(self, event: Event) -> None:
        self._alarms += event.kind == "alarm"
        if event.kind == "confirmed":
            self._break(event)
            return
        if self._journal is not None:
            self._journal.event(event.kind, event.step, its_loss=event.loss, first_bad_step=event.first_bad_step)
        if event.kind == "alarm":
            self._save(event.first_bad_step)
        if event.kind == "recovered":
            self._verdict, self.should_stop = Verdict(""), False
        self._say(line_of(event))

    def _break(self, event: Event) -> None:
        moved = self._signals.moved(event.first_bad_step)
        nonfinite = self._probes.first_nonfinite() if event.outcome == "nonfinite" else ""
        saved = self._save(event.first_bad_step)
        self._verdict = Verdict(event.outcome, event.first_bad_step, event.step, self._alarms, moved, nonfinite, saved)
        if self._journal is not None:
            self._journal.event("confirmed", event.step, its_loss=event.loss, **_facts(self._verdict))
        self._say(f"step {event.step}: {self._verdict}")
        self.should_stop = self.on_break == "stop"
        if self.on_break == "raise":
            raise TrainingBrokeError(self._verdict)

    def _save(self, first_bad_step: int) -> Path | None:
        """The file of the newest copy from before a break."""
        copy = None if self._copies is None else self._copies.before(first_bad_step)
        if self._copies is None or copy is None:
            return None
        try:
            return self._copies.write(copy)
        except (OSError, RuntimeError) as error:
            self._say(f"the copy from before could not be written: {_first_line(error)}")
            return None

    def _first_bad_step(self) -> int:
        """Of the break under way, or after the last step."""
        first = self._alarm.first_bad_step
        return first if first is not None else (self._given or 0) + 2

    def _say(self, text: str) -> None:
        if is_first():
            print(f"stresstest watch: {text}", file=sys.stderr)


def _facts(verdict: Verdict) -> dict[str, object]:
    moved = [
        {"signal": one.signal, "at": one.step, "times": _finite(one), "before": one.steps_before}
        for one in verdict.moved
    ]
    return {
        "outcome": verdict.outcome,
        "first_bad_step": verdict.first_bad_step,
        "moved": moved,
        "nonfinite": verdict.nonfinite,
        "checkpoint": None if verdict.checkpoint is None else str(verdict.checkpoint),
    }


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _finite(moved: Moved) -> float | None:
    return moved.times if math.isfinite(moved.times) else None


def watch_after(before: Watch | None, model: Any, optimizer: Any, **settings: Any) -> Watch:
    """The watch of a fit that may go on from another, whose log an error may have left open."""
    if before is not None:
        before.close()
    watch = Watch(model, optimizer, **settings)
    watch.goes_on = before is not None
    return watch
