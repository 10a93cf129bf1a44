"""A factory's parts from what stands behind `hf:`: what builds the model, its batches, and a hash of both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from stresstest.errors import ConfigError
from stresstest.installation import install_hint
from stresstest.user_code import described
from stresstest.user_model.hugging_face.feeding import FamilyStream, Feed, stream_of
from stresstest.user_model.hugging_face.naming import Named, named

_LARGE = 300_000_000  # parameters, which nobody asks for by a type's name alone


@dataclass(frozen=True)
class Loaded:
    """What a `Factory` is made of.

    `stream` is `None` where the built-in bytes serve; `start` says what every seed starts from, if not from random
    weights; `shape` says why depth and width are no arguments.
    """

    build: Callable[..., nn.Module]
    takes: Mapping[str, Any]
    fingerprint: str
    stream: FamilyStream | None
    shifts_labels: bool
    settings: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    start: str = ""
    shape: str = ""


def hugging_face(path: str, args: Mapping[str, Any], feed: Feed | None, random_init: bool) -> Loaded:
    """What `hf:WHAT[:TASK]` names, with its family's batches unless `feed` is `None`.

    A `ConfigError` says what cannot be.
    """
    try:
        import transformers
    except ImportError:
        raise ConfigError(f"{path} needs transformers; {install_hint('hf')}") from None
    from stresstest.user_model.hugging_face.configs import takes_of

    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # its remarks on a config help nobody
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    found = named(path, args)
    if random_init and found.folder is None:
        raise ConfigError(f"random-init: {path} has no weights to leave out; drop it, or give a folder")
    try:
        takes = takes_of(found, args)
        make = _fresh if found.folder is None or random_init else _of_weights
        return make(found, args, feed, takes)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"{path}: {described(error)}") from None


def _fresh(found: Named, args: Mapping[str, Any], feed: Feed | None, takes: Mapping[str, Any]) -> Loaded:
    import transformers

    from stresstest.user_model.hugging_face.configs import config_of
    from stresstest.user_model.hugging_face.weights import files_hash, from_scratch, tokens_of

    auto = getattr(transformers, found.family.auto)

    def build(**given: Any) -> nn.Module:
        if found.is_type and not args and all(given.get(name) == takes.get(name) for name in ("depth", "width")):
            _not_by_accident(found, auto, config_of(found, given))
        return from_scratch(found, auto, config_of(found, given))

    of_files = files_hash(found) if found.folder is not None else ""
    stored = [transformers.__version__, found.kind, found.settings, found.family.name, of_files]
    config = config_of(found, _known(args, takes))
    tokens = tokens_of(found, config)
    return Loaded(
        build,
        takes,
        _hash(stored, feed),
        stream_of(found, config, tokens, feed) if feed is not None else None,
        found.family.name == "causal",
        _settings(found),
    )


def _of_weights(found: Named, args: Mapping[str, Any], feed: Feed | None, takes: Mapping[str, Any]) -> Loaded:
    import transformers

    from stresstest.user_model.hugging_face.configs import config_of
    from stresstest.user_model.hugging_face.weights import files_hash, names_of, pretrained, tokens_of

    auto = getattr(transformers, found.family.auto)

    def build(**given: Any) -> nn.Module:
        return pretrained(found, auto, config_of(found, given)).model

    known = _known(args, takes)
    config = config_of(found, known)
    read = pretrained(found, auto, config)
    tokens = tokens_of(found, config)
    what = f"{found.adapter} on {found.folder}" if found.adapter is not None else str(found.folder)
    start = f"the weights in {what}"
    notes = [f"note: {found.folder} has no {names_of(read.lacking)}: drawn anew for each seed"] if read.lacking else []
    if read.left_out:
        notes.append(f"note: {found.folder} has {names_of(read.left_out)}, which the model has not: left out")
    return Loaded(
        build,
        {name: value for name, value in takes.items() if name not in ("depth", "width")},
        _hash([transformers.__version__, found.family.name, files_hash(found)], feed),
        stream_of(found, config, tokens, feed) if feed is not None else None,
        found.family.name == "causal",
        _settings(found),
        notes=tuple(notes),
        start=start,
        shape=f"{found.path} starts from its weights, which fix its shape; --random-init builds it from its config",
    )


def _known(args: Mapping[str, Any], takes: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that the config has; the others are refused by their names later."""
    return {name: value for name, value in args.items() if name in takes}


def _settings(found: Named) -> Mapping[str, Any]:
    return found.family.settings


def _hash(stored: list[Any], feed: Feed | None) -> str:
    text = json.dumps([*stored, feed and feed.fingerprint], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _not_by_accident(found: Named, auto: Any, config: Any) -> None:
    """A type's own size may be billions of parameters: that has to be asked for."""
    import torch

    try:
        with torch.device("meta"):
            count = sum(parameter.numel() for parameter in auto.from_config(config).parameters())
    except Exception:  # some cannot be built without values; the memory is checked later
        return
    if count > _LARGE:
        raise ConfigError(
            f"{found.path}: a {found.kind} of its own size has {count / 1e9:.1f} billion parameters; give --depth and "
            "--width, e.g. --depth 4 --width 64"
        )
