"""The report of a coordinate check."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from stresstest.experiments.answers import ENOUGH_SEEDS, Answer, first_few, more_seeds, try_again
from stresstest.experiments.document_parts import data_words, model_words, report_of, seeds_words
from stresstest.experiments.scale.coords.exponents import COVERAGE, Checked, Exponent, Place, checks
from stresstest.experiments.scale.coords.measure import NUM_STEPS
from stresstest.experiments.scale.coords.rows import power, sentence
from stresstest.experiments.scale.naming import path_words
from stresstest.experiments.scale.spec import ScaleSpec
from stresstest.reports.document import (
    AT_LENGTH,
    BRIEF,
    PAGE,
    VERBOSE,
    Axis,
    Block,
    Chart,
    Column,
    Document,
    Fact,
    Formats,
    Paragraph,
    Series,
    Table,
    Tone,
    Value,
    Verdict,
)
from stresstest.results.records import Result
from stresstest.specs.kinds import kind_of

_MOST_LINES = 8  # of a chart, whose colours differ
_MOST_ROWS = 30  # in a terminal; of more those that are not as under muP
_TONES: dict[str, Tone] = {"": "", "grows": "bad", "grows at the start": "bad", "vanishes": "mixed"}
_LARGER = 10.0  # times the LR, where changes are lost in rounding; smaller by as much where something is not finite


def document(result: Result) -> Document:
    """The whole report."""
    spec = result.spec
    fixed = {name: value for name, value in spec.items() if name not in ("width", "parametrization")}
    path = path_words(ScaleSpec.model_validate(spec))
    title = f"Coordinate check: {model_words(fixed, result.data)}, {path}, {spec['optimizer']}, {seeds_words(result)}"
    subtitle = f"{data_words(spec, result.data)}; {NUM_STEPS} steps at LR {spec['start_lr']:g}"
    found = checks(result.cells)
    answer = Answer(tuple(_verdicts(found)), _sure(result), _next(result, found)) if found else Answer()
    return report_of(result, title, subtitle, list(_blocks(found)), answer)


def _verdicts(found: Sequence[Checked]) -> Iterator[Verdict]:
    for each in found:
        yield _verdict(each)


def _verdict(checked: Checked) -> Verdict:
    name, places = checked.name, checked.places
    if checked.broken:
        widths = ", ".join(map(str, checked.broken))
        return Verdict(name, f"give a smaller --start-lr: an output is not finite at width {widths}", "bad")
    if grows := checked.grows:
        return Verdict(name, _first(grows, len(places)), "bad")
    if all(place.change is None for place in places):
        return Verdict(name, "nothing moves in these steps; give a larger --start-lr", "mixed")
    if still := [place for place in places if place.alarm == "vanishes"]:
        return Verdict(name, _first(still, len(places)), "mixed")
    most = max(places, key=lambda place: -math.inf if place.change is None else place.change.value)
    return Verdict(name, f"as muP asks: no output grows with width, {most.name} most, as {power(most.change)}", "good")


def _first(alarmed: Sequence[Place], count: int) -> str:
    """Where to look first: what lies behind it in the forward pass is moved by it."""
    others = f", with {len(alarmed) - 1} of {count - 1} others" if len(alarmed) > 1 else ""
    return f"look at {alarmed[0].name} first: it {sentence(alarmed[0])}{others}: not muP"


def _sure(result: Result) -> str:
    """What the intervals are of."""
    count = len(result.spec["seeds"])
    if count == 1:
        return "one seed, which does not show the scatter"
    return f"{count} seeds; {COVERAGE:.0%} t intervals over them"


def _next(result: Result, found: Sequence[Checked]) -> tuple[Fact, ...]:
    lr = result.spec["start_lr"]
    steps: list[Fact | None] = []
    if list(result.spec["parametrization"]) == ["sp"] and "parametrization" not in kind_of(result.spec["model"]).lacks:
        steps.insert(0, try_again(result, "muP beside it", {"parametrization": ("sp", "mup")}))
    if any(each.broken for each in found):
        steps.insert(0, try_again(result, "a smaller LR, at which all stays finite", {"start_lr": lr / _LARGER}))
    elif lost := [place.name for each in found for place in each.places if place.lost]:
        why = f"a larger LR: at {lr:g} the change of {lost[0]} is mostly rounding"
        steps.insert(0, try_again(result, why, {"start_lr": lr * _LARGER}))
    return first_few([*steps, more_seeds(result, ENOUGH_SEEDS, f"{ENOUGH_SEEDS} seeds: narrower intervals")])


def _blocks(found: Sequence[Checked]) -> Iterator[Block]:
    rows = [(each, place) for each in found for place in each.places]
    if not rows:
        return
    few = rows if len(rows) <= _MOST_ROWS else [row for row in rows if row[1].alarm][:_MOST_ROWS]
    if few:
        yield _table(few, BRIEF)
    yield _table(rows, AT_LENGTH)
    yield Paragraph(_legend(len(rows) - len(few)), "dim")
    for each in found:
        if chart := _chart(each):
            yield chart


def _table(rows: Sequence[tuple[Checked, Place]], formats: Formats) -> Table:
    header = ("variant", "output of", f"change after\n{NUM_STEPS} steps", "at\ninitialisation", "")
    return Table(
        tuple(Column(name, "left" if place in (1, 4) else "right") for place, name in enumerate(header)),
        tuple(
            (
                Value(each.name),
                Value(place.name),
                _cell(place.change, _TONES[place.alarm] if place.alarm != "grows at the start" else ""),
                _cell(place.initial, "bad" if place.alarm == "grows at the start" else ""),
                Value(place.alarm, tone=_TONES[place.alarm]),
            )
            for each, place in rows
        ),
        grouped=True,
        formats=formats,
    )


def _cell(exponent: Exponent | None, tone: Tone) -> Value:
    if exponent is None:
        return Value("-")
    value, _, interval = exponent.text.partition(" ")
    return Value(value, interval.strip("()"), tone=tone)


def _legend(left_out: int) -> str:
    more = f" {left_out} outputs without an alarm are not shown; -v shows them." if left_out else ""
    return (
        "b of root mean square ~ width^b. Under muP a change has b = 0, or down to -1/2 in the first steps, where it "
        "is not aligned yet; at initialisation b is 0 or less (logits shrink). Above 0, an LR that suits a small model "
        f"is too large for a wide one. -: zero, or not finite, at some width.{more}"
    )


def _chart(checked: Checked) -> Chart | None:
    """The change over width, a line a place: those that grow, then others, evenly."""
    drawn = [place for place in checked.places if place.change is not None]
    if not drawn:
        return None
    chosen = [place for place in drawn if place.alarm][:_MOST_LINES]
    rest = [place for place in drawn if not place.alarm]
    if room := _MOST_LINES - len(chosen):
        chosen += rest[:: max(1, -(-len(rest) // room))]
    kept = [place for place in drawn if place in chosen]
    more = f" {len(kept)} of {len(drawn)} outputs." if len(kept) < len(drawn) else ""
    return Chart(
        f"Change of outputs after {NUM_STEPS} steps over width, {checked.name}",
        Axis("width", ticks=tuple(map(float, checked.widths))),
        Axis("root mean square of x_t - x_0"),
        tuple(Series(place.name, tuple((float(w), value) for w, value in place.changes.items())) for place in kept),
        dots=True,
        caption=f"A line that rises is not muP.{more}",
        name=f"change-over-width-{checked.name}",
        formats=(*VERBOSE, *PAGE),
    )
