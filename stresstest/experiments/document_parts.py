"""What the documents of several experiments share: sentences, cells and the end of a page."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from stresstest.experiments.answers import Answer, warnings_of
from stresstest.models.variants import PARAMETRIZATIONS
from stresstest.reports.document import PAGE, Block, Code, Details, Document, Fact, Heading, Paragraph, Value
from stresstest.reports.numbers import has_constant, interval, loss, loss_unit, middle, number
from stresstest.results.records import MetricSummary, Result
from stresstest.specs.kinds import is_user_model, kind_of

_KERNELS = {"native": ", native kernel", "triton": ", Triton kernel", "graph": ", CUDA graphs"}
_SEED_ROOM = 0.7  # of a row, for the seeds of what stands in it


def report_of(result: Result, title: str, subtitle: str, blocks: list[Block], answer: Answer | None = None) -> Document:
    """A whole report, which on a page ends with what it takes to see the same again."""
    answer = answer or Answer()
    return Document(
        name=f"stresstest {result.command}",
        title=title,
        subtitle=subtitle,
        blocks=(*blocks, *_environment(result)),
        verdicts=answer.verdicts,
        sure=answer.sure,
        warnings=warnings_of(result),
        findings=tuple(finding.text for finding in result.findings),
        next=answer.next,
        footer=(Fact("again", result.reproduce),),
    )


def _environment(result: Result) -> list[Block]:
    data, env = result.data, result.environment
    size = f"{data['bytes']} bytes, " if "bytes" in data else ""
    where = f"{env['key']}; stresstest {env['stresstest']}; data {data['hash']} ({size}{constant_words(result)})"
    settings = json.dumps({"spec": result.spec, "rules": result.rules}, indent=1)
    return [
        Heading("Environment", formats=PAGE),
        Paragraph(where, "dim", formats=PAGE),
        Details("all settings and rules", (Code(settings),)),
    ]


def metric_cell(metric: MetricSummary | None) -> Value:
    """The median, and the interval where there are seeds to take it over."""
    if metric is None:
        return Value("-")
    over_seeds = interval(metric)
    return Value(middle(metric), "" if metric.n == 1 or over_seeds == "-" else over_seeds)


def beside(place: float, number: int, count: int) -> float:
    """Where one of so many seeds stands in the row of a place: a little above or below the others."""
    return place + _SEED_ROOM * (number - (count - 1) / 2) / count


def seeds_words(result: Result) -> str:
    """How many seeds it rests on."""
    count = len(result.spec["seeds"])
    return f"{count} seed{'s' * (count > 1)}"


def machine_words(result: Result, dtype: str | None = None) -> str:
    """The machine, the arithmetic, and the kernel where that is not torch's."""
    kernel = _KERNELS.get(result.kernel, "")
    return f"{result.environment['device_name']}, {dtype or result.spec['dtype']}{kernel}"


def interval_words(metric: MetricSummary | None) -> str:
    """What the brackets mean."""
    if metric is None or metric.n == 1:
        return "Use --seeds 3 or more: one seed does not show the scatter."
    return f"In brackets: intervals over {metric.n} seeds that cover the median {metric.coverage:.0%} of the time."


