"""The commands: parse, call, print, exit code. Imports no torch at the top: `--help` answers at once."""

from __future__ import annotations

import dataclasses
import os
import sys
import tomllib
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import rich_click as click
from click.core import ParameterSource
from click.shell_completion import get_completion_class
from pydantic.fields import FieldInfo

from stresstest.choices import exact
from stresstest.errors import ConfigError, ExitCode, StresstestError
from stresstest.specs import (
    MODELS,
    PROFILES,
    SPECS,
    BoundarySpec,
    DepthSweepSpec,
    ModelSpec,
    RunSettings,
    resolve,
)
from stresstest.tables import did_you_mean

Command = Callable[..., Any]


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


_RUN_OPTIONS = (
    "profile jobs per-gpu executor ray-address slurm run-dir fresh retry-errors cell-timeout max-cells fail-fast shard "
    "output json quiet verbose dry-run help"
).split()
_SWEPT = [name for name in DepthSweepSpec.model_fields if name not in BoundarySpec.model_fields]


def _option_groups(spec: type[BoundarySpec]) -> list[Any]:
    model = [name for name in spec.model_fields if name in ModelSpec.model_fields]
    question = [name for name in spec.model_fields if name not in (*model, *_SWEPT)]
    groups = {"Depth": [name for name in spec.model_fields if name in _SWEPT], "Question": question, "Model": model}
    run = {"name": "Run", "options": [f"--{name}" for name in _RUN_OPTIONS]}
    return [run, *({"name": name, "options": list(map(_flag, options))} for name, options in groups.items() if options)]


click.rich_click.OPTION_GROUPS = {f"stresstest {command}": _option_groups(spec) for command, spec in SPECS.items()}


def _jobs(context: click.Context, param: click.Parameter, value: str) -> int | None:
    """A number of worker processes; `auto` is `None`."""
    if value == "auto":
        return None
    if value.isdecimal() and int(value) > 0:
        return int(value)
    raise click.BadParameter(f"'{value}' is no number of processes; give 1 or more, or auto")


def _shard(context: click.Context, param: click.Parameter, value: str) -> tuple[int, int]:
    """I/N as two numbers."""
    index, _, number = value.partition("/")
    if index.isdecimal() and number.isdecimal() and 1 <= int(index) <= int(number):
        return int(index), int(number)
    raise click.BadParameter(f"'{value}' is no part of a whole; give I/N with I from 1 to N, e.g. 1/4")


def _parameters(
    context: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> tuple[tuple[str, str | int], ...]:
    """KEY=VALUE pairs; a whole number as one."""
    pairs = [value.partition("=") for value in values]
    for value, (key, equals, text) in zip(values, pairs, strict=True):
        if not (key and equals and text):
            raise click.BadParameter(f"'{value}' is no parameter; give KEY=VALUE, e.g. partition=gpu")
    return tuple((key, int(text) if text.isdecimal() else text) for key, _, text in pairs)


_GIVEN = {
    ParameterSource.COMMANDLINE: "command line",
    ParameterSource.ENVIRONMENT: "environment",
    ParameterSource.DEFAULT_MAP: "pyproject.toml",
}


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))


