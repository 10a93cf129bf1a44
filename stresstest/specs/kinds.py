"""The kinds of models: the built-in architectures and the user's own, with all that settings depend on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stresstest.registry import Registry


@dataclass(frozen=True)
class ModelKind:
    """All facts about one built-in architecture that settings depend on."""

    name: str
    summary: str
    source: str
    task: str
    lacks: frozenset[str] = frozenset()  # settings that mean nothing to it
    defaults: Mapping[str, Any] = field(default_factory=dict)  # where they differ from the decoder's
    published: frozenset[str] | None = None  # the variants that a paper has of it; the others are analogues
    has: frozenset[str] | None = None  # the variants that it can be wired as, where they are few


_PARAMETRIZED = frozenset({"parametrization", "base_width", "base_depth"})
_OF_TRANSFORMERS = frozenset(
    {"heads", "ffn_width", "vocab_size", "activation", "tied", "qk_norm", "qkv_gain", "dropout", "z_loss"}
)

MODELS: Registry[ModelKind] = Registry(
    "model",
    [
        ModelKind("decoder", "Causal transformer over bytes.", "Vaswani et al. 2017; Radford et al. 2019", "language"),
        ModelKind(
            "encoder",
            "Transformer without a causal mask; learns to predict masked bytes (15 %) from both sides.",
            "Vaswani et al. 2017; Devlin et al. 2019 (BERT)",
            "masked-language",
            defaults={  # a seventh of the places is asked for, so that a step tells it less
                "task": "masked-language",
                "seq_len": 32,
                "batch_size": 32,
                "num_steps": 400,
                "hold_steps": 400,
                "train_steps": 500,
            },
        ),
        ModelKind(
            "encoder-decoder",
            "The original Transformer with two stacks of --depth blocks; learns to translate.",
            "Vaswani et al. 2017; Xiong et al. 2020",
            "translation",
            defaults={
                "task": "translation",
                "depth": 3,
                "seq_len": 24,
                "batch_size": 32,
                "num_steps": 300,
                "hold_steps": 300,
                "train_steps": 400,
            },
        ),
        ModelKind(
            "mlp",
            "Residual MLP with blocks ReLU(W x + b); trains with 10,000 blocks and more.",
            "Bachlechner et al. 2020 (ReZero)",
            "images",
            lacks=_OF_TRANSFORMERS | {"seq_len"},
            defaults={
                "task": "images",
                "depth": 32,
                "width": 32,
                "batch_size": 100,
                "variant": ("rezero", "residual", "layernorm", "plain"),
                "depths": (10, 100, 1000),
                "measure": ("outcome",),
                "peak_lr": 3e-4,
                "train_steps": 300,
            },
            published=frozenset({"plain", "residual", "layernorm", "rezero"}),
        ),
        ModelKind(
            "resnet",
            "ResNet with two convolutions per block; 9, 27, 54 blocks of width 16 are ResNet-20, -56, -110.",
            "He et al. 2016; Bachlechner et al. 2020 (ReZero)",
            "images",
            lacks=_OF_TRANSFORMERS | _PARAMETRIZED | {"seq_len", "norm"},
            defaults={
                "task": "images",
                "depth": 3,
                "width": 8,
                "batch_size": 32,
                "variant": ("vanilla", "fixup", "rezero"),
                "depths": (3, 9),
                "widths": (8, 11, 16, 23, 32),
                "measure": ("outcome",),
            },
            has=frozenset({"vanilla", "fixup", "rezero"}),
        ),
    ],
)


AS_BUILT = "as-built"  # the variant of a factory that takes none

_OWN = ModelKind(
    "own",
    "Your own: FILE.py:FACTORY, MODULE:FACTORY or hf:MODEL.",
    "",
    task="",
    lacks=_OF_TRANSFORMERS | _PARAMETRIZED | {"norm", "label_smoothing"},
    defaults={"variant": (AS_BUILT,)},
)


def is_user_model(model: str) -> bool:
    """Whether a model is the user's, and no built-in one."""
    return ":" in model


def kind_of(model: str) -> ModelKind:
    """What settings depend on, of a built-in model or the user's own."""
    return _OWN if is_user_model(model) else MODELS[model]
