"""The best setting of a warm-up search, and what decides the loss over its trials."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence

from stresstest.experiments.warmup.map import map_points, notes, objective, untrained
from stresstest.experiments.warmup.spec import WarmupSpec
from stresstest.experiments.warmup.study import add_trial, params_of, quiet
from stresstest.results.records import Bracket, Cell, SearchRow, summarise

_ENOUGH = 10  # trials for an importance


def search_rows(spec: WarmupSpec, cells: Sequence[Cell]) -> list[SearchRow]:
    """The best setting of each variant that trains with every seed, out of how many."""
    mapped = map_points(spec) if spec.map else []
    rows = []
    for variant in spec.variant:
        places: dict[str, list[Cell]] = {}
        for cell in cells:
            if cell.variant == variant and cell.status == "done":
                places.setdefault(json.dumps(cell.point), []).append(cell)
        whole = [
            sorted(found, key=lambda cell: cell.seed) for found in places.values() if len(found) == len(spec.seeds)
        ]
        whole.sort(key=lambda found: (found[0].point["peak_lr"], json.dumps(found[0].point)))
        if not whole:
            continue
        searched = [found for found in whole if found[0].point not in mapped]
        best = min(whole, key=lambda found: (untrained(found), objective(found)))
        rows.append(
            SearchRow(
                variant=variant,
                best=best[0].point,
                loss=summarise("validation_loss", {c.seed: Bracket.exactly(c.recipe["loss"]) for c in best}),
                settings=len(whole),
                trials=len(searched),
                trained=sum(not untrained(found) for found in whole),
                importance={} if spec.map else _importance(spec, searched),  # a map has exact shares
                places=[{**found[0].point, **notes(found)} for found in searched],
            )
        )
    return rows


def _importance(spec: WarmupSpec, searched: Sequence[Sequence[Cell]]) -> dict[str, float]:
    """fANOVA's shares of the variance by parameter; empty below ten trials, or where scikit-learn is missing."""
    if len(searched) < _ENOUGH or importlib.util.find_spec("sklearn") is None:
        return {}
    with quiet() as optuna:
        study = optuna.create_study()
        for found in searched:
            add_trial(study, spec, params_of(spec, found[0].point), found, {})
        if len({trial.value for trial in study.trials}) == 1:
            return {}
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))
