"""The dictionaries in a stored result: every key with its type, its unit and what it means.

Losses are nats; of a model of the user's own in the unit of its loss (`data.loss_unit`). Steps count from 0; a key
that does not apply is absent, `null` is a value that does not exist or is not finite.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidatorFunctionWrapHandler, WrapValidator, with_config
from typing_extensions import TypedDict  # pydantic asks for it below Python 3.12

from stresstest.results.outcome import Outcome, Reason


def _in_the_order_of_its_keys(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    checked = check(value)
    return {key: checked[key] for key in value} if isinstance(value, Mapping) else checked


AS_WRITTEN = WrapValidator(_in_the_order_of_its_keys)  # read and written again, a result is the same to the byte
_STRICT = with_config(extra="forbid")
_OPEN = with_config(extra="allow")  # a registered experiment, data source or task may add keys of its own

Loss = float | None


@_STRICT
class RunRecord(TypedDict, total=False):
    """What became of one run, and the evidence."""

    outcome: Annotated[Outcome, Field(description="What became of the run.")]
    reason: Annotated[
        Reason | Literal[""], Field(description="What was not finite first: loss, gradient or parameter; else empty.")
    ]
    onset_step: Annotated[
        int | None, Field(description="Step of the first loss at which it began to lose what it had learned, for good.")
    ]
    explosion_step: Annotated[
        int | None, Field(description="Step of the first loss that is not finite, or above the start for good.")
    ]
    best_loss: Annotated[Loss, Field(description="Lowest level of the loss (median of 5 steps), in nats.")]
    last_loss: Annotated[Loss, Field(description="Level of the loss at the end (median of 5 steps), in nats.")]
    learned: Annotated[bool, Field(description="Whether it got clearly below the best constant predictor.")]
    onset_lr: Annotated[float | None, Field(description="Learning rate of the step before onset_step.")]
    explosion_lr: Annotated[float | None, Field(description="Learning rate of the step before explosion_step.")]
    steps: Annotated[int, Field(description="Steps that were taken.")]
    initial_loss: Annotated[Loss, Field(description="Mean loss at initialisation over a few batches, in nats.")]
    clip_fraction: Annotated[float, Field(description="Share of the steps whose gradient was clipped, 0 to 1.")]
    skipped_steps: Annotated[int, Field(description="Steps skipped by the loss scaler (float16 overflow).")]


@_STRICT
class RampRecord(RunRecord, total=False):
    """The run whose learning rate rises."""

    curve: Annotated[
        list[tuple[float, float]],
        Field(description="[learning rate, loss in nats], thinned to at most 80 points; the largest of each stretch."),
    ]
    hold_monotone: Annotated[
        bool, Field(description="Whether no held LR above the first that broke is harmless, and none below broke.")
    ]


@_STRICT
class _HeldAt(TypedDict, total=False):
    lr: Annotated[float, Field(description="The learning rate that was held.")]
    validation_loss: Annotated[Loss, Field(description="Mean loss on held-out batches at the end, in nats.")]
    token_accuracy: Annotated[Loss, Field(description="Translation: share of tokens that are the likeliest, 0 to 1.")]
    bleu: Annotated[Loss, Field(description="Translation: corpus BLEU, 0 to 100.")]
    bits_per_byte: Annotated[Loss, Field(description="Language models of bytes: validation_loss over ln 2, in bits.")]
    max_attention_logit: Annotated[
        float, Field(description="Transformers: largest magnitude of attention logits on the held-out batches.")
    ]
    log_z_rms: Annotated[
        float, Field(description="Transformers: root mean square of log(Z), Z the sum of exp(logits), on the same.")
    ]


@_STRICT
class HoldRecord(_HeldAt, RunRecord, total=False):
    """A run at one constant learning rate."""


@_STRICT
class RecipeRecord(RunRecord, total=False):
    """The run through a schedule: the fixed recipe, a point of the warm-up map, a race or a batch sweep."""

    target_loss: Annotated[float, Field(description="Loss that steps_to_target counts to, in nats.")]
    validation_loss: Annotated[Loss, Field(description="Mean loss on held-out batches at the end, in nats.")]
    loss: Annotated[float, Field(description="The same, at most that of having learned nothing (cap), in nats.")]
    cap: Annotated[float, Field(description="Loss of having learned nothing: at initialisation, or chance, in nats.")]
    progress: Annotated[
        list[tuple[int, float]],
        Field(description="[step, level of the loss in nats], each the first at which the level is so low."),
    ]
    baseline_loss: Annotated[float, Field(description="Loss of the best constant predictor, in nats.")]


@_STRICT
class TheoryRecord(TypedDict, total=False):
    """What critical_lr and predicted_lr rest on, and what they took."""

    initial_loss: Annotated[Loss, Field(description="Loss at initialisation on the one batch, in nats.")]
    forwards: Annotated[int, Field(description="Forward passes of the search for critical_lr.")]
    no_curvature: Annotated[str, Field(description="Why the sharpness is missing, where it is.")]
    error: Annotated[float | None, Field(description="Bound on the distance of the sharpness to an eigenvalue, 1/lr.")]
    products: Annotated[int, Field(description="Hessian-vector products of Lanczos.")]
    converged: Annotated[bool, Field(description="Whether Lanczos ended by its tolerance, not by its budget.")]


@_STRICT
class SuspectRecord(TypedDict):
    """Something that explains a failure."""

    cause: Annotated[
        Literal["init", "missing-norm", "attention-scale", "large-logits", "frozen", "no-gradient", "eps", "overflow"],
        Field(description="What is odd."),
    ]
    place: Annotated[str, Field(description="Where: a tensor, a norm or a place of the forward pass.")]
    value: Annotated[
        float | None,
        Field(
            description="Times its peers (init, attention-scale), root mean square (large-logits), share of the "
            "matrices (eps) or of the values (overflow), 0 to 1."
        ),
    ]


@_STRICT
class MoveRecord(TypedDict):
    """A signal that left the range of its values before."""

    signal: Annotated[str, Field(description="Which signal, e.g. gradient, update, activation_rms, logit_max.")]
    place: Annotated[str, Field(description="Where: a tensor or a place of the forward pass.")]
    lead: Annotated[int, Field(description="Steps before the run began to break; 0 or less: after it.")]
    factor: Annotated[float | None, Field(description="To how many times its level before.")]


@_STRICT
class DiagnosisRecord(TypedDict, total=False):
    """Why the run that broke did; there for runs that were probed."""

    suspects: Annotated[list[SuspectRecord], Field(description="What is odd from the start on.")]
    moved: Annotated[list[MoveRecord], Field(description="What moved before the break, the earliest first.")]
    dead: Annotated[list[str], Field(description="Places that put out zeros after the break, and did not before.")]
    probes: Annotated[str, Field(description="How much was read in training: economy, standard or full.")]
    calm_runs: Annotated[int, Field(description="Runs of the same replica that trained, and were looked at too.")]
    alarms: Annotated[dict[str, int], Field(description="By signal: in how many of the calm runs it moved.")]
    tensors: Annotated[list[str], Field(description="Names of the columns of last_frames in the cell's curves.")]
    places: Annotated[list[str], Field(description="Names of the columns of looks in the cell's curves.")]


@_STRICT
class BracketRecord(TypedDict):
    """Where a value lies; null is an open side."""

    low: Annotated[float | None, Field(description="At least this, in the metric's unit.")]
    high: Annotated[float | None, Field(description="At most this, in the metric's unit.")]


@_STRICT
class LawRecord(TypedDict):
    """How the stream grows over the blocks."""

    law: Annotated[Literal["flat", "power", "geometric"], Field(description="~ 1, ~ block^rate, or ~ rate^block.")]
    rate: Annotated[float, Field(description="The rate of the law; 0 of a flat one.")]


@_STRICT
class SpectrumRecord(TypedDict):
    """Singular values of the blocks' input-output Jacobian."""

    method: Annotated[str, Field(description="exact, or lanczos, whose ends are bounds from inside.")]
    size: Annotated[int, Field(description="Rows of the Jacobian.")]
    mean_square: Annotated[float | None, Field(description="Mean squared singular value.")]
    largest: Annotated[float | None, Field(description="Largest singular value.")]
    smallest: Annotated[float | None, Field(description="Smallest singular value above zero.")]
    zero_share: Annotated[float, Field(description="Share of singular values that are zero to rounding, 0 to 1.")]
    log10_edges: Annotated[list[float], Field(description="Edges of a histogram over log10 of those above zero.")]
    shares: Annotated[list[float], Field(description="Share in each bin of the histogram, 0 to 1.")]


