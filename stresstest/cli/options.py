"""The options of the commands that train: one for each field of a spec, and how to run and show it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args, get_origin

import rich_click as click
from click.types import convert_type
from pydantic.fields import FieldInfo

from stresstest.cli.jobs import WHERE, Command, Decorator, shard_of
from stresstest.experiments.table import EXPERIMENTS
from stresstest.loggers.table import TRACKER_FORMS
from stresstest.specs.base import OF_NO_MODEL, OFF, ModelSpec
from stresstest.specs.kinds import MODELS
from stresstest.specs.parsing import flag
from stresstest.specs.profiles import PROFILES

Fields = Mapping[str, FieldInfo]


def all_fields() -> Fields:
    """Those of every experiment, for what runs several; where one takes a number and another a list, the list."""
    found: dict[str, FieldInfo] = {}
    for spec in EXPERIMENTS.specs.values():
        for name, field in spec.model_fields.items():
            if get_origin(found.get(name, field).annotation) is not tuple or get_origin(field.annotation) is tuple:
                found[name] = field
    return found


_RUN_OPTIONS = (
    "profile jobs per-gpu executor ray-address slurm run-dir fresh retry-errors cell-timeout max-cells fail-fast shard "
    "storage study log output json quiet verbose dry-run help"
).split()
REPEATED = ("variant", "set")  # options that may stand several times
_WITH_UNITS = ("tokens",)  # 500k


def option_groups(fields: Fields) -> list[Any]:
    """How `--help` groups the options: what is asked, of which model, and how to run and show it."""
    model = [name for name in fields if name in ModelSpec.model_fields]
    groups = {"Question": [name for name in fields if name not in model], "Model": model}
    run = {"name": "Run", "options": [f"--{name}" for name in _RUN_OPTIONS]}
    return [*({"name": name, "options": list(map(flag, options))} for name, options in groups.items() if options), run]


def _or_off(kind: Any, off: str | None = None) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    """What reads a value of a type of click's, or the word for none, which is then this."""

    def read(context: click.Context, param: click.Parameter, value: str | None) -> Any:
        return off if value == OFF else None if value is None else kind.convert(value, param, context)

    return read


def _spec_option(name: str, field: FieldInfo) -> Decorator:
    """The option of a spec's field: its default, type and help are the field's."""
    switch, kind = flag(name), field.annotation
    default = _shown_default(field.default)
    for model in MODELS.values():
        if name in model.defaults and OF_NO_MODEL not in field.metadata:
            default += f"; {model.name} {_shown_default(model.defaults[name])}"
    settings: dict[str, Any] = {
        "default": None,
        "envvar": f"STRESSTEST_{name.upper()}",
        "help": f"{field.description} (default: {default})",
    }
    if kind is bool:
        return click.option(f"{switch}/--no-{switch[2:]}", **settings)
    if get_origin(kind) is Literal:
        settings |= {"type": click.Choice(get_args(kind)), "metavar": "NAME"}
    elif kind is int and name not in _WITH_UNITS:
        settings |= {"type": int, "metavar": "N"}
    elif kind is float:
        settings |= {"type": float, "metavar": "X"}
    elif field.default is None:
        number = float if float in get_args(kind) else int
        settings |= {"callback": _or_off(convert_type(number), OFF), "metavar": "X" if number is float else "N"}
    if name in REPEATED:
        settings["multiple"] = True
    return click.option(switch, name, **settings)


def _shown_default(value: Any) -> str:
    if value is None or value is False or value in ((), ""):
        return OFF
    if value is True:
        return "on"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


_WHICH: list[Decorator] = [
    click.option("--fresh", is_flag=True, help="Train every cell again instead of resuming."),
    click.option(
        "--retry-errors", is_flag=True, help="Train again the cells that crashed or ran out of memory or time."
    ),
    click.option(
        "--cell-timeout",
        callback=_or_off(click.FloatRange(min=0, min_open=True)),
        metavar="SECONDS",
        help="Stop a cell that takes longer; each cell then trains on its own. (default: off)",
    ),
    click.option(
        "--max-cells",
        callback=_or_off(click.IntRange(min=1)),
        metavar="N",
        help="Stop after this many cells; the same command continues. (default: off)",
    ),
    click.option("--fail-fast", is_flag=True, help="Stop at the first cell that fails."),
    click.option(
        "--shard",
        callback=shard_of,
        metavar="I/N",
        default="1/1",
        help="Train only the I-th of N parts of the cells; stresstest merge joins them. (default: all)",
    ),
]

_SHARED: list[Decorator] = [
    click.option(
        "--storage",
        metavar="URL",
        envvar="STRESSTEST_STORAGE",
        help="Database for a search shared by several drivers: postgresql://USER:PASSWORD@HOST/DATABASE. "
        "(default: a journal in the run directory)",
    ),
    click.option(
        "--study", metavar="NAME", default="warmup", help="Name of the search in --storage. (default: warmup)"
    ),
]

_SHOWN: list[Decorator] = [
    click.option(
        "--log",
        multiple=True,
        metavar="NAME[:PLACE]",
        help=f"Tell a tracker of each cell that ends: {', '.join(TRACKER_FORMS)}.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, and nothing else, on stdout."),
    click.option("-q", "--quiet", is_flag=True, help="No progress."),
    click.option(
        "-v",
        "--verbose",
        is_flag=True,
        help="Print the whole report, not the answer alone: charts, intervals, theory, every finding. On a terminal "
        "also a line for each finished cell.",
    ),
    click.option("--dry-run", is_flag=True, help="Check everything, print the resolved settings, train nothing."),
]


def run_options(fields: Fields, directory: str, shares: bool = False, more: tuple[str, ...] = ()) -> Decorator:
    """What every command that trains takes: these settings, how to run and show it, and for some, how to share it.

    `more`: profiles that a scenario file may have of its own.
    """
    options: list[Decorator] = [
        click.option(
            "--profile",
            type=click.Choice([*PROFILES, *more]),
            metavar="NAME",
            default="quick",
            envvar="STRESSTEST_PROFILE",
            help="quick: 3 seeds, hold to an octave; standard: 5 seeds, to a quarter; full: 8 seeds, longer. "
            "(default: quick)",
        ),
        *(_spec_option(name, field) for name, field in fields.items()),
        *WHERE,
        click.option(
            "--run-dir",
            default=None,
            envvar="STRESSTEST_RUN_DIR",
            help=f"Where to store the run. (default: .stresstest/runs/TIME-{directory})",
        ),
        *_WHICH,
        *(_SHARED if shares else []),
        *_SHOWN,
    ]

    def decorate(function: Command) -> Command:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate
