"""Every metric: its unit, its scale, what is better, and what it means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from stresstest.registry import Registry


@dataclass(frozen=True)
class Metric:
    """All facts about one metric."""

    name: str
    unit: str
    scale: Literal["log2", "linear", "grid"]  # grid: values between two that were tried mean nothing
    direction: Literal["higher", "lower", ""]  # what is better, if anything
    summary: str
    source: str = "this project"


METRICS: Registry[Metric] = Registry(
    "metric",
    [
        Metric(
            "onset_lr",
            "lr",
            "log2",
            "higher",
            "Ramp LR at which a replica starts to lose what it learned and does not recover.",
        ),
        Metric(
            "explosion_lr",
            "lr",
            "log2",
            "higher",
            "Ramp LR at which the loss becomes non-finite or stays above its start.",
        ),
        Metric("steps_survived", "steps", "linear", "higher", "Steps of the ramp before the explosion."),
        Metric(
            "max_stable_lr", "lr", "log2", "higher", "Largest constant LR that trains through the hold (a bracket)."
        ),
        Metric("best_lr", "lr", "log2", "", "Constant LR with the lowest validation loss at the end of the hold."),
        Metric("max_stable_lr_at", "lr", "log2", "higher", "max_stable_lr of a size that was not trained, by its law."),
        Metric("best_lr_at", "lr", "log2", "", "best_lr of a size that was not trained, by its law."),
        Metric(
            "shock_tolerance", "", "log2", "higher", "Largest dose of a shock that leaves no scar on a run (a bracket)."
        ),
        Metric(
            "break_tolerance", "", "log2", "higher", "Largest dose of a shock that does not break a run (a bracket)."
        ),
        Metric(
            "peak_excess", "nats", "linear", "lower", "Largest loss above the undisturbed twin's, at the standard dose."
        ),
        Metric(
            "recovery_steps",
            "steps",
            "linear",
            "lower",
            "Steps from the end of a shock until its difference to the twin counts no more.",
        ),
        Metric(
            "lasting_damage",
            "nats",
            "linear",
            "lower",
            "Mean loss above the undisturbed twin's over the last 30 steps, at the standard dose.",
        ),
        Metric(
            "lasting_share",
            "",
            "linear",
            "lower",
            "lasting_damage as a share of what the undisturbed twin has learned.",
        ),
        Metric("best_lr_exponent", "", "linear", "", "b of best_lr ~ size^b."),
        Metric(
            "change_exponent",
            "",
            "linear",
            "lower",
            "Largest b over layers of RMS change of the output in 10 steps ~ width^b; 0 under muP.",
            "Yang et al. 2022, App. D.1",
        ),
        Metric(
            "critical_lr",
            "lr",
            "log2",
            "",
            "LR at which the optimizer's first step begins to raise the loss of its own batch (a bracket).",
            "Kalra & Barkeshli 2024, App. B.2",
        ),
        Metric(
            "predicted_lr",
            "lr",
            "log2",
            "",
            "Largest LR that the curvature at initialisation allows: 2/sharpness for SGD, (2+2b)/((1-b) "
            "sharpness) for Adam.",
            "Cohen et al. 2021, 2022",
        ),
        Metric(
            "sharpness",
            "1/lr",
            "log2",
            "",
            "Largest eigenvalue of the Hessian at initialisation, preconditioned if the optimizer is.",
            "Cohen et al. 2021, 2022",
        ),
        Metric(
            "lr_window",
            "octaves",
            "linear",
            "higher",
            "Octaves between the smallest LR that makes progress and max_stable_lr.",
        ),
        Metric("final_loss", "nats", "linear", "lower", "Training loss at the end of the best hold tried."),
        Metric(
            "validation_loss",
            "nats",
            "linear",
            "lower",
            "Validation loss at the end of the best hold tried, at the boundary or an octave or two below it.",
        ),
        Metric(
            "recipe_loss",
            "nats",
            "linear",
            "lower",
            "Validation loss at the end of the fixed recipe, for runs that reached it.",
        ),
        Metric(
            "bits_per_byte",
            "bits",
            "linear",
            "lower",
            "Validation loss of a byte-level language model divided by ln 2.",
        ),
        Metric(
            "token_accuracy",
            "",
            "linear",
            "higher",
            "Share of target tokens ranked first, given the true tokens before them; held-out pairs.",
        ),
        Metric(
            "bleu",
            "",
            "linear",
            "higher",
            "Corpus BLEU, 0 to 100, of translations of held-out sentences, greedy or by beam search.",
            "Papineni et al. 2002; sacrebleu, tokenize=none",
        ),
        Metric(
            "max_attention_logit",
            "",
            "log2",
            "lower",
            "Largest magnitude of a transformer's attention logits on held-out batches, at the end of the run that "
            "validation_loss is of.",
            "Wortsman et al. 2023, Sec. 3.1.1",
        ),
        Metric(
            "log_z_rms",
            "",
            "log2",
            "lower",
            "Root mean square of log(Z) of a transformer's outputs on the same batches, Z the sum of exp(logits).",
            "Wortsman et al. 2023, Sec. 3.1.2",
        ),
        Metric("steps_to_target", "steps", "linear", "lower", "Steps of the fixed recipe until the target loss."),
        Metric("tokens_to_target", "tokens", "linear", "lower", "Tokens (or images) of a race until the target loss."),
        Metric(
            "seconds_to_target", "s", "log2", "lower", "Wall time of a race until the target loss, on this machine."
        ),
        Metric(
            "speedup", "times", "log2", "higher", "The reference's steps to the target loss divided by this entrant's."
        ),
        Metric(
            "scaling_batch",
            "examples",
            "log2",
            "higher",
            "Largest batch size that keeps 90 % of the smallest batch's loss reduction at equal tokens.",
        ),
        Metric(
            "batch_lr_exponent",
            "",
            "linear",
            "",
            "b of max_stable_lr ~ batch_size^b, least squares in log-log; 1/2 is sqrt scaling.",
            "You et al. 2019 (LAMB)",
        ),
        Metric("seconds_per_step", "s", "log2", "lower", "Wall time per step of one replica in its population."),
        Metric("peak_bytes", "bytes", "log2", "lower", "Peak memory of one replica in training."),
        Metric(
            "max_trainable_depth",
            "blocks",
            "log2",
            "higher",
            "Largest depth at which the fixed recipe trains (a bracket).",
        ),
        Metric(
            "max_stable_lr_exponent", "", "linear", "higher", "b of max_stable_lr ~ depth^b, least squares in log-log."
        ),
        Metric(
            "lr_sensitivity",
            "nats",
            "linear",
            "lower",
            "Mean over the peak LRs of min(loss, loss at init) minus the lowest of them; read it with the map.",
            "Wortsman et al. 2023, Sec. 2.2",
        ),
        Metric(
            "warmup_sensitivity",
            "nats",
            "linear",
            "lower",
            "The same over the warm-ups, averaged over the peak LRs that some warm-up trains.",
            "this project, after Wortsman et al. 2023",
        ),
        Metric("min_warmup", "steps", "grid", "lower", "Fewest warm-up steps that train at a peak LR."),
        Metric(
            "warmup_gain",
            "octaves",
            "linear",
            "",
            "Octaves that doubling the warm-up adds to max_stable_lr, least squares.",
            "Kalra & Barkeshli 2024",
        ),
        Metric("warmup_share", "", "linear", "", "Share of the loss's variance over the map due to the warm-up."),
        Metric("lr_share", "", "linear", "", "Share of the loss's variance over the map due to the peak LR."),
        Metric("interaction_share", "", "linear", "", "Share of the loss's variance due to their interaction."),
        Metric("grad_exponent", "", "linear", "", "b of grad_last ~ depth^b at initialisation."),
        Metric("grad_rate", "", "linear", "", "b of grad_last ~ b^depth, where that fits better."),
        Metric("activation_exponent", "", "linear", "", "b of activation_rms ~ depth^b at initialisation."),
        Metric("activation_rate", "", "linear", "", "b of activation_rms ~ b^depth, where that fits better."),
        Metric(
            "grad_ratio",
            "",
            "log2",
            "",
            "Gradient norm of the first block's last matrix over the last block's, at initialisation.",
            "Xiong et al. 2020, Sec. 3.4: Frobenius norm of the mean gradient",
        ),
        Metric(
            "encoder_grad_ratio",
            "",
            "log2",
            "",
            "grad_ratio of the encoder's blocks, for models with an encoder; grad_ratio is then the decoder's.",
            "Xiong et al. 2020, Sec. 3.4",
        ),
        Metric(
            "grad_mismatch",
            "",
            "log2",
            "",
            "The same ratio of mean absolute gradients.",
            "Shleifer et al. 2021 (NormFormer)",
        ),
        Metric("grad_slope", "decades / 100 blocks", "linear", "", "Slope of the log gradient norm over blocks."),
        Metric("grad_last", "", "log2", "", "Gradient norm of the last block's last matrix.", "Xiong et al. 2020"),
        Metric(
            "grad_last_trained",
            "",
            "log2",
            "",
            "grad_last before the last of the probe_steps of the fixed recipe.",
            "Xiong et al. 2020, Sec. 3.4",
        ),
        Metric("grad_mismatch_trained", "", "log2", "", "grad_mismatch before the last of the probe_steps."),
        Metric(
            "activation_rms_trained",
            "",
            "log2",
            "",
            "activation_rms before the last of the probe_steps.",
            "Kim et al. 2025 (Peri-LN): growth of the hidden state",
        ),
        Metric("parameters", "", "linear", "", "Trainable numbers of the model."),
        Metric(
            "stream_growth", "", "log2", "", "RMS of the stream after the last block over the one before the first."
        ),
        Metric("activation_rms", "", "log2", "", "RMS of stream plus branch in the last block, before a post-norm."),
        Metric(
            "branch_share",
            "",
            "log2",
            "",
            "RMS of the last sublayer's branch over the RMS of the stream it is added to.",
        ),
        Metric(
            "similarity",
            "",
            "linear",
            "",
            "Mean cosine between tokens (in an MLP, images) after the last block; 1 is rank collapse.",
            "init2winit's c-value",
        ),
        Metric(
            "jacobian_mean_square",
            "",
            "log2",
            "",
            "Mean squared singular value of the blocks' input-output Jacobian.",
            "Bachlechner et al. 2020 (ReZero)",
        ),
        Metric("jacobian_condition", "", "log2", "lower", "Largest over smallest singular value of the same Jacobian."),
    ],
)


def loss_unit(data: Mapping[str, Any]) -> str:
    """The unit of a result's losses: "nats" of a likelihood, or nothing where the loss has a unit of its own."""
    return str(data.get("loss_unit", "nats"))


def unit_of(metric: str, data: Mapping[str, Any]) -> str:
    """The unit of a metric in a result that was trained on these data; a metric that is not known has none."""
    unit = METRICS[metric].unit if metric in METRICS else ""
    return loss_unit(data) if unit == "nats" else unit