Curve = list[float | None]


@_STRICT
class SignalRecord(TypedDict, total=False):
    """Signal propagation of one replica; lists are over `blocks`."""

    blocks: Annotated[list[int], Field(description="The blocks, from 1; at most 48 of them.")]
    grad_norm: Annotated[Curve, Field(description="Frobenius norm of the mean gradient of a block's last matrix.")]
    grad_mean_abs: Annotated[Curve, Field(description="Mean absolute entry of the same gradient.")]
    stream_rms: Annotated[Curve, Field(description="Root mean square of the stream after the block.")]
    activation_rms: Annotated[Curve, Field(description="Root mean square of stream plus branch, before a post-norm.")]
    branch_rms: Annotated[Curve, Field(description="Root mean square of what the last sublayer adds.")]
    skip_rms: Annotated[Curve, Field(description="Root mean square of what it adds to.")]
    similarity: Annotated[Curve, Field(description="Mean cosine between tokens (or images) after the block.")]
    metrics: Annotated[dict[str, BracketRecord], Field(description="Metrics of this look, by name.")]
    stream_law: Annotated[LawRecord | None, Field(description="How stream_rms grows over the blocks.")]
    jacobian: Annotated[SpectrumRecord | None, Field(description="Null where the Jacobian is not finite.")]


