"""A path of growing sizes: which settings grow along it, and where its target lies.

Several settings grow together, place by place; the first of them in the order of `AXES` is the size that a law is
fitted to.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from stresstest.specs.parsing import numbers_or_range

# By the setting that lists them, the setting of a run that grows: in the order in which they count as the size.
AXES: Mapping[str, str] = {
    "widths": "width",
    "depths": "depth",
    "batch_sizes": "batch_size",
    "seq_lens": "seq_len",
    "train_steps": "hold_steps",
}
NAMES: Mapping[str, str] = {
    axis: listed if axis == "hold_steps" else axis for listed, axis in AXES.items()
}  # as a target, a selector and a report call them
EXAMPLES: Mapping[str, str] = {
    "widths": "e.g. 32:256:x1.41",
    "depths": "e.g. 2:16:x1.41",
    "batch_sizes": "e.g. 8:128:x2",
    "seq_lens": "e.g. 32:256:x1.41",
    "train_steps": "e.g. 150:2400:x2",
}
FEWEST_SIZES = 3  # for a law
MOST_SIZES = 100
_OFF_THE_PATH = 0.1  # in the logarithm of a setting: how far a target may lie beside the path
_RANGE = "give sizes such as 64,128,256, or a range such as 32:256:x1.41"

Size = Mapping[str, int]  # by the setting of a run


def named(size: Size) -> dict[str, int]:
    """A size by the names of a target, a selector and a report."""
    return {NAMES[axis]: value for axis, value in size.items()}


def known_by(parametrization: str) -> dict[str, str]:
    """What the point of a cell says of its parametrization: nothing of `sp`, as other experiments train it."""
    return {} if parametrization == "sp" else {"parametrization": parametrization}


def shown_by(parametrization: str, compared: Sequence[str]) -> dict[str, str]:
    """What a row says of its parametrization: which it is, where several are compared or it is not `sp`."""
    return {"parametrization": parametrization} if len(compared) > 1 else known_by(parametrization)


def parse_sizes(text: str, unit: int = 1) -> tuple[int, ...]:
    """`64,128,256` means these sizes; `32:256:x1.41` both ends, and between them as many as come closest to that.

    Those of a range are multiples of `unit`.
    """
    numbers, factor = numbers_or_range(text, _RANGE)
    if factor is None:
        return numbers
    first, last = numbers
    if first >= last:
        raise ValueError(_RANGE)
    number = max(1, round(math.log(last / first) / math.log(factor)))
    if number >= MOST_SIZES:
        raise ValueError(f"more than {MOST_SIZES} sizes; use a larger factor")
    between = (first * (last / first) ** (place / number) for place in range(1, number))
    return tuple(dict.fromkeys([first, *(max(unit, unit * round(size / unit)) for size in between), last]))


def parse_target(text: str, axes: Sequence[str]) -> dict[str, int]:
    """`width=1024,depth=24`, or the number alone on a path of one setting, by the setting of a run."""
    known = {NAMES[axis]: axis for axis in axes}
    found: dict[str, int] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = part.partition("=")
        if not equals:
            name, value = NAMES[axes[0]], name
        name = name.strip()
        if name not in known:
            raise ValueError(f"target {part}: the path grows in {', '.join(known)}; name one of these")
        if known[name] in found:
            raise ValueError(f"target gives {name} twice; keep one")
        if not value.strip().isdigit() or int(value) < 1:
            raise ValueError(f"target {part}: not a whole number; write e.g. {name}=1024")
        found[known[name]] = int(value)
    return found


def on_the_path(path: Mapping[str, Sequence[int]], target: Size) -> dict[str, int]:
    """The target with every setting of the path; what it leaves out follows from the path's first and last size.

    A target beside the path is a `ValueError`, and one within the sizes that are measured.
    """
    size = next(iter(path))
    named = size if size in target else next(axis for axis in path if axis in target)
    away = _log_ratio(target[named], path[named])
    along = {axis: round(sizes[-1] * (sizes[-1] / sizes[0]) ** away) for axis, sizes in path.items()}
    for axis, value in target.items():
        if axis != named and abs(math.log(value / along[axis])) > _OFF_THE_PATH:
            raise ValueError(
                f"target {NAMES[axis]}={value} lies beside the path, which has {NAMES[axis]} {along[axis]} at "
                f"{NAMES[named]} {target[named]}; give that, or leave it out"
            )
    if away <= 0:
        raise ValueError(
            f"target {NAMES[named]}={target[named]} lies within the sizes of the path, which end at "
            f"{path[named][-1]}; measure it, or give a larger target"
        )
    return along | dict(target)


def _log_ratio(value: int, sizes: Sequence[int]) -> float:
    """How far beyond the path's end a value lies, in lengths of the path."""
    return math.log(value / sizes[-1]) / math.log(sizes[-1] / sizes[0])
