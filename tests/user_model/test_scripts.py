"""Files as people have them: in packages, and scripts that read their arguments when they are imported."""

import sys
from pathlib import Path

import pytest
from torch import nn

from stresstest.errors import ConfigError
from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.specs.profiles import make_spec
from stresstest.user_code import UserCodeError
from stresstest.user_model.factory import factory_of

_PARTS = "from torch import nn\nclass Wide(nn.Linear):\n    def __init__(self): super().__init__(2, 7)\n"


def made(path: Path) -> nn.Module:
    spec = make_spec(LrRangeSpec, "quick", {"model": f"{path}:build"})
    return factory_of(spec).make(0, "as-built", 1, 64)


@pytest.mark.parametrize(
    ("package", "line"),
    [("by_name_pkg", "from by_name_pkg.inner.parts import Wide"), ("relative_pkg", "from .parts import Wide")],
)
def test_a_file_in_a_package_imports_its_neighbours_as_its_package_does(
    tmp_path: Path, package: str, line: str
) -> None:
    inner = tmp_path / package / "inner"
    inner.mkdir(parents=True)
    for folder in (inner.parent, inner):
        (folder / "__init__.py").write_text("")
    (inner / "parts.py").write_text(_PARTS)
    (inner / "model.py").write_text(f"{line}\ndef build(): return Wide()\n")
    assert made(inner / "model.py").out_features == 7


def test_a_package_whose_init_cannot_be_imported_still_gives_a_file_that_does_without(tmp_path: Path) -> None:
    (tmp_path / "__init__.py").write_text("import no_such_library\n")
    (tmp_path / "model.py").write_text(f"{_PARTS}def build(): return Wide()\n")
    assert made(tmp_path / "model.py").out_features == 7


def test_a_script_that_reads_its_arguments_sees_its_own_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["stresstest", "lr-range", "--width", "64"])
    (tmp_path / "script.py").write_text(
        "import argparse\nfrom torch import nn\nparser = argparse.ArgumentParser()\n"
        "parser.add_argument('--width', type=int, default=5)\nargs = parser.parse_args()\n"
        "def build(): return nn.Linear(2, args.width)\n"
    )
    assert made(tmp_path / "script.py").out_features == 5
    assert sys.argv == ["stresstest", "lr-range", "--width", "64"]


def test_a_script_that_needs_arguments_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "needs.py").write_text(
        "import argparse\nparser = argparse.ArgumentParser()\nparser.add_argument('--dataset', required=True)\n"
        "args = parser.parse_args()\n"
    )
    with pytest.raises(ConfigError, match=r"needs\.py:build cannot be imported: it ends the program, .*exit code 2"):
        made(tmp_path / "needs.py")


def test_a_module_whose_parameters_cannot_be_listed_is_the_users_to_mend(tmp_path: Path) -> None:
    (tmp_path / "equal.py").write_text(
        "from torch import nn\nclass Net(nn.Linear):\n    def __eq__(self, other): return True\n"
        "def build(): return Net(2, 2)\n"
    )
    with pytest.raises(UserCodeError, match=r"parameters\(\) of Net raised TypeError: unhashable type: 'Net'"):
        made(tmp_path / "equal.py")


def test_an_object_that_is_no_model_is_told_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "thing.py").write_text("build = {'width': 3}\n")
    with pytest.raises(ConfigError, match=r"thing\.py:build: 'build' is a builtins\.dict; give a function, or"):
        made(tmp_path / "thing.py")
