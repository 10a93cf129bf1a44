"""The shocks, an entry each: one function of its dose, and the facts that others need of it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stresstest.errors import ConfigError
from stresstest.experiments.shock.disturbance import Disturbance, Dose, Scene, Shock
from stresstest.registry import Registry, did_you_mean
from stresstest.reports.numbers import number
from stresstest.specs.parsing import Choice, parse_choice

if TYPE_CHECKING:
    from stresstest.experiments.shock.disturbance import Array

_entries: list[Shock] = []


def _octaves(first: float, last: float) -> tuple[float, ...]:
    return tuple(first * 2.0**k for k in range(round(math.log2(last / first)) + 1))


_SWITCH = Dose("on", "", (1.0,), 1.0)


def _steps(standard: float, most: float = 64.0) -> Dose:
    return Dose("steps", "steps", _octaves(1.0, most), standard, lasts=True)


def _shock(
    name: str, source: str, dose: Dose, **choices: tuple[str, ...]
) -> Callable[[Callable[..., Disturbance]], Callable[..., Disturbance]]:
    def register(make: Callable[..., Disturbance]) -> Callable[..., Disturbance]:
        parameters = list(inspect.signature(make).parameters.values())[1:]
        summary = inspect.cleandoc(make.__doc__ or "").splitlines()[0]
        options = {p.name: p.default for p in parameters} | {dose.name: math.nan}
        _entries.append(Shock(name, summary, source, dose, options, make, choices))
        return make

    return register


@_shock("lr-pulse", "Lewkowycz et al. 2020 (catapult)", Dose("factor", "x", _octaves(2.0, 1024.0), 8.0, none=1.0))
def _lr_pulse(factor: float, steps: float = 5.0) -> Disturbance:
    """The learning rate is `factor` times as large for `steps` steps."""

    def lrs(lr_N: Array, after: int) -> Array:
        lr_T = lr_N[after:].copy()
        lr_T[: int(steps)] *= factor
        return lr_T

    return Disturbance(steps=int(steps), lrs=lrs)


@_shock(
    "bad-batch",
    "Chowdhery et al. 2022 (PaLM), Sec. 5.1",
    _steps(1.0),
    kind=("uniform", "shuffled", "constant", "repeated"),
)
def _bad_batch(steps: float, kind: str = "uniform") -> Disturbance:
    """Batches of noise for `steps` steps: uniform tokens, shuffled targets, one token, or one batch repeated."""
    from stresstest.experiments.shock.batches import BAD

    return Disturbance(steps=int(steps), batch=BAD[kind])


@_shock("lost-moments", "Huang et al. 2025 (SPAM)", _SWITCH, moment=("all", "first", "second"), count=("lost", "kept"))
def _lost_moments(on: float, moment: str = "all", count: str = "lost") -> Disturbance:
    """A resume without the optimizer's state: its moments are zero, and its count of steps if `count=lost`."""
    moments = frozenset({"first", "second"} if moment == "all" else {moment})

    def state(scene: Scene) -> None:
        if not scene.population.lose(moments, count == "lost"):
            raise _no_moments(moment)

    return Disturbance(state=state)


@_shock("schedule-restart", "Loshchilov and Hutter 2017 (SGDR)", _SWITCH)
def _schedule_restart(on: float) -> Disturbance:
    """The schedule of the learning rate begins anew, with its warm-up."""
    return Disturbance(lrs=lambda lr_N, after: lr_N[: len(lr_N) - after].copy())


@_shock("data-order", "Hernandez et al. 2022 (repeated data)", _steps(16.0))
def _data_order(steps: float) -> Disturbance:
    """The batches of the last `steps` steps come again."""
    return Disturbance(steps=int(steps), batch=lambda scene, k: scene.batch(scene.step + k - int(steps)))


@_shock("dropped-updates", "Chowdhery et al. 2022 (PaLM), Sec. 5.1", _steps(8.0))
def _dropped_updates(steps: float) -> Disturbance:
    """The updates of `steps` steps are lost, and their batches with them."""
    return Disturbance(steps=int(steps), frozen=True)


@_shock(
    "bit-flip",
    "Ma et al. 2025; Altenbernd et al. 2026",
    Dose("count", "flips", _octaves(1.0, 1024.0), 1.0),
    where=("weight", "gradient", "activation"),
)
def _bit_flip(count: float, where: str = "weight", bit: float = -1.0, layer: str = "") -> Disturbance:
    """`count` bits flip in weights, in a gradient or in the activations of one step: bit 31 is the sign, -1 any."""
    from stresstest.experiments.shock.bits import Flips

    flips = Flips(int(count), int(bit), layer)
    if where == "weight":
        return Disturbance(state=flips.in_weights)
    if where == "gradient":
        return Disturbance(steps=1, gradient=flips.in_gradient)
    return Disturbance(steps=1, forward=flips.in_activations)


