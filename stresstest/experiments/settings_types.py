"""The settings that the functions of `stresstest` take, as types. Written by scripts/settings_types.py; do not edit."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict


class CallSettings(TypedDict, total=False):
    """What every experiment takes beside its own settings."""

    args: Mapping[str, Any] | None
    batch: Any
    step: Callable[..., Any] | None
    baseline_loss: float | None
    profile: Literal["quick", "standard", "full"]
    run_dir: str | Path | None
    log: str | Sequence[str] | None
    quiet: bool


class SharedSettings(CallSettings, total=False):
    """Settings that every experiment has."""

    set: str | Sequence[str]
    batch_fn: str
    loss_fn: str | Callable[..., Any]
    optimizer_fn: str
    step_fn: str
    from_weights: str
    random_init: bool
    norm: Literal["layer-norm", "rms-norm", "dyt", "none"]
    width: int
    ffn_width: int | None
    heads: int
    seq_len: int
    vocab_size: int | None
    activation: Literal["gelu", "relu"]
    tied: bool
    qk_norm: bool
    qkv_gain: float
    base_width: int
    base_depth: int
    dropout: float
    label_smoothing: float
    z_loss: float
    variant: str | Sequence[str]
    clip_norm: float | None
    task: Literal["language", "masked-language", "translation", "images"]
    data: str
    batch_size: int
    accumulate: int
    beam: int
    length_penalty: float
    penalized_length: Literal["tokens", "gnmt"]
    seeds: int | str | Sequence[int]
    device: str
    dtype: Literal["float32", "bfloat16", "float16"]
    kernel: Literal["auto", "torch", "native", "triton", "graph"]
    start_lr: float
    end_lr: float


class LrRangeSettings(SharedSettings, total=False):
    """Settings of `stresstest lr-range`."""

    parametrization: Literal["sp", "mup", "completep"]
    depth: int
    optimizer: str | Callable[..., Any]
    ramp: Literal["exponential", "linear"]
    num_steps: int
    hold_steps: int
    hold_resolution: Literal["octave", "half-octave", "quarter-octave"]
    theory: bool
    probes: Literal["off", "economy", "standard", "full"]
    lr_window: bool
    parallel: Literal["off", "fsdp"]


class DepthSweepSettings(SharedSettings, total=False):
    """Settings of `stresstest depth-sweep`."""

    parametrization: Literal["sp", "mup", "completep"]
    optimizer: str | Callable[..., Any]
    ramp: Literal["exponential", "linear"]
    num_steps: int
    hold_steps: int
    hold_resolution: Literal["octave", "half-octave", "quarter-octave"]
    theory: bool
    probes: Literal["off", "economy", "standard", "full"]
    lr_window: bool
    parallel: Literal["off", "fsdp"]
    depths: int | str | Sequence[int]
    measure: str | Sequence[Literal["outcome", "ramp", "hold"]]
    init_only: bool
    peak_lr: float
    warmup_steps: int
    train_steps: int
    target_loss: float | None
    bisect: bool
    probe_steps: int | str | Sequence[int]
    jacobian_input: Literal["data", "noise"]


class WarmupSettings(SharedSettings, total=False):
    """Settings of `stresstest warmup`."""

    parametrization: Literal["sp", "mup", "completep"]
    depth: int
    optimizer: str | Sequence[str] | Callable[..., Any]
    num_lrs: int
    decay: str
    warmup: str | Sequence[str]
    warmup_steps: int | str | Sequence[int]
    train_steps: int
    map: bool
    trials: int
    trials_at_once: int
    sampler: Literal["auto", "tpe", "gp", "random"]
    search_seed: int


class RaceSettings(SharedSettings, total=False):
    """Settings of `stresstest race`."""

    parametrization: Literal["sp", "mup", "completep"]
    depth: int
    optimizer: str | Sequence[str] | Callable[..., Any]
    num_lrs: int
    decay: str
    warmup_steps: int
    train_steps: int
    target_loss: float | None


class BatchSweepSettings(SharedSettings, total=False):
    """Settings of `stresstest batch-sweep`."""

    parametrization: Literal["sp", "mup", "completep"]
    depth: int
    optimizer: str | Sequence[str] | Callable[..., Any]
    num_lrs: int
    decay: str
    batch_sizes: int | str | Sequence[int]
    tokens: int | str
    lr_scaling: Literal["sqrt", "linear", "none"]
    warmup_share: float


class ScaleSettings(SharedSettings, total=False):
    """Settings of `stresstest scale`."""

    parametrization: str | Sequence[Literal["sp", "mup", "completep"]]
    depth: int
    optimizer: str | Callable[..., Any]
    ramp: Literal["exponential", "linear"]
    num_steps: int
    hold_steps: int
    hold_resolution: Literal["octave", "half-octave", "quarter-octave"]
    theory: bool
    probes: Literal["off", "economy", "standard", "full"]
    lr_window: bool
    parallel: Literal["off", "fsdp"]
    widths: int | str | Sequence[int]
    depths: int | str | Sequence[int]
    batch_sizes: int | str | Sequence[int]
    seq_lens: int | str | Sequence[int]
    train_steps: int | str | Sequence[int]
    target: str | int | Mapping[str, int]
    coords: bool


class ShockSettings(SharedSettings, total=False):
    """Settings of `stresstest shock`."""

    parametrization: Literal["sp", "mup", "completep"]
    depth: int
    optimizer: str | Callable[..., Any]
    ramp: Literal["exponential", "linear"]
    num_steps: int
    hold_steps: int
    hold_resolution: Literal["octave", "half-octave", "quarter-octave"]
    theory: bool
    probes: Literal["off", "economy", "standard", "full"]
    lr_window: bool
    parallel: Literal["off", "fsdp"]
    widths: int | str | Sequence[int]
    depths: int | str | Sequence[int]
    batch_sizes: int | str | Sequence[int]
    seq_lens: int | str | Sequence[int]
    shock: str | Sequence[str]
    guard: str | Sequence[str]
    after: int
    train_steps: int | None
    peak_lr: float | None
    lr_share: float
    warmup_steps: int
    decay: str
    nulls: int


class StableSettings(CallSettings, total=False):
    """Settings of `stresstest.testing.assert_stable` beside those that it names."""

    set: str | Sequence[str]
    batch_fn: str
    loss_fn: str | Callable[..., Any]
    optimizer_fn: str
    step_fn: str
    from_weights: str
    random_init: bool
    norm: Literal["layer-norm", "rms-norm", "dyt", "none"]
    width: int
    ffn_width: int | None
    heads: int
    seq_len: int
    vocab_size: int | None
    activation: Literal["gelu", "relu"]
    tied: bool
    qk_norm: bool
    qkv_gain: float
    parametrization: Literal["sp", "mup", "completep"]
    base_width: int
    base_depth: int
    dropout: float
    label_smoothing: float
    z_loss: float
    depth: int
    variant: str | Sequence[str]
    clip_norm: float | None
    task: Literal["language", "masked-language", "translation", "images"]
    data: str
    batch_size: int
    accumulate: int
    beam: int
    length_penalty: float
    penalized_length: Literal["tokens", "gnmt"]
    device: str
    dtype: Literal["float32", "bfloat16", "float16"]
    kernel: Literal["auto", "torch", "native", "triton", "graph"]
    optimizer: str | Sequence[str] | Callable[..., Any]
    decay: str
    warmup: str | Sequence[str]


class ScenarioSettings(TypedDict, total=False):
    """Settings that some experiment of a scenario has; `stresstest.run` lays them over what the file says."""

    model: str
    set: str | Sequence[str]
    batch_fn: str
    loss_fn: str
    optimizer_fn: str
    step_fn: str
    from_weights: str
    random_init: bool
    norm: Literal["layer-norm", "rms-norm", "dyt", "none"]
    width: int
    ffn_width: int | None
    heads: int
    seq_len: int
    vocab_size: int | None
    activation: Literal["gelu", "relu"]
    tied: bool
    qk_norm: bool
    qkv_gain: float
    parametrization: str | Sequence[Literal["sp", "mup", "completep"]]
    base_width: int
    base_depth: int
    dropout: float
    label_smoothing: float
    z_loss: float
    depth: int
    variant: str | Sequence[str]
    clip_norm: float | None
    task: Literal["language", "masked-language", "translation", "images"]
    data: str
    batch_size: int
    accumulate: int
    beam: int
    length_penalty: float
    penalized_length: Literal["tokens", "gnmt"]
    seeds: int | str | Sequence[int]
    device: str
    dtype: Literal["float32", "bfloat16", "float16"]
    kernel: Literal["auto", "torch", "native", "triton", "graph"]
    optimizer: str | Sequence[str]
    ramp: Literal["exponential", "linear"]
    start_lr: float
    end_lr: float
    num_steps: int
    hold_steps: int
    hold_resolution: Literal["octave", "half-octave", "quarter-octave"]
    theory: bool
    probes: Literal["off", "economy", "standard", "full"]
    lr_window: bool
    parallel: Literal["off", "fsdp"]
    depths: int | str | Sequence[int]
    measure: str | Sequence[Literal["outcome", "ramp", "hold"]]
    init_only: bool
    peak_lr: float
    warmup_steps: int | str | Sequence[int]
    train_steps: int | str | Sequence[int]
    target_loss: float | None
    bisect: bool
    probe_steps: int | str | Sequence[int]
    jacobian_input: Literal["data", "noise"]
    num_lrs: int
    decay: str
    warmup: str | Sequence[str]
    map: bool
    trials: int
    trials_at_once: int
    sampler: Literal["auto", "tpe", "gp", "random"]
    search_seed: int
    batch_sizes: int | str | Sequence[int]
    tokens: int | str
    lr_scaling: Literal["sqrt", "linear", "none"]
    warmup_share: float
    widths: int | str | Sequence[int]
    seq_lens: int | str | Sequence[int]
    target: str | int | Mapping[str, int]
    coords: bool
    shock: str | Sequence[str]
    guard: str | Sequence[str]
    after: int
    lr_share: float
    nulls: int
