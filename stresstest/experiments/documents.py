"""The report of a result, by the experiment that it is of."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from stresstest.experiments import contest_document
from stresstest.experiments.depth_sweep import document as depth_sweep
from stresstest.experiments.lr_range import document as lr_range
from stresstest.experiments.warmup import document as warmup
from stresstest.reports.document import Document
from stresstest.results.records import Result

_DOCUMENTS: Mapping[str, Callable[[Result], Document]] = {
    "lr-range": lr_range.document,
    "depth-sweep": depth_sweep.document,
    "warmup": warmup.document,
    "race": contest_document.race,
    "batch-sweep": contest_document.batch_sweep,
}


def document(result: Result) -> Document:
    """The document of any result."""
    return _DOCUMENTS[result.command](result)
