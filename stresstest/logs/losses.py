"""Which of a log's names is the train loss: the total before its parts, train before validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from stresstest.logs.curve import Curve
from stresstest.logs.names import TRAIN, VALIDATION, is_train, is_validation, words

_LOSS = frozenset("loss nll xent ce cost objective logloss trl tel".split())
_METRICS = frozenset(
    "rmse mse mae l1 l2 error err mape logistic deviance multi_logloss binary_logloss quantile".split()
)
_NOT_A_LOSS = frozenset(
    "scale scaler scaling weight weights coef coeff coefficient best min time ratio lr std var count num threshold"
    " target rate patience delta diff change improvement gradient grad norm acc accuracy tokens scheduler max"
    " per_second skipped nan lambda alpha beta gain nonfinite step_time".split()
)
# They say how a loss was taken, not which part of it this is.
_PLAIN = frozenset(
    "loss step epoch batch iter iteration lm cross entropy ce nll token mean avg average total overall sum reduced"
    " model metrics metric log logs scalar scalars global main trainer running smoothed smooth ema final current"
    " cost objective value all window moving per nats language modeling mlm sft task 0 1 xent logloss full"
    " combined interval last raw local".split()
)
_TOTAL = frozenset("total overall sum full combined all".split())
_SMOOTHED = frozenset("running smoothed smooth ema window moving".split())
_RESTORATION = frozenset("pix percep style total".split())
_BITS = frozenset("bpc bpb bpd bits".split())
_PERPLEXITY = frozenset("ppl perplexity".split())

Unit = Literal["nats", "bits", "log of perplexity"]


@dataclass(frozen=True)
class LossChoice:
    """The names whose sum is the loss, what is to be said of them, and in what it is counted."""

    keys: tuple[str, ...]
    note: str = ""
    unit: Unit = "nats"


def choose_loss(short: Mapping[str, str], curves: Mapping[str, Curve] | None = None) -> LossChoice:
    """The train loss among these names (each with its name without the run's); no keys where there is none."""
    there = [key for key in short if curves is None or (key in curves and len(curves[key]))]
    losses = [key for key in there if is_loss(short[key])]
    train = [key for key in losses if not is_validation(short[key])]
    whole = [key for key in train if not parts_of(short[key])]
    if whole:
        return _whole(whole, short, curves)
    if train:
        return _parts([key for key in train if is_train(short[key])] or train, curves)
    return _stand_in(there, short, curves) or _of_validation(losses, short)


def is_loss(key: str) -> bool:
    """Whether a name is that of a loss; `loss_scale`, `best_loss` and `time_loss` are none."""
    said = set(words(key))
    named = bool(said & _LOSS) or {"cross", "entropy"} <= said or _of_restoration(words(key))
    return named and not said & _NOT_A_LOSS


def _of_restoration(said: tuple[str, ...]) -> bool:
    """Whether a name is one of BasicSR's, and of the trainers made from it: `l_pix`, `l_percep`."""
    own = tuple(word for word in said if word not in TRAIN | VALIDATION)
    return len(own) == 2 and own[0] == "l" and own[1] in _RESTORATION


def is_perplexity(key: str) -> bool:
    """Whether a name is that of a perplexity or of bits per character or byte."""
    return bool(set(words(key)) & (_PERPLEXITY | _BITS))


def in_bits(key: str) -> bool:
    """Whether a name says that it is counted in bits."""
    return bool(set(words(key)) & _BITS)


def parts_of(name: str) -> tuple[str, ...]:
    """The words that make a loss one part of the whole: `box` of `train/box_loss`."""
    return tuple(word for word in words(name) if word not in _PLAIN | TRAIN | VALIDATION)


def validation_of(short: Mapping[str, str], loss_keys: Sequence[str]) -> tuple[str, ...]:
    """The names whose sum is the validation loss: of the same parts as the train loss."""
    if loss_keys and not is_loss(short.get(loss_keys[0], loss_keys[0])):
        wanted_words = _without_split(short.get(loss_keys[0], loss_keys[0]))
        same = (key for key in short if is_validation(short[key]) and _without_split(short[key]) == wanted_words)
        return tuple(same)[:1]
    found = [key for key in short if is_loss(short[key]) and is_validation(short[key])]
    whole = [key for key in found if not parts_of(short[key])]
    if whole:
        return (min(whole, key=lambda key: _validation_rank(short[key])),)
    wanted = {parts_of(short[key]) for key in loss_keys if key in short}
    alike = [key for key in found if parts_of(short[key]) in wanted]
    names = {_split_word(short[key]) for key in alike}
    first = min(names, key=_split_rank, default="")
    return tuple(key for key in alike if _split_word(short[key]) == first)


def _whole(keys: list[str], short: Mapping[str, str], curves: Mapping[str, Curve] | None) -> LossChoice:
    """The total, else the one with the most rows; batch by batch before epoch by epoch."""
    rows = {key: len(curves[key]) if curves is not None else 0 for key in keys}
    most = max(rows.values())
    often = [key for key in keys if 2 * rows[key] >= most]
    best = min(_said_to_be_of_training(often, short, rows), key=lambda key: _whole_rank(short[key]))
    others = [key for key in keys if key != best]
    note = f"other losses there: {_listed(others)} (--metric chooses)" if others else ""
    return LossChoice((best,), note)


def _said_to_be_of_training(keys: list[str], short: Mapping[str, str], rows: Mapping[str, int]) -> list[str]:
    """Without a bare `loss` where a `train loss` is there as often: the bare one may be that of validation."""
    train = [key for key in keys if is_train(short[key])]
    same = {tuple(word for word in words(short[key]) if word not in TRAIN): rows[key] for key in train}
    return [key for key in keys if key in train or same.get(words(short[key]), -1) < rows[key]]


def _whole_rank(name: str) -> tuple[bool, bool, bool, bool, int]:
    said = set(words(name))
    return (
        bool(said & _SMOOTHED),
        "epoch" in said,
        not said & _TOTAL,
        "loss" not in said,
        len(said),
    )


def _parts(keys: list[str], curves: Mapping[str, Curve] | None) -> LossChoice:
    """The sum of what is logged in the same rows."""
    if len(keys) == 1:
        return LossChoice((keys[0],), f"the only train loss is {keys[0]!r}")
    if curves is not None:
        most = max(len(curves[key]) for key in keys)
        keys = [key for key in keys if len(curves[key]) == most]
    keys = _of_one_kind(keys)
    return LossChoice(tuple(keys), f"no total among the losses: the sum of {_listed(keys)} is judged")


def _of_one_kind(keys: list[str]) -> list[str]:
    """Of names for steps and for epochs, those for steps."""
    steps = [key for key in keys if "epoch" not in words(key)]
    return steps or keys


def _stand_in(keys: list[str], short: Mapping[str, str], curves: Mapping[str, Curve] | None) -> LossChoice | None:
    """What can be judged where no loss is named: a metric that is one, bits, a perplexity; of training alone."""
    train = [key for key in keys if not is_validation(short[key])]
    metrics = [key for key in train if _is_metric(short[key])]
    bits = [key for key in train if set(words(short[key])) & _BITS]
    perplexities = [key for key in train if set(words(short[key])) & _PERPLEXITY]
    if metrics:
        key = min(metrics, key=lambda key: (not is_train(short[key]), len(words(short[key]))))
        return LossChoice((key,), f"no loss is named: {key!r} is judged")
    if bits:
        return LossChoice((bits[0],), f"{bits[0]!r} is in bits", "bits")
    if perplexities:
        key = perplexities[0]
        return LossChoice((key,), f"no loss is named: the log of {key!r} is judged", "log of perplexity")
    return None


def _is_metric(name: str) -> bool:
    """Whether a name is that of a metric which may be the loss; the `l1` of something, or a `score`, is not."""
    said = set(words(name))
    of_what = said - _METRICS - _PLAIN - TRAIN - {"s", "squared", "absolute", "root"}
    return bool(said & _METRICS) and not said & _NOT_A_LOSS and not of_what


def _of_validation(losses: list[str], short: Mapping[str, str]) -> LossChoice:
    found = validation_of({key: short[key] for key in losses}, losses)
    if not found:
        return _validation_metric(short)
    return LossChoice(found, f"no train loss is there: the validation loss {_listed(found)} is judged")


def _validation_metric(short: Mapping[str, str]) -> LossChoice:
    """A metric that falls, of held-out rows: all that boosters print by default."""
    found = [key for key, name in short.items() if is_validation(name) and set(words(name)) & _METRICS]
    found = [key for key in found if not set(words(short[key])) & _NOT_A_LOSS]
    if not found:
        return LossChoice(())
    return LossChoice((found[0],), f"no train loss is there: the validation metric {found[0]!r} is judged")


def _validation_rank(name: str) -> tuple[bool, int, int]:
    return "epoch" not in words(name), _split_rank(_split_word(name)), len(words(name))


def _without_split(name: str) -> tuple[str, ...]:
    return tuple(word for word in words(name) if word not in VALIDATION | TRAIN and not word.isdigit())


def _split_word(name: str) -> str:
    return next((word for word in words(name) if word in VALIDATION), "")


def _split_rank(word: str) -> int:
    order = ("val", "valid", "validation", "eval", "evaluation", "dev", "holdout", "heldout")
    return order.index(word) if word in order else len(order)


def _listed(keys: Sequence[str]) -> str:
    shown = ", ".join(repr(key) for key in keys[:4])
    return shown if len(keys) <= 4 else f"{shown} and {len(keys) - 4} more"
