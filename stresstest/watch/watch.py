"""`Watch`: the rules inside a training loop, with probes, copies to go back to, and a log beside the run."""

from __future__ import annotations

import math
import numbers
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor, nn

from stresstest.errors import ConfigError
from stresstest.watch.alarm import Alarm, Event
from stresstest.watch.copies import Copies, Keep, Stateful
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
        _check("on_break", on_break, get_args(OnBreak))
        _check("keep", keep, get_args(Keep))
        _check("probes", probes, get_args(Level))
        _check_number("save_every", save_every)
        _check_number("log_every", log_every)
        optimizers = _as_list(optimizer)
        _check_parts(model, optimizers, checkpoint)
        self.on_break = on_break
        self.should_stop = False
        self._log_every = log_every
        self._device = next((parameter.device for parameter in model.parameters()), None) if model else None
        self._alarm = Alarm(baseline, skips_nonfinite=scaler is not None and scaler.is_enabled())
        self._readings, self._signals = Readings(), Signals()
        self._probes = Probes(model, optimizers, probes, scaler)
        self._given: int | None = None  # the last step handed over
        self._judged: int | None = None  # the last step whose loss has arrived
        self._updates = self._alarms = 0
        self._latest: dict[str, float] = {}
        self._verdict = Verdict("")
        self._closed = False
        self._copies: Copies | None = None
        if checkpoint is not None and is_first():
            parts = _parts(model, optimizers, scaler, also or {})
            self._copies = Copies(parts, Path(checkpoint), save_every, keep)
            self._copies.take(None, self._alarm.state_dict())
        settings = {"on_break": on_break, "probes": probes, "log_every": log_every, "baseline": baseline}
        self._journal = Journal(Path(log), settings) if log is not None and is_first() else None

    def update(self, loss: float | Tensor, step: int, grad_norm: float | Tensor | None = None) -> None:
        """Take the loss of a step, after the optimizer's; `grad_norm` is what a clipping function returned.

        A loss on a GPU is judged at the next update, so that nothing waits for it. Raises a `ConfigError` on a loss
        that is no single number, or a step that does not go up.
        """
        step = self._next_step(step)
        found = self._probes.collect()
        if grad_norm is not None:
            found["grad_norm"] = grad_norm
        device = self._device if self._device is not None else torch.device("cpu")
        self._readings.put(step, {"loss": mean_over_ranks(_single(loss), device), **found})
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
        self._alarm.load_state_dict(self._copies.restore(copy))
        self._readings, self.should_stop = Readings(), False
        self._given = self._judged = copy.step
        self._verdict = Verdict("")
        if self._journal is not None:
            self._journal.event("restored", -1 if copy.step is None else copy.step)
        return copy.step

    def state_dict(self) -> dict[str, Any]:
        """For the run's own checkpoints: what a resumed run needs to know of the losses so far."""
        return {"step": self._judged, "alarm": self._alarm.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._given = self._judged = state["step"]
        self._alarm.load_state_dict(state["alarm"])
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
            self._verdict = Verdict(self._alarm.outcome(), last_step=self._judged, alarms=self._alarms)
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
        if not isinstance(step, numbers.Integral):
            raise ConfigError(f"watch: step must be a whole number, not {step!r}")
        if self._given is not None and step <= self._given:
            raise ConfigError(
                f"watch: step {step} after step {self._given}: count every step once; "
                "after going back to a checkpoint call load_state_dict or restore, or make a new Watch"
            )
        self._given = int(step)
        return self._given

    def _judge(self, everything: bool) -> None:
        for step, values in self._readings.take(everything):
            self._latest, self._judged = values, step
            if self._journal is not None and step % self._log_every == 0:
                self._journal.row(step, values)
            self._signals.add(step, {name: value for name, value in values.items() if name != "loss"})
            for event in self._alarm.update(values["loss"], step):
                self._tell(event)

    def _copy(self, step: int) -> None:
        calm = self.state in ("waiting", "calm") and self._judged is not None
        if self._copies is not None and calm and self._copies.due(step):
            self._copies.take(step, self._alarm.state_dict())

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
            self._say(f"the copy from before could not be written: {error}")
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


def _finite(moved: Moved) -> float | None:
    return moved.times if math.isfinite(moved.times) else None


def _single(loss: float | Tensor) -> float | Tensor:
    """The loss as one number, wherever it lies."""
    if isinstance(loss, Tensor):
        if loss.numel() != 1:
            raise ConfigError(
                f"watch: the loss must be one number, not a tensor of shape {list(loss.shape)}: take its mean"
            )
        return loss.detach()
    if isinstance(loss, bool) or not hasattr(loss, "__float__"):
        raise ConfigError(f"watch: the loss must be a number or a tensor of one, not {type(loss).__name__}")
    return float(loss)


def _as_list(optimizer: Any) -> list[Any]:
    if optimizer is None:
        return []
    return list(optimizer) if isinstance(optimizer, Sequence) else [optimizer]


def _parts(
    model: nn.Module | None, optimizers: Sequence[Any], scaler: Any, also: Mapping[str, Stateful]
) -> dict[str, Stateful]:
    assert model is not None
    parts: dict[str, Stateful] = {"model": model}
    for i, optimizer in enumerate(optimizers):
        parts["optimizer" if i == 0 else f"optimizer_{i}"] = optimizer
    if scaler is not None:
        parts["scaler"] = scaler
    taken = sorted({*parts, "step", "watch"} & set(also))
    if taken:
        raise ConfigError(f"watch: also= has the name {taken[0]!r}, which is taken; give it another")
    return {**parts, **also}


def _check(name: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ConfigError(f"watch: {name} must be one of {', '.join(choices)}, not {value!r}")


def _check_number(name: str, value: object) -> None:
    if not isinstance(value, int) or value < 1:
        raise ConfigError(f"watch: {name} must be a whole number of steps, at least 1, not {value!r}")


def _check_parts(model: nn.Module | None, optimizers: Sequence[Any], checkpoint: str | Path | None) -> None:
    if model is not None and not isinstance(model, nn.Module):
        raise ConfigError(f"watch: model must be a torch.nn.Module, not {type(model).__name__}")
    if model is not None and next(model.parameters(), None) is None:
        raise ConfigError("watch: the model has no parameters; call Watch after they are made, or leave model out")
    for optimizer in optimizers:
        if not hasattr(optimizer, "param_groups"):
            raise ConfigError(f"watch: optimizer must be a torch optimizer, not {type(optimizer).__name__}")
    if checkpoint is None:
        return
    if model is None:
        raise ConfigError("watch: checkpoint needs model=, and optimizer= to go on from it")
    if any(hasattr(parameter, "full_tensor") for parameter in model.parameters()):
        raise ConfigError("watch: a sharded model (DTensor) is not copied; leave checkpoint out")
