"""What stands behind an option as text: names with options, numbers of seeds, lists of depths."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stresstest.errors import ConfigError
from stresstest.registry import OptionValue, Registry, did_you_mean

MANY_SEEDS = 1000
MOST_STEPS = 10_000_000  # of one run, of each of which its record has a row
_FAR = 100_000  # from what was asked for: beyond it no divisor is looked for
MANY_DEPTHS = 100


def flag(name: str) -> str:
    """The option of a setting."""
    return "--" + name.replace("_", "-")


def parse_seeds(text: str) -> tuple[int, ...]:
    """`5` means seeds 0 to 4; `0,3,7` means these seeds; `3,` means the one seed 3."""
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise ValueError("give a number of seeds, or a list such as 0,3,7") from None
    if not numbers or ("," not in text and numbers[0] < 1):
        raise ValueError("at least one seed is needed, e.g. --seeds 3")
    if "," not in text and numbers[0] > MANY_SEEDS:
        raise ValueError(f"more than {MANY_SEEDS} seeds; for the single seed {numbers[0]}, write --seeds {numbers[0]},")
    if "," in text:
        return tuple(numbers)
    return tuple(range(numbers[0]))


def nearest_divisor(number: int, to: int) -> int:
    """The divisor of a number that is nearest to another, the smaller of two; 1 where there is none nearby."""
    start = min(to, number)
    for away in range(min(number, _FAR)):
        for divisor in (start - away, start + away):
            if divisor > 0 and number % divisor == 0:
                return divisor
    return 1


@dataclass(frozen=True)
class Choice:
    """A table entry's name with the options the user gave it: `NAME[:key=value,...]`."""

    name: str
    options: dict[str, OptionValue]

    @property
    def numbers(self) -> dict[str, float]:
        """The options whose values are numbers."""
        return {key: value for key, value in self.options.items() if not isinstance(value, str)}

    @property
    def label(self) -> str:
        """The canonical spelling."""
        if not self.options:
            return self.name
        return self.name + ":" + ",".join(f"{k}={_spell(v)}" for k, v in sorted(self.options.items()))


def _spell(value: OptionValue) -> str:
    if isinstance(value, str):
        return value
    return str(value).lower() if isinstance(value, bool) else exact_text(value)


def exact_text(value: float) -> str:
    """The shortest spelling that reads back as the same number."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def split_choices(text: str) -> tuple[str, ...]:
    """Split `a,b:k=1,j=2,c` at the commas that start a new name."""
    parts: list[str] = []
    for piece in text.split(","):
        if parts and "=" in piece and ":" not in piece:
            parts[-1] += "," + piece
        elif piece.strip():
            parts.append(piece.strip())
    return tuple(parts)


def parse_choice(text: str, table: Registry[Any]) -> Choice:
    """Look up `NAME[:key=value,...]`; unknown names and keys are a `ConfigError`."""
    name, _, tail = text.partition(":")
    defaults: Mapping[str, OptionValue] = table[name.strip()].options
    options = {}
    for pair in filter(None, tail.split(",")):
        key, _, value = pair.partition("=")
        if key not in defaults:
            raise ConfigError(f"unknown option '{key}' of {table.kind} {name}{did_you_mean(key, defaults)}")
        options[key] = _parse_option(f"option '{key}' of {table.kind} {name}", key, value, defaults[key])
    return Choice(name.strip(), {k: v for k, v in options.items() if v != defaults[k]})


def _parse_option(what: str, key: str, text: str, default: OptionValue) -> OptionValue:
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise ConfigError(f"{what} is '{text}'; use true or false")
        return text.lower() == "true"
    if isinstance(default, str):
        return text.strip()
    example = "" if math.isnan(default) else f", e.g. {default:g}"
    try:
        value = float(text)
    except ValueError:
        raise ConfigError(f"{what} is '{text}'; use a number{example}") from None
    share = key.startswith("beta") or key.endswith("share")
    if not 0.0 <= value < math.inf or (share and value >= 1.0):
        below = "below 1" if share else "finite"
        raise ConfigError(f"{what} is '{text}'; it must be at least 0 and {below}{example}")
    return value


def split_settings(text: str) -> tuple[str, ...]:
    """Split `a=1,b=x,y` at the commas that start a new KEY=."""
    parts: list[str] = []
    for piece in text.split(","):
        if parts and "=" not in piece:
            parts[-1] += "," + piece
        elif piece.strip():
            parts.append(piece.strip())
    return tuple(parts)


def parse_settings(texts: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE texts as the arguments of a call: numbers, true, false and none are read as such."""
    words: Mapping[str, Any] = {"true": True, "false": False, "none": None, "null": None}
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.isidentifier():
            raise ValueError(f"set '{text}' is not KEY=VALUE; write e.g. n_layer=4")
        if key in found:
            raise ValueError(f"set gives '{key}' twice; keep one")
        found[key] = words[value.lower()] if value.lower() in words else _number_or_text(value)
    return found


def _number_or_text(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def numbers_or_range(text: str, example: str) -> tuple[tuple[int, ...], float | None]:
    """The numbers of a list such as `4,12,64`, or the first and last of a range such as `10:10000:x10`, and its factor.

    What is neither is a `ValueError` with the example.
    """
    start, colon, rest = text.partition(":")
    try:
        if not colon:
            return tuple(int(part) for part in text.split(",") if part.strip()), None
        stop, _, step = rest.partition(":")
        first, last, factor = int(start), int(stop), float(step.removeprefix("x"))
    except ValueError:
        raise ValueError(example) from None
    if first < 1 or not 1.0 < factor < math.inf or not step.startswith("x"):
        raise ValueError(example)
    return (first, last), factor


def parse_depths(text: str) -> tuple[int, ...]:
    """`4,12,64` means these depths; `10:10000:x10` means 10, 100, 1000, 10000."""
    numbers, factor = numbers_or_range(text, "give depths such as 4,12,64, or a range such as 10:10000:x10")
    if factor is None:
        return numbers
    first, last = numbers
    depths: list[int] = []
    value = float(first)
    while round(value) <= last and len(depths) <= MANY_DEPTHS:
        if round(value) not in depths[-1:]:
            depths.append(round(value))
        value *= factor
    return tuple(depths)
