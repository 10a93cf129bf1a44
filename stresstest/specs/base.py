"""Settings that all that trains has: the shape of a model, on what it is trained, for which seeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic.fields import FieldInfo

from stresstest.registry import did_you_mean
from stresstest.specs.kinds import MODELS, is_user_model, kind_of
from stresstest.specs.parsing import nearest_divisor, parse_seeds, parse_settings, split_choices, split_settings

OFF = "off"  # of a setting that is empty by default


def is_off(field: FieldInfo) -> bool:
    """Whether a setting is off, as the help has it, unless somebody gives it a value."""
    return field.default in (None, "", ())


class Spec(BaseModel):
    """Base of all settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)

    @model_validator(mode="before")
    @classmethod
    def _off_is_a_word(cls, settings: Any) -> Any:
        """For a setting that is off by default: what a place that counts less says of it is undone."""
        if not isinstance(settings, Mapping):
            return settings
        fields = cls.model_fields
        off = {
            name: fields[name].default
            for name, value in settings.items()
            if value == OFF and name in fields and is_off(fields[name])
        }
        return {**settings, **off}


_IN_LOSS_FN = {"label_smoothing": "smooth the labels", "z_loss": "add it"}  # what one's own model does there
OF_NO_MODEL = "of no model"  # in a field's metadata: no model has a default of its own for it


