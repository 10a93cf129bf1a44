"""What validation gives beside the loss, of built-in models."""

from __future__ import annotations

KEPT_SCORES = (  # of the run of a schedule; bits_per_byte are its loss once more
    "token_accuracy",
    "bleu",
    "max_attention_logit",
    "log_z_rms",
)
