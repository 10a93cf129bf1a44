"""What a factory takes: its parameters, those of a config that it is built from, and which are its depth and width."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

REQUIRED = inspect.Parameter.empty

# By which names code for neural networks calls them, the most telling first.
_DEPTHS = ("depth", "num_layers", "n_layers", "n_layer", "num_hidden_layers", "num_blocks", "n_blocks", "layers")
_WIDTHS = ("width", "d_model", "n_embd", "embed_dim", "hidden_size", "hidden_dim", "dim", "model_dim", "n_embed")
_HEADS = ("n_head", "n_heads", "num_heads", "num_attention_heads", "heads", "nhead")
_VOCABULARIES = ("vocab_size", "num_tokens", "n_vocab", "ntoken", "num_embeddings")
_POSITIONS = ("block_size", "max_seq_len", "max_seq_length", "context_length", "max_position_embeddings")
_BYTES = 256
_ENOUGH_POSITIONS = 1024
_CONFIGS = ("config", "cfg", "conf", "hparams", "args")
_CONFIG_ENDS = ("_config", "_cfg", "_args")


@dataclass(frozen=True)
class Arguments:
    """What may be given to `build` by name, with the defaults; `**` where it takes any.

    `known_as`: what its depth and width are called there. `defaults`: what it is given where the user says nothing.
    """

    build: Callable[..., Any]
    takes: Mapping[str, Any]
    known_as: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def renamed(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments with depth and width under these names."""
        ours = {theirs: name for name, theirs in self.known_as.items()}
        return {ours.get(name, name): value for name, value in args.items()}


def arguments(build: Callable[..., Any], has_data: bool = True) -> Arguments:
    """What a function or class takes; one that requires a config takes that config's entries.

    Without data of its own it is given bytes: a config's vocabulary has 256 entries unless it is said.
    """
    takes = parameters(build)
    config = _config_of(build, takes)
    if config is None:
        wanted = {} if has_data else {name: _BYTES for name in _VOCABULARIES if takes.get(name) is REQUIRED}
        return _swept(_given(build, wanted) if wanted else build, {**takes, **wanted}, wanted)
    name, make, entries = config
    others = {key: value for key, value in takes.items() if key != name}
    defaults = {} if has_data else _for_bytes({**entries, **others})

    @functools.wraps(build, updated=())
    def built(**given: Any) -> Any:
        given = defaults | given
        given = _heads_divide(entries, given)
        mine = {key: value for key, value in given.items() if key in others}
        return build(**{name: make({k: v for k, v in given.items() if k not in mine})}, **mine)

    for key in defaults:
        (entries if key in entries else others)[key] = defaults[key]
    return _swept(built, {**entries, **others}, defaults)


