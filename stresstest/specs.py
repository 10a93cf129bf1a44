"""Settings: frozen, checked when built, with one place for each default and its help text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from stresstest.errors import ConfigError
from stresstest.tables import OptionValue, Table, did_you_mean


class Spec(BaseModel):
    """Base of all settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ModelSpec(Spec):
    """The shape of the built-in transformer."""

    model: Literal["decoder"] = Field("decoder", description="Built-in architecture.")
    norm: Literal["layer-norm", "rms-norm", "dyt", "none"] = Field(
        "layer-norm", description="Norm function: layer-norm, rms-norm, dyt or none."
    )
    depth: int = Field(6, ge=1, description="Number of blocks.")
    width: int = Field(64, ge=2, description="Model width.")
    heads: int = Field(4, ge=1, description="Attention heads a block; they divide the width.")
    seq_len: int = Field(64, ge=1, description="Bytes a sequence.")
    activation: Literal["gelu", "relu"] = Field("gelu", description="Activation of the feed-forward layer.")
    tied: bool = Field(False, description="Share the input embedding with the output layer.")
    qk_norm: bool = Field(False, description="Norm on queries and keys, per head.")

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.width % self.heads:
            near = [h for h in range(1, self.width + 1) if self.width % h == 0]
            nearest = min(near, key=lambda h: abs(h - self.heads))
            raise ValueError(
                f"width {self.width} is not divisible by heads {self.heads}; use heads {nearest}, "
                f"or width {max(1, round(self.width / self.heads)) * self.heads}"
            )
        return self


class LrRangeSpec(ModelSpec):
    """Everything that decides the result of `stresstest lr-range`."""

    variant: tuple[str, ...] = Field(
        ("post-ln", "pre-ln", "normformer", "rezero", "deepnorm"),
        min_length=1,
        description="Norm variants, NAME[:key=value,...]; 'all' for every one.",
    )
    optimizer: str = Field("adam", description="Optimizer, NAME[:key=value,...].")
    clip_norm: float | None = Field(
        None, gt=0, description="Clip gradients to this norm (off by default: clipping hides instability)."
    )
    task: Literal["language"] = Field("language", description="What is learned: next-byte prediction.")
    data: str = Field("synthetic", description="Data source: synthetic, pydoc, or path:FILE.")
    batch_size: int = Field(8, ge=1, description="Sequences a step.")
    ramp: Literal["exponential", "linear"] = Field(
        "exponential", description="How the learning rate rises: exponential, or linear (NormFormer's Fig. 5)."
    )
    start_lr: float = Field(1e-4, ge=0, description="Learning rate at the first step of the ramp.")
    end_lr: float = Field(10.0, gt=0, description="Learning rate at the last step of the ramp.")
    num_steps: int = Field(200, ge=20, description="Steps of the ramp.")
    hold_steps: int = Field(150, ge=20, description="Steps of each constant-LR run of the hold.")
    hold_resolution: Literal["octave", "half-octave", "quarter-octave"] = Field(
        "octave", description="Width of the max_stable_lr bracket: octave, half-octave or quarter-octave."
    )
    lr_window: bool = Field(
        False, description="Also search the smallest LR that makes real progress (lower end of lr_window)."
    )
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1, description="Number of seeds, or a list: 5 or 0,3,7.")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N.")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="Arithmetic: float32, or bfloat16/float16 by autocast over float32 weights."
    )

    @field_validator("seeds", mode="before")
    @classmethod
    def _parse_seeds(cls, value: Any) -> Any:
        return parse_seeds(value) if isinstance(value, str) else value

    @field_validator("seeds")
    @classmethod
    def _seeds_are_distinct(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if min(seeds) < 0 or max(seeds) >= 1 << 32:
            raise ValueError(f"seeds {','.join(map(str, seeds))} must lie between 0 and 2^32 - 1")
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"seeds {','.join(map(str, seeds))} repeat; give each seed once")
        return seeds

    @field_validator("variant", mode="before")
    @classmethod
    def _parse_variants(cls, value: Any) -> Any:
        variants = split_choices(value) if isinstance(value, str) else value
        if not variants:
            raise ValueError("name at least one variant, e.g. --variant pre-ln")
        return variants

    @model_validator(mode="after")
    def _ramp_rises(self) -> Self:
        if self.start_lr >= self.end_lr:
            raise ValueError(f"start_lr {self.start_lr:g} is not below end_lr {self.end_lr:g}; the ramp must rise")
        if self.ramp == "exponential" and self.start_lr == 0:
            raise ValueError("start_lr 0 cannot grow exponentially; use start_lr 1e-4, or ramp linear")
        return self


