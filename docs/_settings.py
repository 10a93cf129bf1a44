"""The reference pages of commands and settings."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin

import click
from _markdown import block, code, codes, page, plain, table
from _package import COMMANDS, EXPERIMENTS, MODELS, PROFILES, cli
from pydantic.fields import FieldInfo

_LIMITS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
_KINDS = {int: "whole number", float: "number", str: "text", bool: "switch"}
_LISTS = {int: "whole numbers", float: "numbers", str: "texts"}


def settings_page() -> str:
    """Every setting: its values, its default by command and model, and what it means."""
    by_commands: dict[tuple[str, ...], list[str]] = {}
    for name in _names():
        by_commands.setdefault(tuple(c for c in EXPERIMENTS if name in EXPERIMENTS[c].spec.model_fields), []).append(
            name
        )
    parts = [
        "A setting is an option of the command line (`--train-steps`), an environment variable "
        "(`STRESSTEST_TRAIN_STEPS`), a key of a [scenario file](../guides/scenarios.md) or of `[tool.stresstest]` in "
        "`pyproject.toml` (`train_steps`), and an argument of the [Python functions](python-api.md). Options that say "
        "where and how to train are on [the commands' page](commands.md#options-of-every-command-that-trains).",
        *(_section(commands, names) for commands, names in by_commands.items()),
        "## Profiles",
        "What a profile sets where you say nothing; `quick` is the default.",
        table(["profile", "sets"], ([code(name), codes(_assigned(sets)) or "-"] for name, sets in PROFILES.items())),
        "## Defaults by model",
        "What a model sets where you say nothing.",
        table(
            ["model", "sets"],
            ([code(model.name), codes(_assigned(model.defaults)) or "-"] for model in MODELS.values()),
        ),
    ]
    return page("Settings", "the experiments' specs", *parts)


def _names() -> list[str]:
    return list(dict.fromkeys(name for spec in EXPERIMENTS.specs.values() for name in spec.model_fields))


def _section(commands: Sequence[str], names: Sequence[str]) -> str:
    everywhere = len(commands) == len(EXPERIMENTS)
    title = "Every command that trains" if everywhere else ", ".join(commands)
    rows = (
        [code(name), _values(name, commands), _defaults(name, commands), _meaning(name, commands)] for name in names
    )
    return f"## {title}\n\n" + table(["setting", "values", "default", "meaning"], rows)


def _values(name: str, commands: Sequence[str]) -> str:
    """What a setting may be, one text for each way that the commands have it."""
    return "; or ".join(dict.fromkeys(_allowed(EXPERIMENTS[command].spec.model_fields[name]) for command in commands))


def _allowed(field: FieldInfo) -> str:
    limits = [
        f"{words} {_number(getattr(limit, key))}"
        for limit in field.metadata
        for key, words in _LIMITS.items()
        if getattr(limit, key, None) is not None
    ]
    kinds = [one for one in _alternatives(field.annotation) if one is not type(None)]
    text = " ".join([" or ".join(map(_kind, kinds)), " and ".join(limits)]).strip()
    return text if len(kinds) == len(_alternatives(field.annotation)) else f"{text}, or off"


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def _kind(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Literal:
        return codes(map(str, get_args(annotation)))
    if origin is not tuple:
        return _KINDS[annotation]
    element = get_args(annotation)[0]
    return f"list of {_LISTS.get(element) or _kind(element)}"


def _defaults(name: str, commands: Sequence[str]) -> str:
    """The default; where the commands differ, of each."""
    found: dict[str, list[str]] = {}
    for command in commands:
        found.setdefault(shown(EXPERIMENTS[command].spec.model_fields[name].default), []).append(command)
    if len(found) == 1:
        return code(next(iter(found))) or "-"
    return "; ".join(f"{code(value)} ({', '.join(where)})" for value, where in found.items())


def _meaning(name: str, commands: Sequence[str]) -> str:
    """The description; where the commands differ, of each."""
    texts: dict[str, list[str]] = {}
    for command in commands:
        texts.setdefault(plain(str(EXPERIMENTS[command].spec.model_fields[name].description)), []).append(command)
    if len(texts) == 1:
        return next(iter(texts))
    return " ".join(f"{', '.join(where)}: {text.rstrip('.')}." for text, where in texts.items())


def shown(value: Any) -> str:
    """A default as one types it."""
    if value is None or value is False or value == ():
        return "off"
    if value is True:
        return "on"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _assigned(settings: Mapping[str, Any]) -> list[str]:
    return [f"{name}={shown(value)}" for name, value in settings.items()]


def commands_page() -> str:
    """Every command with its arguments and options."""
    everything = list(_commands(cli, ()))
    shared = _shared_options()
    parts = [
        table(["command", ""], ([_link(path), plain(_first(command))] for path, command in everything)),
        "## Options of every command that trains",
        f"Those of {codes((*EXPERIMENTS, 'run'))}. Settings have [a page of their own](settings.md).",
        _option_table(shared.values()),
        *(_command(path, command, set(shared)) for path, command in everything),
    ]
    return page("Commands", "the command line", *parts)


def _commands(group: click.Group, path: tuple[str, ...]) -> Iterable[tuple[tuple[str, ...], click.Command]]:
    for name, command in (COMMANDS if group is cli else group.commands).items():
        if isinstance(command, click.Group):
            yield from _commands(command, (*path, name))
        else:
            yield (*path, name), command


def _link(path: Sequence[str]) -> str:
    return f"[`{' '.join(path)}`](#{'-'.join(path)})"


def _first(command: click.Command) -> str:
    """The first sentence of a command's help."""
    paragraph = " ".join(inspect.cleandoc(command.help or "").partition("\n\n")[0].split())
    return re.split(r"(?<=[.?]) ", paragraph)[0]


def _options(command: click.Command) -> dict[str, click.Option]:
    return {option.name or "": option for option in command.params if isinstance(option, click.Option)}


def _shared_options() -> dict[str, click.Option]:
    """What all experiments' commands and `run` have beside their settings."""
    first, *others = [_options(COMMANDS[name]) for name in (*EXPERIMENTS, "run")]
    settings = _names()
    return {
        name: option
        for name, option in first.items()
        if name not in settings and all(name in other for other in others)
    }


def _command(path: Sequence[str], command: click.Command, shared: set[str]) -> str:
    options, context = _options(command), click.Context(command)
    arguments = [param.make_metavar(context) for param in command.params if isinstance(param, click.Argument)]
    trains = shared <= set(options)
    settings = [name for name in options if trains and name in _names()]
    own = [option for name, option in options.items() if not trains or name not in (*shared, *settings)]
    usage = " ".join(["stresstest", *path, *(["[OPTIONS]"] if options else []), *arguments])
    flags = codes(options[name].opts[0] for name in settings)
    parts = [
        f"## {' '.join(path)}",
        block(usage, "text"),
        plain(inspect.cleandoc(command.help or "")),
        _option_table(own),
        f"[Settings](settings.md): {flags}." if settings else "",
        "And the options of every command that trains, above." if trains else "",
    ]
    return "\n\n".join(filter(None, parts))


def _option_table(options: Iterable[click.Option]) -> str:
    rows = []
    for option in options:
        spelled = codes([*option.opts, *option.secondary_opts])
        value = "" if option.is_flag else " " + code(option.make_metavar(click.Context(cli)))
        variable = code(option.envvar) if isinstance(option.envvar, str) else ""
        rows.append([spelled + value, plain(option.help or ""), variable])
    return table(["option", "meaning", "environment"], rows)
