"""Hand-made results of shocks: runs on known tolerances, with the records that a search over doses leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stresstest.experiments.shock.naming import standard_dose
from stresstest.experiments.shock.rows import reduce
from stresstest.experiments.shock.search import DoseSearch, Survival
from stresstest.experiments.shock.spec import ShockSpec
from stresstest.experiments.shock.table import parse_shock
from stresstest.results.records import RESULT_SCHEMA, Bracket, Cell, Result
from stresstest.specs.profiles import make_spec

DATA = {"name": "synthetic", "bytes": 1, "hash": "abc", "baseline_loss": 3.2, "chance_loss": 5.55}
ENVIRONMENT = {"key": "torch/cpu", "device_name": "some CPU", "stresstest": "0.1.0", "dtype": "float32"}
LEARNED = 1.0  # nats
Limits = tuple[float, float]  # the first dose that leaves a scar, and the first that breaks; inf: none does
# By variant and shock, the limits of each seed.
Runs = Mapping[tuple[str, ...], Sequence[Limits | None]]


def spec_of(**settings: Any) -> ShockSpec:
    asked = {"variant": "pre-ln,post-ln", "shock": "lr-pulse,lost-moments", "seeds": "3", "peak_lr": 0.0625}
    return make_spec(ShockSpec, "quick", asked | settings)


def cell(spec: ShockSpec, variant: str, shock: str, seed: int, limits: Limits | None, guard: str = "") -> Cell:
    """A run that the search over doses judged by these limits; `None`: its twin did not train."""
    point = {"shock": shock} | ({"guard": guard} if guard else {}) | {"peak_lr": spec.peak_lr or 0.0625}
    record: dict[str, Any] = {"outcome": "untrained", "twin_outcome": "stable", "peak_lr": 0.0625, "learned": LEARNED}
    record |= {"noise": 1e-5, "floor": 0.05, "nulls": 4, "steps": 900, "doses": []}
    record["twin_curve"] = [(step, 3.0 - step / 250) for step in range(0, spec.total, 10)]
    metrics: dict[str, Bracket] = {}
    if limits is not None:
        found, search = searched(spec, shock, limits)
        first = next(each for each in found if each["dose"] == standard_dose(spec, parse_shock(shock)))
        record |= {"outcome": first["outcome"], "dose": first["dose"], "monotone": search.monotone, "doses": found}
        record["curve"] = [(step, 3.0 - step / 250 + 9 / (step - 99)) for step in range(spec.after, spec.total, 10)]
        record["moved"] = {"signal": "gradient", "place": "qkv.weight of block 2", "step": seed, "factor": 3.5}
        metrics = metrics_of(first, search if parse_shock(shock).only is None else None)
    where = {"variant": variant, "depth": spec.depth, "seed": seed, "point": point}
    return Cell(key=f"{variant}{point}{seed}", status="done", metrics=metrics, shock=record, **where)


def searched(spec: ShockSpec, shock: str, limits: Limits) -> tuple[list[dict[str, Any]], DoseSearch]:
    """The doses that the search asks for, each with what became of the run."""
    parsed = parse_shock(shock)
    doses = spec.doses(parsed)
    search = DoseSearch(doses, doses.index(standard_dose(spec, parsed)))
    while (place := search.ask()) is not None:
        scar, broke = limits
        search.tell(place, "broke" if doses[place] >= broke else "scarred" if doses[place] >= scar else "recovered")
    return [_dose(doses[place], search.answers[place]) for place in sorted(search.answers)], search


def _dose(dose: float, outcome: Survival) -> dict[str, Any]:
    lasting = {"recovered": 0.01, "scarred": 0.2, "broke": 0.8}[outcome]
    return {
        "dose": dose,
        "outcome": outcome,
        "peak_excess": dose / 4,
        "recovery_steps": 20.0 if outcome == "recovered" else None,
        "lasting_damage": lasting,
        "lasting_share": lasting / LEARNED,
        "lasting_steps": 100 * lasting,
    }


def metrics_of(first: Mapping[str, Any], search: DoseSearch | None) -> dict[str, Bracket]:
    gone = first["recovery_steps"] is None
    found = {
        "peak_excess": Bracket.exactly(first["peak_excess"]),
        "recovery_steps": Bracket(low=150.0, high=None) if gone else Bracket.exactly(20.0),
        "lasting_damage": Bracket.exactly(first["lasting_damage"]),
        "lasting_share": Bracket.exactly(first["lasting_share"]),
    }
    if search is not None:
        found |= {"shock_tolerance": search.tolerance("recovered"), "break_tolerance": search.tolerance("scarred")}
    return found


def result_of(runs: Runs, **settings: Any) -> Result:
    """Of runs by (variant, shock) or (variant, shock, guard): the limits of seeds 0, 1, ..."""
    spec = spec_of(**settings)
    cells = [
        cell(spec, key[0], key[1], seed, limits, *key[2:])
        for key, by_seed in runs.items()
        for seed, limits in enumerate(by_seed)
    ]
    return of_cells(spec, cells)


def along_widths(runs: Mapping[int, Sequence[Limits]], **settings: Any) -> Result:
    """Pulses of Pre-LN by width: the limits of seeds 0, 1, ..."""
    spec = spec_of(variant="pre-ln", shock="lr-pulse", widths=",".join(map(str, runs)), **settings)
    cells = [
        made.model_copy(update={"key": f"{width}{seed}", "point": {"width": width, **made.point}})
        for width, by_seed in runs.items()
        for seed, limits in enumerate(by_seed)
        for made in [cell(spec, "pre-ln", "lr-pulse", seed, limits)]
    ]
    return of_cells(spec, cells)


def of_cells(spec: ShockSpec, cells: Sequence[Cell]) -> Result:
    found = reduce(spec, cells, DATA)
    return Result(
        schema_=RESULT_SCHEMA,
        command="shock",
        reproduce="stresstest shock --variant pre-ln,post-ln --seeds 3",
        spec=spec.model_dump(mode="json"),
        rules={},
        environment=ENVIRONMENT,
        data=DATA,
        cells=list(cells),
        summary=found.summary,
        findings=found.findings,
    )


NEVER = float("inf")
WELL: Limits = (NEVER, NEVER)
# Pre-LN takes 16 times and breaks at 64 in every seed; Post-LN takes 4 or 8 times and breaks at 16.
USUAL: Runs = {
    ("pre-ln", "lr-pulse"): [(32, 64)] * 3,
    ("pre-ln", "lost-moments"): [WELL] * 3,
    ("post-ln", "lr-pulse"): [(8, 16), (16, 16), (16, 16)],
    ("post-ln", "lost-moments"): [WELL, WELL, (1, NEVER)],
}
