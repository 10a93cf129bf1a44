"""The JSON Schema of results describes every value that a run stores; results of the version before are read."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from stresstest.cli.main import run
from stresstest.engine.outcomes import Rules
from stresstest.errors import ConfigError
from stresstest.experiments.result_schema import result_schema
from stresstest.results.metrics import METRICS
from stresstest.results.records import Result, read_result

STORED = sorted((Path(__file__).parent / "stored").glob("*.json"))  # as the version before wrote them
SCHEMA = result_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
OWN = """
import torch
from torch import nn


def build(width: int = 8) -> nn.Module:
    return nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 1))


def batch(step: int, batch_size: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(batch_size, 4, generator=generator)
    return x, x.prod(1, keepdim=True)


def loss_fn(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return nn.functional.mse_loss(model(batch[0]), batch[1])
"""
SMALL = "--depth 1 --width 16 --heads 2 --seq-len 16 --variant pre-ln --seeds 1"
GRID = "--start-lr 0.001 --end-lr 0.1 --num-lrs 2"
BOUNDARY = "--num-steps 40 --hold-steps 20"
RUNS = {
    "lr-range": f"lr-range {SMALL} {BOUNDARY} --lr-window --probes full",
    "depth-sweep": f"depth-sweep --model mlp --width 8 --variant rezero --depths 1,2,3 --seeds 1 {BOUNDARY} "
    "--measure outcome,hold --train-steps 20 --probe-steps 10",
    "warmup": f"warmup {SMALL} {GRID} --warmup-steps 0,5 --train-steps 20 --trials 2",
    "race": f"race {SMALL} {GRID} --train-steps 20",
    "batch-sweep": f"batch-sweep {SMALL} {GRID} --batch-sizes 4,8 --tokens 4000",
    "own model": f"lr-range --model own.py:build --seeds 1 {BOUNDARY}",
    "translation": "lr-range --model encoder-decoder --depth 1 --width 16 --heads 2 --seq-len 12 --variant pre-ln "
    "--batch-size 8 --seeds 1 --num-steps 20 --hold-steps 20",
}


def undescribed(value: Any, schema: Mapping[str, Any], place: str = "result") -> Iterator[str]:
    """The places in a value of which the schema says nothing, or nothing in words."""
    schema = resolved(schema)
    if "anyOf" in schema:
        one_of = [resolved(one) | {"$defs": SCHEMA["$defs"]} for one in schema["anyOf"]]
        fitting = next((one for one in one_of if VALIDATOR.evolve(schema=one).is_valid(value)), None)
        yield from [f"{place} fits nothing"] if fitting is None else undescribed(value, fitting, place)
    elif isinstance(value, dict):
        known, rest = schema.get("properties", {}), schema.get("additionalProperties")
        for key, inner in value.items():
            if key in known:
                if not known[key].get("description"):
                    yield f"{place}.{key} has no description"
                yield from undescribed(inner, known[key], f"{place}.{key}")
            elif isinstance(rest, dict):
                yield from undescribed(inner, rest, f"{place}.{key}")
            else:
                yield f"{place}.{key} is not in the schema"
    elif isinstance(value, list):
        shapes = schema.get("prefixItems") or [schema.get("items")] * len(value)
        for inner, shape in zip(value, shapes, strict=True):
            if shape is None:
                yield f"{place}[] has no type"
            else:
                yield from undescribed(inner, shape, f"{place}[]")
    elif not {"type", "const", "enum"} & schema.keys():
        yield f"{place} has no type"


def resolved(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with what it refers to."""
    if "$ref" not in schema:
        return dict(schema)
    rest = {key: value for key, value in schema.items() if key != "$ref"}
    return {**SCHEMA["$defs"][schema["$ref"].removeprefix("#/$defs/")], **rest}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("runs")
    (path / "own.py").write_text(OWN)
    with pytest.MonkeyPatch.context() as here:
        here.chdir(path)
        yield path


@pytest.mark.parametrize("name", RUNS)
def test_every_value_of_a_result_is_described(name: str, folder: Path) -> None:
    assert run([*shlex.split(RUNS[name]), "-j", "1", "-q", "--run-dir", name]) == 0
    path = folder / name / "result.json"
    stored = json.loads(path.read_text())
    VALIDATOR.validate(stored)
    assert list(undescribed(stored, SCHEMA)) == []
    assert read_result(path).to_json() == path.read_text(), "read and written again, it is the same to the byte"
    assert list(stored) == ["schema" if field == "schema_" else field for field in Result.model_fields]


def test_a_value_that_is_not_described_is_found() -> None:
    stored = json.loads(STORED[0].read_text())
    stored["cells"][0]["recipe"]["surprise"] = 1
    stored["data"]["surprise"] = 1
    assert set(undescribed(stored, SCHEMA)) == {
        "result.cells[].recipe.surprise is not in the schema",
        "result.data.surprise is not in the schema",
    }


def test_no_object_of_the_schema_is_without_keys_and_no_key_without_words() -> None:
    for name, record in SCHEMA["$defs"].items():
        assert record["properties"], name
        for key, value in record["properties"].items():
            assert value.get("description"), f"{name}.{key}"
            assert resolved(value).get("additionalProperties") is not True or resolved(value)["properties"], key
    for key, value in SCHEMA["properties"].items():
        assert value.get("description"), key


def test_the_schema_names_every_metric_with_its_unit() -> None:
    for record in ("Cell", "SummaryRow", "TrendRow", "SignalRecord"):
        described = SCHEMA["$defs"][record]["properties"]["metrics"]["properties"]
        assert described.keys() == METRICS.keys()
        assert described["seconds_per_step"]["description"].endswith(" In s.")


def test_the_schema_names_every_rule() -> None:
    assert list(SCHEMA["$defs"]["RulesRecord"]["properties"]) == [field.name for field in fields(Rules)]


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_a_result_of_the_version_before_is_read_reported_and_written_with_all_it_had(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored, again = json.loads(path.read_text()), tmp_path / "again.json"
    again.write_text(read_result(path).to_json())
    assert json.loads(again.read_text()) == stored
    assert list(json.loads(again.read_text())) == list(stored)
    assert read_result(again).to_json() == again.read_text()
    assert list(undescribed({key: value for key, value in stored.items() if key != "spec"}, SCHEMA)) == []
    assert run(["report", str(path)]) == 0
    assert "Traceback" not in capsys.readouterr().out


def test_a_result_of_another_schema_is_named_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "result.json"
    path.write_text(STORED[0].read_text().replace("stresstest.result/1", "stresstest.result/0"))
    with pytest.raises(ConfigError, match=r"schema 'stresstest\.result/0', this version reads 'stresstest\.result/1'"):
        read_result(path)
    assert run(["report", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "stresstest.result/0" in line


def test_a_key_that_no_version_wrote_is_named(tmp_path: Path) -> None:
    stored = json.loads(STORED[0].read_text())
    stored["cells"][0]["recipe"]["surprise"] = 1
    path = tmp_path / "result.json"
    path.write_text(json.dumps(stored))
    with pytest.raises(ConfigError, match=r"cells\.0\.recipe\.surprise"):
        read_result(path)
