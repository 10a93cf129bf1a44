"""The kernel is built where a compiler is, once, into a folder that nobody else writes to; else there is a reason."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stresstest.engine import native
from stresstest.engine.native import build
from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.specs.base import ModelSpec

SOURCE = 'extern "C" int answer() { return 42; }\n'
FAKE = '#!/bin/sh\nif [ "$1" = --version ]; then echo fake 1.0; exit 0; fi\n'


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source" / "tiny.cpp"
    path.parent.mkdir()
    path.write_text(SOURCE)
    return path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CXX", raising=False)
    return tmp_path / "cache" / "stresstest"


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One that copies an empty file to where it is told to, whatever this machine has."""
    path = tmp_path / "fake-c++"
    path.write_text(f'{FAKE}while [ "$1" != -o ]; do shift; done\necho built >> "{tmp_path}/calls"\n: > "$2"\n')
    path.chmod(0o700)
    monkeypatch.setenv("CXX", str(path))
    return path


def test_without_a_compiler_there_is_a_reason(home: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert build.make_kernel(source).reason.startswith(
        "install a C++ compiler for the native kernel: g++, clang++ or c++"
    )
    monkeypatch.setenv("CXX", "/no/such/compiler -O1")
    assert "$CXX, /no/such/compiler -O1, cannot be run" in build.make_kernel(source).reason
    assert not home.exists()


def test_a_compiler_that_fails_is_a_reason_with_its_error(home: Path, source: Path, compiler: Path) -> None:
    compiler.write_text(f"{FAKE}echo noise >&2; echo 'tiny.cpp:1: error: no luck' >&2; exit 1\n")
    assert build.make_kernel(source).reason.endswith("cannot compile the native kernel: tiny.cpp:1: error: no luck")
    assert list(home.iterdir()) == []


def test_what_is_built_is_found_again_until_anything_changes(
    home: Path, source: Path, compiler: Path, tmp_path: Path
) -> None:
    for _ in range(2):
        assert "cannot be loaded" in build.make_kernel(source).reason  # an empty file cannot be loaded
    assert (tmp_path / "calls").read_text().splitlines() == ["built"]
    assert home.stat().st_mode & 0o777 == 0o700
    source.with_name("part.h").write_text("// Another header.\n")
    build.make_kernel(source)
    compiler.write_text(compiler.read_text().replace("fake 1.0", "fake 2.0"))
    build.make_kernel(source)
    assert len([path for path in home.iterdir() if path.suffix == ".so"]) == 3


@pytest.mark.parametrize("what", ["folder", "file"])
def test_what_others_can_write_is_not_loaded(home: Path, source: Path, compiler: Path, what: str) -> None:
    build.make_kernel(source)
    path = home if what == "folder" else next(home.iterdir())
    path.chmod(0o777)
    assert build.make_kernel(source).reason.startswith(f"let nobody but you own or write {path}")


def test_a_folder_that_cannot_be_made_is_a_reason(home: Path, source: Path, compiler: Path) -> None:
    home.parent.write_text("a file is in the way")
    assert build.make_kernel(source).reason.startswith("set XDG_CACHE_HOME to a folder of yours")


@pytest.mark.parametrize("flag", ["-ffast-math", "-Ofast", "-funsafe-math-optimizations"])
def test_no_flag_of_the_compilers_makes_denormal_numbers_zero(
    home: Path, source: Path, monkeypatch: pytest.MonkeyPatch, flag: str
) -> None:
    monkeypatch.setenv("CXX", f"g++ {flag}")
    line = (
        "import sys; from pathlib import Path; from stresstest.engine.native import build\n"
        "made, smallest = build.make_kernel(Path(sys.argv[1])), sys.float_info.min\n"
        "assert smallest / 2 > 0, made\n"
        "print(made.library is not None)"
    )
    done = subprocess.run([sys.executable, "-c", line, str(source)], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == str(shutil.which("g++") is not None), "it was loaded wherever it can be built"


def test_two_processes_that_build_at_once_have_one_kernel(home: Path, source: Path) -> None:
    line = (
        "import sys; from pathlib import Path; from stresstest.engine.native import build\n"
        f"kernel = build.make_kernel(Path({str(source)!r}))\n"
        "print(kernel.library.answer() if kernel.library else kernel.reason)"
    )
    both = [subprocess.Popen([sys.executable, "-c", line], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = {process.communicate()[0].strip() for process in both}
    kernel = build.make_kernel(source)
    assert said == {"42" if kernel.library else kernel.reason}
    assert not home.exists() or len(list(home.iterdir())) == 1


@pytest.mark.parametrize(
    ("settings", "dtype", "device", "reason"),
    [
        ({"model": "mlp"}, "float32", "cpu", ""),
        ({"model": "mlp", "norm": "none"}, "float32", "cpu", ""),
        ({"model": "decoder"}, "float32", "cpu", "the native kernel trains model mlp alone, and this is decoder"),
        ({"model": "mlp"}, "float32", "cuda", "the native kernel runs on a CPU, and the device is cuda"),
        ({"model": "mlp"}, "bfloat16", "cpu", "the native kernel computes in float32, and the dtype is bfloat16"),
        (
            {"model": "mlp", "norm": "dyt"},
            "float32",
            "cpu",
            "the native kernel has the norms layer-norm, rms-norm, none, and this is dyt",
        ),
    ],
)
def test_what_it_takes_is_said_without_a_compiler(
    settings: dict[str, str], dtype: str, device: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    spec = ModelSpec.model_validate(settings)
    for optimizer in OPTIMIZERS.values():
        assert native.takes(spec, "rezero", {}, optimizer, dtype, device) == reason


def test_asking_imports_no_torch() -> None:
    line = "import sys; from stresstest.engine import native; native.ready(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
