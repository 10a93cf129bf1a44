"""Why a variant broke, in words, with the remedy of each cause."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence

from stresstest.reports.numbers import number
from stresstest.results.records import Cell, Finding

_OFTEN_ANYWAY = 0.2  # of the runs that trained: a signal that moves in more of them says nothing

_SCALE = (
    "look at their scale, 1 / sqrt(head width), and at the size of what comes in; a norm on queries and keys "
    "(--qk-norm) bounds both"
)
_CAUSES = {
    "init": ("{place} starts {times} as large as in its peers", "give it their initialisation"),
    "missing-norm": ("{place} is missing, where the other blocks have it", "add it"),
    "frozen": ("{place} is frozen, where its peers are trained", "let it want a gradient (requires_grad)"),
    "no-gradient": (
        "{place} gets no gradient, where its peers do",
        "look for a detach() or no_grad() on its way to the loss",
    ),
    "attention-scale": ("the attention logits of {place} start {times} as large as those of its peers", _SCALE),
    "large-logits": ("the attention logits of {place} start large, with a root mean square of {value}", _SCALE),
    "eps": (
        "{place} is larger than the gradients of {share} of the matrices, so the optimizer hardly adapts",
        "use a smaller eps",
    ),
    "overflow": (
        "{place} puts out values that float16 cannot hold",
        "use --dtype bfloat16, or keep its outputs smaller",
    ),
}

_SIGNALS = {
    "gradient": ("the gradient of {place}", "clip gradients (--clip-norm), or warm up longer"),
    "update": ("the update of {place}, per weight and LR", "warm up longer, or take a smaller beta2"),
    "activation_rms": ("the output of {place}", "a norm behind it, or a smaller last matrix at the start"),
    "activation_max": ("the largest output of {place}", "a norm behind it, or clip gradients (--clip-norm)"),
    "logit_rms": ("the attention logits in {place}", "normalise queries and keys (--qk-norm)"),
    "logit_max": ("the largest attention logit in {place}", "normalise queries and keys (--qk-norm)"),
    "attention_entropy": ("the attention entropy in {place}", "normalise queries and keys (--qk-norm)"),
    "rms_t": ("RMS_t of {place}, its gradient over what Adam expects", "take a smaller beta2, or clip (--clip-norm)"),
    "log_z": ("log Z of the {place}", "a z-loss, or a smaller LR for the output layer"),
}


def why(name: str, cells: Sequence[Cell], everyone: Sequence[Cell]) -> Iterator[Finding]:
    """What is suspect in most of the cells of one name, or else what moved first in them.

    `everyone` has all cells of the study: on their runs that trained, a signal's moves are false alarms.
    """
    said = [cell for cell in cells if cell.why]
    suspects: dict[tuple[str, str], list[float | None]] = {}
    for cell in said:
        for suspect in cell.why["suspects"]:
            suspects.setdefault((suspect["cause"], suspect["place"]), []).append(suspect["value"])
    found = [(key, values) for key, values in suspects.items() if 2 * len(values) > len(said)]
    for (cause, place), values in found:
        yield _suspect(name, cause, place, values, len(said))
    if not found:
        yield from _moved(name, said, everyone)
    dead = [place for cell in said for place in cell.why["dead"]]
    often = [place for place in dict.fromkeys(dead) if 2 * dead.count(place) > len(said)]
    if often:
        more = f" and {len(often) - 1} more" if len(often) > 1 else ""
        text = f"{name}: after the break, {often[0]}{more} put out zeros, which no gradient brings back."
        yield Finding(kind="dead", subject=name, text=text)


def look_closer(findings: Sequence[Finding], cells: Sequence[Cell]) -> Iterator[Finding]:
    """Where nothing gave a sign of a break: what else could be read."""
    unseen = [finding.subject for finding in findings if finding.kind == "moved-late"]
    if unseen and any(cell.why and cell.why["probes"] != "full" for cell in cells):
        text = "Where nothing gave a sign, activations and attention may: --probes full watches them at every step."
        yield Finding(kind="look-closer", subject=",".join(unseen), text=text)


def _suspect(name: str, cause: str, place: str, values: Sequence[float | None], n: int) -> Finding:
    what, remedy = _CAUSES[cause]
    middle = statistics.median([value for value in values if value is not None] or [0.0])
    what = what.format(place=place, times=f"{number(middle)} times", value=number(middle), share=f"{middle:.0%}")
    text = f"{name}: {what} ({len(values)} of {n} seeds). To try first: {remedy}."
    return Finding(kind="suspect", subject=name, text=text)


def _moved(name: str, cells: Sequence[Cell], everyone: Sequence[Cell]) -> Iterator[Finding]:
    """The signal that in most cells is the first to leave its range, before the break, or else after its onset."""
    credible = [[move for move in cell.why["moved"] if _says_something(move["signal"], everyone)] for cell in cells]
    first = [moves[0] for moves in credible if moves]
    early = [move for move in first if move["lead"] > 0]
    first = early if 2 * len(early) > len(cells) else [move for move in first if move["lead"] <= 0]
    signal = _commonest([move["signal"] for move in first])
    mine = [move for move in first if move["signal"] == signal]
    if 2 * len(mine) <= len(cells):
        return
    places = [move["place"] for move in mine]
    elsewhere = "" if len(set(places)) == 1 else " (elsewhere in other seeds)"
    leads = sorted(abs(move["lead"]) for move in mine)
    lead = str(leads[0]) if leads[0] == leads[-1] else f"{leads[0]} to {leads[-1]}"
    when = "steps before the break" if first is early else "steps after the onset, without a sign before it"
    alarms, calm = _false_alarms(signal, everyone)
    anyway = f"; it moves in {alarms} of the {calm} runs that train" if calm else ""
    factor = statistics.median(math.inf if move["factor"] is None else move["factor"] for move in mine)
    what, remedy = _SIGNALS[signal]
    if factor > 1.0:
        moved = f"grew {number(factor)} times" if math.isfinite(factor) else "stopped being a number"
    else:
        moved, remedy = f"fell to {number(factor)} of its level", "warm up longer: it is on its way to a plateau"
    text = (
        f"{name}: what moved first is {what.format(place=_commonest(places))}{elsewhere}; it {moved}, {lead} {when} "
        f"({len(mine)} of {len(cells)} seeds{anyway}). To try: {remedy}."
    )
    yield Finding(kind="moved-first" if first is early else "moved-late", subject=name, text=text)


def _commonest(values: Sequence[str]) -> str:
    return max(dict.fromkeys(values), key=values.count, default="")


def _says_something(signal: str, everyone: Sequence[Cell]) -> bool:
    alarms, calm = _false_alarms(signal, everyone)
    return alarms <= _OFTEN_ANYWAY * calm


def _false_alarms(signal: str, cells: Sequence[Cell]) -> tuple[int, int]:
    """(in how many of the runs that trained the signal moved, of how many)."""
    said = [cell.why for cell in cells if cell.why]
    return sum(why["alarms"].get(signal, 0) for why in said), sum(why["calm_runs"] for why in said)
