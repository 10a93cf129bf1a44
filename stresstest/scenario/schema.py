"""JSON Schema of scenario files, for editors; the reader itself is stricter and says more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_origin

from stresstest.experiments.table import EXPERIMENTS
from stresstest.scenario.thresholds import LEVELS
from stresstest.scenario.yaml_nodes import NAME
from stresstest.specs.base import OFF, TrainingSpec
from stresstest.specs.profiles import PROFILES

_EXPRESSION = {"type": "string", "description": "med >= 0.003, or med vs base >= -0.5oct"}
_WITH_LEVEL = {
    "expr": _EXPRESSION,
    "level": {"enum": list(LEVELS), "description": "What a crossing does: fail, warn, or nothing."},
}
_ONE = {"oneOf": [_EXPRESSION, {"type": "object", "properties": _WITH_LEVEL, "additionalProperties": False}]}
_THRESHOLDS = {
    "type": "object",
    "description": "Limits that stresstest check enforces, by [EXPERIMENT.]METRIC[{KEY=VALUE}].",
    "additionalProperties": {"anyOf": [_ONE, {"type": "array", "items": _ONE}]},
}


_HOLDS = {"type": "string", "description": "EXPERIMENT.METRIC{KEY=VALUE} [/ or - another] > NUMBER"}
_CAUSE = {
    "type": "object",
    "properties": {"says": {"type": "string", "description": "The cause in words."}, "holds": _HOLDS},
    "required": ["says", "holds"],
    "additionalProperties": False,
}
_SEEDS = {
    "type": "object",
    "description": "Seeds that the claims are held against: `look` of them from `first` on, `most` for what is open.",
    "properties": {
        "explored": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        "first": {"type": "integer", "minimum": 0, "default": 1000},
        "look": {"type": "integer", "minimum": 1, "default": 12},
        "most": {"type": "integer", "minimum": 1, "default": 36},
    },
    "additionalProperties": False,
}
_CLAIM = {
    "type": "object",
    "properties": {
        "says": {"type": "string", "description": "The claim in words."},
        "holds": _HOLDS,
        "along": {
            "type": "object",
            "description": "A path: $NAME in holds stands for each value, smallest first.",
            "additionalProperties": {"type": "array", "minItems": 1},
            "minProperties": 1,
            "maxProperties": 1,
        },
        "published": {"type": "string", "description": "The paper's own figure."},
        "because": {
            "description": "Why the claim is not seen, if known; with holds, a cause that is tested.",
            "oneOf": [{"type": "string"}, _CAUSE],
        },
        "headline": {"type": "boolean", "description": "One of the few that `papers --quick` runs."},
    },
    "required": ["says", "holds"],
    "additionalProperties": False,
}


def scenario_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a scenario file, for editors."""
    profile = {"enum": list(PROFILES), "description": "Defaults of settings that the file leaves out."}
    shared: dict[str, Any] = {"profile": profile}
    experiments = []
    for command, kind in EXPERIMENTS.specs.items():
        schema = kind.model_json_schema()
        properties = {name: _loosened(kind, name, value) for name, value in schema["properties"].items()}
        for name, value in properties.items():
            kinds = [*shared.get(name, {"oneOf": []}).get("oneOf", [shared.get(name)]), value]
            kinds = [kind for i, kind in enumerate(kinds) if kind not in kinds[:i]]
            shared[name] = kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
        own = {"command": {"const": command}, "profile": profile, **properties}
        experiments.append(_object(own) | {"required": ["command"], "description": (kind.__doc__ or "").strip()})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "stresstest scenario",
        **_object(
            {
                "defaults": _object(shared) | {"description": "Settings for every experiment that has them."},
                "experiments": {
                    "type": "object",
                    "description": "By name, what to run, one after the other.",
                    "minProperties": 1,
                    "propertyNames": {"pattern": f"^{NAME.pattern}$"},
                    "additionalProperties": {"oneOf": experiments},
                },
                "paper": {"type": "string", "description": "The paper whose claims these are."},
                "profiles": {
                    "type": "object",
                    "description": "By name (cpu, full), settings that replace those of an experiment, or of "
                    "all under defaults.",
                    "additionalProperties": {"type": "object", "additionalProperties": _object(shared)},
                },
                "seeds": _SEEDS,
                "claims": {
                    "type": "array",
                    "items": _CLAIM,
                    "description": "Claims that the results are checked against.",
                },
                "thresholds": _THRESHOLDS,
                "gate": _object(
                    {
                        "alpha": {"type": "number", "description": "Error rate over all lines and looks."},
                        "max_seeds": {"type": "integer", "minimum": 1, "description": "Seeds of the last look."},
                    }
                )
                | {"description": "Error rate over all lines and looks, and the most seeds."},
            }
        ),
        "required": ["experiments"],
    }


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": dict(properties), "additionalProperties": False}


def _loosened(kind: type[TrainingSpec], name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """A list may also be written as the command line takes it, and `off` for no number; nothing is required."""
    if kind.model_fields[name].default is None:
        return {**schema, "anyOf": [*schema["anyOf"], {"const": OFF}]}
    if get_origin(kind.model_fields[name].annotation) is not tuple:
        return dict(schema)
    text = {"anyOf": [{"type": "array", **{k: v for k, v in schema.items() if k in ("items", "minItems")}}]}
    text["anyOf"] += [{"type": "string"}, {"type": "integer"}]
    return text | {key: schema[key] for key in ("default", "description", "title") if key in schema}
