"""Why a variant broke, in words, with the remedy of each cause."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence

from stresstest.reports.numbers import number
from stresstest.results.records import Cell, Finding

_OFTEN_ANYWAY = 0.2  # of the runs that trained: a signal that moves in more of them says nothing

_SCALE = (
    "check their scale, 1 / sqrt(head width), and the size of their inputs; a norm on queries and keys "
    "(--qk-norm) bounds both"
)
_CAUSES = {
    "init": ("{place} starts {times} as large as its peers", "initialise it like its peers"),
    "missing-norm": ("{place} is missing, but the other blocks have it", "add it"),
    "frozen": ("{place} is frozen, but its peers are trained", "set requires_grad on it"),
    "no-gradient": (
        "{place} gets no gradient, but its peers do",
        "look for a detach() or no_grad() between it and the loss",
    ),
    "attention-scale": ("the attention logits of {place} start {times} as large as those of its peers", _SCALE),
    "large-logits": ("the attention logits of {place} start large, with a root mean square of {value}", _SCALE),
    "eps": (
        "{place} is larger than the gradients of {share} of the matrices, so the optimizer hardly adapts",
        "use a smaller eps",
    ),
    "overflow": (
        "{place} outputs values too large for float16",
        "use --dtype bfloat16, or make its outputs smaller",
    ),
}

_SIGNALS = {
    "gradient": ("the gradient of {place}", "clip gradients (--clip-norm), or warm up longer"),
    "update": ("the update of {place}, per weight and LR", "warm up longer, or use a smaller beta2"),
    "activation_rms": ("the output of {place}", "add a norm after it, or initialise its last matrix smaller"),
    "activation_max": ("the largest output of {place}", "add a norm after it, or clip gradients (--clip-norm)"),
    "logit_rms": ("the attention logits in {place}", "normalise queries and keys (--qk-norm)"),
    "logit_max": ("the largest attention logit in {place}", "normalise queries and keys (--qk-norm)"),
    "attention_entropy": ("the attention entropy in {place}", "normalise queries and keys (--qk-norm)"),
    "rms_t": ("RMS_t of {place}, its gradient over the one Adam expects", "use a smaller beta2, or clip (--clip-norm)"),
    "log_z": ("log Z of the {place}", "add a z-loss, or use a smaller LR for the output layer"),
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
    dead = Counter(place for cell in said for place in cell.why["dead"])
    often = [place for place, times in dead.items() if 2 * times > len(said)]
    if often:
        more = f" and {len(often) - 1} more" if len(often) > 1 else ""
        text = f"{name}: after the break, {often[0]}{more} output only zeros (dead units: no gradient flows back)."
        yield Finding(kind="dead", subject=name, text=text)


def look_closer(findings: Sequence[Finding], cells: Sequence[Cell]) -> Iterator[Finding]:
    """Where nothing gave a sign of a break: what else could be read."""
    unseen = [finding.subject for finding in findings if finding.kind == "moved-late"]
    if unseen and any(cell.why and cell.why["probes"] != "full" for cell in cells):
        text = "Use --probes full to watch activations and attention at every step: nothing else gave an early sign."
        yield Finding(kind="look-closer", subject=",".join(unseen), text=text)


def _suspect(name: str, cause: str, place: str, values: Sequence[float | None], n: int) -> Finding:
    what, remedy = _CAUSES[cause]
    middle = statistics.median([value for value in values if value is not None] or [0.0])
    what = what.format(place=place, times=f"{number(middle)} times", value=number(middle), share=f"{middle:.0%}")
    text = f"{name}: {what} ({len(values)} of {n} seeds). Try first: {remedy}."
    return Finding(kind="suspect", subject=name, text=text)


def _moved(name: str, cells: Sequence[Cell], everyone: Sequence[Cell]) -> Iterator[Finding]:
    """The signal that in most cells is the first to leave its range, before the break, or else after its onset."""
    signals = {move["signal"] for cell in cells for move in cell.why["moved"]}
    telling = {signal for signal in signals if _says_something(signal, everyone)}
    credible = [[move for move in cell.why["moved"] if move["signal"] in telling] for cell in cells]
    first = [moves[0] for moves in credible if moves]
    early = [move for move in first if move["lead"] > 0]
    first = early if 2 * len(early) > len(cells) else [move for move in first if move["lead"] <= 0]
    if not first:
        return
    signal = statistics.mode([move["signal"] for move in first])
    mine = [move for move in first if move["signal"] == signal]
    if 2 * len(mine) <= len(cells):
        return
    places = [move["place"] for move in mine]
    elsewhere = "" if len(set(places)) == 1 else " (elsewhere in other seeds)"
    leads = sorted(abs(move["lead"]) for move in mine)
    lead = str(leads[0]) if leads[0] == leads[-1] else f"{leads[0]} to {leads[-1]}"
    when = "steps before the break" if first is early else "steps after the onset, with no sign before it"
    alarms, calm = _false_alarms(signal, everyone)
    anyway = f"; it moves in {alarms} of the {calm} runs that train" if calm else ""
    factor = statistics.median(math.inf if move["factor"] is None else move["factor"] for move in mine)
    what, remedy = _SIGNALS[signal]
    if factor > 1.0:
        moved = f"grew {number(factor)} times" if math.isfinite(factor) else "became non-finite"
    else:
        moved, remedy = f"fell to {number(factor)} of its level", "warm up longer: it is approaching a plateau"
    text = (
        f"{name}: the first signal to move is {what.format(place=statistics.mode(places))}{elsewhere}; it {moved}, "
        f"{lead} {when} ({len(mine)} of {len(cells)} seeds{anyway}). Try: {remedy}."
    )
    yield Finding(kind="moved-first" if first is early else "moved-late", subject=name, text=text)


def _says_something(signal: str, everyone: Sequence[Cell]) -> bool:
    alarms, calm = _false_alarms(signal, everyone)
    return alarms <= _OFTEN_ANYWAY * calm


def _false_alarms(signal: str, cells: Sequence[Cell]) -> tuple[int, int]:
    """(in how many of the runs that trained the signal moved, of how many)."""
    said = [cell.why for cell in cells if cell.why]
    return sum(why["alarms"].get(signal, 0) for why in said), sum(why["calm_runs"] for why in said)