@_STRICT
class CoordsRecord(TypedDict, total=False):
    """The coordinate check of one replica: lists over `places`, which are in the order of the forward pass."""

    places: Annotated[list[str], Field(description="What puts out numbers: sublayers, or modules of your own model.")]
    rms: Annotated[list[Curve], Field(description="Root mean square of the output x_t, at initialisation and after.")]
    change: Annotated[list[Curve], Field(description="Root mean square of x_t - x_0, after each step from the first.")]


@_OPEN
class PointRecord(TypedDict, total=False):
    """What an experiment varies beside variant, depth and seed; an experiment of your own may have other keys."""

    optimizer: Annotated[str, Field(description="Optimizer, NAME[:key=value,...].")]
    warmup: Annotated[str, Field(description="Shape of the warm-up; none without one.")]
    batch_size: Annotated[int, Field(description="Sequences or images a step.")]
    width: Annotated[int, Field(description="Model width.")]
    parametrization: Annotated[str, Field(description="sp, mup or completep.")]
    seq_len: Annotated[int, Field(description="Tokens a sequence.")]
    train_steps: Annotated[int, Field(description="Steps that an LR is held.")]
    warmup_steps: Annotated[int, Field(description="Steps of warm-up.")]
    steps: Annotated[int, Field(description="Steps of training.")]
    shock: Annotated[str, Field(description="Shock, NAME[:key=value,...].")]
    guard: Annotated[str, Field(description="What might save the run from it, NAME[:key=value,...]; absent: nothing.")]
    peak_lr: Annotated[float, Field(description="Learning rate after the warm-up; of a row, that of the lowest loss.")]


