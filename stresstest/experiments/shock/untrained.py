"""Runs with nothing to damage, even without a shock: whether their learning rate, the run or a guard is to blame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stresstest.experiments.answers import try_again
from stresstest.experiments.shock.naming import arm
from stresstest.experiments.shock.spec import ShockSpec
from stresstest.reports.document import Fact
from stresstest.reports.numbers import lr
from stresstest.results.records import Cell, Result

_NOTHING_LEARNED = frozenset({"failed-to-train", "flat"})  # it broke nothing either: too little LR, or too few steps


def untrained(cells: Sequence[Cell], spec: ShockSpec, name: str = "", guard: str = "") -> list[Cell]:
    """Those of a row's name with this guard, or of every row, that have nothing to damage."""
    return [
        cell
        for cell in cells
        if cell.shock.get("outcome") == "untrained"
        and cell.point.get("guard", "") == guard
        and name in ("", arm(cell, spec))
    ]


def is_slow(cells: Sequence[Cell]) -> bool:
    """Whether none of them broke: they learned nothing in the steps that they had."""
    return all(cell.shock["twin_outcome"] in _NOTHING_LEARNED for cell in cells)


def untrained_words(cells: Sequence[Cell], spec: ShockSpec) -> str:
    """What to do about such runs of one row, and the sign behind it."""
    at = lr(cells[0].shock["peak_lr"])
    if is_slow(cells):
        other = "leave --peak-lr out, or " if spec.peak_lr is not None else ""
        return (
            f"{other}use more --train-steps: at LR {at} it learns nothing in {spec.total} steps, even without a shock"
        )
    return f"use a lower {_setting(spec)}: at LR {at} it does not train even without a shock"


def without_shock(spec: ShockSpec, hit: Sequence[Cell]) -> str:
    """The same of some seeds of several rows, as a finding."""
    names = ", ".join(dict.fromkeys(arm(cell, spec) for cell in hit))
    if is_slow(hit):
        other = "Leave --peak-lr out, or use" if spec.peak_lr is not None else "Use"
        return (
            f"{other} more --train-steps for {names}: without any shock some seeds learn nothing in {spec.total} "
            "steps, so a shock says nothing there."
        )
    return (
        f"Use a lower {_setting(spec)} or a larger --after for {names}: without any shock some seeds did not train, or "
        "break when their weights change in the last place, so a shock says nothing there."
    )


def next_step(spec: ShockSpec, result: Result) -> Iterator[Fact | None]:
    """The line that lets them train."""
    hit = untrained(result.cells, spec)
    if not hit:
        return
    if not is_slow(hit):
        yield lower_lr(spec, result, "a lower learning rate: some seeds do not train even without a shock")
    elif spec.peak_lr is not None:
        why = "a share of its own boundary: some seeds learn nothing at this learning rate"
        yield try_again(result, why, {}, lacks={"peak_lr"})
    else:
        why = "a longer run: some seeds learn nothing in this one, even without a shock"
        yield try_again(result, why, {"train_steps": 2 * spec.total})


def lower_lr(spec: ShockSpec, result: Result, why: str) -> Fact | None:
    """The line at half the learning rate."""
    if spec.peak_lr is not None:
        return try_again(result, why, {"peak_lr": spec.peak_lr / 2.0})
    return try_again(result, why, {"lr_share": spec.lr_share / 2.0})


def spoilt_by(guard: str, cells: Sequence[Cell], spec: ShockSpec) -> list[str]:
    """The rows of which a guard keeps more seeds from training than have nothing to damage without it."""
    return [name for name in _names(cells, spec, guard) if _seeds(cells, spec, name, guard) - _seeds(cells, spec, name)]


def _names(cells: Sequence[Cell], spec: ShockSpec, guard: str) -> list[str]:
    return list(dict.fromkeys(arm(cell, spec) for cell in untrained(cells, spec, guard=guard)))


def _seeds(cells: Sequence[Cell], spec: ShockSpec, name: str, guard: str = "") -> set[int]:
    return {cell.seed for cell in untrained(cells, spec, name, guard)}


def _setting(spec: ShockSpec) -> str:
    return "--lr-share" if spec.peak_lr is None else "--peak-lr"
