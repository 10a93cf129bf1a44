"""Sizes of a Hugging Face config: all that must follow when its depth or width is another.

Fields are found by their names, which model types share; those that `given` names are left as the user says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

DEPTHS = (
    "num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers num_encoder_layers "
    "num_decoder_layers speech_encoder_layers t2u_encoder_layers t2u_decoder_layers num_layers_per_stack num_blocks "
    "depths depth block_sizes layer_depths stage_numb_of_layers"
).split()
WIDTHS = (
    "hidden_sizes embed_dims hidden_size d_model n_embd embed_dim dim emb_dim embedding_dim decoder_hidden_size "
    "decoder_hidden_sizes"
).split()
_SCALED = re.compile(
    r"intermediate_size\w*|\w+intermediate_size|(\w+_)?ffn_dim|d_ff|dff|dim_ff|d_inner|n_inner|(\w+_)?ffn_hidden_size|"
    r"feed_forward_size|embedding_size|pooler_hidden_size|input_embedding_size|output_embedding_size|embedding_rank|"
    r"word_embed_proj_dim|true_hidden_size|intra_bottleneck_size|[qo]_lora_rank|kv_lora_rank|lru_width|"
    r"attention_hidden_size|prediction_head_size|output_hidden_size|projection_dim|prompt_mid_dim|"
    r"hidden_size_per_layer_input|laurel_rank|router_hidden_size|mamba_d_ssm|conv_dim|classifier_proj_size|"
    r"hidden_dim|stem_channels|stage_(in|mid|out)_channels|d_latents|mamba_intermediate\w*|stem_out_channels|backbone_hidden_size|expert_ffn\w*|mlp_hidden\w*|ple_embed_dim"
)
_HEADS = re.compile(
    r"(\w+_)?num_attention_heads|(\w+_)?n_heads?|(\w+_)?num_heads|(\w+_)?attention_heads|num_\w+_attention_heads|"
    r"linear_num_(key|value)_heads"
)
_KV_HEADS = re.compile(r"(\w+_)?num_key_value_heads|num_kv_heads|n_head_kv|num_query_groups|multi_query_group_num")
_HEAD_DIM = re.compile(
    r"(\w+_)?head_dim|d_kv|d_head|attention_head_size|dim_head|kv_channels|qk_nope_head_dim|qk_rope_head_dim|"
    r"v_head_dim|rotary_dim|mamba_d_head|mamba_headdim|key_dim"
)
_EXPERTS = re.compile(r"(\w+_)?num_(local_)?experts|n_routed_experts|zero_expert_num")
_CHOSEN = re.compile(r"(\w+_)?num_experts_per_tok(en)?|moe_topk|moe_k|num_selected_experts|top_k_experts|moe_top_k")
_MAMBA_HEADS = ("mamba_n_heads", "mamba_num_heads", "n_mamba_heads", "num_heads")
_GROUPS = re.compile(r"n_group|topk_group|num_expert_group")
_MOST_EXPERTS, _MOST_CHOSEN = 8, 2
_NARROWEST = 16  # a head; unless those of the config are narrower
_FEW = 4  # channels of a picture, which stay
_ROUND = 8  # to a multiple of it


def depth_of(config: Any) -> int | None:
    """The blocks of the deepest stack or stage; `None` where no field says it."""
    found = [_deepest(value) for value in _depths(config).values()]
    if found:
        return max(found)
    inner = [depth for part in _parts(config).values() if (depth := depth_of(part)) is not None]
    return max(inner, default=None)


def width_of(config: Any) -> int | None:
    """The width; of stages that widen, the first one's. `None` where no field says it."""
    fields = dict(_fields(config))
    for name in _widths(fields):
        value = fields.get(name)
        if _sizes(value):
            return int(value[0] if isinstance(value, list | tuple) else value or 0)
    inner = [width for part in _parts(config).values() if (width := width_of(part)) is not None]
    return max(inner, default=None)


