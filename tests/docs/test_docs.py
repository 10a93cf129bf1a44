"""The documentation: current, complete, without dead links, and with commands that the command line understands."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from stresstest.cli.commands import cli
from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.engine.schedules import DECAYS, WARMUPS
from stresstest.experiments.table import EXPERIMENTS
from stresstest.models.variants import NORMS, VARIANTS
from stresstest.results.metrics import METRICS
from stresstest.specs.kinds import MODELS
from stresstest.tasks.images import IMAGE_SOURCES
from stresstest.tasks.language import DATA_SOURCES
from stresstest.tasks.translation import PAIR_SOURCES

COMMANDS: Mapping[str, click.Command] = {
    name: command
    for name in cli.list_commands(click.Context(cli))
    if (command := cli.get_command(click.Context(cli), name)) is not None
}
ROOT = Path(__file__).parents[2]
OF_THE_ROOT = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
EXTRAS: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
NAMES: dict[str, list[str]] = {
    "command": [name for name, command in COMMANDS.items() if not isinstance(command, click.Group)],
    "setting": sorted({name for spec in EXPERIMENTS.specs.values() for name in spec.model_fields}),
    "metric": list(METRICS),
    "model": list(MODELS),
    "norm": list(NORMS),
    "variant": list(VARIANTS),
    "optimizer": list(OPTIMIZERS),
    "schedule": [*WARMUPS, *DECAYS],
    "data source": [*DATA_SOURCES, *PAIR_SOURCES, *IMAGE_SOURCES],
}
WHERE = {
    "command": "commands",
    "setting": "settings",
    "metric": "metrics",
    "model": "models",
    "norm": "models",
    "variant": "variants",
    "optimizer": "optimizers",
    "schedule": "schedules",
    "data source": "data",
}


def generate(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the script of a checkout."""
    line = [sys.executable, str(root / "docs/_generate.py"), *options]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def links(page: Path) -> Iterator[str]:
    """Targets of links and images, but for those to other sites."""
    text = re.sub(r"`[^`\n]*`", "", without_code(page.read_text()))
    for target in re.findall(r"\[[^\]]*\]\(([^()\s]+)\)", text):
        if not re.match(r"https?:|mailto:", target):
            yield target


def anchors(page: Path) -> set[str]:
    """What headings can be linked to by."""
    headings = re.findall(r"^#+ (.+)$", without_code(page.read_text()), re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


def command_lines() -> list[str]:
    """Every line of a block of code that runs stresstest, typed or shown with what it prints."""
    blocks = [
        block
        for page in [*OF_THE_ROOT, *PAGES]
        for block in re.findall(r"^```\w*\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    ]
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    parts = [part.strip().removeprefix("$ ") for line in lines for part in line.split("&&")]
    typed = [part for part in parts if re.match(r"stresstest [^:]", part) and not re.match(r"stresstest \w+: ", part)]
    return sorted({part for part in typed if not re.search(r"[\[<{]|\.\.\.", part)})


def test_generated_pages_are_current() -> None:
    done = generate(ROOT, "--check")
    assert done.returncode == 0, done.stderr


def test_a_stale_page_is_named_and_written_anew(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    for path in OF_THE_ROOT:
        shutil.copy(path, tmp_path)
    (tmp_path / "stresstest").symlink_to(ROOT / "stresstest")
    if (ROOT / "scenarios").exists():
        (tmp_path / "scenarios").symlink_to(ROOT / "scenarios")
    page = tmp_path / "docs/reference/metrics.md"
    text = page.read_text()
    page.write_text(text.replace("max_stable_lr", "max_lr"))
    stale = generate(tmp_path, "--check")
    assert (stale.returncode, stale.stderr) == (1, "docs/reference/metrics.md is stale; run python docs/_generate.py\n")
    assert generate(tmp_path).returncode == 0
    assert page.read_text() == text


@pytest.mark.parametrize("kind", NAMES)
def test_everything_that_a_table_has_is_on_its_page(kind: str) -> None:
    text = (ROOT / f"docs/reference/{WHERE[kind]}.md").read_text()
    missing = [name for name in NAMES[kind] if f"`{name}`" not in text and f"## {name}\n" not in text]
    assert not missing, f"docs/reference/{WHERE[kind]}.md names no {kind} {', '.join(missing)}"


def test_every_option_is_on_the_page_of_commands() -> None:
    text = (ROOT / "docs/reference/commands.md").read_text()
    options = {
        spelled
        for command in walk(cli)
        for option in command.params
        if isinstance(option, click.Option)
        for spelled in option.opts
    }
    assert not [option for option in sorted(options) if f"`{option}`" not in text]


def walk(group: click.Group) -> Iterator[click.Command]:
    for command in group.commands.values():
        yield from walk(command) if isinstance(command, click.Group) else [command]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_shown_in_use(name: str) -> None:
    assert any(line.split()[1] == name for line in command_lines())


def test_every_command_line_is_understood() -> None:
    for line in command_lines():
        _, name, *args = shlex.split(line, comments=True)
        assert name in COMMANDS, line
        COMMANDS[name].make_context(name, args)  # raises where an option is unknown


@pytest.mark.parametrize("page", [*OF_THE_ROOT, *PAGES], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in links(page):
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{target}: file not found"
        assert not anchor or anchor in anchors(found), f"{target}: heading not found"


def test_every_script_and_folder_that_is_named_exists() -> None:
    named = {
        path
        for page in [*OF_THE_ROOT, *PAGES]
        for path in re.findall(
            r"(?<![\w./-])((?:tests|stresstest|docs)/[\w./-]*\w(?:/|\.py|\.md))(?![\w/])", page.read_text()
        )
    }
    missing = sorted(path for path in named if not (ROOT / path).exists() and "NAME" not in path)
    assert not missing


def test_the_readme_is_short() -> None:
    text = (ROOT / "README.md").read_bytes()
    assert len(text.splitlines()) <= 200
    assert len(text) <= 14_336


def test_the_readme_shows_a_report() -> None:
    images = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", (ROOT / "README.md").read_text())
    assert images
    for image in images:
        assert (ROOT / image).stat().st_size < 300_000


def test_the_site_has_every_page_and_no_other() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    assert sorted(pages_of(nav)) == [page.relative_to(ROOT / "docs").as_posix() for page in PAGES]


def pages_of(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    for part in nav.values() if isinstance(nav, Mapping) else nav if isinstance(nav, list) else []:
        yield from pages_of(part)


def test_the_site_fetches_nothing() -> None:
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    assert site["strict"] is True
    assert site["theme"]["font"] is False
    assert "analytics" not in site.get("extra", {})


def test_every_optional_package_is_named_for_those_without_a_checkout() -> None:
    text = (ROOT / "docs/get-started.md").read_text()
    for extra, requirements in EXTRAS.items():
        assert f"`{extra}`" in text
        if extra not in ("test", "lint", "docs"):
            quoted = " ".join(f"'{requirement}'" for requirement in requirements)
            assert f"`pip install {quoted}` | `{extra}` |" in text


def test_what_builds_the_site_is_pinned() -> None:
    pinned = {line.partition("==")[0] for line in (ROOT / ".ci/constraints.txt").read_text().splitlines()}
    assert {re.split("[<>=]", requirement)[0] for requirement in EXTRAS["docs"]} <= pinned


def test_the_citation_is_complete() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "version", "license"} <= set(citation)
