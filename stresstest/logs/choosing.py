"""The curve that is judged: what the user names, what the format fixes, or what the names say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from stresstest.errors import ConfigError
from stresstest.logs.curve import Curve, RawLog
from stresstest.logs.losses import Unit, choose_loss, in_bits
from stresstest.logs.names import without_prefix, words
from stresstest.logs.refusals import about_zero, refusal
from stresstest.logs.roles import find
from stresstest.logs.steps import joined, named, rows_of
from stresstest.registry import did_you_mean

_SHOWN = 20  # names in an error


@dataclass(frozen=True)
class Chosen:
    """The loss, the names that it is the sum of, its unit, and what is to be said; `declined` says why it is none."""

    loss: Curve | None
    key: str
    unit: Unit = "nats"
    declined: str = ""
    notes: tuple[str, ...] = ()


def choose(raw: RawLog, metric: str | None) -> Chosen:
    """The loss of a log; none where it has none, or no column of the name that the user gives."""
    there = {key: curve for key, curve in raw.curves.items() if len(curve)}
    if metric is not None:
        return _in_nats(Chosen(named(there, metric), metric, _unit_of(metric)))
    short = without_prefix(there)
    declined = refusal(short)
    fixed = raw.facts.roles.get("loss", "")
    loss = named(there, fixed) if fixed else None
    if loss is not None:
        fixed_unit: Unit = "bits" if raw.facts.loss_unit == "bits" else _unit_of(fixed)
        return _in_nats(Chosen(loss, fixed, fixed_unit, declined or about_zero(loss.value)))
    choice = choose_loss(short, there)
    key = "+".join(choice.keys)
    unit = choice.unit if choice.unit != "nats" else _unit_of(key)
    loss = named(there, key) if key else None
    declined = declined or (about_zero(loss.value) if loss is not None else "")
    notes = (choice.note,) if choice.note and not declined else ()
    return _in_nats(Chosen(loss, key, unit, declined, notes))


def check_step(raw: RawLog, key: str | None, path: str) -> None:
    """A `ConfigError` where the user names a step that is not there."""
    if key is not None and key not in raw.curves:
        raise ConfigError(f"{path}: no numbers named {key!r} (--step){did_you_mean(key, list(raw.curves)[:_SHOWN])}")


def of_one_rank(raw: RawLog, rank: int | None, path: str) -> tuple[RawLog, str]:
    """The rows that one rank wrote: the one asked for, else the first; and what is to be said."""
    key = raw.facts.roles.get("rank") or find("rank", raw.curves)
    ranks = raw.curves.get(key) if key else None
    if ranks is None or not len(ranks):
        if rank is not None:
            raise ConfigError(f"{path}: the log names no ranks; leave --rank out")
        return raw, ""
    known = np.unique(ranks.value[np.isfinite(ranks.value)])
    wanted = float(known[0]) if rank is None else float(rank)
    if wanted not in known:
        raise ConfigError(f"{path}: no rank {rank} (--rank); it has {_counted(known.tolist())}")
    if len(known) < 2:
        return raw, ""
    kept = {name: _of_rank(curve, ranks, wanted) for name, curve in raw.curves.items()}
    return replace(raw, curves=kept), f"{len(known)} ranks wrote: rank {wanted:g} is judged (--rank picks another)"


def _of_rank(curve: Curve, ranks: Curve, wanted: float) -> Curve:
    of = joined(ranks, curve.row)
    return rows_of(curve, (of == wanted) | np.isnan(of))


def _counted(ranks: Sequence[float]) -> str:
    return ", ".join(f"{rank:g}" for rank in ranks[:16])


def _unit_of(key: str) -> Unit:
    if in_bits(key):
        return "bits"
    return "log of perplexity" if {"ppl", "perplexity"} & set(words(key)) else "nats"


def _in_nats(chosen: Chosen) -> Chosen:
    """The log of a perplexity; all else as it is."""
    if chosen.unit != "log of perplexity" or chosen.loss is None:
        return chosen
    with np.errstate(divide="ignore", invalid="ignore"):
        return replace(chosen, loss=replace(chosen.loss, value=np.log(chosen.loss.value)))