def parameters(build: Callable[..., Any]) -> dict[str, Any]:
    """Name and default of each parameter that can be given by name; `**` where it takes any."""
    try:
        found = inspect.signature(build).parameters.values()
    except (TypeError, ValueError):
        return {}
    takes = {p.name: p.default for p in found if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return takes | ({"**": None} if any(p.kind == p.VAR_KEYWORD for p in found) else {})


def as_written(build: Callable[..., Any]) -> Callable[..., Any]:
    """The function or class in the user's file, of one that was given other names."""
    written: Callable[..., Any] = inspect.unwrap(build)
    return written


def required(default: Any) -> bool:
    """Whether a parameter with this default must be given."""
    return default is REQUIRED


def too_few_positions(takes: Mapping[str, Any], args: Mapping[str, Any], seq_len: int) -> str:
    """The parameter by which sequences are shorter than `seq_len`, with its value: block_size=16; or empty."""
    found = {name: args.get(name, takes.get(name)) for name in _POSITIONS}
    return next((f"{name}={n}" for name, n in found.items() if isinstance(n, int) and 0 < n < seq_len), "")


def is_config(name: str) -> bool:
    """Whether a parameter of this name wants an object that no setting can write."""
    return name in _CONFIGS or name.endswith(_CONFIG_ENDS)


def size_called(name: str, takes: Mapping[str, Any]) -> str:
    """What is given as KEY=N for a depth or width that has no number of its own there; empty where nothing is."""
    names = {"depth": _DEPTHS, "width": _WIDTHS}.get(name, ())
    return next((theirs for theirs in names if theirs in takes), "")


def _swept(build: Callable[..., Any], takes: Mapping[str, Any], defaults: Mapping[str, Any] = {}) -> Arguments:
    """With depth and width by these names, where they have others of a number's kind."""
    known_as = {}
    for ours, names in (("depth", _DEPTHS), ("width", _WIDTHS)):
        theirs = next((name for name in names if name in takes and _may_be_a_number(takes[name])), None)
        if theirs is not None and ours not in takes:
            known_as[ours] = theirs
    if not known_as:
        return Arguments(build, takes, {}, defaults)

    @functools.wraps(build, updated=())
    def renaming(**given: Any) -> Any:
        return build(**{known_as.get(name, name): value for name, value in given.items()})

    shown = {name: takes[theirs] for name, theirs in known_as.items()}
    rest = {name: value for name, value in takes.items() if name not in known_as.values()}
    return Arguments(renaming, {**shown, **rest}, known_as, defaults)


def _given(build: Callable[..., Any], wanted: Mapping[str, Any]) -> Callable[..., Any]:
    @functools.wraps(build, updated=())
    def built(**given: Any) -> Any:
        return build(**{**wanted, **given})

    return built


def _may_be_a_number(default: Any) -> bool:
    return default is REQUIRED or (isinstance(default, int) and not isinstance(default, bool))


def _config_of(
    build: Callable[..., Any], takes: Mapping[str, Any]
) -> tuple[str, Callable[[Mapping[str, Any]], Any], dict[str, Any]] | None:
    """(parameter, what makes a config of entries, its entries with their defaults) where one must be given."""
    for name, default in takes.items():
        if default is not REQUIRED:
            continue
        kind = _annotated(build, name)
        if not is_config(name) and not dataclasses.is_dataclass(kind):
            continue
        kind = kind or _as_models_of_hugging_face(build) or _beside(build)
        if kind is not None:
            return name, partial(_made, kind), _entries(kind)
        default_config = getattr(build, "get_default_config", None)
        if callable(default_config):
            return name, partial(_changed, default_config), dict(vars(default_config()))
    return None


def _made(kind: Callable[..., Any], entries: Mapping[str, Any]) -> Any:
    return kind(**entries)


def _changed(default_config: Callable[[], Any], entries: Mapping[str, Any]) -> Any:
    config = default_config()
    for name, value in entries.items():
        setattr(config, name, value)
    return config


def _annotated(build: Callable[..., Any], name: str) -> type | None:
    """The class that a parameter is annotated with, the first of a union."""
    function = build.__init__ if inspect.isclass(build) else build
    try:
        hint = typing.get_type_hints(function).get(name)
    except (NameError, TypeError, AttributeError):
        return None
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(kind for kind in typing.get_args(hint) if kind is not type(None))
    return hint if inspect.isclass(hint) and hint.__module__ != "builtins" and hint is not typing.Any else None


def _beside(build: Callable[..., Any]) -> type | None:
    """The dataclass (attrs', pydantic's) of a config in the file of a class: by its name, or the only one."""
    there = vars(sys.modules.get(build.__module__, types.ModuleType("")))
    wanted = there.get(f"{getattr(build, '__name__', '')}Config")
    classes = {kind for key, kind in there.items() if _is_record(kind) and key.lower().endswith(_NAMED)}
    found = wanted if inspect.isclass(wanted) else next(iter(classes)) if len(classes) == 1 else None
    return found if inspect.isclass(found) else None


_NAMED = ("config", "cfg", "args", "hparams", "settings")


def _is_record(kind: Any) -> bool:
    """Whether a class is made of fields: a dataclass, or one of attrs or pydantic."""
    fields = ("__dataclass_fields__", "__attrs_attrs__", "model_fields")
    own = inspect.isclass(kind) and kind.__module__.partition(".")[0] not in ("pydantic", "attr", "attrs")
    return own and any(hasattr(kind, name) for name in fields)


def _as_models_of_hugging_face(build: Callable[..., Any]) -> type | None:
    """The class of the config of a `PreTrainedModel`, which says it beside."""
    found = getattr(build, "config_class", None)
    return found if inspect.isclass(found) else None


def _entries(kind: type) -> dict[str, Any]:
    if not dataclasses.is_dataclass(kind):
        return parameters(kind)
    return {
        each.name: REQUIRED
        if each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
        else each.default
        if each.default is not dataclasses.MISSING
        else None
        for each in dataclasses.fields(kind)
        if each.init
    }


def _for_bytes(entries: Mapping[str, Any]) -> dict[str, Any]:
    """A vocabulary of bytes, and positions where none are said."""
    found = {name: _BYTES for name in _VOCABULARIES if name in entries}
    return found | {name: _ENOUGH_POSITIONS for name in _POSITIONS if entries.get(name, 0) in (None, REQUIRED)}


def _heads_divide(entries: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """With the most heads, up to the config's, that divide a width that was given; heads that are given stay."""
    heads = next((name for name in _HEADS if isinstance(entries.get(name), int) and name not in given), None)
    width = next((given[name] for name in _WIDTHS if isinstance(given.get(name), int)), None)
    if heads is None or width is None or min(entries[heads], width) < 1 or width % entries[heads] == 0:
        return dict(given)  # what is below 1 is for the model's own config to refuse
    return {**given, heads: max(n for n in range(1, min(entries[heads], width) + 1) if width % n == 0)}
