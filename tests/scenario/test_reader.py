"""Scenario files: what YAML means here, and that whatever is wrong is said with its place, all at once."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from stresstest.cli.main import run
from stresstest.errors import ConfigError
from stresstest.experiments.table import EXPERIMENTS
from stresstest.scenario.library import SHIPPED, shipped_scenarios
from stresstest.scenario.reader import load_scenario
from stresstest.scenario.schema import scenario_schema

PLACED = re.compile(r"\S+\.yaml:[1-9]\d*:[1-9]\d*: \S.*")


def loaded(tmp_path: Path, text: str | bytes) -> Any:
    path = tmp_path / "some.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_scenario(path).experiments


def complaints(tmp_path: Path, text: str | bytes) -> list[str]:
    """The lines of the error, without the file's folder and the last one, which counts them."""
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, text)
    *lines, last = str(caught.value).splitlines()
    assert last.startswith(f"{len(lines)} error")
    assert all(PLACED.fullmatch(line) for line in lines)
    return [line.removeprefix(f"{tmp_path}/") for line in lines]


def one(settings: str, command: str = "lr-range") -> str:
    return f"experiments:\n  a:\n    command: {command}\n    {settings}\n"


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("start_lr: 1e-3", "start_lr", 0.001),
        ("start-lr: 1e-3", "start_lr", 0.001),
        ("end_lr: 1e1", "end_lr", 10.0),
        ("end_lr: .5", "end_lr", 0.5),
        ("end_lr: +2.", "end_lr", 2.0),
        ("data: no", "data", "no"),
        ("data: on", "data", "on"),
        ("data: 12:30:45", "data", "12:30:45"),
        ("data: 2026-11-25", "data", "2026-11-25"),
        ("data: '7'", "data", "7"),
        ("tied: true", "tied", True),
        ("clip_norm: null", "clip_norm", None),
        ("clip_norm:", "clip_norm", None),
        ("depth: 012", "depth", 12),
        ("seeds: 5", "seeds", "5"),
        ("seeds: [5]", "seeds", (5,)),
        ("seeds: 0,3", "seeds", "0,3"),
        ("variant: pre-ln,rezero", "variant", "pre-ln,rezero"),
        ("variant: [pre-ln, 'rezero:alpha=0.1']", "variant", ("pre-ln", "rezero:alpha=0.1")),
    ],
)
def test_a_value_means_what_the_specs_take(text: str, name: str, value: Any, tmp_path: Path) -> None:
    [experiment] = loaded(tmp_path, one(text))
    assert experiment.given == {name: value}
    assert type(experiment.given[name]) is type(value)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (one("max_lrr: 1"), ["some.yaml:4:5: experiments.a.max_lrr: unknown key; choose from accumulate"]),
        (one("end-lrr: 1"), ["some.yaml:4:5: experiments.a.end-lrr: unknown key; did you mean 'end_lr'?"]),
        (one("variant: [pre-lm]"), ["some.yaml:4:14: experiments.a.variant: unknown variant 'pre-lm'; did you mean"]),
        (one("optimizer: adam:beta3=1"), ["some.yaml:4:16: experiments.a.optimizer: unknown option 'beta3'"]),
        (one("profile: quik"), ["some.yaml:4:14: experiments.a.profile: unknown profile; did you mean 'quick'?"]),
        (one("tied: no"), ["some.yaml:4:11: experiments.a.tied: expects true or false"]),
        (one("depth: true"), ["some.yaml:4:12: experiments.a.depth: expects a value, not true or false"]),
        (one("depth: [1]"), ["some.yaml:4:12: experiments.a.depth: is a list; give one value"]),
        (one("depth:"), ["some.yaml:4:11: experiments.a.depth: has no value"]),
        (one("end_lr: .inf"), ["some.yaml:4:13: experiments.a.end_lr: inf: input should be a finite number"]),
        (one("data: {a: b}"), ["some.yaml:4:11: experiments.a.data: is a mapping or a nested list"]),
        (one("data: !!binary aGk="), ["some.yaml:4:11: experiments.a.data: has the tag tag:yaml.org,2002:binary"]),
        (one("depth: 1\n    depth: 2"), ["some.yaml:5:5: experiments.a.depth: appears twice, first on line 4"]),
        (one("start-lr: 1\n    start_lr: 2"), ["some.yaml:5:5: experiments.a.start_lr: appears twice"]),
        (one("start_lr: 20"), ["some.yaml:2:3: experiments.a: start_lr 20 is not below end_lr 10"]),
        (one(f"depth: {'9' * 5000}"), ["some.yaml:4:12: experiments.a.depth: is a number out of range"]),
        (one("depths: 1"), ["some.yaml:4:5: experiments.a.depths: unknown key; did you mean 'depth'?"]),
        (one("x: 1", "lr-rang"), ["some.yaml:3:14: experiments.a.command: unknown command 'lr-rang'; did you mean"]),
        ("experiments:\n  a: {}\n", ["some.yaml:2:3: experiments.a: has no command; give command: lr-range or"]),
        ("experiments:\n  a: b\n", ["some.yaml:2:3: experiments.a: is not a mapping"]),
        ("experiments: {}\n", ["some.yaml:1:14: experiments: is empty"]),
        ("experiments:\n  ../a: {}\n", ["some.yaml:2:3: experiments.../a: is not a name"]),
        ("defaults: {}\n", ["some.yaml:1:1: has no experiments"]),
        ("experimnts: {}\n", ["some.yaml:1:1: experimnts: unknown key; did you mean 'experiments'?"]),
        ("", ["some.yaml:1:1: is empty"]),
        ("[1]\n", ["some.yaml:1:1: is not a mapping"]),
        ("a: &x 1\nb: *x\n", ["some.yaml:1:4: anchors and aliases are not supported"]),
        ("a: [1\n", ["some.yaml:2:1: while parsing a flow sequence"]),
        ("a: \x07\n", ["some.yaml:1:4: has a character that YAML forbids, #x0007"]),
        (b"a: 1\nb: \xff\n", ["some.yaml:2:4: is not UTF-8 text"]),
        ("[" * 3000, ["some.yaml:1:1: is nested too deeply"]),
        ("a: 1\n---\nb: 2\n", ["some.yaml:2:1: expected a single document"]),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str | bytes, wrong: list[str], tmp_path: Path) -> None:
    said = complaints(tmp_path, text)
    assert len(said) == len(wrong)
    for line, start in zip(said, wrong, strict=True):
        assert line.startswith(start)


