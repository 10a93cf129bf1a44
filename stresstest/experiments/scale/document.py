"""The report of a path of sizes: the law's picture and tables, its own checks, what was measured."""

from __future__ import annotations

from typing import Any

from stresstest.experiments.document_parts import data_words, machine_words, model_words, report_of, seeds_words
from stresstest.experiments.scale.charts import charts
from stresstest.experiments.scale.naming import path_words
from stresstest.experiments.scale.spec import ScaleSpec
from stresstest.experiments.scale.tables import brief, carried_over, laws, left_out, sizes
from stresstest.experiments.scale.verdicts import answer
from stresstest.reports.document import Block, Document
from stresstest.results.records import Result


def document(result: Result) -> Document:
    """The whole report."""
    spec = ScaleSpec.model_validate(result.spec)
    fixed = {name: value for name, value in result.spec.items() if name not in spec.path}
    fixed["parametrization"] = spec.parametrization[0] if len(spec.parametrization) == 1 else "sp"  # several: in rows
    model = model_words(fixed, result.data)
    title = f"Scale: {model}, {path_words(spec)}, {spec.optimizer}, {seeds_words(result)}"
    blocks: list[Block] = []
    if result.summary:
        blocks += [*brief(result, spec), *charts(result, spec), *laws(result, spec), *carried_over(result, spec)]
        blocks += [*left_out(result, spec), *sizes(result, spec)]
    return report_of(result, title, _setting(result, spec), blocks, answer(result))


def _setting(result: Result, spec: ScaleSpec) -> str:
    """What was trained on, how long an LR was held, and where."""
    grown = {axis: f"{sizes[0]} to {sizes[-1]}" for axis, sizes in spec.path.items()}
    told: dict[str, Any] = {axis: grown[axis] for axis in ("batch_size", "seq_len") if axis in grown}
    data = data_words({**result.spec, **told}, result.data)
    held = grown.get("hold_steps", str(spec.hold_steps))
    return f"{data}; holds of {held} steps; {machine_words(result)}"
