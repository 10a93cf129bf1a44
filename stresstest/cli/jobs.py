"""The value of `--jobs`, which commands that read no settings of experiments have too."""

from __future__ import annotations

import rich_click as click


def jobs_text(context: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """A number of worker processes or `auto` as it is, for a process that reads it itself."""
    if value is not None:
        jobs_number(context, param, value)
    return value


def jobs_number(context: click.Context, param: click.Parameter, value: str) -> int | None:
    """A number of worker processes; `auto` is `None`."""
    if value == "auto":
        return None
    if value.isdecimal() and int(value) > 0:
        return int(value)
    raise click.BadParameter(f"'{value}' is not a number of processes; give 1 or more, or auto")