@_OPEN
class TrialRecord(PointRecord, total=False):
    """A setting that a search tried; by seed, in the order of the seeds."""

    outcomes: Annotated[list[str], Field(description="What became of each seed's run: an outcome, or the status.")]
    losses: Annotated[
        list[float], Field(description="Each seed's held-out loss, at most that of learning nothing, in nats.")
    ]


@_STRICT
class RulesRecord(TypedDict, total=False):
    """The constants by which outcomes are judged."""

    level_window: Annotated[int, Field(description="Losses whose median is the level, in steps.")]
    persistence: Annotated[int, Field(description="Steps in a row before an explosion or a relapse counts.")]
    patience: Annotated[int, Field(description="Steps in a row after which neither comes back at a constant LR.")]
    explosion_share: Annotated[float, Field(description="Exploded: above the initial loss by this share of it.")]
    explosion_sigmas: Annotated[float, Field(description="Or by this many standard deviations of it.")]
    far_above_chance: Annotated[float, Field(description="Initial loss above chance by this share: chance counts.")]
    relapse_share: Annotated[float, Field(description="Relapsed: this share of what was learned is given back.")]
    recovery_share: Annotated[float, Field(description="Recovered: back below this share of it.")]
    progress_share: Annotated[float, Field(description="Share of what can be learned that counts as learning.")]
    noise_sigmas: Annotated[float, Field(description="Differences below so many standard deviations do not count.")]
    noise_window: Annotated[int, Field(description="Losses whose scatter tells the noise, in steps.")]
    fresh_sigmas: Annotated[float, Field(description="Standard errors by which fresh batches overrule the levels.")]


@_STRICT
class EnvironmentRecord(TypedDict, total=False):
    """What a result depends on beside its settings."""

    torch: Annotated[str, Field(description="Version of torch.")]
    numpy: Annotated[str, Field(description="Version of numpy.")]
    stresstest: Annotated[str, Field(description="Version of this program.")]
    python: Annotated[str, Field(description="Version of Python.")]
    os: Annotated[str, Field(description="Operating system.")]
    machine: Annotated[str, Field(description="Processor architecture.")]
    device: Annotated[str, Field(description="cpu or cuda.")]
    device_name: Annotated[str, Field(description="Model of the processor or the GPU.")]
    dtype: Annotated[str, Field(description="Arithmetic: float32, bfloat16 or float16.")]
    key: Annotated[str, Field(description="What must be equal for two results to be compared.")]


@_OPEN
class DataRecord(TypedDict, total=False):
    """The data that were trained on; a task of your own may describe them by other keys too."""

    name: Annotated[str, Field(description="The data source.")]
    bytes: Annotated[int, Field(description="Size of the data, in bytes.")]
    images: Annotated[int, Field(description="Images, of training and validation.")]
    pairs: Annotated[int, Field(description="Sentence pairs, of training and validation.")]
    left_out: Annotated[int, Field(description="Sentence pairs that are too long.")]
    tokens: Annotated[int, Field(description="Size of the vocabulary, in tokens.")]
    hash: Annotated[str, Field(description="Hash of the data: equal data have an equal one.")]
    baseline_loss: Annotated[float, Field(description="Loss of the best constant predictor, in nats.")]
    chance_loss: Annotated[float, Field(description="Loss of a uniform guess, in nats.")]
    takes: Annotated[list[str], Field(description="Own model: which of depth, width, variant its factory takes.")]
    constant_predictor_known: Annotated[
        bool, Field(description="Own model: false where baseline_loss is the loss at initialisation, for want of one.")
    ]
    constant: Annotated[str, Field(description="Own model: how the best constant predictor was found.")]
    loss_unit: Annotated[str, Field(description="Own model: nats of a likelihood; empty where the loss has its own.")]
    examples: Annotated[int, Field(description="Own model: examples in a batch.")]
    starts_from: Annotated[str, Field(description="Own model: what every seed starts from, if not random weights.")]
    dtype: Annotated[str, Field(description="Own model: of its trainable parameters, where they are not float32.")]
