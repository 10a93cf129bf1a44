"""The curve that is judged: what the user names, what the format fixes, or what the names say."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from stresstest.errors import ConfigError
from stresstest.logs.curve import Curve, RawLog
from stresstest.logs.losses import Unit, choose_loss, in_bits
from stresstest.logs.names import without_prefix, words
from stresstest.logs.refusals import about_zero, refusal
from stresstest.logs.roles import find
from stresstest.logs.steps import joined, named, rows_of


@dataclass(frozen=True)
class Chosen:
    """The loss, the names that it is the sum of, its unit, and what is to be said; `declined` says why it is none."""

    loss: Curve | None
    key: str
    unit: Unit = "nats"
    declined: str = ""
    notes: tuple[str, ...] = ()


def choose(raw: RawLog, metric: str | None) -> Chosen:
    """The loss of a log; a `ConfigError` where it has no column of the name that the user gives."""
    there = {key: curve for key, curve in raw.curves.items() if len(curve)}
    if metric is not None:
        return _in_nats(Chosen(_asked_for(there, metric, "--metric"), metric, _unit_of(metric)))
    short = without_prefix(there)
    declined = refusal(short)
    fixed = raw.facts.roles.get("loss", "")
    loss = named(there, fixed) if fixed else None
    if loss is not None:
        return _in_nats(Chosen(loss, fixed, _unit_of(fixed), declined or about_zero(loss.value)))
    choice = choose_loss(short, there)
    key = "+".join(choice.keys)
    unit = choice.unit if choice.unit != "nats" else _unit_of(key)
    loss = named(there, key) if key else None
    declined = declined or (about_zero(loss.value) if loss is not None else "")
    notes = (choice.note,) if choice.note and not declined else ()
    return _in_nats(Chosen(loss, key, unit, declined, notes))


def check_named(raw: RawLog, key: str | None, option: str) -> None:
    """A `ConfigError` where the user names a column that is not there."""
    if key is not None:
        _asked_for(raw.curves, key, option)


def of_one_rank(raw: RawLog, rank: int | None) -> tuple[RawLog, str]:
    """The rows that one rank wrote: the one asked for, else the first; and what is to be said."""
    key = raw.facts.roles.get("rank") or find("rank", raw.curves)
    ranks = raw.curves.get(key) if key else None
    if ranks is None or not len(ranks):
        if rank is not None:
            raise ConfigError(f"--rank {rank}: the log names no ranks; leave the option out")
        return raw, ""
    known = np.unique(ranks.value[np.isfinite(ranks.value)])
    wanted = float(known[0]) if rank is None else float(rank)
    if wanted not in known:
        raise ConfigError(f"--rank {rank}: no such rank in the log; it has {_counted(known.tolist())}")
    if len(known) < 2:
        return raw, ""
    kept = {name: _of_rank(curve, ranks, wanted) for name, curve in raw.curves.items()}
    return replace(raw, curves=kept), f"{len(known)} ranks wrote: rank {wanted:g} is judged (--rank picks another)"


def _of_rank(curve: Curve, ranks: Curve, wanted: float) -> Curve:
    of = joined(ranks, curve.row)
    return rows_of(curve, (of == wanted) | np.isnan(of))


def _asked_for(curves: Mapping[str, Curve], key: str, option: str) -> Curve:
    found = named(curves, key)
    if found is not None and len(found):
        return found
    near = difflib.get_close_matches(key, list(curves), n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ConfigError(f"{option} {key}: no such column{hint} The log has: {_listed(list(curves))}")


def _listed(keys: Sequence[str]) -> str:
    shown = ", ".join(keys[:20]) or "none"
    return shown if len(keys) <= 20 else f"{shown} and {len(keys) - 20} more"


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
