"""Which of a log's names is the step, the learning rate, the gradient norm; `losses.py` finds the loss."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise

from stresstest.logs.curve import Curve, Role
from stresstest.logs.losses import choose_loss, is_loss, is_perplexity, validation_of
from stresstest.logs.names import is_validation, without_prefix, words

# In the order in which they are preferred, as words joined by spaces.
_STEPS = (
    "step",
    "global step",
    "trainer global step",
    "train global step",
    "iteration",
    "iter",
    "current steps",
    "train step",
    "steps",
    "iterations",
    "iters",
    "it",
    "update",
    "updates",
    "num updates",
    "num steps",
    "optimizer step",
    "opt step",
    "n iter",
    "total steps done",
    "round",
    "tree",
)
_COUNTERS = ("tokens", "samples", "examples", "images", "sequences", "instances")  # how much was read, not steps
_OF_A_COUNT = frozenset(
    "num n no number of consumed total seen processed train throughput global counter so far".split()
)
_EPOCHS = ("epoch", "epochs", "ep", "current epoch", "epoch num", "epoch index", "train epoch", "trainer epoch")
_BATCHES = ("batch", "batch idx", "batch index", "batch num", "minibatch", "iter in epoch", "batch id", "batch i")
_TIMES = ("time", "timestamp", "wall time", "walltime", "elapsed time", "runtime", "elapsed", "relative time")
_RANKS = ("rank", "local rank", "global rank", "process index", "process rank")
_EXACT: Mapping[Role, tuple[str, ...]] = {
    "epoch": _EPOCHS,
    "batch": _BATCHES,
    "time": _TIMES,
    "rank": _RANKS,
}
_FILLERS = frozenset(
    "train training trainer total global overall all optim optimizer l2 2 model raw unclipped before clip preclip"
    " metrics metric log logs system main stats lr learning rate mean avg average".split()
)
_NOT_THE_LR = frozenset(
    "scale decay min max mult multiplier ratio final initial init base scheduler schedule peak warmup steps loss"
    " decays factor layer".split()
)
_NOT_THE_NORM = frozenset("max min std var ratio count threshold weight param params update clipped after".split())
_SCALES = tuple(
    frozenset(pair.split())
    for pair in ("loss scale", "grad scale", "loss scaling", "amp scale", "scaler scale", "loss scaler")
)


def step_key(keys: Iterable[str]) -> str | None:
    """The name of the step among these: a step's own, else how many tokens or samples were read."""
    return find("step", keys)


def find(role: Role, keys: Iterable[str], curves: Mapping[str, Curve] | None = None) -> str | None:
    """The name that plays a role among these; None if none does. `curves` help where names alone do not tell."""
    short = without_prefix(keys)
    if role == "loss":
        choice = choose_loss(short, curves)
        return "+".join(choice.keys) or None
    if role == "validation":
        return "+".join(validation_of(short, ())) or None
    if role == "step":
        return _step(short)
    if role in _EXACT:
        return _first_named(short, _EXACT[role])
    if role == "lr":
        return next(iter(learning_rates(short)), None)
    fits = {"grad_norm": _is_grad_norm, "loss_scale": _is_loss_scale, "skipped": _is_skipped}[role]
    found = [key for key, name in short.items() if fits(words(name))]
    return min(found, key=lambda key: _strangers(words(short[key])), default=None)


def learning_rates(keys: Iterable[str]) -> tuple[str, ...]:
    """The names that are learning rates, the plainest first; never one of validation."""
    short = without_prefix(keys)
    found = [key for key, name in short.items() if _is_lr(words(name)) and not is_validation(name)]
    return tuple(sorted(found, key=lambda key: _strangers(words(short[key]))))


def moving(keys: Iterable[str], curves: Mapping[str, Curve]) -> str | None:
    """The first of these whose values move; else the first."""
    there = [key for key in keys if key in curves and len(curves[key])]
    moves = (key for key in there if curves[key].value.min() != curves[key].value.max())
    return next(moves, there[0] if there else None)


def batches_key(keys: Iterable[str]) -> str | None:
    """The name of how many batches an epoch has."""
    return _first_named(without_prefix(keys), ("batches", "num batches", "n batches", "total batches", "max iter"))


def has_a_role(key: str) -> bool:
    """Whether a name says that it is one of those that are read."""
    said = words(key)
    alone = {key: key}
    return (
        is_loss(key)
        or is_perplexity(key)
        or _is_lr(said)
        or _is_grad_norm(said)
        or _is_loss_scale(said)
        or _is_skipped(said)
        or _step(alone) is not None
        or any(_first_named(alone, names) for names in _EXACT.values())
        or batches_key([key]) is not None
    )


def _step(short: Mapping[str, str]) -> str | None:
    found = _first_named(short, _STEPS)
    if found is not None:
        return found
    endings = [key for key, name in short.items() if words(name)[-2:] == ("global", "step")]
    return next(iter(endings), None) or _counter(short)


def _counter(short: Mapping[str, str]) -> str | None:
    """How much was read, where a name says that alone."""
    named = ((key, [word for word in words(name) if word not in _OF_A_COUNT]) for key, name in short.items())
    return next((key for key, said in named if len(said) == 1 and said[0] in _COUNTERS), None)


def counted_in(key: str) -> str:
    """What a step of this name counts: steps, epochs, tokens, samples, seconds."""
    said = words(key)
    if key == "" or " ".join(said) in _EPOCHS:
        return "epochs" if key else "rows"
    if " ".join(said) in _TIMES:
        return "seconds"
    if " ".join(said) in ("round", "tree"):
        return "rounds"
    return next((word for word in _COUNTERS if word in said), "steps")


def _first_named(short: Mapping[str, str], names: Iterable[str]) -> str | None:
    by_words: dict[str, str] = {}
    for key, name in short.items():
        by_words.setdefault(" ".join(words(name)), key)
    return next((by_words[name] for name in names if name in by_words), None)


def _is_lr(said: tuple[str, ...]) -> bool:
    named = "lr" in said or ("learning", "rate") in pairwise(said) or said[:1] == ("lr0",)
    return named and not set(said) & _NOT_THE_LR


def _is_grad_norm(said: tuple[str, ...]) -> bool:
    if said == ("total", "norm"):
        return True
    return {"grad", "norm"} <= set(said) and not set(said) & _NOT_THE_NORM and _strangers(said) == 2


def _is_loss_scale(said: tuple[str, ...]) -> bool:
    return any(names <= set(said) for names in _SCALES) and len(said) <= 4


def _is_skipped(said: tuple[str, ...]) -> bool:
    return bool({"skipped", "overflow", "overflows"} & set(said)) and not {"tokens", "samples", "lines"} & set(said)


def _strangers(said: tuple[str, ...]) -> int:
    """How many words a name has that say nothing of which one it is."""
    return len([word for word in said if word not in _FILLERS])
