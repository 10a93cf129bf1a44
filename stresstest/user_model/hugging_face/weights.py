"""A model from a folder that save_pretrained() wrote, with its adapter, and what of it is new."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from stresstest.errors import ConfigError
from stresstest.user_code import described
from stresstest.user_model.hugging_face.naming import ADAPTER, Named
from stresstest.user_model.hugging_face.tokens import Tokens, tokenizer_tokens

_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")
_ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")
_NAMES = 3  # of parameters, that a line shows


@dataclass(frozen=True)
class Read:
    """A model with what its files hold; the parameters that they lack, and those of theirs that it has no place for."""

    model: nn.Module
    lacking: Sequence[str]
    left_out: Sequence[str]


def pretrained(named: Named, auto: Any, config: Any) -> Read:
    """The model with its folder's weights, and its adapter's alone trainable.

    Weights that cannot be read, or of another model, are a `ConfigError`.
    """
    assert named.folder is not None, "asked for where there is one"
    with warnings.catch_warnings(), _readable(named, named.folder, "weights"):
        warnings.simplefilter("ignore", FutureWarning)  # transformers' and peft's, of each other
        model, info = auto.from_pretrained(
            named.folder,
            config=config,
            local_files_only=True,
            output_loading_info=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # its own line of them has none of their names
        )
    found: nn.Module = model
    _fits(named, found, info)
    if named.adapter is not None:
        found = _adapted(named, found)
    return Read(found, sorted(info["missing_keys"]), sorted(info["unexpected_keys"]))


def _fits(named: Named, model: nn.Module, info: Mapping[str, Any]) -> None:
    remedy = "give its own config.json, or --random-init for its config alone"
    apart = sorted(info["mismatched_keys"])
    if apart:
        name, there, here = apart[0]
        more = f" and {len(apart) - 1} more" if len(apart) > 1 else ""
        raise ConfigError(
            f"{named.path}: the weights in {named.folder} are of other sizes: {name} is {list(there)} there and "
            f"{list(here)} in the model{more}; {remedy}"
        )
    if not {name for name, _ in model.named_parameters()} - set(info["missing_keys"]):
        raise ConfigError(
            f"{named.path}: the weights in {named.folder} hold none of the model's parameters, but "
            f"{names_of(sorted(info['unexpected_keys'])) or 'nothing'}; {remedy}"
        )


def _adapted(named: Named, model: nn.Module) -> nn.Module:
    """With the adapter's weights."""
    kind, place = _peft(named.path), named.adapter
    assert place is not None, "asked for where there is one"
    if not any((place / name).is_file() for name in _ADAPTERS):
        raise ConfigError(f"{named.path}: folder {place} has none of {', '.join(_ADAPTERS)}; save the adapter again")
    with warnings.catch_warnings(record=True) as heard, _readable(named, place, "adapter"):
        warnings.simplefilter("always")
        adapted: nn.Module = kind.from_pretrained(model, str(place), is_trainable=True)
    for words in (" ".join(str(each.message).split()) for each in heard):
        if "missing adapter keys" in words:
            raise ConfigError(
                f"{named.path}: the weights of the adapter are not of its {ADAPTER}: {words[:200]}; save it again"
            )
    return adapted


@contextmanager
def _readable(named: Named, place: Path, what: str) -> Iterator[None]:
    """What a library says of files that it cannot read is a `ConfigError`, with where and what to do."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        remedy = ", or --random-init for its config alone" if named.adapter is None else f"; its base is {named.folder}"
        raise ConfigError(
            f"{named.path}: the {what} in {place} cannot be read ({described(error)}); save it again with "
            f"save_pretrained(){remedy}"
        ) from None


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
