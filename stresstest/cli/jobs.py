"""Where to train: the options that commands have too which read no settings of experiments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import rich_click as click

from stresstest.runs.settings import MOST_JOBS

Command = Callable[..., Any]
Decorator = Callable[[Command], Command]


def jobs_text(context: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """A number of worker processes or `auto` as it is, for a process that reads it itself."""
    if value is not None:
        jobs_number(context, param, value)
    return value


def jobs_number(context: click.Context, param: click.Parameter, value: str) -> int | None:
    """A number of worker processes; `auto` is `None`."""
    if value == "auto":
        return None
    if value.isdecimal() and len(value) <= len(str(MOST_JOBS)) and 1 <= int(value) <= MOST_JOBS:
        return int(value)
    raise click.BadParameter(f"'{value[:40]}' is not a number of processes; give 1 to {MOST_JOBS}, or auto")


def shard_of(context: click.Context, param: click.Parameter, value: str) -> tuple[int, int]:
    """I/N as two numbers."""
    index, _, number = value.partition("/")
    if index.isdecimal() and number.isdecimal() and 1 <= int(index) <= int(number):
        return int(index), int(number)
    raise click.BadParameter(f"invalid shard '{value}': use I/N with 1 <= I <= N, e.g. 1/4")


def _parameters(
    context: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> tuple[tuple[str, str | int], ...]:
    """KEY=VALUE pairs; a whole number as one."""
    pairs = [value.partition("=") for value in values]
    for value, (key, equals, text) in zip(values, pairs, strict=True):
        if not (key and equals and text):
            raise click.BadParameter(f"'{value}' is not KEY=VALUE; write e.g. partition=gpu")
    return tuple((key, int(text) if text.isdecimal() else text) for key, _, text in pairs)


WHERE: list[Decorator] = [
    click.option(
        "-j",
        "--jobs",
        callback=jobs_number,
        metavar="N",
        default="auto",
        envvar="STRESSTEST_JOBS",
        help="Worker processes, one thread each. (default: auto: one per core, or --per-gpu on every GPU)",
    ),
    click.option(
        "--per-gpu",
        type=click.IntRange(1, MOST_JOBS),
        metavar="K",
        default=1,
        help="Worker processes on each GPU. (default: 1)",
    ),
    click.option(
        "--executor",
        type=click.Choice(["local", "ray", "slurm"]),
        metavar="NAME",
        default="local",
        envvar="STRESSTEST_EXECUTOR",
        help="Where to train cells: local processes, a ray cluster or slurm jobs. (default: local)",
    ),
    click.option(
        "--ray-address",
        metavar="ADDRESS",
        envvar="STRESSTEST_RAY_ADDRESS",
        help="Ray cluster, HOST:PORT or auto. (default: start one on this machine for the run)",
    ),
    click.option(
        "--slurm",
        multiple=True,
        callback=_parameters,
        metavar="KEY=VALUE",
        help="Job parameter of submitit: partition, timeout_min, mem_gb, gpus_per_node, ...",
    ),
]


def where_options(function: Command) -> Command:
    """A command with the options that say where to train."""
    for option in reversed(WHERE):
        function = option(function)
    return function