def deeper(config: Any, depth: int, given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a config with `depth` blocks in its deepest stack or stage, the others in proportion."""
    before = depth_of(config)
    if before in (None, depth):
        return {}
    changed = {
        name: _each(value, lambda blocks: max(1, round(blocks * depth / before)))
        for name, value in _depths(config).items()
        if name not in given
    }
    for name in ("num_kv_shared_layers", "max_window_layers"):
        if _is_size(vars(config).get(name)) and name not in given:
            changed[name] = vars(config)[name] * depth // before
    for name, part in _parts(config).items():
        theirs = depth_of(part)
        lists = layer_lists(part, theirs, depth, {}) if theirs is not None else {}
        changed[name] = part.to_dict() | deeper(part, depth, {}) | lists
    return changed


def layer_lists(config: Any, before: int, depth: int, given: Mapping[str, Any]) -> dict[str, Any]:
    """Lists with an entry a layer that still have `before` of them: cut, or continued in their period."""
    changed: dict[str, Any] = {}
    for name, value in _fields(config):
        if name in given or name in (*DEPTHS, *WIDTHS) or not isinstance(value, list | tuple):
            continue
        if len(value) == before and before > 1:
            changed[name] = continued(value, depth)
        elif name == "attention_types":  # GPT-Neo: [[kinds, times], ...]
            changed[name] = [[[kind], 1] for kind in continued([k for kinds, n in value for k in kinds * n], depth)]
    return changed


def continued(layers: Sequence[Any], depth: int) -> list[Any]:
    """The first `depth` entries of a list, or of its repetition; every kind keeps a layer where there is room."""
    period = next(
        p for p in range(1, len(layers) + 1) if all(layers[i] == layers[i - p] for i in range(p, len(layers)))
    )
    found = [layers[i % period] for i in range(depth)]
    kinds = [kind for i, kind in enumerate(layers) if kind not in layers[:i]]
    if any(isinstance(kind, bool) or not isinstance(kind, str) for kind in kinds):
        return found
    lost = [kind for kind in kinds if kind not in found]
    for place in range(depth - 1, 0, -1):
        if lost and found.count(found[place]) > 1:
            found[place] = lost.pop()
    return found


def wider(config: Any, width: int, given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a config of another width: hidden sizes in proportion, heads that divide, at most 8 experts."""
    before = width_of(config)
    if before in (None, width):
        return {}
    fields = dict(_fields(config))
    share = width / before
    changed: dict[str, Any] = {}
    for name, value in fields.items():
        if name in given or not _sizes(value):
            continue
        if name in WIDTHS or _SCALED.fullmatch(name):
            changed[name] = _each(value, lambda size: width if size == before else _rounded(size, share))
        elif width < before and (_EXPERTS.fullmatch(name) or _CHOSEN.fullmatch(name)):
            most = _MOST_EXPERTS if _EXPERTS.fullmatch(name) else _MOST_CHOSEN
            changed[name] = _each(value, lambda number, most=most: min(number, most))
        elif width < before and _GROUPS.fullmatch(name):
            changed[name] = 1
        elif width < before and name == "num_groups":  # of a norm over channels
            changed[name] = min(value, _ROUND)
    changed |= _heads(fields, before, width, given) | _state_spaces(fields, before, width, given)
    for name, part in _parts(config).items():
        theirs = width_of(part)
        if theirs is not None:
            changed[name] = part.to_dict() | wider(part, max(_ROUND, round(theirs * share)), {})
    return changed


def _heads(fields: Mapping[str, Any], before: int, width: int, given: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers of heads that divide the width, those of keys and values that divide them, and sizes of heads."""
    changed: dict[str, Any] = {}
    old, new = 0, 0
    for name, value in fields.items():
        if not _HEADS.fullmatch(name) or not _sizes(value):
            continue
        heads = value if isinstance(value, int) else value[0]
        fitting = given[name] if name in given and _is_size(given[name]) else fitting_heads(heads, before, width)
        if name not in given:
            changed[name] = fitting if isinstance(value, int) else [max(1, h * fitting // heads) for h in value]
        if not old:
            old, new = heads, fitting
    if not old:
        return changed
    grown = width / new * old / before  # how much wider a head is
    for name, value in fields.items():
        if name in given or (value is not None and not _sizes(value)):
            continue
        if _KV_HEADS.fullmatch(name):  # where it says nothing, as many as there are heads
            changed[name] = new if value is None else _each(value, lambda n: _dividing(max(1, n * new // old), new))
        elif value is None and name == "head_dim":
            changed[name] = width // new
        elif value is not None and _HEAD_DIM.fullmatch(name):
            changed[name] = _each(value, lambda size: max(4, 2 * round(size * grown / 2)))
    return changed


def _state_spaces(fields: Mapping[str, Any], before: int, width: int, given: Mapping[str, Any]) -> dict[str, Any]:
    """Mamba's heads, which share the `expand` times widened width exactly, and groups that divide them."""
    expand = next((fields[name] for name in ("mamba_expand", "expand") if _is_size(fields.get(name))), None)
    heads = next((name for name in _MAMBA_HEADS if _is_size(fields.get(name))), None)
    if expand is None or heads is None or heads in given:
        return {}
    inner, old = width * expand, before * expand
    if _is_size(fields.get("mamba_d_ssm")):
        inner, old = _rounded(fields["mamba_d_ssm"], width / before), fields["mamba_d_ssm"]
    fitting = fitting_heads(fields[heads], old, inner)
    changed: dict[str, Any] = {heads: fitting}
    for name in ("mamba_d_head", "mamba_headdim", "mamba_head_dim", *(("head_dim",) if heads == "num_heads" else ())):
        if _is_size(fields.get(name)):
            changed[name] = inner // fitting
    for name in ("n_groups", "mamba_n_groups", "mamba_ngroups"):
        if _is_size(fields.get(name)):
            changed[name] = _dividing(fields[name], fitting)
    return {name: value for name, value in changed.items() if name not in given}


def fitting_heads(heads: int, before: int, width: int) -> int:
    """The most heads up to `heads` that divide the width into even sizes of at least 16, or as narrow as before."""
    narrowest = min(_NARROWEST, max(2, before // heads))
    sizes = (number for number in range(heads, 0, -1) if width % number == 0 and width // number >= narrowest)
    return next((number for number in sizes if width // number % 2 == 0), 1)


def _dividing(number: int, heads: int) -> int:
    return next(kv for kv in range(min(number, heads), 0, -1) if heads % kv == 0)


def _rounded(size: int, share: float) -> int:
    if size <= _FEW:
        return size
    return max(_ROUND, _ROUND * round(size * share / _ROUND))


def _depths(config: Any) -> dict[str, Any]:
    """The fields that count blocks; where stages say it in lists, these alone: the other counts the stages."""
    found = {name: value for name, value in _fields(config) if name in DEPTHS and _deepest(value)}
    lists = {name: value for name, value in found.items() if not _is_size(value)}
    return lists or found


def _widths(fields: Mapping[str, Any]) -> Sequence[str]:
    """The names of widths, in the order in which they count: in stages that double it, the first one's."""
    return ("embed_dim", *WIDTHS) if isinstance(fields.get("depths"), list | tuple) else WIDTHS


def _fields(config: Any) -> Iterator[tuple[str, Any]]:
    return ((name, value) for name, value in vars(config).items() if not name.startswith("_"))


def _parts(config: Any) -> dict[str, Any]:
    """Configs inside a config: of its text, its images."""
    return {
        name: value for name, value in _fields(config) if hasattr(value, "model_type") and hasattr(value, "to_dict")
    }


def _deepest(value: Any) -> int:
    if _is_size(value):
        return int(value)
    if isinstance(value, list | tuple) and value and all(map(_is_size, value)):
        return int(max(value))
    return 0


def _sizes(value: Any) -> bool:
    return _is_size(value) or (isinstance(value, list | tuple) and bool(value) and all(map(_is_size, value)))


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _each(value: Any, change: Any) -> Any:
    return [change(one) for one in value] if isinstance(value, list | tuple) else change(value)
