"""The part of a cell's key that stands for the code: a hash of the modules that decide a number.

What is hashed is what a module does, not how it reads: comments, layout, docstrings, the messages of errors and
what a table says to readers are left out.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from stresstest.runs.identity import PACKAGE

# All that a worker imports to train and measure a cell. A pattern that finds nothing is an error.
DECIDES = (
    "engine/*.py",
    "engine/native/*.py",
    "engine/native/*.cpp",
    "engine/native/*.h",
    "experiments/batch_sweep/spec.py",
    "experiments/*/measure.py",
    "experiments/scale/coords/measure.py",
    "experiments/sizes/path.py",
    "experiments/shock/*.py",
    "experiments/training.py",
    "measurements/*.py",
    "models/*.py",
    "results/bracket.py",
    "results/outcome.py",
    "results/scores.py",
    "specs/parsing.py",
    "tasks/*.py",
    "user_model/*.py",
    "user_model/*/*.py",
)

# What a worker imports as well, or a pattern above finds, and why no number depends on it.
DECIDES_NOTHING: Mapping[str, str] = {
    "errors.py": "exceptions and exit codes",
    "installation.py": "says how to install what is missing",
    "process_state.py": "puts back what the user's code changed in the process",
    "experiments/kept_task.py": "puts back what the user's code changed in the process",
    "json_text.py": "reads what others have written, or says that it cannot",
    "lazy.py": "imports what others compute with, once they do",
    "registry.py": "looks names up",
    "user_code.py": "puts what the user's code raises into words",
    "engine/machine.py": "says how much memory is free: how many replicas train at once, not how",
    "measurements/journal.py": "stores the state of training and gives it back",
    "reports/numbers.py": "how numbers are written",
    "results/brief.py": "how records print",
    "results/cell.py": "the form of what is stored",
    "results/sums.py": "checksums of what is stored",
    "runs/cell_lines.py": "the form of what is stored",
    "results/metrics.py": "says what a metric means",
    "results/records.py": "the form of what is stored",
    "results/shocks.py": "the form of what is stored",
    "results/size_laws.py": "the form of what is stored",
    "results/statistics.py": "summaries over the seeds of cells that have ended",
    "results/typed.py": "the form of what is stored",
    "runs/fingerprint.py": "makes the key",
    "runs/identity.py": "makes the key",
    "runs/executor.py": "runs what decides",
    "runs/worker_process.py": "runs what decides",
    "runs/live.py": "tells how far training is",
    "runs/ranks.py": "lets several processes train one cell",
    "runs/stopping.py": "says when to stop; what was in training goes on from its journal",
    "specs/base.py": "settings, whose values are in the key",
    "specs/kinds.py": "settings, whose values are in the key",
    "specs/boundary.py": "settings, whose values are in the key",
    "specs/lr_grid.py": "settings, whose values are in the key",
    "experiments/depth_sweep/spec.py": "settings, whose values are in the key",
    "experiments/lr_range/spec.py": "settings, whose values are in the key",
    "experiments/scale/spec.py": "settings, whose values are in the key",
    "experiments/sizes/spec.py": "settings, whose values are in the key",
    "experiments/sizes/models.py": "refuses what cannot grow, before anything is trained",
    "experiments/race/spec.py": "settings, whose values are in the key",
    "experiments/shock/spec.py": "settings, whose values are in the key",
    **dict.fromkeys(
        (
            f"experiments/shock/{name}.py"
            for name in "charts contrasts document experiment findings naming rows tables untrained verdicts".split()
        ),
        "tells what was measured",
    ),
    "experiments/shock/checks.py": "refuses what a model cannot take, before anything is trained",
    "experiments/warmup/spec.py": "settings, whose values are in the key",
    **dict.fromkeys(
        (
            "experiments/arms.py",
            "experiments/kernel.py",
            "experiments/plan.py",
            "experiments/warmup/map.py",
            "experiments/warmup/search.py",
            "experiments/warmup/sensitivity.py",
            "experiments/warmup/study.py",
            "results/summary.py",
            "runs/directory.py",
            "runs/settings.py",
            "runs/store.py",
        ),
        "says which cells there are, each with its settings in its key",
    ),
    "experiments/parametrized.py": "refuses what a parametrization has no rule for, before anything is trained",
    "user_model/causality.py": "refuses a model before it is trained",
    "user_model/lr_response.py": "notes on an optimizer before anything is trained",
    "user_model/objective.py": "refuses a model before it is trained",
    "user_model/preflight.py": "refuses a model before it is trained",
    "specs/profiles.py": "defaults of settings, which are in the key",
}

_FOR_READERS = frozenset({"description", "formula", "source", "summary"})  # arguments of settings and tables


@lru_cache(maxsize=1)
def code_fingerprint() -> str:
    """Hash of what the modules of `DECIDES` do: some 0.3 seconds, once a process."""
    return fingerprint_of(PACKAGE)


def fingerprint_of(package: Path) -> str:
    """The same of the package in a folder."""
    digest = hashlib.blake2b(digest_size=8)
    for path in deciding(package):
        digest.update(f"{path.relative_to(package).as_posix()}\n".encode())
        digest.update(_meaning(path))
    return digest.hexdigest()


def deciding(package: Path = PACKAGE) -> list[Path]:
    """The modules of `DECIDES` without those of `DECIDES_NOTHING`; one that is not there is a `FileNotFoundError`."""
    left_out = {package / name for name in DECIDES_NOTHING}
    found: set[Path] = set()
    for pattern in DECIDES:
        matches = set(package.glob(pattern))
        if not matches:
            raise FileNotFoundError(f"no module {pattern} in {package}, which the keys of cells depend on")
        found |= matches
    missing = sorted(path for path in left_out if not path.exists())
    if missing:
        raise FileNotFoundError(f"no module {missing[0]}, which the keys of cells are said not to depend on")
    return sorted(found - left_out)


def _meaning(path: Path) -> bytes:
    """What a file does: of a Python module its words, of any other all of it."""
    text = path.read_bytes()
    return "\n".join(_words(ast.parse(text))).encode() if path.suffix == ".py" else text


def _words(tree: ast.AST) -> list[str]:
    """A syntax tree as words, the same for every Python that reads the text as the same tree."""
    words: list[str] = []
    _add(tree, words, for_readers=False)
    return words


def _add(node: ast.AST, words: list[str], for_readers: bool) -> None:
    """Append a node; of what is `for_readers` the text is left out, and what is computed stays."""
    if for_readers and (isinstance(node, ast.JoinedStr) or _is_text(node)):
        return
    for_readers |= isinstance(node, ast.Raise) or (isinstance(node, ast.keyword) and node.arg in _FOR_READERS)
    words.append(type(node).__name__)
    for name in node._fields:
        if name == "ctx" or (name == "msg" and isinstance(node, ast.Assert)):
            continue
        value = getattr(node, name, None)
        for part in value if isinstance(value, list) else (value,):
            if isinstance(part, ast.AST):
                if not (isinstance(part, ast.Expr) and _is_text(part.value)):  # a docstring
                    words.append(name)
                    _add(part, words, for_readers)
            elif part is not None:
                words.append(f"{name} {part!r}")
    words.append("end")


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)