class ShapeSpec(Spec):
    """The shape of a model, but for its depth."""

    model: str = Field(
        "decoder",
        description="Built-in architecture: decoder, encoder, encoder-decoder, mlp or resnet; or your own, "
        "FILE.py:FACTORY, MODULE:FACTORY, hf:TYPE[:TASK], hf:FILE.json or hf:FOLDER.",
    )
    set: tuple[str, ...] = Field((), description="Arguments of your own model's factory, KEY=VALUE,...")
    batch_fn: str = Field(
        "", description="Function batch(step, batch_size, generator) for your own model's data, if not in its file."
    )
    loss_fn: str = Field("", description="Function loss_fn(model, batch) of your own model, if not in its file.")
    optimizer_fn: str = Field("", description="Function optimizer(params, lr) of your own model, if not in its file.")
    step_fn: str = Field(
        "", description="Function step(model, batch, lr) that trains your own model one step, if not in its file."
    )
    from_weights: str = Field(
        "", description="File with a state dict (.pt, .pth, .safetensors) that your own model starts from."
    )
    random_init: bool = Field(False, description="Build hf:FOLDER from its config alone, without its weights.")
    norm: Literal["layer-norm", "rms-norm", "dyt", "none"] = Field(
        "layer-norm", description="Norm function: layer-norm, rms-norm, dyt or none."
    )
    width: int = Field(64, ge=2, description="Model width.")
    ffn_width: int | None = Field(None, ge=1, description="Hidden width of the feed-forward layer (off: 4 x width).")
    heads: int = Field(4, ge=1, description="Attention heads per block; must divide the width.")
    seq_len: int = Field(64, ge=1, description="Bytes per sequence; for translation, the most tokens per sentence.")
    vocab_size: int | None = Field(
        None, ge=1, description="Rows of the embedding (off: the number of tokens in the data)."
    )
    activation: Literal["gelu", "relu"] = Field("gelu", description="Activation of the feed-forward layer.")
    tied: bool = Field(False, description="Share the input embedding with the output layer.")
    qk_norm: bool = Field(False, description="Norm on queries and keys, per head.")
    qkv_gain: float = Field(
        1.0, gt=0, description="Gain of W_Q, W_K, W_V at initialisation; torch and fairseq use 0.70710678."
    )
    parametrization: Literal["sp", "mup", "completep"] = Field(
        "sp",
        description="Whether a learning rate carries over to other sizes: sp (it does not), mup (to other widths), "
        "completep (to other depths too).",
    )
    base_width: int = Field(32, ge=2, description="Width at which mup and completep train as sp does.")
    base_depth: int = Field(2, ge=1, description="Depth at which completep leaves residual branches as they are.")
    dropout: float = Field(
        0.0, ge=0, lt=1, description="Dropout in training, of a transformer's embedding and of each sublayer's output."
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="Label smoothing of the training loss; validation is without."
    )
    z_loss: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Times log(Z)^2 is added to a transformer's training loss, Z the softmax's sum; PaLM has 1e-4.",
    )

    @property
    def grown(self) -> frozenset[str]:
        """Settings of a run that an experiment gives from size to size, beside which the one value has no say."""
        return frozenset()

    @property
    def parametrized(self) -> bool:
        """Whether anything is trained otherwise than as the models are written."""
        return self.parametrization != "sp"

    @model_validator(mode="before")
    @classmethod
    def _fill_in_the_models_defaults(cls, settings: Any) -> Any:
        model = settings.get("model", "decoder") if isinstance(settings, Mapping) else None
        if not isinstance(model, str) or not (is_user_model(model) or model in MODELS):
            return settings  # the field's own check complains
        return cls.defaults_of(model) | dict(settings)

    @classmethod
    def defaults_of(cls, model: str) -> dict[str, Any]:
        """The defaults that a model has of its own, of these settings."""
        own, fields = kind_of(model).defaults, cls.model_fields
        return {name: own[name] for name in own if name in fields and OF_NO_MODEL not in fields[name].metadata}

    @field_validator("model")
    @classmethod
    def _model_is_known(cls, model: str) -> str:
        if not is_user_model(model) and model not in MODELS:
            hint = f"; is it {model}:FUNCTION?" if "." in model else did_you_mean(model, MODELS)
            raise ValueError(f"unknown model{hint}")
        return model

    @field_validator("set", mode="before")
    @classmethod
    def _split_settings(cls, value: Any) -> Any:
        return split_settings(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _settings_mean_something_to_the_model(self) -> Self:
        for name in sorted(kind_of(self.model).lacks):
            if getattr(self, name) != type(self).model_fields[name].default:
                remedy = (
                    "leave it out"
                    if not is_user_model(self.model)
                    else f"{_IN_LOSS_FN[name]} in its loss_fn(model, batch)"
                    if name in _IN_LOSS_FN
                    else f"use set {name}=... if its factory has this argument"
                )
                raise ValueError(f"model {self.model} has no setting {name}; {remedy}")
        if not is_user_model(self.model):
            for name in ("set", "batch_fn", "loss_fn", "optimizer_fn", "step_fn", "from_weights", "random_init"):
                if getattr(self, name):
                    raise ValueError(
                        f"{name} works only with your own model, FILE.py:FACTORY; {self.model} is built in"
                    )
        parse_settings(self.set)
        return self

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if "heads" in kind_of(self.model).lacks:
            return self
        if "width" not in self.grown and self.width % self.heads:
            raise ValueError(
                f"width {self.width} is not divisible by heads {self.heads}; "
                f"use heads {nearest_divisor(self.width, self.heads)}, "
                f"or width {max(1, round(self.width / self.heads)) * self.heads}"
            )
        if self.parametrized and self.base_width % self.heads:
            near = max(1, round(self.base_width / self.heads)) * self.heads
            raise ValueError(f"base_width {self.base_width} is not divisible by heads {self.heads}; use {near}")
        return self


class ModelSpec(ShapeSpec):
    """The shape of a built-in model."""

    depth: int = Field(6, ge=1, description="Number of blocks (of each stack, in an encoder-decoder).")


class TrainingSpec(ShapeSpec):
    """What is trained, on what, for which seeds."""

    variant: tuple[str, ...] = Field(
        ("post-ln", "pre-ln", "normformer", "rezero", "deepnorm"),
        min_length=1,
        description="Norm variants, NAME[:key=value,...]; 'all' for every one.",
    )
    clip_norm: float | None = Field(
        None, gt=0, description="Clip gradients to this norm (off by default: clipping hides instability)."
    )
    task: Literal["language", "masked-language", "translation", "images"] = Field(
        "language",
        description="What the model learns: language (the next byte), masked-language (hidden bytes), translation, "
        "images (their class).",
    )
    data: str = Field(
        "synthetic",
        description="Data source: synthetic; text: pydoc, path:FILE or enwik8:FILE; translations: pairs:SOURCE,TARGET; "
        "images: digits or cifar10:FOLDER.",
    )
    batch_size: int = Field(8, ge=1, description="Sequences or images per step.")
    accumulate: int = Field(
        1,
        ge=1,
        description="Micro-batches that a step's batch is split into, whose gradients are added up: less memory, the "
        "same training. In a batch sweep, of the largest batch. Of a DataLoader, the batches that make a step.",
    )
    beam: int = Field(
        1, ge=1, le=1000, description="Width of the beam search for BLEU; 1 takes the likeliest token each time."
    )
    length_penalty: float = Field(
        1.0, ge=0, description="Exponent of the length that a beam search divides log-probabilities by."
    )
    penalized_length: Literal["tokens", "gnmt"] = Field(
        "tokens", description="That length: tokens, as in fairseq, or gnmt: (5 + tokens) / 6."
    )
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1, description="Number of seeds, or a list: 5 or 0,3,7.")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N.")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="Arithmetic: float32, or bfloat16/float16 by autocast over float32 weights."
    )
    kernel: Literal["auto", "torch", "native", "triton", "graph"] = Field(
        "auto",
        description="What trains: torch; for model mlp in float32 native (C++, compiled at first use, on a CPU) or "
        "triton (on a GPU); graph (torch's operations as one CUDA graph a step); or auto: native where it can be had, "
        "torch elsewhere.",
    )

    @property
    def largest_batch(self) -> int:
        """Examples in a step, the most that there are."""
        return self.batch_size

    @property
    def micro_batch(self) -> int | None:
        """Examples whose gradient is taken at once, at most; `None`: all of a step's."""
        return None if self.accumulate == 1 else self.largest_batch // self.accumulate

    @property
    def optimizers(self) -> tuple[str, ...]:
        """Every optimizer that is asked for."""
        raise NotImplementedError  # one or several: the kinds of experiments differ

    def with_names(self, variants: tuple[str, ...], optimizers: tuple[str, ...]) -> Self:
        """The same of these variants and optimizers."""
        raise NotImplementedError  # as above

    @field_validator("seeds", mode="before")
    @classmethod
    def _parse_seeds(cls, value: Any) -> Any:
        return parse_seeds(value) if isinstance(value, str) else value

    @field_validator("seeds")
    @classmethod
    def _seeds_are_distinct(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if min(seeds) < 0 or max(seeds) >= 1 << 32:
            raise ValueError(f"seeds {','.join(map(str, seeds))} must lie between 0 and 2^32 - 1")
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"seeds {','.join(map(str, seeds))} contain duplicates; give each seed once")
        return seeds

    @field_validator("variant", mode="before")
    @classmethod
    def _parse_variants(cls, value: Any) -> Any:
        variants = split_choices(value) if isinstance(value, str) else value
        if not variants:
            raise ValueError("give at least one variant, e.g. --variant pre-ln")
        return variants

    @model_validator(mode="after")
    def _micro_batches_are_equal(self) -> Self:
        size = self.largest_batch
        if is_user_model(self.model) or "batch_size" in self.grown:  # a loader may say another size
            return self
        if size % self.accumulate:
            nearest, batch = nearest_divisor(size, self.accumulate), max(1, round(size / self.accumulate))
            raise ValueError(
                f"accumulate {self.accumulate} does not divide the batch of {size} examples; use {nearest}, or a batch "
                f"of {batch * self.accumulate}"
            )
        return self

    @model_validator(mode="after")
    def _task_is_the_models(self) -> Self:
        if not is_user_model(self.model) and self.task != MODELS[self.model].task:
            raise ValueError(f"task {self.task} does not fit model {self.model}; use task {MODELS[self.model].task}")
        if is_user_model(self.model) and self.task in ("masked-language", "translation"):
            raise ValueError(
                f"task {self.task} works only with built-in models; give your data with a batch() function"
            )
        return self

    @model_validator(mode="after")
    def _only_translations_are_searched(self) -> Self:
        for name in ("beam", "length_penalty", "penalized_length"):
            if self.task != "translation" and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is of translations, and the task is {self.task}; leave it out")
        return self


class OneDepthSpec(ModelSpec):
    """The depth of an experiment that trains."""
