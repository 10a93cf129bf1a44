"""The dictionaries that a path of sizes stores: its laws, and what each said of sizes that it did not see."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, with_config
from typing_extensions import TypedDict  # pydantic asks for it below Python 3.12

_STRICT = with_config(extra="forbid")


@_STRICT
class IntervalRecord(TypedDict):
    """A median with the interval that holds 90 %."""

    low: Annotated[float, Field(description="Lower end.")]
    median: Annotated[float, Field(description="Median.")]
    high: Annotated[float, Field(description="Upper end.")]


@_STRICT
class LeftOutRecord(IntervalRecord):
    """What the law of the sizes before said of a size that it did not see: where one new seed lies, in LR."""

    size: Annotated[float, Field(description="The size that was left out.")]
    fitted: Annotated[int, Field(description="Sizes of the fit.")]
    octaves_ahead: Annotated[float, Field(description="log2 of the size over the largest one of the fit.")]
    seeds: Annotated[list[dict[str, float | None]], Field(description="What was measured: the bracket of each seed.")]
    inside: Annotated[
        list[bool | None],
        Field(description="Whether the geometric mean of each bracket lies inside; null: no answer of that seed."),
    ]


@_STRICT
class BendRecord(TypedDict):
    """Whether the slope changes on the way."""

    change: Annotated[IntervalRecord, Field(description="Slope of the larger sizes minus that of the smaller ones.")]
    seen: Annotated[bool, Field(description="Whether its 95 % interval leaves out 0.")]
    smallest: Annotated[float, Field(description="The change that such sizes show in about 3 of 4 draws.")]


@_STRICT
class SizeLawRecord(TypedDict, total=False):
    """How a metric changes with size, by a line in log2-log2, and what it says of the target."""

    metric: Annotated[str, Field(description="The metric.")]
    target: Annotated[float, Field(description="The size that is predicted.")]
    reach: Annotated[float, Field(description="Octaves beyond a fit that its leave-outs looked at, at most.")]
    no_law: Annotated[str, Field(description="Why a law could not be fitted, where it could not.")]
    exponent: Annotated[IntervalRecord, Field(description="b of lr ~ size^b.")]
    size_scatter: Annotated[
        IntervalRecord, Field(description="Octaves by which all seeds of a size lie off the law (standard deviation).")
    ]
    cell_scatter: Annotated[
        IntervalRecord, Field(description="Octaves between the seeds of a size (standard deviation).")
    ]
    predicted: Annotated[
        IntervalRecord | None,
        Field(description="LR of one new seed at the target; null: it lies beyond what the leave-outs looked at."),
    ]
    band: Annotated[
        list[tuple[float, float, float, float]], Field(description="[size, low, median, high] of one new seed, in LR.")
    ]
    width_factor: Annotated[
        float, Field(description="By which predicted and band are wider than the law says, as its leave-outs ask.")
    ]
    left_out: Annotated[list[LeftOutRecord], Field(description="The law's own checks.")]
    bend: Annotated[BendRecord, Field(description="A test for a bend; absent with fewer than four sizes.")]
    ratios: Annotated[
        dict[str, IntervalRecord],
        Field(description="By other row, how many times its LR is that row's, at the target."),
    ]