PROFILES: Mapping[str, Mapping[str, Any]] = {
    "quick": {},
    "standard": {"seeds": "5", "hold_resolution": "quarter-octave", "lr_window": True},
    "full": {"seeds": "8", "hold_resolution": "quarter-octave", "lr_window": True, "hold_steps": 400},
}

LINEAR_LR_STEP = 5e-5  # Shleifer et al. 2021, Fig. 5
_LINEAR_STEPS = 4000
_MANY_SEEDS = 1000


def resolve_lr_range(profile: str, given: Mapping[str, Any]) -> LrRangeSpec:
    """The spec of a profile with the user's settings on top; a `ConfigError` names what is wrong."""
    if profile not in PROFILES:
        raise ConfigError(f"unknown profile '{profile}'{did_you_mean(profile, PROFILES)}")
    settings = dict(PROFILES[profile])
    if given.get("ramp") == "linear":
        num_steps = int(given.get("num_steps", _LINEAR_STEPS))
        settings |= {"start_lr": 0.0, "num_steps": num_steps, "end_lr": LINEAR_LR_STEP * (num_steps - 1)}
    return build(LrRangeSpec, settings | dict(given))


S = TypeVar("S", bound=Spec)


def build(kind: type[S], settings: Mapping[str, Any]) -> S:
    """Build a spec; all that is wrong comes as one `ConfigError` in the user's words."""
    try:
        return kind.model_validate(settings)
    except ValidationError as error:
        raise ConfigError("; ".join(_in_words(e, kind) for e in error.errors())) from None


def _in_words(error: Any, kind: type[Spec]) -> str:
    message = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:
        return str(message)
    name = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        return f"unknown setting '{name}'{did_you_mean(name, kind.model_fields)}"
    return f"{name} {error['input']!r}: {message[0].lower()}{message[1:]}"


def parse_seeds(text: str) -> tuple[int, ...]:
    """`5` means seeds 0 to 4; `0,3,7` means these seeds; `3,` means the one seed 3."""
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise ValueError("give a number of seeds, or a list such as 0,3,7") from None
    if not numbers or ("," not in text and numbers[0] < 1):
        raise ValueError("at least one seed is needed, e.g. --seeds 3")
    if "," not in text and numbers[0] > _MANY_SEEDS:
        raise ValueError(f"more than {_MANY_SEEDS} seeds; for one seed of this number, write --seeds {numbers[0]},")
    if "," in text:
        return tuple(numbers)
    return tuple(range(numbers[0]))


@dataclass(frozen=True)
class Choice:
    """A table entry's name with the options the user gave it: `NAME[:key=value,...]`."""

    name: str
    options: dict[str, OptionValue]

    @property
    def label(self) -> str:
        """The canonical spelling."""
        if not self.options:
            return self.name
        return self.name + ":" + ",".join(f"{k}={_spell(v)}" for k, v in sorted(self.options.items()))


def _spell(value: OptionValue) -> str:
    return str(value).lower() if isinstance(value, bool) else exact(value)


def exact(value: float) -> str:
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


def parse_choice(text: str, table: Table[Any]) -> Choice:
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
    try:
        value = float(text)
    except ValueError:
        raise ConfigError(f"{what} is '{text}'; use a number, e.g. {default:g}") from None
    share = key.startswith("beta") or key.endswith("share")
    if not 0.0 <= value < math.inf or (share and value >= 1.0):
        below = "below 1" if share else "finite"
        raise ConfigError(f"{what} is '{text}'; it must be at least 0 and {below}, e.g. {default:g}")
    return value
