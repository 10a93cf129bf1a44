"""What a project's pyproject.toml says; where it says nothing of stresstest, no settings are imported for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stresstest.errors import ConfigError
from stresstest.experiments.table import EXPERIMENTS
from stresstest.registry import did_you_mean

_RUN_SETTINGS = ("profile", "jobs", "run_dir")


def project_defaults(path: Path) -> dict[str, Any]:
    """[tool.stresstest]: settings for every command, and a table of the command's name for its own."""
    if not path.is_file():
        return {}
    import tomllib

    try:
        tool = tomllib.loads(path.read_text()).get("tool", {})
        table = tool.get("stresstest", {}) if isinstance(tool, dict) else {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    except RecursionError:
        raise ConfigError(f"{path} cannot be read: it is nested too deeply") from None
    if table == {}:
        return {}
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: tool.stresstest is {table!r}; write a table, [tool.stresstest]")
    return _defaults(path, table)


def _defaults(path: Path, table: Mapping[str, Any]) -> dict[str, Any]:
    own = {key: value for key, value in table.items() if isinstance(value, dict)}
    shared = {key: value for key, value in table.items() if key not in own}
    for command in own:
        if command not in EXPERIMENTS:
            raise ConfigError(f"{path}: unknown table [tool.stresstest.{command}]{did_you_mean(command, EXPERIMENTS)}")
    everywhere = {name for spec in EXPERIMENTS.specs.values() for name in spec.model_fields}
    _check_known(path, "tool.stresstest", shared, everywhere)
    everyones = {key.replace("-", "_"): value for key, value in shared.items()}
    defaults = {"run": {key: value for key, value in everyones.items() if key == "jobs"}}
    for command, spec in EXPERIMENTS.specs.items():
        _check_known(path, f"tool.stresstest.{command}", own.get(command, {}), set(spec.model_fields))
        mine = {key.replace("-", "_"): value for key, value in {**shared, **own.get(command, {})}.items()}
        accepted = {*spec.model_fields, *_RUN_SETTINGS}
        defaults[command] = {key: _as_typed(key, value) for key, value in mine.items() if key in accepted}
    return defaults


def _check_known(path: Path, where: str, settings: Mapping[str, Any], fields: set[str]) -> None:
    known = sorted(fields) + list(_RUN_SETTINGS)
    for key in settings:
        if key.replace("-", "_") not in known:
            raise ConfigError(f"{path}: unknown setting '{key}' in [{where}]{did_you_mean(key, known)}")


def _as_typed(key: str, value: Any) -> Any:
    """A value of TOML as it would stand on the command line."""
    from stresstest.cli.options import REPEATED
    from stresstest.scenario.request import plain

    text = plain(value)
    return [text] if key in REPEATED else text