def test_all_that_is_wrong_is_said_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = (
        "defaults:\n  sedes: 2\nexperiments:\n  a:\n    command: lr-range\n    depth: 0\n    variant: prelm\n"
        "  b:\n    command: lr-range\n    heads: 5\n  c:\n    command: warm-up\n"
    )
    places = [line.split(": ")[:2] for line in complaints(tmp_path, text)]
    assert places == [
        ["some.yaml:2:3", "defaults.sedes"],
        ["some.yaml:6:12", "experiments.a.depth"],
        ["some.yaml:7:14", "experiments.a.variant"],
        ["some.yaml:8:3", "experiments.b"],
        ["some.yaml:12:14", "experiments.c.command"],
    ]


def test_defaults_go_to_the_experiments_that_have_them_and_give_way(tmp_path: Path) -> None:
    text = (
        "defaults: {seeds: 2, depth: 3, depths: [1, 2], profile: full}\nexperiments:\n"
        "  a: {command: lr-range, seeds: 4}\n  b: {command: depth-sweep, profile: quick}\n"
    )
    a, b = loaded(tmp_path, text)
    assert (a.given, a.profile) == ({"seeds": "4", "depth": 3}, "full")
    assert (b.given, b.profile) == ({"seeds": "2", "depths": (1, 2)}, "quick")


WORDS = st.sampled_from(
    [
        "experiments",
        "defaults",
        "command",
        "lr-range",
        "depth-sweep",
        "a",
        "seeds",
        "variant",
        "pre-ln",
        "depth",
        "tied",
    ]
)
SCALARS = st.one_of(WORDS, st.integers(), st.floats(), st.booleans(), st.none(), st.text(max_size=6))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=4)),
    max_leaves=12,
)


@st.composite
def mangled(draw: st.DrawFn) -> bytes:
    """A file of the package with a few pieces of it replaced, doubled or cut out."""
    content = bytearray(draw(st.sampled_from(sorted(SHIPPED.glob("*.yaml")))).read_bytes())
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        stop = min(len(content), start + draw(st.integers(0, 12)))
        content[start:stop] = draw(
            st.one_of(st.binary(max_size=6), st.just(bytes(content[start:stop]) * 2), WORDS.map(str.encode))
        )
    return bytes(content)


FILES = st.one_of(
    mangled(),
    st.binary(max_size=60),
    st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")),
    VALUES.map(lambda value: yaml.safe_dump(value).encode()),
    st.fixed_dictionaries({"experiments": st.dictionaries(st.text(max_size=5), VALUES, max_size=3)}).map(
        lambda value: yaml.safe_dump(value, allow_unicode=True).encode()
    ),
)


