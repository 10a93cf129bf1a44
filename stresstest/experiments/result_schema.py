"""JSON Schema of `result.json`: the records of results, with the settings of every experiment."""

from __future__ import annotations

from typing import Any

from stresstest.experiments.table import EXPERIMENTS
from stresstest.results.metrics import METRICS
from stresstest.results.records import RESULT_SCHEMA, Cell, Result


def result_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a stored result: every key with its type, its unit and what it means."""
    schema = Result.model_json_schema(mode="serialization")
    for record in schema["$defs"].values():
        if "metrics" in record["properties"]:
            _describe_metrics(record["properties"]["metrics"])
    for model, record in ((Cell, schema["$defs"]["Cell"]), (Result, schema)):
        for name, field in model.model_fields.items():  # pydantic leaves some out beside a reference
            record["properties"][name]["description"] = field.description
    properties = {"schema" if name == "schema_" else name: value for name, value in schema["properties"].items()}
    properties["schema"] = {"const": RESULT_SCHEMA, "description": properties["schema"]["description"]}
    properties["command"] |= {"enum": list(EXPERIMENTS)}
    specs = {command: spec.model_json_schema(mode="serialization") for command, spec in EXPERIMENTS.specs.items()}
    properties["spec"] = {
        "description": properties["spec"]["description"],
        "anyOf": [{"$ref": f"#/$defs/{spec['title']}"} for spec in specs.values()],
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "stresstest result",
        "properties": properties,
        "required": ["schema", *(name for name in schema["required"] if name != "schema_")],
        "$defs": schema["$defs"] | {spec["title"]: spec for spec in specs.values()},
    }


def _describe_metrics(schema: dict[str, Any]) -> None:
    """Say of every metric that may be there what it means, and in what unit."""
    schema["properties"] = {
        metric.name: schema["additionalProperties"]
        | {"description": metric.summary + (f" In {metric.unit}." if metric.unit else "")}
        for metric in METRICS.values()
    }
