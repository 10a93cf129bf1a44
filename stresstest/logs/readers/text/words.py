"""What a name before a number means in print: an index, a loss, a validation, or nothing that is judged."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

Kind = Literal["step", "batch", "epoch", "total", "rank", "loss", "value", "noise"]

_STEPS = frozenset(
    "step steps globalstep globalsteps currentsteps trainstep trainingstep trainsteps iteration iterations iter iters "
    "itr it curiter currentiter trainiter update updates numupdates round tree curstep currentstep optimizerstep "
    "totalsteps".split()
)
_BATCHES = frozenset("batch batches batchidx batchindex minibatch batchno batchnum stepinepoch".split())
_EPOCHS = frozenset("epoch epochs ep epochnum currentepoch époque epoca época эпоха".split())
# Before an index's word they make it a setting, a count of something else or a rate.
_NO_INDEX = frozenset(
    "per each every max total warmup number num skipped nan consumed saved save log logging eval early stopping "
    "best last remaining decay accumulation for".split()
)
_RANKS = frozenset("rank localrank globalrank worker".split())
_INDICES: tuple[tuple[Kind, frozenset[str]], ...] = (
    ("step", _STEPS),
    ("batch", _BATCHES),
    ("epoch", _EPOCHS),
    ("rank", _RANKS),
)

_LOSS = re.compile(r"loss|(?:^|[^a-z])(?:nll|xent|bce|mse|mae|rmse|bpc|bpb|elbo|ppl|cost)(?![a-z])")
_BOOSTED = re.compile(
    r"'s l[12]$|-m?error$|'s (?:multi_|binary_)?error$|'s mape$|-mape$|'s (?:huber|poisson|quantile)$"
)
_LOSS_WORDS = ("crossentropy", "perplexity", "logprob")
_NO_LOSS = re.compile(
    r"scal|weight|best|lowest|(?:^|[^a-z])min(?:imum)?(?![a-z])|coef|patience|threshold|target|delta|margin|improv"
    r"|previous|prev(?![a-z])|lambda|lossless|every|interval|window|count|number|(?:^|[^a-z])lr(?![a-z])|weigh"
    r"|change|std(?![a-z])|time|epsilon"
)
_VALIDATION = re.compile(
    r"(?:^|[^a-z])(?:val|valid|validation|validating|eval|evaluation|evaluating|evaluate|test|testing|dev|holdout"
    r"|tel|va|te|hella|hellaswag)(?![a-z])"
)
_SAYS_VALIDATION = re.compile(
    r"(?:^|[\s\[(|>])(?:val|valid|validation|validating|eval|evaluation|evaluating|evaluate|test|testing|dev|holdout)"
    r"(?=[\s\]):,|]|$)",
    re.I,
)
_TRAIN = re.compile(r"(?:^|[^a-z])(?:train|training|tr|trl)(?![a-z])")
_NOISE = re.compile(
    r"time|(?:^|[^a-z])(?:ms|sec|secs|seconds|s|dt|eta|mem|memory|gb|gib|mb|mib|tok|toks|tokens|tps|tflops|flops"
    r"|gflops|mfu|hfu|ups|wps|wpb|bsz|gpu|cpu|seed|params|parameters|port|pid|ip|id|version|v_num|line|size|samples"
    r"|sample|throughput|speed|elapsed|remaining|runtime|wall|train_wall|imgs|images|instances|examples|num_workers"
    r"|seqlen|seq|data|version|python|cuda|torch|memory_gb|max_mem|data_time|workers|node|nodes|process|port|layers"
    r"|heads|dim|vocab|files|shards|classes)(?![a-z])|/s(?:ec)?$|per.sec|_per_|throughput|flops"
)


@lru_cache(maxsize=4096)
def kind_of(name: str) -> Kind:
    """What a name stands for; "value" is a number of the run that is kept, such as a learning rate."""
    lower = name.lower()
    index = _index(lower)
    if index is not None:
        return index
    if is_loss(name):
        return "loss"
    return "noise" if _NOISE.search(lower) else "value"


def is_loss(name: str) -> bool:
    """Whether a name is that of a loss or what stands for one."""
    lower = name.lower()
    if not (
        _LOSS.search(lower)
        or _BOOSTED.search(lower)
        or any(word in lower.replace(" ", "").replace("_", "") for word in _LOSS_WORDS)
    ):
        return False
    return not _NO_LOSS.search(lower)


@lru_cache(maxsize=4096)
def is_validation(text: str) -> bool:
    """Whether words say that the numbers after them are of data that was not trained on."""
    lower = text.lower()
    return bool(_VALIDATION.search(lower)) and not _TRAIN.search(lower)


@lru_cache(maxsize=4096)
def says_validation(text: str) -> bool:
    """The same of a line's text, in which a host or a folder may hold such a word."""
    return bool(_SAYS_VALIDATION.search(text)) and not _TRAIN.search(text.lower())


@lru_cache(maxsize=4096)
def names_training(text: str) -> bool:
    """Whether words say that the numbers after them are of the training data."""
    return bool(_TRAIN.search(text.lower()))


def _index(lower: str) -> Kind | None:
    """An index has its word alone, or last after a space; "elapsed time per step" and "time/batch" have none."""
    whole = re.sub(r"\((?:train|training)\)|^train/|^trainer/|^progress/", "", lower)
    words = re.sub(r"[^\w/ ]", " ", whole).split()
    if not words or "/" in whole or _NO_INDEX & set(words[:-1]):
        return None
    for candidate in ("".join(words).replace("_", ""), words[-1].replace("_", "")):
        for kind, known in _INDICES:
            if candidate in known:
                return kind
    return None
