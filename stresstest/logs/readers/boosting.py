"""What XGBoost, LightGBM and CatBoost keep of their rounds: lists of a metric for each of their sets."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from stresstest.logs.curve import Curve, FormatFacts, Role

_SETS = re.compile(r"train\w*|learn|validation(_\d+)?|valid\w*|eval\w*|test\w*|dtrain|dtest|dval", re.I)
_METRICS = re.compile(
    r"rmsle|rmse|mae|mse|mape|l1|l2|huber|fair|poisson\S*|quantile|gamma\S*|tweedie\S*|logloss|error|merror|mlogloss"
    r"|binary_\w+|multi_\w+|cross_?entropy\w*|kullback_leibler|aucpr|auc\w*|ndcg\S*|map\S*|mphe|aft\S*|cox\S*|pre@\S+"
    r"|CrossEntropy|MultiClass\w*|Accuracy\S*|TotalF1\S*|F1|R2|YetiRank\S*|average_precision",
    re.I,
)
_SCORES = re.compile(r"auc|ndcg|map(@|$|-)|accuracy|f1|r2$|pre@|average_precision|precision|recall", re.I)
_TRAIN_SETS = ("learn", "train", "training", "dtrain", "validation_0")


def is_metric(name: str) -> bool:
    """Whether a name is that of one of the boosters' metrics."""
    return _METRICS.fullmatch(name) is not None


def is_score(name: str) -> bool:
    """Whether a metric rises as a model learns."""
    return _SCORES.match(name) is not None


def is_boosting(names: Collection[str]) -> bool:
    """Whether all names are a set and one of the boosters' metrics."""
    pairs = [name.rsplit("/", 1) for name in names if name != "index"]
    return bool(pairs) and all(
        len(pair) == 2 and _SETS.fullmatch(pair[0]) is not None and is_metric(pair[1]) for pair in pairs
    )


def boosting_facts(curves: Mapping[str, Curve]) -> tuple[FormatFacts, tuple[str, ...]]:
    """The first metric of the train set that falls as a model learns is the loss; a sentence where that is a guess."""
    losses = [name for name in curves if "/" in name and not is_score(name.rsplit("/", 1)[1])]
    sets = list(dict.fromkeys(name.rsplit("/", 1)[0] for name in losses))
    roles: dict[Role, str] = {"step": "index"}
    notes: tuple[str, ...] = ()
    if sets:
        trained = next((own for own in _TRAIN_SETS if own in sets), sets[0])
        roles["loss"] = next(name for name in losses if name.startswith(f"{trained}/"))
        held_out = next((name for name in losses if not name.startswith(f"{trained}/")), None)
        if held_out is not None:
            roles["validation"] = held_out
        if trained not in _TRAIN_SETS[:4]:
            notes = (f"no set is named as that of training: `{roles['loss']}` is judged (--metric NAME chooses)",)
    return FormatFacts(roles, row_kind="sample", step_base=0, row_note="the metric on all rows after a round"), notes


def catboost_rounds(document: object) -> object:
    """`catboost_training.json` as rows; any other document as it is."""
    if not isinstance(document, Mapping) or not isinstance(meta := document.get("meta"), Mapping):
        return document
    rounds = document.get("iterations")
    if not isinstance(rounds, list) or not isinstance(meta.get("learn_metrics"), list):
        return document
    rows = [row for row in rounds if isinstance(row, Mapping) and isinstance(row.get("iteration"), int)]
    lists: dict[str, dict[str, list[object]]] = {}
    for side, own, kind in (("learn", "learn", "learn_metrics"), ("test", "validation", "test_metrics")):
        for place, metric in enumerate(meta.get(kind) or []):
            name = metric.get("name") if isinstance(metric, Mapping) else None
            values = [row[side][place] for row in rows if isinstance(row.get(side), list) and len(row[side]) > place]
            if isinstance(name, str) and len(values) == len(rows):
                lists.setdefault(own, {})[name] = values
    return lists
