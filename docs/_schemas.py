"""The reference pages of the two schemas: scenario files and results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from _markdown import code, codes, page, plain, table
from _package import EXPERIMENTS, READERS, Cell, Result, diagnosis_schema, scenario_schema

Schema = Mapping[str, Any]


def scenario_page() -> str:
    """Every key of a scenario file."""
    schema = scenario_schema()
    top = schema["properties"]
    claim, gate = top["claims"]["items"], top["gate"]
    threshold = _object_in(top["thresholds"]["additionalProperties"])
    parts = [
        "`stresstest schema` prints the JSON Schema itself, for editors. [Scenario files](../guides/scenarios.md) "
        "shows the keys in use.",
        _properties(schema),
        "## An experiment",
        "Each experiment has a name (letters, digits, `-` and `_`), a `command` "
        f"({codes(EXPERIMENTS)}), may have a `profile`, and takes the [settings](settings.md) of its command. "
        "`defaults` takes any of these settings; an experiment without the setting leaves it out. A list may be "
        "written as a list or as the command line has it.",
        "## A threshold",
        "One expression, or a list of them; an expression is a text or has these keys:",
        _properties(threshold),
        "## The gate",
        _properties(gate),
        "## A claim",
        _properties(claim),
    ]
    return page("Scenario schema", "the schema of scenario files", *parts)


def _object_in(schema: Schema) -> Schema:
    """The first object with properties among alternatives."""
    found = _objects(schema)
    return next(iter(found))


def _objects(schema: Schema) -> Iterable[Schema]:
    if "properties" in schema:
        yield schema
    for part in [*schema.get("anyOf", []), *schema.get("oneOf", [])]:
        yield from _objects(part)


def result_page() -> str:
    """Every field of a result."""
    schema = Result.model_json_schema()
    for model, record in ((Result, schema), (Cell, schema["$defs"]["Cell"])):
        for name, field in model.model_fields.items():  # pydantic leaves some out beside a reference
            record["properties"][name]["description"] = field.description
    named = {name.removesuffix("_"): part for name, part in schema["properties"].items()}
    required = [name.removesuffix("_") for name in schema["required"]]
    parts = [
        "`stresstest schema result` prints the JSON Schema itself. In Python `Result` has the same fields, and "
        "`schema_` for `schema`. In the file each cell, row and finding has a line of its own.",
        _properties({"properties": named, "required": required}),
        *(_definition(name, part) for name, part in schema["$defs"].items()),
    ]
    return page("Result schema", "the records of a result", *parts)


def diagnosis_page() -> str:
    """Every field of a diagnosis."""
    schema = diagnosis_schema()
    parts = [
        "What `stresstest diagnose --json` prints; `stresstest schema diagnosis` prints the JSON Schema itself. In "
        "Python a `Diagnosis` has the same fields. NaN and infinity are null.",
        _properties(schema),
        *(_definition(name, part) for name, part in schema["$defs"].items() if name != "DrawnCurve"),
    ]
    return page("Diagnosis schema", "the records of a diagnosis", *parts)


def readers_page() -> str:
    """Every form of a log that is read."""
    rows = ([plain(reader.name), plain(reader.reads)] for reader in READERS)
    intro = (
        "`stresstest diagnose` takes the first of these that a file looks like. [Log formats](log-formats.md) says "
        "what a row of each is."
    )
    return page("Logs that are read", "the table of readers", intro, table(["form", "reads"], rows))


def _definition(name: str, schema: Schema) -> str:
    parts = [f"## {name}", plain(schema.get("description", "")), _properties(schema)]
    return "\n\n".join(filter(None, parts))


def _properties(schema: Schema) -> str:
    required = schema.get("required", [])
    rows = (
        [code(name), _kind(part), "yes" if name in required else "", plain(part.get("description", ""))]
        for name, part in schema.get("properties", {}).items()
    )
    return table(["key", "type", "required", "meaning"], rows)


def _kind(schema: Schema) -> str:
    """A type in words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "const" in schema:
        return code(str(schema["const"]))
    if "enum" in schema:
        return codes(map(str, schema["enum"]))
    parts = [*schema.get("anyOf", []), *schema.get("oneOf", [])]
    if parts:
        return " or ".join(dict.fromkeys(map(_kind, parts)))
    kind = str(schema.get("type", "any"))
    if kind == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    values = schema.get("additionalProperties")
    if kind == "object" and isinstance(values, Mapping):
        return f"object of {_kind(values)}"
    return kind