def run(args: list[str]) -> int:
    """Run one command line; returns its exit code. Errors are translated here and nowhere else."""
    try:
        return int(cli.main(args, prog_name="stresstest", standalone_mode=False) or ExitCode.OK)
    except click.ClickException as error:
        return _complain(" ".join(error.format_message().split()), ExitCode.USAGE)
    except StresstestError as error:
        return _complain(str(error), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        return _complain("interrupted before any training", ExitCode.INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except Exception:
        traceback.print_exc()
        return _complain("internal error, see above; please report it", ExitCode.INTERNAL)


def _complain(message: str, code: int) -> int:
    click.echo(f"stresstest: {message}", err=True)
    return code


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="train-stresstest", prog_name="stresstest")
@click.pass_context
def cli(context: click.Context) -> None:
    """Stress-test the training stability of neural networks: where does training break, and how sure is that?"""
    context.default_map = _project_defaults(Path("pyproject.toml"))


def _project_defaults(path: Path) -> dict[str, Any]:
    """[tool.stresstest]: settings for every command, and a table of the command's name for its own."""
    if not path.is_file():
        return {}
    try:
        table = tomllib.loads(path.read_text()).get("tool", {}).get("stresstest", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: tool.stresstest is {table!r}; make it a table, [tool.stresstest]")
    own = {key: value for key, value in table.items() if isinstance(value, dict)}
    shared = {key: value for key, value in table.items() if key not in own}
    for command in own:
        if command not in SPECS:
            raise ConfigError(f"{path}: unknown table [tool.stresstest.{command}]{did_you_mean(command, SPECS)}")
    everywhere = {name for spec in SPECS.values() for name in spec.model_fields}
    _check_known(path, "tool.stresstest", shared, everywhere)
    defaults = {}
    for command, spec in SPECS.items():
        _check_known(path, f"tool.stresstest.{command}", own.get(command, {}), set(spec.model_fields))
        mine = {key.replace("-", "_"): value for key, value in {**shared, **own.get(command, {})}.items()}
        accepted = {*spec.model_fields, *_RUN_SETTINGS}
        defaults[command] = {key: _as_typed(key, value) for key, value in mine.items() if key in accepted}
    return defaults


_RUN_SETTINGS = ("profile", "jobs", "run_dir")


def _check_known(path: Path, where: str, settings: Mapping[str, Any], fields: set[str]) -> None:
    known = sorted(fields) + list(_RUN_SETTINGS)
    for key in settings:
        if key.replace("-", "_") not in known:
            raise ConfigError(f"{path}: unknown setting '{key}' in [{where}]{did_you_mean(key, known)}")


def _as_typed(key: str, value: Any) -> Any:
    """A value of TOML as it would stand on the command line."""
    text = _plain(list(map(str, value))) if isinstance(value, list) else value
    return [text] if key == "variant" else text


def _spec_options(kind: type[BoundarySpec]) -> Callable[[Command], Command]:
    """One option for each field of a spec: its default, type and help are the field's."""

    def decorate(command: Command) -> Command:
        for name, field in reversed(kind.model_fields.items()):
            command = _spec_option(name, field)(command)
        return command

    return decorate


def _spec_option(name: str, field: FieldInfo) -> Callable[[Command], Command]:
    flag, kind = _flag(name), field.annotation
    default = _shown_default(field.default)
    for model in MODELS.values():
        if name in model.defaults:
            default += f"; {model.name} {_shown_default(model.defaults[name])}"
    settings: dict[str, Any] = {
        "default": None,
        "envvar": f"STRESSTEST_{name.upper()}",
        "help": f"{field.description} (default: {default})",
    }
    if kind is bool:
        return click.option(f"{flag}/--no-{flag[2:]}", **settings)
    if get_origin(kind) is Literal:
        settings |= {"type": click.Choice(get_args(kind)), "metavar": "NAME"}
    elif kind is int:
        settings |= {"type": int, "metavar": "N"}
    elif kind is float or float in get_args(kind):
        settings |= {"type": float, "metavar": "X"}
    if name == "variant":
        settings["multiple"] = True
    return click.option(flag, name, **settings)


def _shown_default(value: Any) -> str:
    if value is None or value is False or value == ():
        return "off"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _run_options(command: str) -> Callable[[Command], Command]:
    """What every experiment's command takes: how to run and show it."""
    options: list[Callable[[Command], Command]] = [
        click.option(
            "--profile",
            type=click.Choice(list(PROFILES)),
            metavar="NAME",
            default="quick",
            envvar="STRESSTEST_PROFILE",
            help="quick: 3 seeds, hold to an octave; standard: 5, to a quarter; full: 8, longer. (default: quick)",
        ),
        _spec_options(SPECS[command]),
        click.option(
            "-j",
            "--jobs",
            callback=_jobs,
            metavar="N",
            default="auto",
            envvar="STRESSTEST_JOBS",
            help="Worker processes, one thread each. (default: auto: one a core, or --per-gpu on every GPU)",
        ),
        click.option(
            "--per-gpu",
            type=click.IntRange(min=1),
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
            help="Where cells are trained: local processes, a ray cluster or slurm jobs. (default: local)",
        ),
        click.option(
            "--ray-address",
            metavar="ADDRESS",
            envvar="STRESSTEST_RAY_ADDRESS",
            help="A Ray cluster, HOST:PORT or auto. (default: one of this machine, started for the run)",
        ),
        click.option(
            "--slurm",
            multiple=True,
            callback=_parameters,
            metavar="KEY=VALUE",
            help="A job's parameter as submitit names it: partition, timeout_min, mem_gb, gpus_per_node, ...",
        ),
        click.option(
            "--run-dir",
            default=None,
            envvar="STRESSTEST_RUN_DIR",
            help=f"Where the run is stored. (default: .stresstest/runs/TIME-{command})",
        ),
        click.option("--fresh", is_flag=True, help="Train every cell again instead of resuming."),
        click.option("--retry-errors", is_flag=True, help="Train cells again that crashed, ran out of memory or time."),
        click.option(
            "--cell-timeout",
            type=click.FloatRange(min=0, min_open=True),
            metavar="SECONDS",
            help="End a cell that takes longer; each is then trained by itself. (default: off)",
        ),
        click.option(
            "--max-cells",
            type=click.IntRange(min=1),
            metavar="N",
            help="Train so many cells, then stop; the same command goes on. (default: off)",
        ),
        click.option("--fail-fast", is_flag=True, help="Stop at the first cell that fails."),
        click.option(
            "--shard",
            callback=_shard,
            metavar="I/N",
            default="1/1",
            help="Train the I-th of N parts of the cells; stresstest merge joins them. (default: all)",
        ),
        click.option("-o", "--output", multiple=True, help="Also write FORMAT:PATH (html, json, md)."),
        click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, and nothing else, on stdout."),
        click.option("-q", "--quiet", is_flag=True, help="No progress."),
        click.option("-v", "--verbose", is_flag=True, help="On a terminal too, print a line for each finished cell."),
        click.option("--dry-run", is_flag=True, help="Check everything, print the resolved settings, train nothing."),
        click.pass_context,
    ]

    def decorate(function: Command) -> Command:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


@cli.command("lr-range")
@_run_options("lr-range")
def lr_range(context: click.RichContext, /, **options: Any) -> int:
    """Ramp the learning rate every step until the loss explodes, then hold it to check.

    With no options: five norm variants, three seeds, on generated text; about 3 minutes on 2 cores.
    """
    return _run("lr-range", context, options)


@cli.command("depth-sweep")
@_run_options("depth-sweep")
def depth_sweep(context: click.RichContext, /, **options: Any) -> int:
    """Find the boundary at growing depth: transformers, or residual MLPs of up to 10,000 blocks and more.

    With no options: the boundary of five norm variants at depth 2 to 16, three seeds; about 15 minutes on
    2 cores. `--model mlp` asks which depth a fixed recipe trains (`--measure outcome`), `--init-only` how
    signals and gradients come through, in seconds.
    """
    return _run("depth-sweep", context, options)


def _run(command: str, context: click.RichContext, options: Mapping[str, Any]) -> int:
    """Hand a parsed line over."""
    from stresstest.running import Request, run_experiment

    fields = SPECS[command].model_fields
    if options["shard"][1] > 1 and options.get("bisect"):
        raise ConfigError("--bisect asks for cells as others end, and a shard knows only its own; leave out --shard")
    given = {name: _plain(value) for name, value in options.items() if name in fields and value not in (None, ())}
    request = Request(
        command=command,
        spec=resolve(SPECS[command], options["profile"], given),
        sources=_sources(command, context, options),
        reproduce=_reproduce(command, context, options),
        settings=RunSettings(**{field.name: options[field.name] for field in dataclasses.fields(RunSettings)}),
        run_dir=options["run_dir"],
        fresh=options["fresh"],
        outputs=options["output"],
        as_json=options["as_json"],
        quiet=options["quiet"],
        verbose=options["verbose"],
        dry_run=options["dry_run"],
    )
    return run_experiment(request)


def _plain(value: Any) -> Any:
    return ",".join(value) if isinstance(value, tuple | list) else value


def _sources(command: str, context: click.Context, options: Mapping[str, Any]) -> dict[str, str]:
    """Where each setting of the spec came from."""
    sources = {}
    model = MODELS[options["model"] or SPECS[command].model_fields["model"].default]
    for name in SPECS[command].model_fields:
        source = context.get_parameter_source(name)
        in_profile = name in PROFILES[options["profile"]]
        built_in = f"model {model.name}" if name in model.defaults else "built in"
        default = f"profile {options['profile']}" if in_profile else built_in
        sources[name] = default if source is None else _GIVEN.get(source, default)
    return sources


def _reproduce(command: str, context: click.Context, options: Mapping[str, Any]) -> str:
    """The command line that gives this result again, whatever the environment and project say."""
    words = ["stresstest", command]
    for name in ("profile", *SPECS[command].model_fields):
        value = _plain(options[name])
        if context.get_parameter_source(name) not in _GIVEN or value in (None, ""):
            continue
        flag = _flag(name)
        words += [flag if value else f"--no-{flag[2:]}"] if isinstance(value, bool) else [flag, _quoted(value)]
    return " ".join(words)


def _quoted(value: Any) -> str:
    import shlex

    return shlex.quote(exact(value) if isinstance(value, float) else str(value))


@cli.command("list")
@click.argument("kind", required=False)
def list_(kind: str | None) -> int:
    """List models, variants, norms, optimizers, data sources and metrics; KIND for one table."""
    from stresstest.commands import print_tables

    return print_tables(kind)


@cli.command()
@click.argument("name")
def show(name: str) -> int:
    """Show one entry of the tables: what it is, its source, its options."""
    from stresstest.commands import print_entry

    return print_entry(name)


@cli.command()
@click.argument("run_path", metavar="[RUN]", required=False)
@click.option("-o", "--output", multiple=True, help="Write FORMAT:PATH (html, json, md) as well.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
def report(run_path: str | None, output: tuple[str, ...], as_json: bool) -> int:
    """Render a stored result again: a run directory or result.json, by default the newest run."""
    from stresstest.commands import print_report

    return print_report(run_path, output, as_json)


@cli.command()
@click.argument("run_path", metavar="[RUN]", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON on stdout.")
def status(run_path: str | None, as_json: bool) -> int:
    """Tell how far a run has got, while it goes on or after: cells done, running, failed, time left."""
    from stresstest.commands import print_status

    return print_status(run_path, as_json)


@cli.command()
@click.argument("shards", metavar="RUN...", nargs=-1, required=True)
@click.option("--run-dir", default=None, help="Where the whole run is stored. (default: .stresstest/runs/TIME-COMMAND)")
@click.option("-o", "--output", multiple=True, help="Also write FORMAT:PATH (html, json, md).")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
def merge(shards: tuple[str, ...], run_dir: str | None, output: tuple[str, ...], as_json: bool) -> int:
    """Join the run directories of all shards of a run (--shard I/N) into one, and print its result."""
    from stresstest.running import merge_runs

    return merge_runs([Path(shard) for shard in shards], run_dir, output, as_json)


@cli.command()
def doctor() -> int:
    """Check this machine: versions, devices, processes, determinism."""
    from stresstest.commands import print_diagnosis

    return print_diagnosis()


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> int:
    """Print the completion script of a shell: eval "$(stresstest completion bash)"."""
    completer = get_completion_class(shell)
    assert completer is not None, "click knows these shells"
    click.echo(completer(cli, {}, "stresstest", "_STRESSTEST_COMPLETE").source())
    return ExitCode.OK


if __name__ == "__main__":
    main()
