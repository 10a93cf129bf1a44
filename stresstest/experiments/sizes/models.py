"""Whether a model can grow along a path, and where on it a cell lies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stresstest.errors import ConfigError
from stresstest.experiments.plan import Place
from stresstest.experiments.sizes.path import AXES, Size, named
from stresstest.experiments.sizes.spec import SizedSpec
from stresstest.reports.numbers import size_name
from stresstest.tasks.task import TRAINING
from stresstest.user_model.bench import does_not_take
from stresstest.user_model.contract import shape_words
from stresstest.user_model.factory import factory_of


def check_growth(spec: SizedSpec) -> None:
    """Whether the user's model can grow as the path does: what cannot is a `ConfigError`."""
    factory, listed_by = factory_of(spec), {axis: listed for listed, axis in AXES.items()}
    for axis in spec.path:
        theirs = factory.known_as.get(axis, axis)
        if axis in factory.args:
            raise ConfigError(f"{listed_by[axis]}: set has {theirs}={factory.args[axis]}; leave it out there")
        if axis in ("width", "depth") and axis not in factory.takes and "**" not in factory.takes:
            raise ConfigError(f"{listed_by[axis]}: {does_not_take(factory, axis)}; or let --train-steps grow")
    if "seq_len" in spec.path and not _is_read_at_length(spec):
        raise ConfigError(
            f"seq_lens: the batches that {factory.name} trains on are its own, and seq_len does not change them; "
            "let another setting grow"
        )


def _is_read_at_length(spec: SizedSpec) -> bool:
    """Whether the user's model is fed by sequences of a length that a setting has: those of the built-in data."""
    shortest, longest = (
        factory_of(spec.model_copy(update={"seq_len": length})) for length in (spec.seq_lens[0], spec.seq_lens[-1])
    )
    if not spec.model.startswith("hf:") or shortest.stream is None or longest.stream is None:
        return not shortest.draws and spec.task != "images"
    first, last = (shape_words(each.draw(0, 0, TRAINING)) for each in (shortest.stream, longest.stream))
    return first != last


def place_of(size: Size, spec: SizedSpec) -> Place:
    """Depth and point of a size."""
    point = named(size)
    return point.pop("depth", spec.depth), point


def name_of(depth: int, point: Mapping[str, Any], spec: SizedSpec) -> str:
    """A size in words: "width 512, depth 8"."""
    return size_name(({"depth": depth} if "depth" in spec.path else {}) | dict(point))