def model_words(spec: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """The model and its shape; of the user's own, what its factory takes."""
    names = [name for name in ("depth", "width") if name in spec and name in data.get("takes", ("depth", "width"))]
    shape = [f"{name} {spec[name]}" for name in names]
    others = [text for text in spec.get("set", ()) if text.partition("=")[0] not in names]
    return ", ".join([spec["model"], *others, *shape, *_parametrized(spec)])


def _parametrized(spec: Mapping[str, Any]) -> Iterator[str]:
    asked = spec.get("parametrization", "sp")
    for name in [asked] if isinstance(asked, str) else asked:  # a path of sizes compares several
        if words := PARAMETRIZATIONS[name].words:
            yield words.format_map(spec)


def data_words(spec: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """What the model is and what it learns."""
    if is_user_model(spec["model"]):
        size = spec["batch_size"] if isinstance(spec["batch_size"], str) else data.get("examples", spec["batch_size"])
        weights = f", weights in {data['dtype']}" if "dtype" in data else ""
        examples = f"{size} examples per step of {data['name']}{weights}{_start_words(data)}"
        if not has_constant(data):
            return f"{examples} (constant predictor unknown: give a baseline_loss, or a collapse to it goes unseen)"
        found = f", {data['constant']}" if data.get("constant") else ""
        return f"{examples} (constant predictor: {loss(data['baseline_loss'], loss_unit(data))}{found})"
    batch, length = spec["batch_size"], spec["seq_len"]
    examples = {
        "language": f"{batch} x {length} bytes per step",
        "masked-language": f"{batch} x {length} bytes per step (15 % masked)",
        "translation": f"{batch} sentence pairs below {length} tokens per step",
        "images": f"{batch} images per step",
    }[spec["task"]]
    examples = examples if spec["task"] == "images" else f"{spec['heads']} heads, {examples}"
    norm = "" if "norm" in kind_of(spec["model"]).lacks else f"{spec['norm']}, "
    words = f"{norm}{examples} of {data['name']} (constant predictor: {data['baseline_loss']:.2f} nats)"
    words = ", ".join([words, *_regularised(spec)])
    published = kind_of(spec["model"]).published
    others = [] if published is None else [name for name in spec["variant"] if name.partition(":")[0] not in published]
    return f"{words}; analogues of a transformer's variants: {', '.join(others)}" if others else words


def _start_words(data: Mapping[str, Any]) -> str:
    if not data.get("starts_from"):
        return ""
    start = data["starts_from"]
    return f", from {start} (seeds differ in their batches and dropout alone)"


def _regularised(spec: Mapping[str, Any]) -> Iterator[str]:
    if spec.get("dropout"):
        yield f"dropout {spec['dropout']:g}"
    if spec.get("label_smoothing"):
        yield f"label smoothing {spec['label_smoothing']:g} in the training loss and in that of the constant predictor"
    if spec.get("z_loss"):
        yield f"z-loss {spec['z_loss']:g} in the training loss"
    if spec.get("beam", 1) > 1:
        yield f"BLEU by a beam search of {spec['beam']}"
    if spec.get("accumulate", 1) > 1:
        yield f"accumulated over {spec['accumulate']} micro-batches"


def loss_format(result: Result) -> Callable[[float], str]:
    """How a table writes losses: to two decimals, and the small ones of a loss of its own unit to two digits."""
    if not is_user_model(result.spec["model"]):
        return "{:.2f}".format
    return lambda value: f"{value:.2f}" if 0.1 <= abs(value) < 100.0 else number(value)


def constant_words(result: Result) -> str:
    """The loss of the best constant predictor, and how it was found."""
    data = result.data
    if not has_constant(data):
        return "constant predictor unknown"
    if not is_user_model(result.spec["model"]):
        return f"constant predictor {data['baseline_loss']:.3f} nats"
    found = f", {data['constant']}" if data.get("constant") else ""
    return f"constant predictor {loss(data['baseline_loss'], loss_unit(data))}{found}"


def probes_words(result: Result) -> str:
    """What reading the replicas, and a loader once more, cost, measured; nothing where nothing was read."""
    spent = sum(cell.probe_seconds for cell in result.cells)
    total = sum(cell.seconds for cell in result.cells)
    replays = _replay_words(result)
    if not spent or not total:
        return replays
    return f" Probes (--probes {result.spec['probes']}) took {spent / total:.0%} of the time.{replays}"


def _replay_words(result: Result) -> str:
    """What it cost to get to a later batch of a loader, if it was a second or more."""
    seconds = sum(cell.replay_seconds for cell in result.cells)
    return f" Reading the loader up to where it was took {seconds:.0f} s." if seconds >= 1.0 else ""
