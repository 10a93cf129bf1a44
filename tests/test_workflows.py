"""The repository's own workflows: they parse, may do no more than they need, and run what a developer runs."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = {path.stem: path for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def load(name: str) -> dict[str, Any]:
    """A workflow with every scalar as text: YAML reads a bare `on` as true."""
    loaded: dict[str, Any] = yaml.load(WORKFLOWS[name].read_text(encoding="utf-8"), yaml.BaseLoader)
    return loaded


def steps_of(name: str) -> Iterator[dict[str, Any]]:
    for job in load(name)["jobs"].values():
        yield from job["steps"]


def commands(name: str) -> str:
    return "\n".join(step["run"] for step in steps_of(name) if "run" in step)


def test_there_is_one_for_the_tests_the_docs_and_a_release() -> None:
    assert sorted(WORKFLOWS) == ["docs", "release", "tests"]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_each_job_is_complete_and_ends_in_time(name: str) -> None:
    workflow = load(name)
    assert {"name", "on", "permissions", "jobs"} <= set(workflow)
    for job in workflow["jobs"].values():
        assert job["runs-on"] == "ubuntu-latest"
        assert int(job["timeout-minutes"]) <= 60
        assert all(("uses" in step) != ("run" in step) for step in job["steps"])
        needed = job.get("needs", [])
        assert {needed} if isinstance(needed, str) else set(needed) <= set(workflow["jobs"])


@pytest.mark.parametrize("name", WORKFLOWS)
def test_actions_are_pinned_to_a_major_version(name: str) -> None:
    used = [step["uses"] for step in steps_of(name) if "uses" in step]
    assert used
    assert [action for action in used if not re.fullmatch(r"[\w.-]+/[\w.-]+@(release/)?v\d+", action)] == []


@pytest.mark.parametrize("name", WORKFLOWS)
def test_nobody_elses_text_reaches_a_shell_and_no_secret_a_pull_request(name: str) -> None:
    workflow = load(name)
    assert "${{" not in commands(name)
    assert "pull_request_target" not in workflow["on"]
    assert "secrets." not in WORKFLOWS[name].read_text()


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_may_read_and_only_a_release_may_write(name: str) -> None:
    workflow = load(name)
    assert workflow["permissions"] == {"contents": "read"}
    asked = {job: settings["permissions"] for job, settings in workflow["jobs"].items() if "permissions" in settings}
    expected = {"github": {"contents": "write"}, "index": {"id-token": "write"}}
    assert asked == (expected if name == "release" else {})
    checkouts = [step for step in steps_of(name) if step.get("uses", "").startswith("actions/checkout@")]
    assert all(step["with"]["persist-credentials"] == "false" for step in checkouts)


def test_the_tests_run_what_a_developer_runs_on_each_supported_python() -> None:
    workflow = load("tests")
    assert {"push", "pull_request"} == set(workflow["on"])
    assert commands("tests") == ".ci/run"
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
    named = [text.rpartition(" ")[2] for text in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", text)]
    assert workflow["jobs"]["tests"]["strategy"]["matrix"]["python"] == named
    assert PROJECT["requires-python"] == f">={named[0]}"


def test_the_docs_are_built_strictly_and_not_published() -> None:
    assert "mkdocs build --strict" in commands("docs")
    assert not re.search(r"deploy|pages", WORKFLOWS["docs"].read_text())


def test_a_release_is_built_once_from_a_tag_and_checked_before_it_goes_out() -> None:
    workflow = load("release")
    assert workflow["on"] == {"push": {"tags": ["v*"]}}
    build = [step.get("run", "") for step in workflow["jobs"]["build"]["steps"]]
    assert build.index("python -m build") < build.index("twine check --strict dist/*")
    name = PROJECT["name"].replace("-", "_")
    assert f'test -f "dist/{name}-${{GITHUB_REF_NAME#v}}.tar.gz"' in build
    assert [job for job, settings in workflow["jobs"].items() if settings.get("needs") == "build"] == [
        "github",
        "index",
    ]


def test_an_index_gets_a_release_only_where_that_is_switched_on() -> None:
    index = load("release")["jobs"]["index"]
    assert index["if"] == "vars.PUBLISH_TO_INDEX == 'true'"
    assert index["environment"] == "release"
    publishing = [name for name in WORKFLOWS if re.search(r"publish@|twine upload", WORKFLOWS[name].read_text())]
    assert publishing == ["release"]
