"""What stands behind `hf:`: a model type, a config's file or a folder, each with a task behind a colon if asked for."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stresstest.errors import ConfigError
from stresstest.json_text import parse_json
from stresstest.registry import did_you_mean
from stresstest.user_model.hugging_face.families import (
    FAMILIES,
    Family,
    family_of_architecture,
    natural_family,
)

ADAPTER = "adapter_config.json"
_SUGGESTIONS = 5


@dataclass(frozen=True)
class Named:
    """What a path names: the type's config class, the settings of its config, its family; folders of weights."""

    path: str
    kind: str
    config_class: Any
    settings: Mapping[str, Any]
    family: Family
    file: Path | None = None  # the config's
    folder: Path | None = None  # with weights
    adapter: Path | None = None  # a folder of peft's

    @property
    def is_type(self) -> bool:
        """Whether the path names a type alone."""
        return self.file is None


def named(path: str, args: Mapping[str, Any]) -> Named:
    """Read `hf:WHAT[:TASK]`; what cannot be is a `ConfigError`."""
    what, task = _split(path)
    if not what or what.startswith(":"):
        raise ConfigError(f"{path} names no model; give hf:TYPE such as hf:gpt2, hf:FOLDER or hf:FILE.json")
    place = Path(what).expanduser()
    if place.is_dir():
        return _folder(path, place, task, args)
    if what.endswith(".json"):
        return _described(path, _stored(path, place), task, args, file=place)
    return _described(path, {"model_type": what}, task, args)


def _split(path: str) -> tuple[str, str]:
    what = path.removeprefix("hf:")
    name, _, task = what.rpartition(":")
    if not name or Path(what).exists():
        return what, ""
    if task not in FAMILIES:
        raise ConfigError(f"{path}: unknown task '{task}'{did_you_mean(task, FAMILIES)}")
    return name, task


def _folder(path: str, folder: Path, task: str, args: Mapping[str, Any]) -> Named:
    if (folder / ADAPTER).is_file():
        settings = _stored(path, folder / ADAPTER)
        base = _base_of(path, folder, str(settings.get("base_model_name_or_path") or ""))
        task = task or _TASKS_OF_PEFT.get(str(settings.get("task_type")), "")
        found = _described(path, _stored(path, base / "config.json"), task, args, base / "config.json")
        return Named(**{**vars(found), "folder": base, "adapter": folder})
    if not (folder / "config.json").is_file():
        raise ConfigError(f"{path}: folder {folder} has no config.json; give one that save_pretrained() wrote")
    found = _described(path, _stored(path, folder / "config.json"), task, args, folder / "config.json")
    return Named(**{**vars(found), "folder": folder})


_TASKS_OF_PEFT = {
    "CAUSAL_LM": "causal",
    "SEQ_2_SEQ_LM": "seq2seq",
    "SEQ_CLS": "sequence-classification",
    "TOKEN_CLS": "token-classification",
    "QUESTION_ANS": "question-answering",
}


def _base_of(path: str, folder: Path, base: str) -> Path:
    """The folder of the model that an adapter belongs to: as named, or beside the adapter's."""
    if not base:
        beside = [place.parent for place in sorted(folder.parent.glob("*/config.json"))]
        if len(beside) == 1:
            return beside[0]
        raise ConfigError(
            f"{path}: {ADAPTER} names no base model, and {len(beside)} folders beside it hold one; set its "
            "base_model_name_or_path to the folder"
        )
    tried = (Path(base).expanduser(), folder / base, folder.parent / base, folder.parent / Path(base).name)
    found = next((place for place in tried if (place / "config.json").is_file()), None)
    if found is None:
        raise ConfigError(
            f"{path}: the adapter's base model '{base}' is not a folder here (nothing is downloaded); put its "
            f"save_pretrained() folder at {folder.parent / Path(base).name}"
        )
    return found


def _described(
    path: str, settings: dict[str, Any], task: str, args: Mapping[str, Any], file: Path | None = None
) -> Named:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = str(settings.pop("model_type", None))
    if kind not in CONFIG_MAPPING:
        raise ConfigError(_no_such_type(path, kind, list(CONFIG_MAPPING), settings))
    config_class = CONFIG_MAPPING[kind]
    return Named(path, kind, config_class, settings, _family(path, kind, config_class, settings, task, args), file)


def _no_such_type(path: str, kind: str, known: list[str], settings: Mapping[str, Any]) -> str:
    import transformers

    if "auto_map" in settings:
        return f"{path}: model type '{kind}' comes with code of its own, which is not run; give a FILE.py:FACTORY"
    near = difflib.get_close_matches(kind.lower(), known, n=_SUGGESTIONS, cutoff=0.6)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else "; give a type such as 'gpt2', or a folder"
    also = " and there is no such folder (nothing is downloaded)" if "/" in kind else ""
    return f"{path}: transformers {transformers.__version__} has no model type '{kind}'{also}{hint}"


def _family(
    path: str, kind: str, config_class: Any, settings: Mapping[str, Any], task: str, args: Mapping[str, Any]
) -> Family:
    served = [family.name for family in FAMILIES.values() if config_class in family.types()]
    if task:
        if task not in served:
            its = f"; it has {', '.join(served)}" if served else ""
            raise ConfigError(f"{path}: {kind} has no task {task}{its}")
        return FAMILIES[task]
    for architecture in settings.get("architectures") or ():
        family = family_of_architecture(config_class, str(architecture))
        if family is not None:
            return family
    natural = natural_family(config_class, {**settings, **args})
    if natural is None:
        raise ConfigError(
            f"{path}: {kind} is of no task that batches are built in for ({', '.join(FAMILIES)}); give a "
            "FILE.py:FACTORY with a batch()"
        )
    return natural


def _stored(path: str, file: Path) -> dict[str, Any]:
    try:
        stored = parse_json(file.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as a config: {error}") from None
    if not isinstance(stored, dict) or ("model_type" not in stored and file.name != ADAPTER):
        raise ConfigError(f"{path} is not a transformers config: it has no model_type")
    return stored
