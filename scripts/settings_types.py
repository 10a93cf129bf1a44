"""Write stresstest/experiments/settings_types.py: what the functions of `stresstest` take, typed from the specs."""

from __future__ import annotations

import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from stresstest.experiments.table import EXPERIMENTS
from stresstest.specs.base import Spec
from stresstest.specs.profiles import PROFILES

FILE = Path(__file__).resolve().parents[1] / "stresstest" / "experiments" / "settings_types.py"

_HEAD = '''\
"""The settings that the functions of `stresstest` take, as types. Written by scripts/settings_types.py; do not edit."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict


class CallSettings(TypedDict, total=False):
    """What every experiment takes beside its own settings."""

    args: Mapping[str, Any] | None
    batch: Any
    step: Callable[..., Any] | None
    baseline_loss: float | None
    profile: {profiles}
    run_dir: str | Path | None
    log: str | Sequence[str] | None
    quiet: bool
'''

# Beside what a file may say: functions beside a factory, and a size by its names.
_OBJECTS = {"optimizer": "Callable[..., Any]", "loss_fn": "Callable[..., Any]", "target": "int | Mapping[str, int]"}
_SET_BY_ASSERT_STABLE = (
    "lr start_lr end_lr num_lrs warmup_steps train_steps seeds map trials trials_at_once sampler search_seed"
).split()


def text() -> str:
    """The module."""
    everywhere = {command: _types(spec) for command, spec in EXPERIMENTS.specs.items()}
    shared = _common(list(everywhere.values()))
    parts = [
        _HEAD.format(profiles=f"Literal[{', '.join(map(_quoted, PROFILES))}]"),
        _typed_dict("SharedSettings", "CallSettings", "Settings that every experiment has.", shared),
    ]
    for command, fields in everywhere.items():
        own = {name: kind for name, kind in fields.items() if name not in shared}
        doc = f"Settings of `stresstest {command}`."
        parts.append(_typed_dict(f"{_camel(command)}Settings", "SharedSettings", doc, own))
    stable = {name: kind for name, kind in everywhere["warmup"].items() if name not in _SET_BY_ASSERT_STABLE}
    doc = "Settings of `stresstest.testing.assert_stable` beside those that it names."
    parts.append(_typed_dict("StableSettings", "CallSettings", doc, stable))
    doc = "Settings that some experiment of a scenario has; `stresstest.run` lays them over what the file says."
    parts.append(_typed_dict("ScenarioSettings", "TypedDict", doc, _of_all()))
    return "\n\n".join(parts)


def _types(spec: type[Spec]) -> dict[str, str]:
    """The type of each setting, as its user may give it."""
    found = {name: _given_type(spec, name, field) for name, field in spec.model_fields.items() if name != "model"}
    return {name: f"{kind} | {_OBJECTS[name]}" if name in _OBJECTS else kind for name, kind in found.items()}


def _of_all() -> dict[str, str]:
    """Of every experiment; where one takes a value and another a list, the list."""
    found: dict[str, str] = {}
    for spec in EXPERIMENTS.specs.values():
        for name, field in spec.model_fields.items():
            if name not in found or get_origin(field.annotation) is tuple:
                found[name] = _given_type(spec, name, field)
    return found | {"target": f"{found['target']} | {_OBJECTS['target']}"}


def _given_type(spec: type[Spec], name: str, field: FieldInfo) -> str:
    """A list may be one value or text; what is parsed may be text."""
    if get_origin(field.annotation) is tuple:
        item = _spelt(get_args(field.annotation)[0])
        one = "str" if item.startswith(("str", "Literal")) else f"{item} | str"
        return f"{one} | Sequence[{item}]"
    spelt = _spelt(field.annotation)
    return f"{spelt} | str" if spelt in ("int", "float") and name in _parsed(spec) else spelt


def _parsed(spec: type[Spec]) -> set[str]:
    validators = spec.__pydantic_decorators__.field_validators.values()
    return {name for each in validators if each.info.mode == "before" for name in each.info.fields}


def _spelt(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return f"Literal[{', '.join(map(_quoted, get_args(annotation)))}]"
    if get_origin(annotation) in (Union, types.UnionType):
        return " | ".join(map(_spelt, get_args(annotation)))
    return "None" if annotation is type(None) else str(annotation.__name__)


def _common(settings: list[dict[str, str]]) -> dict[str, str]:
    first, *others = settings
    return {name: kind for name, kind in first.items() if all(other.get(name) == kind for other in others)}


def _typed_dict(name: str, base: str, doc: str, fields: Mapping[str, str]) -> str:
    lines = [f"    {field}: {kind}" for field, kind in fields.items()]
    return "\n".join([f"class {name}({base}, total=False):", f'    """{doc}"""', "", *lines, ""])


def _quoted(word: str) -> str:
    return f'"{word}"'


def _camel(command: str) -> str:
    return "".join(part.capitalize() for part in command.split("-"))


if __name__ == "__main__":
    FILE.write_text(text())
