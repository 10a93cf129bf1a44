"""A logged name as words, whatever the tool joins them with."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

VALIDATION = frozenset(
    "val valid validation eval evaluation test dev holdout heldout tel va te valid0 valid1 validset testset".split()
)
TRAIN = frozenset("train training trn tr trainset learn trl".split())

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z][a-z])|(?<=[A-Z])(?=[A-Z][a-z]{2})|(?<=[a-z])(?=[A-Z]$)|(?<=loss)(?=[A-Z_])")
_BREAKS = re.compile(r"[^A-Za-z0-9]+")
_JOINED = {
    "trainloss": ("train", "loss"),
    "valloss": ("val", "loss"),
    "testloss": ("test", "loss"),
    "evalloss": ("eval", "loss"),
    "crossentropy": ("cross", "entropy"),
    "learningrate": ("learning", "rate"),
    "gradnorm": ("grad", "norm"),
    "gnorm": ("grad", "norm"),
    "lossscale": ("loss", "scale"),
    "gradient": ("grad",),
    "gradients": ("grad",),
    "grads": ("grad",),
    "losses": ("loss",),
    "globalstep": ("global", "step"),
    "lrs": ("lr",),
}


@lru_cache(maxsize=4096)
def words(key: str) -> tuple[str, ...]:
    """The words of a name in lower case: `train/CrossEntropyLoss` is train, cross, entropy, loss.

    What stands before " - " is the name of a run (W&B's exports), and left out.
    """
    name = key.rpartition(" - ")[2] or key
    found: list[str] = []
    for part in _BREAKS.split(_CAMEL.sub(" ", name)):
        word = part.lower()
        if word:
            found.extend(_JOINED.get(word, (word,)))
    return tuple(found)


def without_prefix(keys: Iterable[str]) -> dict[str, str]:
    """Each name without the folders that all of them share (the name of a run), at least one part of it kept."""
    listed = list(keys)
    parts = [key.split("/") for key in listed]
    common = 0
    if len(listed) > 1:
        for level in zip(*(part[:-1] for part in parts), strict=False):
            if len(set(level)) > 1 or set(words(level[0])) & (TRAIN | VALIDATION | {"loss", "lr"}):
                break
            common += 1
    return {key: "/".join(part[common:]) for key, part in zip(listed, parts, strict=True)}


def is_validation(key: str) -> bool:
    """Whether a name says validation, evaluation or test."""
    return bool(VALIDATION & set(words(key)))


def is_train(key: str) -> bool:
    """Whether a name says that it is of training."""
    return bool(TRAIN & set(words(key))) and not is_validation(key)