@settings(max_examples=400, deadline=None)
@given(content=FILES)
def test_no_file_whatsoever_gives_a_traceback_or_an_error_without_its_place(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.yaml"
    path.write_bytes(content)
    try:
        load_scenario(path)
    except ConfigError as error:
        *lines, last = str(error).splitlines()
        assert lines
        assert all(PLACED.fullmatch(line) for line in lines), lines
        assert last.endswith("nothing was trained")


@pytest.mark.parametrize("name", [path.stem for path in sorted(SHIPPED.glob("*.yaml"))])
def test_a_shipped_scenario_opens_with_question_cost_and_answer_and_is_valid(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (SHIPPED / f"{name}.yaml").read_text()
    opening = text[: text.index("\n\n")]
    assert opening.index("?") < opening.index("# Cost: ") < opening.index("# Expected")
    assert shipped_scenarios()[name].summary.endswith("?")
    jsonschema.validate(yaml.load(text, yaml.SafeLoader), scenario_schema(), jsonschema.Draft202012Validator)
    assert run(["validate", name]) == 0
    assert f"{name}: " in capsys.readouterr().out


def test_every_experiment_has_a_shipped_scenario() -> None:
    asked = {experiment.command for path in SHIPPED.glob("*.yaml") for experiment in load_scenario(path).experiments}
    assert asked == set(EXPERIMENTS)
    assert {"smoke", *EXPERIMENTS} <= set(shipped_scenarios())


@pytest.mark.parametrize(
    "wrong", [{"experiments": {"a": {"command": "lr-range", "depths": [1]}}}, {"defaults": {}}, {"experiments": {}}]
)
def test_the_schema_refuses_what_the_reader_refuses(wrong: Any, tmp_path: Path) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, scenario_schema(), jsonschema.Draft202012Validator)
    assert complaints(tmp_path, yaml.safe_dump(wrong))


SMALL = """
defaults: {device: cpu, width: 8, heads: 2, seq_len: 8, batch_size: 2, num_steps: 20, hold_steps: 20, seeds: 2}
experiments:
  one: {command: lr-range, depth: 1, variant: pre-ln}
  two: {command: depth-sweep, depths: [1], variant: pre-ln, init_only: true}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a small scenario, and no settings from outside."""
    monkeypatch.chdir(tmp_path)
    for name in ("PROFILE", "SEEDS"):
        monkeypatch.delenv(f"STRESSTEST_{name}", raising=False)
    (tmp_path / "small.yaml").write_text(SMALL)
    return tmp_path


def test_a_scenario_runs_and_its_results_are_those_of_the_lines_that_it_names(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["run", "small.yaml", "-j", "1", "--json", "-q"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["results"]) == ["one", "two"]
    for result in found["results"].values():
        assert run([*result["reproduce"].split()[1:], "-j", "1", "--json", "-q"]) == 0
        again = json.loads(capsys.readouterr().out)
        assert again["summary"] == result["summary"]
        assert again["spec"] == result["spec"]
    [folder] = project.glob(".stresstest/runs/*-small")
    assert {path.parent.name for path in folder.glob("*/result.json")} == {"one", "two"}
    assert run(["run", "small.yaml", "-j", "1"]) == 0
    assert "cells were already finished; nothing to train" in capsys.readouterr().err
    assert run(["status", str(folder)]) == 0
    assert "two: depth-sweep, 2 cells: 2 done" in capsys.readouterr().out


def test_max_cells_counts_over_the_experiments(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["run", "small.yaml", "-j", "1", "-q", "--max-cells", "3"]) == 0
    assert capsys.readouterr().err.endswith("to go on: stresstest run small.yaml\n")
    assert run(["status"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith(" ")]
    assert [line.partition(": ")[2] for line in lines] == [
        "lr-range, 2 cells: 2 done",
        "depth-sweep, 2 cells: 1 done, 1 waiting",
    ]
    assert run(["run", "small.yaml", "-j", "1", "-q"]) == 0
    assert len(list(project.glob(".stresstest/runs/*/*/result.json"))) == 2


def test_fail_fast_ends_the_scenario(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["run", "small.yaml", "-j", "1", "-q", "--seeds", "1", "--fail-fast", "--cell-timeout", "0.0001"]) == 4
    assert [path.parent.name for path in project.glob(".stresstest/runs/*/*/manifest.json")] == ["one"]


def test_a_folder_is_of_a_scenario_or_of_one_experiment(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["run", "small.yaml", "-j", "1", "-q", "--run-dir", "s"]) == 0
    line = ["lr-range", "--depth", "1", "--width", "8", "--num-steps", "20", "--hold-steps", "20", "--run-dir"]
    assert run([*line, "s"]) == 2
    assert run([*line, "l", "--max-cells", "1", "-q", "-j", "1"]) == 0
    assert run(["run", "small.yaml", "--run-dir", "l"]) == 2
    said = capsys.readouterr().err
    assert "run directory s holds the runs of a scenario" in said
    assert "run directory l holds a run of a single experiment" in said


def test_a_merge_misses_an_experiment_that_no_shard_reached(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for index in (1, 2):
        assert run(["run", "small.yaml", "-j", "1", "-q", "--shard", f"{index}/2", "--run-dir", f"s{index}"]) == 0
        assert f"stresstest merge s{index} ..." in capsys.readouterr().err
        shutil.rmtree(project / f"s{index}" / "two")
    assert run(["merge", "s1", "s2"]) == 2
    assert "s1/two is not a run directory" in capsys.readouterr().err


def test_validate_hears_the_environment(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STRESSTEST_HEADS", "3")
    assert run(["validate", "small.yaml"]) == 2
    assert "width 8 is not divisible by heads 3" in capsys.readouterr().err


def test_shards_of_a_scenario_merge_to_the_same_results(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["run", "small.yaml", "-j", "1", "-q"]) == 0
    [whole] = project.glob(".stresstest/runs/*-small")
    for index in (1, 2):
        arguments = ["run", "small.yaml", "-j", "1", "-q", "--fresh", "--shard", f"{index}/2", "--run-dir", f"s{index}"]
        assert run(arguments) == 0
        assert not list((project / f"s{index}").glob("*/result.json"))
    assert run(["merge", "s1", "--run-dir", "m"]) == 2
    assert "1 of 2 cells are missing from these runs" in capsys.readouterr().err
    assert not (project / "m").exists()
    assert run(["merge", "s1", "s2", "--run-dir", "m"]) == 0
    for name in ("one", "two"):
        merged, expected = (json.loads((path / name / "result.json").read_text()) for path in (project / "m", whole))
        assert merged["summary"] == expected["summary"]


def test_the_line_goes_before_the_environment_the_scenario_the_project(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "pyproject.toml").write_text("[tool.stresstest]\nseeds = 9\nclip-norm = 0.5\nbatch-size = 7\n")
    monkeypatch.setenv("STRESSTEST_NUM_STEPS", "33")
    monkeypatch.setenv("STRESSTEST_WIDTH", "12")
    assert run(["run", "small.yaml", "--dry-run", "--width", "16"]) == 0
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    for row in (
        ["width", "16", "command", "line"],
        ["num_steps", "33", "environment"],
        ["seeds", "0,1", "small.yaml"],
        ["batch_size", "2", "small.yaml"],
        ["clip_norm", "0.5", "pyproject.toml"],
    ):
        assert shown.count(row) == 2, "in both experiments"
    assert not (project / ".stresstest").exists()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (
            ["run", "smok"],
            "scenario 'smok' not found, neither as a file nor among the shipped ones; did you mean 'smoke'?",
        ),
        (
            ["run", "small.yaml", "--data", "path:none"],
            "small.yaml:4:3: experiments.one: data file 'none' does not exist",
        ),
        (["run", "one.yaml", "--depths", "3"], "no experiment of one.yaml has the setting --depths"),
        (["run", "small.yaml", "--shard", "3/2"], "invalid shard '3/2'"),
        (["run", "small.yaml", "--slurm", "gpu"], "'gpu' is not KEY=VALUE"),
        (["run", "x" * 300], "scenario 'xxx"),
        (["validate", "small.yaml", "."], "scenario '.' not found"),
        (["schema", "cells"], "'cells'"),
    ],
)
def test_bad_input_is_refused_with_code_2_before_any_training(
    args: list[str], said: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "one.yaml").write_text("experiments: {a: {command: lr-range}}\n")
    assert run(args) == 2
    err = capsys.readouterr().err
    assert said in err.splitlines()[-1]
    assert not (project / ".stresstest").exists()


def test_the_schemas_are_printed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schema"]) == 0
    jsonschema.Draft202012Validator.check_schema(json.loads(capsys.readouterr().out))
    assert run(["schema", "result"]) == 0
    assert "cells" in json.loads(capsys.readouterr().out)["properties"]
