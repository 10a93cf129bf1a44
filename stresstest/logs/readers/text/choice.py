"""Of all that was printed, the run: its curves, their names, and what indexes them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from stresstest.logs.curve import Curve, FormatFacts, RawLog, Role
from stresstest.logs.losses import choose_loss
from stresstest.logs.names import without_prefix
from stresstest.logs.readers.text.bars import with_steps_of_bar
from stresstest.logs.readers.text.columns import Column, Level, columns_of
from stresstest.logs.readers.text.crashes import ending
from stresstest.logs.readers.text.scan import Scan
from stresstest.logs.readers.text.tools import TOOLS, Tool
from stresstest.logs.roles import has_a_role
from stresstest.logs.thinning import merged_note

_FEW_EPOCHS = 3
_UNKNOWN = Tool("printed text", "")


def run_of(scanned: Scan) -> RawLog:
    """The run that was printed; without a loss where none repeats."""
    tool = _tool(scanned)
    columns = columns_of(scanned, re.compile(tool.summary) if tool.summary else None)
    named = _named([column for column in columns if column.kind in ("loss", "value")])
    loss_key, said_of_it = _loss(tool, named)
    named = with_steps_of_bar(scanned, named, loss_key)
    loss = named.get(loss_key.split("+")[0]) if loss_key else None
    named = {name: column for name, column in named.items() if _belongs(column, loss, tool)}
    notes = [said_of_it] if said_of_it else []
    if loss is not None and tool.running:
        named, notes = _last_of_epochs(named, loss, notes)
        loss = named[loss_key.split("+")[0]]
    if loss is not None and tool.sums and (loss.step == 0).any():
        named = {name: column.chosen(column.step != 0) for name, column in named.items()}
        loss = named[loss_key.split("+")[0]]
        notes.append("the row at step 0 was left out: the others are sums over the steps between rows, it is one batch")
    curves, roles, planned = _indexed(named, loss, tool, loss_key)
    merged = max((template.rows.halvings for template in scanned.templates), default=0)
    if merged:
        notes.append(merged_note(1 << merged))
    if scanned.overflows:
        lines = "a line says" if scanned.overflows == 1 else f"{scanned.overflows} lines say"
        notes.append(f"{lines} that a step was skipped because fp16 numbers overflowed")
    said = ending(scanned.tail)
    if said is not None:
        notes.append(said)
    facts = FormatFacts(
        roles=roles,
        row_kind=tool.row_kind,
        zero_for_nan=tool.zero_for_nan,
        planned_steps=planned,
        row_note=tool.row_note,
        loss_unit=tool.loss_unit,
    )
    return RawLog(tool.name, curves, facts, notes=tuple(notes))


def _tool(scanned: Scan) -> Tool:
    """The tool whose mark is in most of the rows."""
    rows: dict[str, int] = {}
    examples = [(template.example, template.tool, len(template.rows)) for template in scanned.templates]
    examples += [(table.header, "", len(table.places)) for table in scanned.tables]
    for example, known, count in examples:
        name = known or next((tool.name for tool in TOOLS if re.search(tool.mark, example)), "")
        if name:
            rows[name] = rows.get(name, 0) + count
    best = max(rows, key=lambda name: rows[name], default="")
    return next((tool for tool in TOOLS if tool.name == best), _UNKNOWN)


def _named(columns: Sequence[Column]) -> dict[str, Column]:
    """Columns by name; of one name at several levels the longest keeps it, the others say what they are by."""
    by_name: dict[str, list[Column]] = {}
    for column in columns:
        by_name.setdefault(column.name, []).append(column)
    named: dict[str, Column] = {}
    for name, alike in by_name.items():
        alike.sort(key=len, reverse=True)
        named[name] = alike[0]
        for other in alike[1:]:
            suffix = {"none": "without a step", "above": "below a step"}.get(other.level, f"by {other.level}")
            named[f"{name} ({suffix})"] = replace(other, name=f"{name} ({suffix})")
    return named


def _counts(column: Column) -> bool:
    """One lone number without an index is a setting or a sentence, no row of a log."""
    return len(column) > 1 or column.level != "none"


def _belongs(column: Column, loss: Column | None, tool: Tool) -> bool:
    """Whether a column is of the run: a loss, a name that plays a role, or as frequent as the loss."""
    if column.name in tool.roles.values():
        return True
    if loss is None or not _counts(column):
        return loss is None and len(column) > 1
    if column.kind == "loss" or (has_a_role(column.name) and len(column) > 2):
        return True
    return bool(np.isin(column.place, loss.place).mean() > 0.5) or 4 * len(column) >= max(8, len(loss))


def _loss(tool: Tool, named: dict[str, Column]) -> tuple[str, str]:
    """The name of the loss, and what is to be said of it."""
    fixed = tool.roles.get("loss", "")
    if fixed in named:
        return fixed, ""
    losses = {name: column.curve() for name, column in named.items() if column.kind == "loss" and _counts(column)}
    choice = choose_loss(without_prefix(losses), losses)
    return "+".join(choice.keys), choice.note


def _last_of_epochs(named: dict[str, Column], loss: Column, notes: list[str]) -> tuple[dict[str, Column], list[str]]:
    """Of a mean over the epoch so far the last row of each epoch; all rows where there are few epochs."""
    if not np.isfinite(loss.epoch).all() or len(np.unique(loss.epoch)) < _FEW_EPOCHS:
        return named, notes
    kept = {name: _ends(column) if column.level != "none" else column for name, column in named.items()}
    dropped = len(loss) - len(kept[loss.name])
    if dropped:
        notes = [*notes, f"{dropped} rows within epochs were left out: each is the mean of the epoch so far"]
    return kept, notes


def _ends(column: Column) -> Column:
    ends = np.append(np.diff(column.epoch) != 0, True)
    cut = column.chosen(ends)
    return replace(cut, level="epoch", step=cut.epoch, step_name="epoch")


def _indexed(
    named: dict[str, Column], loss: Column | None, tool: Tool, loss_key: str
) -> tuple[dict[str, Curve], dict[Role, str], int | None]:
    """The curves, with those of the index that the loss has; the roles of names; the planned steps."""
    curves = {name: column.curve() for name, column in named.items()}
    roles: dict[Role, str] = {role: name for role, name in tool.roles.items() if name in curves}
    if loss is None:
        return curves, roles, None
    roles["loss"] = loss_key
    level = _true_level(loss)
    if level == "epoch" and loss.level != "epoch":
        loss = replace(loss, step=loss.epoch, step_name="epoch")
        curves = {name: _by_epoch(column) for name, column in named.items()}
    step_name = loss.step_name or "step"
    if level == "none":
        curves = {name: replace(curve, step=np.full(len(curve), np.nan)) for name, curve in curves.items()}
        if np.isfinite(loss.epoch).all():
            curves["epoch"] = Curve(np.full(len(loss), np.nan), loss.epoch, loss.place)
    elif level == "batch":
        curves[tool.batch] = Curve(loss.step, loss.step, loss.place)
        curves["epoch"] = Curve(loss.step, loss.epoch, loss.place)
        roles["batch"], roles["epoch"] = tool.batch, "epoch"
        roles.pop("step", None)
        if np.isfinite(loss.total).all():
            curves["batches"] = Curve(loss.step, loss.total, loss.place)
    else:
        curves.setdefault(step_name, Curve(loss.step, loss.step, loss.place))
        roles["step"] = step_name
        if level == "step" and np.isfinite(loss.epoch).all() and "epoch" not in curves:
            curves["epoch"] = Curve(loss.step, loss.epoch, loss.place)
    if np.isfinite(loss.rank).any() and len(np.unique(loss.rank[np.isfinite(loss.rank)])) > 1:
        curves["rank"] = Curve(loss.step, loss.rank, loss.place)
        roles["rank"] = "rank"
    return curves, roles, _planned(loss, level)


def _by_epoch(column: Column) -> Curve:
    return Curve(column.epoch, column.value, column.place)


def _true_level(loss: Column) -> Level:
    """What indexes the loss: a step that starts anew in each epoch is a batch, an epoch of many rows does not."""
    loss = _printed_once(loss)
    if loss.level in ("step", "batch", "above"):
        if not np.isfinite(loss.epoch).all():
            return "step"
        if len(loss) > 1 and (np.diff(loss.epoch) > 0).all() and not (np.diff(loss.step) > 0).all():
            return "epoch"
        back = np.diff(loss.step) < 0
        later = np.diff(loss.epoch) > 0
        if (back & later).any() and np.mean(later[back]) > 0.5:
            return "batch"
        return "batch" if loss.level == "batch" and not _goes_on(loss) else "step"
    if loss.level == "epoch":
        whole = np.isfinite(loss.epoch).all() and (loss.epoch == np.round(loss.epoch)).all()
        once = len(loss) < 2 or np.mean(np.diff(loss.epoch) == 0) < 0.3
        return "epoch" if whole and once else "none"
    return "none"


def _printed_once(loss: Column) -> Column:
    """The rows of the first rank alone, and of rows that each rank printed without its number one each."""
    ranks = loss.rank[np.isfinite(loss.rank)]
    if len(ranks):
        loss = loss.chosen(loss.rank == ranks[0])
    again = (np.diff(loss.epoch) == 0) & (np.diff(loss.value) == 0)
    return loss.chosen(np.append(True, ~again)) if loss.level == "epoch" and len(loss) else loss


def _goes_on(loss: Column) -> bool:
    """Whether a batch goes on counting from one epoch to the next."""
    later = np.diff(loss.epoch) > 0
    return bool(later.any() and (np.diff(loss.step)[later] > 0).all())


def _planned(loss: Column, level: Level) -> int | None:
    total = loss.total[np.isfinite(loss.total)]
    return int(total.max()) if level == "step" and len(total) and np.unique(total).size == 1 else None
