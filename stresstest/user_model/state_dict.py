"""The weights that `--from-weights FILE` puts into what the user's factory builds."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stresstest.errors import ConfigError
from stresstest.user_code import UserCodeError

_NESTED = ("state_dict", "model_state_dict", "model", "module", "weights")  # where checkpoints keep it
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "_forward_module.")  # of what a model was wrapped in
_NAMES = 3  # of keys, that a line shows


def with_weights(fingerprint: str, file: str) -> dict[str, Any]:
    """Fields of a `Factory` whose models start from a file's weights; what cannot be read is a `ConfigError`."""
    place = Path(file).expanduser()
    if not place.is_file():
        raise ConfigError(f"from-weights: file {file} not found; give a .pt, .pth or .safetensors with a state dict")
    with place.open("rb") as opened:
        digest = hashlib.file_digest(opened, "blake2b").hexdigest()[:16]
    stored = _stored(str(place.resolve()), digest)
    return {
        "weights": partial(put_into, stored, file),
        "start": f"the weights in {file}",
        "fingerprint": f"{fingerprint} weights={digest}",
    }


def put_into(stored: Mapping[str, Tensor], file: str, module: nn.Module) -> None:
    """Copy a state dict into a module: all of it or nothing; a `UserCodeError` names the keys that do not fit."""
    own = module.state_dict()
    found = _renamed(stored, own)
    tied = _tied(module)
    missing = [key for key in own if key not in found and not tied.get(key, set()) & found.keys()]
    unexpected = [key for key in found if key not in own]
    shapes = [
        f"{key} is {list(found[key].shape)} there and {list(value.shape)} in the model"
        for key, value in own.items()
        if key in found and isinstance(value, Tensor) and found[key].shape != value.shape
    ]
    wrong = [
        f"{words} {_shown(keys)}"
        for words, keys in (("it lacks", missing), ("the model lacks", unexpected), ("", shapes))
        if keys
    ]
    if wrong:
        raise UserCodeError(
            f"from-weights: {file} does not fit the model: {'; '.join(part.strip() for part in wrong)}; give the "
            "state dict of this very model, or load what fits in your factory"
        )
    module.load_state_dict(found, strict=False)  # a tied parameter may stand under one of its names


@lru_cache(maxsize=2)
def _stored(path: str, digest: str) -> dict[str, Tensor]:
    file = Path(path)
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(file))
        found = torch.load(file, map_location="cpu", weights_only=True)
    except ImportError:
        raise ConfigError("from-weights: a .safetensors file needs safetensors; pip install safetensors") from None
    except Exception as error:
        reason = " ".join(str(error).split())
        if "weights_only" in reason or "Weights only" in reason:
            reason = "it holds more than tensors, which would run code; save model.state_dict() alone"
        raise ConfigError(f"from-weights: {file.name} cannot be read: {reason[:200]}") from None
    return _state_dict(found, file.name)


def _state_dict(found: Any, name: str) -> dict[str, Tensor]:
    """The state dict in what a file holds: itself, or under a name that checkpoints have."""
    if isinstance(found, Mapping) and found and all(isinstance(value, Tensor) for value in found.values()):
        return {str(key): value for key, value in found.items()}
    if isinstance(found, Mapping):
        for key in _NESTED:
            if isinstance(found.get(key), Mapping):
                return _state_dict(found[key], name)
        tensors = {str(key): value for key, value in found.items() if isinstance(value, Tensor)}
        if tensors and not any(isinstance(value, Mapping) for value in found.values()):
            return tensors  # beside what torch stores of a module's extra state
        there = ", ".join(map(str, list(found)[:8])) or "nothing"
    else:
        there = f"a {type(found).__name__}"
    raise ConfigError(
        f"from-weights: {name} holds {there}, and no state dict; save model.state_dict(), alone or as 'state_dict'"
    )


def _renamed(stored: Mapping[str, Tensor], own: Mapping[str, Any]) -> dict[str, Tensor]:
    """The stored keys without the prefixes of what the model was wrapped in, or with those that it is wrapped in."""
    tried = [dict(stored)]
    for _ in range(len(_PREFIXES)):
        last = tried[-1]
        prefix = next((p for p in _PREFIXES if last and all(key.startswith(p) for key in last)), None)
        if prefix is None:
            break
        tried.append({key.removeprefix(prefix): value for key, value in last.items()})
    plain = tried[-1]
    tried += [{f"{prefix}{key}": value for key, value in plain.items()} for prefix in _PREFIXES]
    tried.append({re.sub(r"(^|\.)_orig_mod\.", r"\1", key): value for key, value in stored.items()})
    return max(tried, key=lambda keys: sum(key in own for key in keys))  # the first of equals


def _tied(module: nn.Module) -> dict[str, set[str]]:
    """Of each name of a parameter the other names that it has."""
    names: dict[int, set[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), set()).add(name)
    return {name: group - {name} for group in names.values() for name in group}


def _shown(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - _NAMES} more" if len(keys) > _NAMES else ""
    return ", ".join(keys[:_NAMES]) + more
