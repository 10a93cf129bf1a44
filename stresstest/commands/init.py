"""`stresstest init`: a model and a scenario to begin with, or a gate and its workflow."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from stresstest.errors import ConfigError, ExitCode
from stresstest.installation import install_command
from stresstest.reports.output import console

TEMPLATES = Path(__file__).parent / "templates"
_WORKFLOWS = {"github": ".github/workflows/stresstest.yml", "gitlab": "stresstest.gitlab-ci.yml"}
_INSTALL_LINE = "INSTALL-STRESSTEST"  # in the templates of the workflows


def write_start(folder: str, ci: str | None, install: str | None = None) -> int:
    """Write a model and a scenario for it, or for CI a model, a gate and a workflow; what is there stays as it is.

    `install` is what pip takes in the workflow. Where nothing is missing, that is a `ConfigError`.
    """
    if install is not None and ci is None:
        raise ConfigError("--install is for the workflow that --ci writes; give --ci github or --ci gitlab")
    second = {"stresstest.yaml": "stresstest.yaml"} if ci is None else {"gate.yaml": "gate.yaml"}
    workflow = {} if ci is None else {_WORKFLOWS[ci]: f"{ci}.yml"}
    templates = {"model.py": "model.py", **second, **workflow}
    kept = [name for name in templates if (Path(folder) / name).exists()]
    missing = [name for name in templates if name not in kept]
    if not missing:
        there = _joined(folder, kept)
        raise ConfigError(f"nothing to write: {there} are there and were left as they are; give another folder")
    line = install_command(Path(folder), install) if ci is not None and _WORKFLOWS[ci] in missing else ""
    _write(folder, {name: _template(templates[name]).replace(_INSTALL_LINE, line) for name in missing})
    out, here = console(), "" if folder == "." else f"cd {shlex.quote(folder)} && "
    if kept:
        out.print(f"kept {_joined(folder, kept)} as before", markup=False, soft_wrap=True)
    if line:
        out.print(f"the workflow runs {line}", markup=False, soft_wrap=True)
    out.print(f"wrote {_joined(folder, missing)}; next:", markup=False, soft_wrap=True)
    next_ = "lr-range --model model.py:build --variant pre-ln,post-ln" if ci is None else "validate gate.yaml"
    out.print(f"  {here}stresstest {next_}", markup=False, soft_wrap=True)
    if ci is not None:
        out.print(f"  commit them, and {here}stresstest check gate.yaml --base main", markup=False, soft_wrap=True)
    return ExitCode.OK


def _joined(folder: str, names: Sequence[str]) -> str:
    return ", ".join(str(Path(folder) / name) for name in names)


def _template(name: str) -> str:
    return (TEMPLATES / f"{name}.txt").read_text(encoding="utf-8")


def _write(folder: str, texts: Mapping[str, str]) -> None:
    """Write new files; one that is there is never opened for writing."""
    try:
        for name, text in texts.items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written ({error.strerror}); give another folder") from None
