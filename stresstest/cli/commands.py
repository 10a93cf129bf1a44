"""The commands: parse, call, print, exit code. What a command needs it imports itself: `--help` answers at once."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import rich_click as click
from click.shell_completion import get_completion_class

import stresstest
from stresstest.cli.context import CONTEXT
from stresstest.cli.diagnose import diagnose_command
from stresstest.cli.experiments import Commands
from stresstest.cli.gate import GATE_COMMANDS
from stresstest.cli.jobs import shard_of, where_options
from stresstest.cli.outputs import OUTPUT, VERBOSE, output_option
from stresstest.cli.project import project_defaults
from stresstest.errors import ExitCode


def _print_version(context: click.Context, _parameter: click.Parameter, asked: bool) -> None:
    """Also where nothing is installed: in a bare checkout, say."""
    if asked:
        click.echo(f"stresstest, version {stresstest.__version__}")
        context.exit()


@click.group(cls=Commands, context_settings=CONTEXT)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Show the version and exit.",
)
@click.pass_context
def cli(context: click.Context) -> None:
    """Stress-test the training stability of neural networks: where does training break, and how sure is that?"""
    context.default_map = project_defaults(Path("pyproject.toml"))


@cli.command()
@click.argument("files", metavar="FILE|NAME...", nargs=-1, required=True)
@click.option("--profile", metavar="NAME", help="Profile defined in the files; also prints its cost, on any machine.")
@click.option(
    "--no-code",
    is_flag=True,
    help="Run none of the code that a file names, but list it: for a file that you have not looked at yet.",
)
@click.pass_context
def validate(context: click.RichContext, files: tuple[str, ...], profile: str | None, no_code: bool) -> int:
    """Check scenario files without training: settings, names, data, memory, and what a gate needs.

    Only a file's first profile has to fit this machine; for the others parameters, memory, FLOPs and GPU hours
    are estimated.
    """
    from stresstest.cli.sources import settings_beside
    from stresstest.commands.validate import code_words, estimate_words
    from stresstest.commands.validate import validate as validate_scenario
    from stresstest.scenario.library import find_scenario
    from stresstest.scenario.reader import load_scenario
    from stresstest.scenario.request import scenario_requests

    given, options = settings_beside(context, {})
    for file in files:
        loaded = load_scenario(find_scenario(file), profile)
        requests = scenario_requests(file, loaded, given, options)
        first = loaded.profile == next(iter(loaded.profiles), "")
        words = code_words(loaded, requests) if no_code else []
        words = words or (validate_scenario if first else estimate_words)(loaded, requests)
        click.echo("\n".join(f"{file}: {text}" for text in words))
    return ExitCode.OK


@cli.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option(
    "--profile", type=click.Choice(["cpu", "full"]), default="cpu", help="cpu: scaled down; full: the papers' sizes."
)
@click.option("--quick", is_flag=True, help="The headline claims alone, at their first look.")
@click.option(
    "--first-seed",
    type=click.IntRange(min=0),
    metavar="N",
    help="Confirm with seeds from N on. (default: the files' own)",
)
@click.option("--device", metavar="NAME", default="auto", help="auto, cpu, cuda or cuda:N. (default: auto)")
@where_options
@click.option("--run-dir", default=None, help="Where the runs are stored. (default: .stresstest/papers/PROFILE)")
@click.option("--retry-errors", is_flag=True, help="Train again the cells that crashed or ran out of memory or time.")
@click.option(
    "--cell-timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Stop a cell that takes longer.",
)
@click.option(
    "--shard",
    callback=shard_of,
    metavar="I/N",
    default="1/1",
    help="Train only the I-th of N parts of the scenarios; with all parts' folders in one, go on. (default: all)",
)
@output_option()
@click.option("--json", "as_json", is_flag=True, help="Print the claims as JSON, and nothing else, on stdout.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@click.option("-v", "--verbose", is_flag=True, help="Also say what the verdicts mean, and why a claim was not seen.")
@click.option("--dry-run", is_flag=True, help="Check everything, print the resolved settings, train nothing.")
@click.pass_context
def papers(context: click.RichContext, /, names: tuple[str, ...], **options: Any) -> int:
    """Run the papers' experiments, scaled down, and print which of their claims were seen, in one table.

    Without names it runs all of them; `stresstest list scenarios` prints the names. Each trains with 12 seeds, and
    what its open claims are about with 18 and then 36. The same command continues an interrupted run.
    """
    from stresstest.cli.sources import settings_beside
    from stresstest.commands.papers import DEFAULT_FOLDER, choose_papers, run_papers

    given, shared = settings_beside(context, {"device": options["device"]})
    where = ("jobs", "per_gpu", "executor", "ray_address", "slurm", "retry_errors", "cell_timeout", "quiet", "dry_run")
    shared |= {name: options[name] for name in where}
    first, quick = options["first_seed"], options["quick"]
    chosen = choose_papers(names, options["profile"], given, shared, quick, first)
    kept = f"{DEFAULT_FOLDER}/{options['profile']}{'' if first is None else f'-{first}'}"
    folder = Path(options["run_dir"] or kept)
    words = ["stresstest", "papers", *names, "--profile", options["profile"], *["--quick"] * quick]
    line = shlex.join([*words, *([] if first is None else ["--first-seed", str(first)]), "--run-dir", str(folder)])
    shown = options["output"], options["as_json"], line, options["verbose"]
    return run_papers(chosen, folder, *shown, options["shard"])


@cli.command()
@click.argument("kind", type=click.Choice(["scenario", "result", "diagnosis"]), default="scenario")
def schema(kind: str) -> int:
    """Print the JSON Schema of scenario files, for editors, of result.json, or of `diagnose --json`."""
    from stresstest.diagnosis.records import diagnosis_schema
    from stresstest.experiments.result_schema import result_schema
    from stresstest.scenario.schema import scenario_schema

    text = {"scenario": scenario_schema, "result": result_schema, "diagnosis": diagnosis_schema}[kind]()
    click.echo(json.dumps(text, indent=1))
    return ExitCode.OK


@cli.command("list")
@click.argument("kind", required=False)
def list_(kind: str | None) -> int:
    """List experiments, models, variants, norms, parametrizations, optimizers, data, ...; KIND for one table."""
    from stresstest.commands.tables import print_tables

    return print_tables(kind)


@cli.command()
@click.argument("name")
def show(name: str) -> int:
    """Show one table entry: its meaning, source and options."""
    from stresstest.commands.tables import print_entry

    return print_entry(name)


@cli.command()
@click.argument("run_path", metavar="[RUN]", required=False)
@OUTPUT
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
@VERBOSE
@click.option("--index", is_flag=True, help="Write index.html, a page over all runs below a folder (.stresstest/runs).")
def report(run_path: str | None, output: tuple[str, ...], as_json: bool, verbose: bool, index: bool) -> int:
    """Render a stored result again: a run directory or result.json, by default the newest run.

    Of a run that lacks cells it shows what has ended, also while it trains.
    """
    from stresstest.commands.inspect import print_index, print_report

    if index:
        return print_index(run_path, output, as_json)
    return print_report(run_path, output, as_json, verbose)


@cli.command()
@click.argument("run_path", metavar="[RUN]", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON on stdout.")
def status(run_path: str | None, as_json: bool) -> int:
    """Show the progress of a run, during it or after: cells done, running, failed, time left."""
    from stresstest.commands.status import print_status

    return print_status(run_path, as_json)


@cli.command()
@click.argument("shards", metavar="RUN...", nargs=-1, required=True)
@click.option("--run-dir", default=None, help="Where to store the merged run. (default: .stresstest/runs/TIME-COMMAND)")
@OUTPUT
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
@VERBOSE
def merge(shards: tuple[str, ...], run_dir: str | None, output: tuple[str, ...], as_json: bool, verbose: bool) -> int:
    """Join the run directories of all shards of a run (--shard I/N) into one, and print its result."""
    from stresstest.commands.merge import merge_runs

    return merge_runs([Path(shard) for shard in shards], run_dir, output, as_json, verbose)


@cli.command()
@click.argument("folder", default=".", type=str)
@click.option(
    "--ci", type=click.Choice(["github", "gitlab"]), help="Also write a gate for pull requests and its CI workflow."
)
@click.option("--install", metavar="SPEC", help="What the workflow installs: git+URL@COMMIT, or ./PATH in it.")
def init(folder: str, ci: str | None, install: str | None) -> int:
    """Write a starting model.py and a scenario for it into FOLDER (default: here).

    What is there already stays as it is. A workflow installs stresstest from where this copy came from, a repository
    and commit; where that is not known, give --install.
    """
    from stresstest.commands.init import write_start

    return write_start(folder, ci, install)


@cli.command()
def doctor() -> int:
    """Check this machine: versions, devices, processes, determinism."""
    from stresstest.commands.doctor import print_diagnosis

    return print_diagnosis()


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> int:
    """Print the completion script of a shell: eval "$(stresstest completion bash)"."""
    completer = get_completion_class(shell)
    assert completer is not None, "click knows these shells"
    click.echo(completer(cli, {}, "stresstest", "_STRESSTEST_COMPLETE").source())
    return ExitCode.OK


for command in (*GATE_COMMANDS, diagnose_command):
    cli.add_command(command)
