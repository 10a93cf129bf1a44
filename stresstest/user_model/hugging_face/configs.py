"""The config of a model: its own settings, a small vocabulary, and the sizes that are asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from stresstest.user_model.hugging_face.families import FAMILIES
from stresstest.user_model.hugging_face.naming import Named
from stresstest.user_model.hugging_face.shape import deeper, depth_of, layer_lists, wider, width_of
from stresstest.user_model.hugging_face.tokens import BEGIN, END, MASK, PAD, UNKNOWN, VOCABULARY

# A causal language model reads bytes as they are, unless the user sets vocab_size.
_BYTES: Mapping[str, Any] = {"vocab_size": 256, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
_SPECIAL: Mapping[str, int] = {
    "pad_token_id": PAD,
    "eos_token_id": END,
    "sep_token_id": END,
    "bos_token_id": BEGIN,
    "cls_token_id": BEGIN,
    "decoder_start_token_id": PAD,
    "mask_token_id": MASK,
    "unk_token_id": UNKNOWN,
    "forced_eos_token_id": END,
    "pad_index": PAD,
    "eos_index": END,
    "bos_index": BEGIN,
    "mask_index": MASK,
    "unk_index": UNKNOWN,
}
_IMAGE, _PATCH = 32, 4  # sides, in pixels, of images and patches where a type alone is named
_COARSE = 8  # a patch that is cut smaller
_SPECTRUM = 128  # frames of a recording
_VOCABULARIES = re.compile(r"\w*vocab\w*")
POSITIONS = (
    "max_position_embeddings n_positions max_seq_len max_source_positions max_target_positions n_ctx "
    "max_encoder_position_embeddings max_decoder_position_embeddings context_length"
).split()
SWEPT = {"depth": depth_of, "width": width_of}


def default_config(named: Named) -> Any:
    """The config as it is written; of a type alone that of transformers."""
    return named.config_class(**named.settings)


def config_of(named: Named, args: Mapping[str, Any]) -> Any:
    """The config with the sizes in `args`, depth and width among them, and all that must follow."""
    aliases: Mapping[str, str] = named.config_class.attribute_map
    given = {aliases.get(key, key): value for key, value in args.items() if key not in SWEPT}
    default = default_config(named)
    changed: dict[str, Any] = {}
    if "width" in args:
        changed |= wider(default, args["width"], given)
    base = named.config_class(**{**named.settings, **changed})
    depth, before = args.get("depth"), depth_of(default)
    if depth is not None:
        changed |= deeper(base, depth, given)
    if named.is_type:
        changed |= _of_a_type(named, base, given)
    elif "vocab_size" not in named.settings and "vocab_size" not in given:
        changed |= _small_vocabulary(named, base)
    if depth in (None, before) or before is None:
        config = named.config_class(**{**named.settings, **changed, **given})
    else:
        settings = {key: value for key, value in named.settings.items() if key not in _DERIVED}
        config = _with_lists(
            named.config_class, {**settings, **changed}, layer_lists(base, before, depth, given), given
        )
    classes = named.family.types()[named.config_class]
    if isinstance(classes, tuple) and not config.architectures:
        config.architectures = [classes[0].__name__]
    for part in (config, *(value for value in vars(config).values() if hasattr(value, "model_type"))):
        if hasattr(part, "use_cache"):
            part.use_cache = False
    return config


def _with_lists(config_class: Any, settings: dict[str, Any], lists: dict[str, Any], given: Mapping[str, Any]) -> Any:
    """The config with the lists that it makes of its depth by itself, or else with `lists`."""
    try:
        config = config_class(**{**settings, **given})
    except Exception:  # it checks the lists' lengths
        return config_class(**{**settings, **lists, **given})
    same = {name: value for name, value in lists.items() if len(value) != len(said(config, name) or ())}
    return config_class(**{**settings, **same, **given}) if same else config


_DERIVED = ("out_features", "out_indices", "stage_names")


def _of_a_type(named: Named, base: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """What a type alone gets: a vocabulary of bytes, images and recordings of a size for a laptop, their classes."""
    changed: dict[str, Any] = {}
    family = named.family
    if family.data in ("text", "pairs") and "vocab_size" not in given:
        changed |= _small_vocabulary(named, base)
    if family.name == "causal" and hasattr(base, "is_decoder") and _sees_both_sides(named):
        changed["is_decoder"] = True
    if getattr(base, "languages", None) and hasattr(base, "default_language"):
        changed["default_language"] = base.languages[0]
    if family.data == "images":
        changed |= _small_images(base, given)
    if family.data in ("images", "sound") and "num_labels" not in given:
        changed["num_labels"] = 10
    if family.data == "sound" and isinstance(getattr(base, "max_length", None), int) and hasattr(base, "num_mel_bins"):
        changed["max_length"] = _SPECTRUM
    return changed


def _small_vocabulary(named: Named, base: Any) -> dict[str, Any]:
    causal = named.family.name == "causal"
    size = 256 if causal else VOCABULARY
    changed: dict[str, Any] = {
        name: size
        for name, value in vars(base).items()
        if _VOCABULARIES.fullmatch(name) and isinstance(value, int) and not isinstance(value, bool) and value > size
    }
    for name, value in vars(base).items():
        if hasattr(value, "vocab_size"):
            changed[name] = {**value.to_dict(), **_small_vocabulary(named, value)}
    changed["vocab_size"] = size
    if causal:
        return {**changed, **_BYTES, **({"pad_token_id": PAD} if _needs_padding(named, base) else {})}
    decodes = named.family.data == "pairs" or getattr(base, "is_encoder_decoder", False)
    always = ("decoder_start_token_id",) if decodes else ()
    return changed | {name: number for name, number in _SPECIAL.items() if name in always or hasattr(base, name)}


def _needs_padding(named: Named, base: Any) -> bool:
    """Whether a model cannot do without a padding token: it counts positions from it, or its config refuses `None`."""
    if _sees_both_sides(named) or any(hasattr(value, "model_type") for value in vars(base).values()):
        return True
    try:
        type(base)(pad_token_id=None)
    except Exception:  # a kind of transformers' own
        return True
    return False


def _sees_both_sides(named: Named) -> bool:
    """Whether the type is an encoder first, which has to be told to decode."""
    return any(named.config_class in FAMILIES[name].types() for name in ("masked", "seq2seq"))


def _small_images(base: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    size = getattr(base, "image_size", None)
    if "image_size" not in given and size is not None:
        changed["image_size"] = [_IMAGE, _IMAGE] if isinstance(size, list | tuple) else _IMAGE
        if isinstance(getattr(base, "window_size", None), int) and "window_size" not in given:
            changed |= {"window_size": 2, "patch_size": 2}  # whole windows in the last stage too
        patch = getattr(base, "patch_size", None)
        if "patch_size" not in given and isinstance(patch, int) and patch >= _COARSE:
            changed["patch_size"] = _PATCH
    for name, value in vars(base).items():
        if name == "vision_config" and hasattr(value, "image_size"):
            changed[name] = {**value.to_dict(), **_small_images(value, {})}
    return changed


def said(config: Any, name: str) -> Any:
    """A field of a config; `None` where there is none, or one a layer."""
    try:
        return getattr(config, name, None)
    except Exception:  # transformers' own error for a field that each layer has another of
        return None


def takes_of(named: Named, args: Mapping[str, Any]) -> dict[str, Any]:
    """The config's names with their values; depth and width unless `args` say what they are by another name."""
    config = default_config(named)
    aliases: Mapping[str, str] = config.attribute_map
    names = [name for name in (*vars(config), *aliases) if not name.startswith("_")]
    takes = {name: said(config, name) for name in (*names, "num_labels")}
    set_already = {aliases.get(name, name) for name in args}
    for ours, (theirs, of) in {"depth": ("num_hidden_layers", depth_of), "width": ("hidden_size", width_of)}.items():
        if of(config) is not None and aliases.get(theirs, theirs) not in set_already:
            takes[ours] = of(config)
    return takes
