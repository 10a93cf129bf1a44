"""Hand-made results of a path of sizes: cells on known laws, and the records of these laws."""

from __future__ import annotations

import math
from typing import Any

from stresstest.experiments.scale.findings import scale_findings
from stresstest.experiments.scale.spec import ScaleSpec
from stresstest.experiments.sizes.path import parse_sizes
from stresstest.results.records import RESULT_SCHEMA, Bracket, Cell, Result, TrendRow
from stresstest.results.summary import Reduced, depth_rows
from stresstest.specs.profiles import make_spec

DATA = {"name": "synthetic", "bytes": 1, "hash": "abc", "baseline_loss": 3.18, "chance_loss": 5.55}
ENVIRONMENT = {"key": "torch/cpu", "device_name": "some CPU", "stresstest": "0.1.0", "dtype": "float32"}
SCATTER = (-0.2, 0.0, 0.2)  # octaves, of the seeds
QUARTER = 0.25  # octaves, of a bracket


def cell(variant: str, width: int, seed: int, stable: Bracket, best: float | None) -> Cell:
    metrics = {"max_stable_lr": stable} | ({} if best is None else {"best_lr": Bracket.exactly(best)})
    held = [{"lr": 1e-4, "outcome": "stable" if stable.low else "failed-to-train", "steps": 60}]
    return Cell(
        key=f"{variant}{width}{seed}",
        variant=variant,
        depth=1,
        seed=seed,
        status="done",
        point={"width": width},
        metrics=metrics,
        ramp={"outcome": "exploded", "hold_monotone": not (width == 44 and seed == 1), "learned": True, "curve": []},
        hold=held,
    )


def on_a_law(variant: str, widths: tuple[int, ...], level: float, power: float, best_power: float) -> list[Cell]:
    """Quarter-octave brackets around level x (width / first)^power, and a best LR four times below at the first."""
    found = []
    for width in widths:
        for seed, scatter in enumerate(SCATTER):
            share = width / widths[0]
            centre = level * share**power * 2.0**scatter
            half = 2.0 ** (QUARTER / 2)
            best = level / 4.0 * share**best_power * 2.0**scatter
            found.append(cell(variant, width, seed, Bracket(low=centre / half, high=centre * half), best))
    return found


def law(metric: str, level: float, power: float, target: int = 256, wrong: bool = False) -> dict[str, Any]:
    """A law through hand-made cells: intervals of 0.8 octaves, and the leave-outs of sizes from 16 to 128."""

    def at(size: float) -> dict[str, float]:
        centre = level * (size / WIDTHS[0]) ** power
        return {"low": centre * 2.0**-0.4, "median": centre, "high": centre * 2.0**0.4}

    def left(number: int, size: int) -> dict[str, Any]:
        seeds = [{"low": at(size)["median"] * 2.0**off, "high": at(size)["median"] * 2.0**off} for off in SCATTER]
        ahead = {"size": size, "fitted": number, "octaves_ahead": math.log2(size / WIDTHS[number - 1])}
        return ahead | at(size) | {"seeds": seeds, "inside": [True, not wrong, not wrong]}

    named = target <= 4 * WIDTHS[-1]
    end = target if named else WIDTHS[-1]
    return {
        "metric": metric,
        "target": float(target),
        "reach": 2.0,
        "exponent": {"low": power - 0.15, "median": power, "high": power + 0.15},
        "size_scatter": {"low": 0.01, "median": 0.05, "high": 0.1},
        "cell_scatter": {"low": 0.1, "median": 0.2, "high": 0.3},
        "predicted": at(target) if named else None,
        "band": [[size, *(at(size)[name] for name in ("low", "median", "high"))] for size in (WIDTHS[0], end)],
        "left_out": [left(n, size) for n in range(len(WIDTHS) - 1, 2, -1) for size in WIDTHS[n:]],
        "ratios": {},
    }


def spec_of(**settings: Any) -> ScaleSpec:
    """Settings as a plan stores them: those of the first size."""
    spec = make_spec(ScaleSpec, "quick", settings)
    return spec.model_copy(update=spec.places[0])


def result_of(cells: list[Cell], laws: dict[str, list[dict[str, Any]]], target: int = 256) -> Result:
    """The result of cells with these laws of each variant."""
    asked = {"variant": tuple(laws), "depth": 1, "seeds": "3", "hold_resolution": "quarter-octave", "widths": WIDTHS}
    spec = spec_of(**asked, target=str(target))
    rows = [
        row.model_copy(update={"point": {"width": width}})
        for variant in laws
        for width in WIDTHS
        for row in depth_rows([c for c in cells if (c.variant, c.point["width"]) == (variant, width)], "adam")
    ]
    trends = [
        TrendRow(variant=name, optimizer="adam", metrics={}, point={"width": target}, laws=each)  # type: ignore[arg-type]
        for name, each in laws.items()
    ]
    return stored(spec, cells, Reduced(rows, trends, scale_findings(rows, trends, cells, spec.model_dump(), DATA)))


def stored(spec: ScaleSpec, cells: list[Cell], found: Reduced) -> Result:
    return Result(
        schema_=RESULT_SCHEMA,
        command="scale",
        reproduce="stresstest scale --widths " + ",".join(map(str, spec.widths)),
        spec=spec.model_dump(mode="json"),
        rules={},
        environment=ENVIRONMENT,
        data=DATA,
        cells=cells,
        summary=found.summary,
        trends=found.trends,
        findings=found.findings,
    )


WIDTHS = parse_sizes("16:128:x1.41", 4)
PRE = on_a_law("pre-ln", WIDTHS, 0.25, -1.0, -1.0)
POST = on_a_law("post-ln", WIDTHS, 0.125, -1.5, -0.5)
PRE_LAWS = [law("max_stable_lr", 0.25, -1.0), law("best_lr", 0.25 / 4, -1.0)]
POST_LAWS = [law("max_stable_lr", 0.125, -1.5), law("best_lr", 0.125 / 4, -0.5)]
RATIO = {"ratios": {"post-ln": {"low": 5.5, "median": 8.0, "high": 11.0}}}


def two_variants() -> Result:
    """Two variants on laws of their own, with a prediction each and the ratio of the two."""
    laws = {"pre-ln": [each | RATIO for each in PRE_LAWS], "post-ln": POST_LAWS}
    return result_of([*PRE, *POST], laws)
