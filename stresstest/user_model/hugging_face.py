"""Hugging Face configs as factories: the model is built from the config, without weights or network."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from stresstest.errors import ConfigError
from stresstest.installation import install_hint
from stresstest.registry import did_you_mean

# Bytes, unless the user sets vocab_size.
_BYTES: Mapping[str, Any] = {"vocab_size": 256, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
_SWEPT = {"depth": "num_hidden_layers", "width": "hidden_size"}


@dataclass(frozen=True)
class HuggingFaceModel:
    """What builds a model from a config, the names that it takes with their defaults, and its fingerprint."""

    build: Callable[..., nn.Module]
    takes: Mapping[str, Any]
    fingerprint: str


def hugging_face_model(path: str, name: str, args: Mapping[str, Any]) -> HuggingFaceModel:
    """The model of `hf:NAME` (a model type such as gpt2) or `hf:FILE.json` (a config); causal language models only.

    `depth` is num_hidden_layers, `width` hidden_size; `args` are the config's own names.
    """
    try:
        import transformers
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
    except ImportError:
        raise ConfigError(f"{path} needs transformers; {install_hint('hf')}") from None
    settings = _config_file(path, name) if name.endswith(".json") else {"model_type": name}
    kind = str(settings.pop("model_type", None))
    if kind not in CONFIG_MAPPING:
        known = did_you_mean(kind, [config.model_type for config in MODEL_FOR_CAUSAL_LM_MAPPING])
        raise ConfigError(f"{path}: transformers {transformers.__version__} has no model type '{kind}'{known}")
    config_of = CONFIG_MAPPING[kind]
    if config_of not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ConfigError(f"{path}: {kind} is not a causal language model; give a FILE.py:FUNCTION with a batch()")
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # its remarks on a config help nobody
    default = config_of(**settings)

    def build(**given: Any) -> nn.Module:
        wanted: dict[str, Any] = settings | {_SWEPT.get(key, key): value for key, value in given.items()}
        config = config_of(**({} if "vocab_size" in wanted else _BYTES), **wanted)
        config.use_cache = False
        model: nn.Module = transformers.AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]  # theirs
        return model

    stored = json.dumps([transformers.__version__, kind, settings], sort_keys=True, default=str)
    fingerprint = hashlib.blake2b(stored.encode(), digest_size=8).hexdigest()
    return HuggingFaceModel(build, _takes(default, args), fingerprint)


def _takes(config: Any, args: Mapping[str, Any]) -> dict[str, Any]:
    """The config's names with their values; depth and width unless `args` say what they are by another name."""
    aliases: Mapping[str, str] = config.attribute_map
    names = [name for name in (*vars(config), *aliases) if not name.startswith("_")]
    takes = {name: getattr(config, name, None) for name in names}
    set_already = {aliases.get(name, name) for name in args}
    for ours, theirs in _SWEPT.items():
        if hasattr(config, theirs) and aliases.get(theirs, theirs) not in set_already:
            takes[ours] = getattr(config, theirs)
    return takes


def _config_file(path: str, name: str) -> dict[str, Any]:
    try:
        stored = json.loads(Path(name).read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as a config: {error}") from None
    if not isinstance(stored, dict) or "model_type" not in stored:
        raise ConfigError(f"{path} is not a transformers config: it has no model_type")
    return stored
