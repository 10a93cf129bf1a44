"""Settings from a profile and what the user gave: built, or refused in one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from stresstest.errors import ConfigError
from stresstest.registry import did_you_mean

if TYPE_CHECKING:
    from pydantic import ValidationError

    from stresstest.specs.base import Spec, TrainingSpec

PROFILES: Mapping[str, Mapping[str, Any]] = {
    "quick": {},
    "standard": {"seeds": "5", "hold_resolution": "quarter-octave", "lr_window": True, "num_lrs": 15},
    "full": {"seeds": "8", "hold_resolution": "quarter-octave", "lr_window": True, "hold_steps": 400, "num_lrs": 29},
}

LINEAR_LR_STEP = 5e-5  # Shleifer et al. 2021, Fig. 5
_LINEAR_STEPS = 4000


S = TypeVar("S", bound="Spec")
B = TypeVar("B", bound="TrainingSpec")


def make_spec(kind: type[B], profile: str, given: Mapping[str, Any]) -> B:
    """The spec of a profile with the user's settings on top; a `ConfigError` names what is wrong."""
    return build(kind, with_profile(kind, profile, given))


def with_profile(kind: type[TrainingSpec], profile: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What a profile, and a linear ramp, mean for the settings that the user did not give."""
    if profile not in PROFILES:
        raise ConfigError(f"unknown profile '{profile}'{did_you_mean(profile, PROFILES)}")
    settings = {name: value for name, value in PROFILES[profile].items() if name in kind.model_fields}
    if given.get("ramp") == "linear":
        with_steps = given.get("num_steps", _LINEAR_STEPS)
        num_steps = int(with_steps) if isinstance(with_steps, int | float) else _LINEAR_STEPS
        settings |= {"start_lr": 0.0, "num_steps": num_steps, "end_lr": LINEAR_LR_STEP * (num_steps - 1)}
    return settings | dict(given)


def build(kind: type[S], settings: Mapping[str, Any]) -> S:
    """Build a spec; what is wrong, the first of each setting, comes as one `ConfigError` in the user's words."""
    from pydantic import ValidationError

    try:
        return kind.model_validate(settings)
    except ValidationError as error:
        wrong = _violations(error, kind)
    raise ConfigError("; ".join(f"{name} {text}" if value else text for name, text, value in wrong)) from None


def violations(kind: type[Spec], settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is wrong with settings: the setting, or nothing where several are, and the complaint."""
    from pydantic import ValidationError

    try:
        kind.model_validate(settings)
    except ValidationError as error:
        return [(name, text) for name, text, _ in _violations(error, kind)]
    return []


def _violations(error: ValidationError, kind: type[Spec]) -> list[tuple[str, str, bool]]:
    """(setting, complaint, whether it is about the setting's value), the first of each setting."""
    first = {e["loc"][:1] or (number,): e for number, e in reversed(list(enumerate(error.errors())))}
    return [_in_words(e, kind) for e in reversed(first.values())]


def _in_words(error: Any, kind: type[Spec]) -> tuple[str, str, bool]:
    message = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:
        return "", str(message), False
    name = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        return name, f"unknown setting '{name}'{did_you_mean(name, kind.model_fields)}", False
    text = f"{message[0].lower()}{message[1:]}"
    if text.startswith(f"{name} {error['input']}") or (name in text and repr(error["input"]) in text):  # it says all
        return name, text, False
    return name, f"{error['input']!r}: {text}", True
