"""A model from a folder that save_pretrained() wrote, with its adapter, and what of it is new."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from stresstest.errors import ConfigError
from stresstest.user_model.hugging_face.naming import Named
from stresstest.user_model.hugging_face.tokens import Tokens, tokenizer_tokens

_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")
_NAMES = 3  # of parameters, that a line shows


def pretrained(named: Named, auto: Any, config: Any) -> tuple[nn.Module, Sequence[str]]:
    """The model with its folder's weights, and its adapter's alone trainable; the parameters that no file has."""
    assert named.folder is not None, "asked for where there is one"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # transformers' and peft's, of each other
        model, info = auto.from_pretrained(
            named.folder, config=config, local_files_only=True, output_loading_info=True, trust_remote_code=False
        )
        if named.adapter is not None:
            model = _peft(named.path).from_pretrained(model, named.adapter, is_trainable=True)
    found: nn.Module = model
    return found, sorted(info["missing_keys"])


def from_scratch(named: Named, auto: Any, config: Any) -> nn.Module:
    """The model of the config alone; of an adapter's folder with a fresh adapter, which alone is trained."""
    model: nn.Module = auto.from_config(config)
    if named.adapter is None:
        return model
    _peft(named.path)
    import peft

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        adapter = peft.PeftConfig.from_pretrained(str(named.adapter))
        adapter.inference_mode = False
        adapted: nn.Module = peft.get_peft_model(model, adapter)
    return adapted


def tokens_of(named: Named, config: Any) -> Tokens | None:
    """The tokens of the folder's tokenizer; `None` where it has none."""
    places = [place for place in (named.adapter, named.folder) if place is not None]
    place = next((place for place in places if any((place / name).is_file() for name in _TOKENIZER)), None)
    if place is None:
        return None
    import transformers

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(place, local_files_only=True)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{named.path}: its tokenizer cannot be read: {reason}") from None
    return tokenizer_tokens(tokenizer, config)


def files_hash(named: Named) -> str:
    """Hash of all that the folders hold."""
    digest = hashlib.blake2b(digest_size=8)
    for folder in (named.folder, named.adapter):
        for file in sorted(folder.iterdir()) if folder is not None else ():
            if file.is_file():
                digest.update(file.name.encode() + _file_hash(file))
    return digest.hexdigest()


def _file_hash(file: Path) -> bytes:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "blake2b").digest()


def names_of(parameters: Sequence[str]) -> str:
    """The first few, for a line."""
    more = f" and {len(parameters) - _NAMES} more" if len(parameters) > _NAMES else ""
    return ", ".join(parameters[:_NAMES]) + more


def _peft(path: str) -> Any:
    try:
        from peft import PeftModel
    except ImportError:
        raise ConfigError(f"{path} is an adapter and needs peft; pip install peft") from None
    return PeftModel
