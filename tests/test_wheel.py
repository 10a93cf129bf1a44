"""The package works from a wheel, from an editable install and from a bare checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCENARIOS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "scenarios").rglob("*.yaml"))
WAYS = ("wheel", "editable", "checkout")


@dataclass(frozen=True)
class Copy:
    """A way to have stresstest: how its command starts, and with what in the environment."""

    command: list[str]
    environment: dict[str, str]

    def run(self, folder: Path, *words: str) -> str:
        """What the command prints in an empty directory; it must succeed."""
        folder.mkdir(exist_ok=True)
        return _output([*self.command, *words], folder, self.environment)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    _output([*pip, "-w", str(folder), str(ROOT)], folder, {})
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the tests run with, without stresstest: links, so that its metadata is nowhere to be found."""
    folder = tmp_path_factory.mktemp("packages")
    for entry in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if "stresstest" not in entry.name:
            (folder / entry.name).symlink_to(entry)
    return folder


@pytest.fixture(scope="module")
def copies(wheel: Path, packages: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Copy]:
    folder = tmp_path_factory.mktemp("environments")
    return {
        "wheel": _installed(folder / "wheel", packages, str(wheel)),
        "editable": _installed(folder / "editable", packages, "-e", str(ROOT)),
        "checkout": Copy([sys.executable, "-S", "-m", "stresstest"], {"PYTHONPATH": f"{ROOT}:{packages}"}),
    }


def test_the_wheel_holds_the_scenarios_and_the_data_of_the_package_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert sorted(name for name in names if "/scenarios/" in name) == [f"stresstest/{name}" for name in SCENARIOS]
    package = ROOT / "stresstest"
    sources = [path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert {"stresstest/py.typed", "stresstest/reports/page.html.j2", "stresstest/commands/templates/gate.yaml.txt"} < {
        *names
    }
    assert {path.relative_to(ROOT).as_posix() for path in sources} <= {*names}
    assert {name.split("/")[0].split("-")[0] for name in names} == {"stresstest", "train_stresstest"}


@pytest.mark.parametrize("way", WAYS)
def test_every_copy_lists_its_scenarios_and_plans_a_run_from_an_empty_directory(
    copies: dict[str, Copy], way: str, tmp_path: Path
) -> None:
    listed = copies[way].run(tmp_path, "list", "scenarios")
    names = [name.removeprefix("scenarios/").removesuffix(".yaml") for name in SCENARIOS]
    assert [name for name in names if name not in listed] == []
    assert "smoke" in copies[way].run(tmp_path, "run", "smoke", "--dry-run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("way", WAYS)
def test_every_copy_runs_its_own_code_and_says_its_version(copies: dict[str, Copy], way: str, tmp_path: Path) -> None:
    version = "unknown" if way == "checkout" else "0.1.0"
    assert copies[way].run(tmp_path, "--version").split()[-1] == version
    assert f"train-stresstest {version}" in copies[way].run(tmp_path, "doctor")


def _installed(folder: Path, packages: Path, *what: str) -> Copy:
    """A fresh environment with stresstest installed in it, beside the packages that the tests run with."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-index"]
    site = next(folder.glob("lib/python*/site-packages"))
    (site / "packages.pth").write_text(f"{packages}\n")
    _output([*pip, "--no-build-isolation", *what], folder, {})
    return Copy([str(folder / "bin" / "stresstest")], {})


def _output(words: list[str], folder: Path, environment: dict[str, str]) -> str:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        words,
        cwd=folder,
        env={**inherited, "OMP_NUM_THREADS": "1", "COLUMNS": "160", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