@_shock("weight-noise", "Keskar et al. 2017 (sharpness)", Dose("size", "x RMS", _octaves(2.0**-8, 4.0), 2.0**-4))
def _weight_noise(size: float) -> Disturbance:
    """Normal noise on every weight, of `size` times the root mean square of its tensor."""
    from stresstest.experiments.shock.noise import add_noise

    return Disturbance(state=lambda scene: add_noise(scene.population, size, scene.generator()))


@_shock("half-precision", "Micikevicius et al. 2018", _steps(8.0), dtype=("float16", "bfloat16"))
def _half_precision(steps: float, dtype: str = "float16") -> Disturbance:
    """`steps` steps by autocast in half precision, with loss scaling in float16."""
    return Disturbance(steps=int(steps), dtype=dtype)


@_shock("tiny-batch", "McCandlish et al. 2018 (noise scale)", _steps(8.0))
def _tiny_batch(steps: float, size: float = 1.0) -> Disturbance:
    """The batches of `steps` steps have `size` examples."""
    from stresstest.experiments.shock.batches import first_examples

    return Disturbance(steps=int(steps), batch=lambda scene, k: first_examples(scene.batch(scene.step + k), int(size)))


@_shock("shift", "Ibrahim et al. 2024", _SWITCH)
def _shift(on: float, data: str = "pydoc") -> Disturbance:
    """From then on it trains on another data source; its loss is taken on the one before."""
    from stresstest.experiments.shock.batches import OtherData

    return Disturbance(batch=OtherData(data), endless=True)


SHOCKS: Registry[Shock] = Registry("shock", _entries)


@dataclass(frozen=True)
class ChosenShock:
    """A shock with the options that the user gave it; `only` is the one dose that is tried, where one was given."""

    shock: Shock
    choice: Choice

    @property
    def label(self) -> str:
        """Its canonical spelling."""
        return self.choice.label

    @property
    def only(self) -> float | None:
        """The dose that the user gave."""
        found = self.choice.options.get(self.shock.dose.name)
        return None if found is None else float(found)

    @property
    def options(self) -> dict[str, Any]:
        """Every option but the dose, given or by default."""
        return {
            name: value for name, value in {**self.shock.options, **self.choice.options}.items() if name != self._dose
        }

    @property
    def _dose(self) -> str:
        return self.shock.dose.name

    def doses(self, after: int, most_steps: int) -> tuple[float, ...]:
        """The doses that are tried, ascending: those that fit into the run."""
        if self.only is not None:
            return (self.only,)
        most = min(after, most_steps) if self.shock.name == "data-order" else most_steps
        tried = self.shock.dose.tried
        return tuple(dose for dose in tried if dose <= most) if self.shock.dose.lasts else tried

    def lasts(self, dose: float) -> int:
        """Steps that it lasts at a dose; an endless one none."""
        if self.shock.dose.lasts:
            return int(dose)
        return int(self.options.get("steps", 0))

    def at(self, dose: float) -> Disturbance:
        """The disturbance at a dose."""
        return self.shock.at(dose, self.options)

    def words(self, dose: float) -> str:
        """A dose in short: `8x`, `4 steps`, `1 flip`; nothing of a switch."""
        unit = self.shock.dose.unit
        if self.shock.dose.is_switch:
            return ""
        if unit.startswith("x"):
            return f"{number(dose)}{unit}"
        return f"{number(dose)} {unit.removesuffix('s') if dose == 1 else unit}"


def parse_shock(text: str) -> ChosenShock:
    """`NAME[:key=value,...]`; unknown names, options and words, and numbers that do not fit, are a `ConfigError`."""
    choice = parse_choice(text, SHOCKS)
    shock = SHOCKS[choice.name]
    for name, known in shock.choices.items():
        value = choice.options.get(name, shock.options[name])
        if value not in known:
            raise ConfigError(f"option '{name}' of shock {shock.name} is '{value}'{did_you_mean(str(value), known)}")
    _check_numbers(shock, choice)
    return ChosenShock(shock, choice)


def _check_numbers(shock: Shock, choice: Choice) -> None:
    dose = shock.dose
    for name, value in choice.options.items():
        if isinstance(value, bool | str):
            continue
        what = f"option '{name}' of shock {shock.name} is {value:g}"
        if name in ("steps", "size", "count", "bit") and not (name == "size" and dose.name == "size"):
            if value != int(value):
                raise ConfigError(f"{what}; use a whole number")
            if name == "bit" and not 0 <= value <= 31:
                raise ConfigError(f"{what}; use a bit from 0 to 31, the sign, or leave it out for any")
        if name != "bit" and name != dose.name and value < 1:
            raise ConfigError(f"{what}; it must be at least 1")
        if name == dose.name and dose.is_switch and value not in (0.0, 1.0):
            raise ConfigError(f"{what}; use 1, or 0 for none")


def _no_moments(moment: str) -> Exception:
    from stresstest.user_code import UserCodeError

    what = "moments" if moment == "all" else f"{moment} moment"
    return UserCodeError(f"the optimizer keeps no {what} that a resume could lose; leave lost-moments out")
