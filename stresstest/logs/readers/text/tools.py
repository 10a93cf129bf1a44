"""The tools whose print is known: one entry each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from stresstest.logs.curve import Role, RowKind
from stresstest.logs.readers.text.template import Field
from stresstest.logs.readers.text.words import Kind


@dataclass(frozen=True)
class Tool:
    """What is known of a tool's print.

    name: as it is shown. mark: found in one of the lines that were read, it tells the tool. lines: patterns of lines
    that no words explain; their named groups are the columns. roles: names that are fixed. row_kind, zero_for_nan,
    row_note, loss_unit: as in `FormatFacts`. running: whether the loss is a mean over the epoch so far, of which only
    an epoch's last row counts. batch: what the index within an epoch counts, where it is not batches. sums: whether a
    row is a sum, so that one at step 0, of a single batch, is left out. summary: found in lines that sum an epoch up.
    """

    name: str
    mark: str
    lines: tuple[str, ...] = ()
    roles: Mapping[Role, str] = field(default_factory=dict)
    row_kind: RowKind = "unknown"
    zero_for_nan: bool = False
    running: bool = False
    batch: str = "batch"
    sums: bool = False
    summary: str = ""
    row_note: str = ""
    loss_unit: str = ""


_N = r"[-+]?(?:\d[\d,]*\.?\d*(?:[eE][-+]?\d+)?|nan|inf)"
_I = r"\d+"
_KINDS: Mapping[str, Kind] = {
    "step": "step",
    "iteration": "step",
    "epoch": "epoch",
    "batch": "batch",
    "batches": "total",
    "step_total": "total",
}
# Names that cannot stand in a group's name.
_SPELLED: Mapping[str, str] = {
    "train_loss": "train loss",
    "val_loss": "val loss",
    "step_total": "step total",
}

TOOLS: tuple[Tool, ...] = (
    Tool(
        "transformers Trainer stdout",
        r"\{'loss': .*'epoch': ",
        roles={"loss": "loss", "lr": "learning_rate", "grad_norm": "grad_norm", "validation": "eval_loss"},
        row_kind="mean",
        zero_for_nan=True,
    ),
    Tool(
        "nanoGPT",
        r"^iter \d+: loss .*time .*ms",
        roles={"step": "iter", "loss": "loss", "validation": "val loss"},
        row_kind="sample",
    ),
    Tool(
        "build-nanogpt log.txt",
        r"^\d+ train \d+\.\d+$",
        (
            rf"(?P<step>{_I}) train (?P<train_loss>{_N})\s*",
            rf"(?P<step>{_I}) val (?P<val_loss>{_N})\s*",
            rf"(?P<step>{_I}) hella (?P<hellaswag>{_N})\s*",
        ),
        roles={"step": "step", "loss": "train loss", "validation": "val loss"},
        row_kind="sample",
    ),
    Tool(
        "modded-nanogpt",
        r"^step:\d+/\d+ (?:train|val)_loss:.*step_avg:",
        roles={"step": "step", "loss": "train_loss", "validation": "val_loss"},
        row_kind="sample",
    ),
    Tool(
        "llm.c",
        r"^s:\d+ (?:trl|tel|eval):|^step\s+\d+/\d+ \| (?:train )?loss ",
        (
            rf"s:(?P<step>{_I}) trl:(?P<train_loss>{_N})\s*",
            rf"s:(?P<step>{_I}) trl:(?P<train_loss>{_N}) lr:(?P<lr>{_N}) norm:(?P<norm>{_N})\s*",
            rf"s:(?P<step>{_I}) tel:(?P<val_loss>{_N})\s*",
            rf"s:(?P<step>{_I}) eval:(?P<hellaswag>{_N})\s*",
        ),
        row_kind="sample",
    ),
    Tool(
        "OLMo",
        r"train/CrossEntropyLoss=",
        roles={
            "loss": "train/CrossEntropyLoss",
            "grad_norm": "optim/total_grad_norm",
            "lr": "optim/learning_rate_group0",
        },
        row_kind="sample",
    ),
    Tool(
        "Megatron-LM",
        r"iteration\s+\d+/\s*\d+ \|.*(?:lm loss:|number of skipped iterations:)",
        roles={
            "step": "iteration",
            "loss": "lm loss",
            "lr": "learning rate",
            "grad_norm": "grad norm",
            "loss_scale": "loss scale",
            "skipped": "number of skipped iterations",
        },
        row_kind="mean",
    ),
    Tool(
        "fairseq",
        r"nll_loss.*(?:wps|ups|bsz|gnorm|num_updates)",
        row_kind="mean",
        summary=r"epoch \d+ \| loss ",
        loss_unit="bits",
    ),
    Tool(
        "torchtitan",
        r"step:\s+\d+\s+loss:\s+\S+\s.*(?:tps|wps):",
        roles={"step": "step", "loss": "loss", "grad_norm": "grad_norm"},
        row_kind="sample",
    ),
    Tool("torchtune", r"^Step \d+ \| loss:\S+ lr:", roles={"step": "Step", "loss": "loss"}, row_kind="sample"),
    Tool("litgpt", r"iter\s+\d+ (?:step \d+ )?\|\s*loss train:", roles={"step": "iter", "loss": "loss train"}),
    Tool("Composer", r"^\s*Train (?:loss/|time/|LanguageCrossEntropy)", row_kind="sample"),
    Tool(
        "MMEngine stdout",
        r"(?:Epoch|Iter)\(train\)\s+\[",
        roles={"loss": "loss"},
        row_kind="window",
        row_note="the mean of a sliding window of steps",
    ),
    Tool(
        "MMCV stdout",
        r"(?:Epoch \[\d+\]\[\d+/\d+\]|Iter \[\d+/\d+\])\s*lr: .*loss: ",
        roles={"loss": "loss"},
        row_kind="mean",
    ),
    Tool(
        "Detectron2 stdout",
        r"iter: \d+\s+total_loss: ",
        roles={"loss": "total_loss"},
        row_kind="mean",
        row_note="the median of the last 20 steps",
    ),
    Tool("YOLOX", r"iter: \d+/\d+, .*total_loss: ", roles={"loss": "total_loss"}, row_kind="sample"),
    Tool("Keras progress bar", r"^\s*\d+/\d+ (?:\[[=>.]+\]|[━─]+|- \d+m?s).* - loss: ", row_kind="mean", running=True),
    Tool(
        "PyTorch word_language_model",
        r"\| epoch\s+\d+ \|\s+\d+/\s*\d+ batches \| lr .*\| loss ",
        roles={"loss": "loss", "lr": "lr"},
        row_kind="mean",
    ),
    Tool("PyTorch ImageNet example", r"Epoch: \[\d+\]\[\s*\d+/\d+\].*Loss ", roles={"loss": "Loss"}, row_kind="sample"),
    Tool(
        "PyTorch MNIST example",
        r"Train Epoch: \d+ \[\d+/\d+ \(",
        roles={"loss": "Loss"},
        row_kind="sample",
        batch="samples",
    ),
    Tool("PyTorch quickstart", r"^loss: \S+\s+\[\s*\d+/\s*\d+\]\s*$", row_kind="sample", batch="samples"),
    Tool("PyTorch CIFAR-10 tutorial", r"^\[\d+,\s+\d+\] loss: ", row_kind="mean"),
    Tool(
        "CatBoost stdout",
        r"^\d+:\t(?:learn|total|test): ",
        (
            rf"(?P<iteration>{_I}):\s+learn: (?P<learn>{_N})\s+total: .*",
            rf"(?P<iteration>{_I}):\s+learn: (?P<learn>{_N})\s+test: (?P<val_loss>{_N})\s+best: .*",
        ),
        roles={"step": "iteration", "loss": "learn", "validation": "val loss"},
        row_kind="sample",
    ),
    Tool(
        "XGBoost or LightGBM stdout",
        r"^\[\d+\]\s+[\w.\- ]+(?:'s |-)[\w@\-]+:",
        row_kind="sample",
    ),
    Tool("Lightning progress bar", r"Epoch \d+: +\d+%\|.*(?:v_num=|loss)", row_kind="unknown"),
    Tool("YOLO console", r"^\s*Epoch\s+(?:GPU_mem|gpu_mem)\s", row_kind="mean", running=True),
    Tool(
        "spaCy table",
        r"^E\s+#\s+LOSS \w+",
        row_kind="mean",
        row_note="the sum over the steps since the row before",
        sums=True,
    ),
    Tool("transformers Trainer table", r"^(?:Step|Epoch)\tTraining Loss", row_kind="mean", zero_for_nan=True),
    Tool("fastai table", r"^\s*epoch\s+train_loss\s+valid_loss", roles={"loss": "train_loss"}, row_kind="mean"),
)


@dataclass(frozen=True)
class KnownLine:
    """A line that only its tool explains."""

    tool: str
    pattern: re.Pattern[str]
    fields: tuple[Field, ...]


def _known(tool: Tool, pattern: str) -> KnownLine:
    compiled = re.compile(pattern)
    names = sorted(compiled.groupindex, key=lambda name: compiled.groupindex[name])
    fields = tuple(Field(_SPELLED.get(name, name), _kind(name)) for name in names)
    return KnownLine(tool.name, compiled, fields)


def _kind(name: str) -> Kind:
    return _KINDS.get(name, "loss" if name.endswith("loss") or name == "learn" else "value")


KNOWN_LINES: tuple[KnownLine, ...] = tuple(_known(tool, pattern) for tool in TOOLS for pattern in tool.lines)
