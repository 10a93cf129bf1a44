"""The commands: parse, call, print, exit code. Imports no torch at the top: `--help` answers at once."""

from __future__ import annotations

import json
import os
import shlex
import sys
import traceback
from pathlib import Path
from typing import Any

import rich_click as click
from click.core import ParameterSource
from click.shell_completion import get_completion_class

from stresstest.cli.gate import GATE_COMMANDS
from stresstest.cli.options import ALL_FIELDS, option_groups, run_options
from stresstest.cli.sources import line_request, project_defaults, scenario_requests
from stresstest.errors import ExitCode, StresstestError
from stresstest.experiments.specs import SPECS
from stresstest.pipeline import run_experiment, run_scenario
from stresstest.scenario.library import PAPERS, find_scenario, shipped_scenarios
from stresstest.scenario.reader import Scenario, load_scenario
from stresstest.scenario.schema import scenario_schema

_FIELDS = {command: spec.model_fields for command, spec in SPECS.items()} | {"run": ALL_FIELDS}
_OUTPUT = click.option("-o", "--output", multiple=True, help="Also write FORMAT:PATH (html, json, md).")

click.rich_click.OPTION_GROUPS = {f"stresstest {command}": option_groups(fields) for command, fields in _FIELDS.items()}


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
        return _complain("interrupted; what was finished before is saved", ExitCode.INTERRUPTED)
    except (BrokenPipeError, SystemExit) as error:
        if isinstance(error, SystemExit) and error.code != 1:
            return int(error.code or ExitCode.OK)  # the help, where no command is given
        # The reader of a pipe has gone; click then exits with 1.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except Exception:
        traceback.print_exc()
        return _complain("internal error, see above; please report it", ExitCode.INTERNAL)


def _complain(message: str, code: int) -> int:
    *details, last = message.splitlines() or [""]
    click.echo("\n".join([*details, f"stresstest: {last}"]), err=True)
    return code


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="train-stresstest", prog_name="stresstest")
@click.pass_context
def cli(context: click.Context) -> None:
    """Stress-test the training stability of neural networks: where does training break, and how sure is that?"""
    context.default_map = project_defaults(Path("pyproject.toml"))


@cli.command("lr-range")
@run_options(_FIELDS["lr-range"], "lr-range")
@_OUTPUT
@click.pass_context
def lr_range(context: click.RichContext, /, **options: Any) -> int:
    """Ramp the learning rate every step until the loss explodes, then hold it to check.

    With no options: five norm variants, three seeds, on generated text; about 3 minutes on 2 cores.
    """
    return run_experiment(line_request("lr-range", context, options))


@cli.command("depth-sweep")
@run_options(_FIELDS["depth-sweep"], "depth-sweep")
@_OUTPUT
@click.pass_context
def depth_sweep(context: click.RichContext, /, **options: Any) -> int:
    """Find the boundary at growing depth: transformers, or residual MLPs of up to 10,000 blocks and more.

    With no options: the boundary of five norm variants at depth 2 to 16, three seeds; about 15 minutes on
    2 cores. `--model mlp` asks which depth a fixed recipe trains (`--measure outcome`), `--init-only` how
    signals and gradients come through, in seconds.
    """
    return run_experiment(line_request("depth-sweep", context, options))


@cli.command("warmup")
@run_options(_FIELDS["warmup"], "warmup", shares=True)
@_OUTPUT
@click.pass_context
def warmup(context: click.RichContext, /, **options: Any) -> int:
    """Map the loss over warm-up x peak LR: how much warm-up does it need, and how much does it matter?

    With no options: Post-LN and Pre-LN, three seeds, a map of 40 settings and a search of 10 trials of Optuna's;
    about 15 minutes on 2 cores. `--trials 0` maps alone, `--no-map --trials 40` searches alone.

    The sensitivities: lr_sensitivity (Wortsman et al. 2023) is the mean over the peak LRs of min(loss, loss at
    initialisation) less the lowest; warmup_sensitivity the same over the warm-ups, averaged over the LRs that some
    warm-up trains. Both depend on the ranges and on the number of steps; they compare variants on equal ranges, mean
    little where a change gives the LR another meaning, and are 0 where nothing learns.
    """
    return run_experiment(line_request("warmup", context, options))


@cli.command("race")
@run_options(_FIELDS["race"], "race")
@_OUTPUT
@click.pass_context
def race(context: click.RichContext, /, **options: Any) -> int:
    """Race to a target loss: steps, tokens and seconds of variants and optimizers, each at its best learning rate.

    With no options: four norm variants at four peak LRs, three seeds, to the loss that Post-LN has at its end.
    """
    return run_experiment(line_request("race", context, options))


@cli.command("batch-sweep")
@run_options(_FIELDS["batch-sweep"], "batch-sweep")
@_OUTPUT
@click.pass_context
def batch_sweep(context: click.RichContext, /, **options: Any) -> int:
    """Grow the batch at a fixed budget of tokens: up to where does each optimizer scale?

    With no options: AdamW and LAMB at batch sizes 32 to 2,048, six peak LRs with sqrt scaling, three seeds, half a
    million tokens a run.
    """
    return run_experiment(line_request("batch-sweep", context, options))


@cli.command("run")
@click.argument("scenario", metavar="FILE|NAME")
@run_options(_FIELDS["run"], "NAME/EXPERIMENT", more=("cpu",))
@click.pass_context
def run_(context: click.RichContext, /, scenario: str, **options: Any) -> int:
    """Run every experiment of a scenario file, or of one that comes with stresstest: `stresstest run smoke`.

    Options go before what the file says, in every experiment that has the setting.
    """
    loaded = _load(scenario, _typed_profile(context))
    requests = scenario_requests(scenario, loaded, context, options)
    return run_scenario(loaded, requests)


def _typed_profile(context: click.Context) -> str | None:
    """The profile that the line or the environment names."""
    source = context.get_parameter_source("profile")
    given = source in (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)
    return str(context.params["profile"]) if given else None


def _load(name: str, profile: str | None) -> Scenario:
    """A scenario, with its own profile of this name, where it has some of its own."""
    path = find_scenario(name)
    loaded = load_scenario(path)
    return load_scenario(path, profile) if loaded.profiles and profile else loaded


@cli.command()
@click.argument("files", metavar="FILE|NAME...", nargs=-1, required=True)
@click.option("--profile", metavar="NAME", help="One of the files' own profiles: what it would cost, on any machine.")
@click.pass_context
def validate(context: click.RichContext, files: tuple[str, ...], profile: str | None) -> int:
    """Check scenario files as a run would, without training: settings, names, data, memory, and what a gate needs.

    Another profile than a file's first need not fit this machine: its parameters, memory, FLOPs and GPU hours are
    estimated.
    """
    from stresstest.commands.validate import estimate_words
    from stresstest.commands.validate import validate as validate_scenario

    for file in files:
        loaded = load_scenario(find_scenario(file), profile)
        as_run = run_.make_context("run", [file], parent=context)  # with what the environment says
        requests = scenario_requests(file, loaded, as_run, as_run.params)
        first = loaded.profile == next(iter(loaded.profiles), "")
        words = validate_scenario(loaded, requests) if first else estimate_words(loaded, requests)
        click.echo("\n".join(f"{file}: {text}" for text in words))
    return ExitCode.OK


@cli.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--profile", type=click.Choice(["cpu", "full"]), default="cpu", help="Scaled down, or the papers' sizes.")
@click.option("-j", "--jobs", metavar="N", default="auto", help="Worker processes. (default: auto)")
@click.option("--device", metavar="NAME", default="auto", help="auto, cpu, cuda or cuda:N. (default: auto)")
@click.option("--run-dir", default=None, help="Where the runs are stored. (default: .stresstest/papers/PROFILE)")
@click.option("-o", "--output", multiple=True, help="Also write FORMAT:PATH (html, md), e.g. papers.md.")
@click.option("--json", "as_json", is_flag=True, help="Print the claims as JSON, and nothing else, on stdout.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@click.option("--dry-run", is_flag=True, help="Check everything, print the resolved settings, train nothing.")
@click.pass_context
def papers(context: click.RichContext, /, names: tuple[str, ...], **options: Any) -> int:
    """Run the papers' experiments, scaled down, and say which of their claims were seen: one table.

    With no names all of them, about 35 minutes on 2 cores; `stresstest list scenarios` has their names. The same
    command goes on where it was interrupted.
    """
    from stresstest.commands.papers import DEFAULT_FOLDER, Paper, run_papers

    known = [name for name in shipped_scenarios() if name.startswith(f"{PAPERS}/")]
    asked = [name if "/" in name else f"{PAPERS}/{name}" for name in names] or known
    shared = ["--jobs", options["jobs"], "--device", options["device"]]
    shared += [flag for flag, on in (("--quiet", options["quiet"]), ("--dry-run", options["dry_run"])) if on]
    chosen = []
    for name in asked:
        loaded = load_scenario(find_scenario(name), options["profile"])
        as_run = run_.make_context("run", [name, *shared], parent=context)
        chosen.append(Paper(Path(name).stem, loaded, scenario_requests(name, loaded, as_run, as_run.params)))
    folder = Path(options["run_dir"] or f"{DEFAULT_FOLDER}/{options['profile']}")
    line = shlex.join(["stresstest", "papers", *names, "--profile", options["profile"], "--run-dir", str(folder)])
    return run_papers(chosen, folder, options["output"], options["as_json"], line)


@cli.command()
@click.argument("kind", type=click.Choice(["scenario", "result"]), default="scenario")
def schema(kind: str) -> int:
    """Print the JSON Schema of scenario files, for editors, or of result.json."""
    from stresstest.results.records import Result

    text = scenario_schema() if kind == "scenario" else Result.model_json_schema()
    click.echo(json.dumps(text, indent=1))
    return ExitCode.OK


@cli.command("list")
@click.argument("kind", required=False)
def list_(kind: str | None) -> int:
    """List models, variants, norms, optimizers, data sources, metrics and scenarios; KIND for one table."""
    from stresstest.commands.inspect import print_tables

    return print_tables(kind)


@cli.command()
@click.argument("name")
def show(name: str) -> int:
    """Show one entry of the tables: what it is, its source, its options."""
    from stresstest.commands.inspect import print_entry

    return print_entry(name)


@cli.command()
@click.argument("run_path", metavar="[RUN]", required=False)
@click.option("-o", "--output", multiple=True, help="Write FORMAT:PATH (html, json, md) as well.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
def report(run_path: str | None, output: tuple[str, ...], as_json: bool) -> int:
    """Render a stored result again: a run directory or result.json, by default the newest run."""
    from stresstest.commands.inspect import print_report

    return print_report(run_path, output, as_json)


@cli.command()
@click.argument("run_path", metavar="[RUN]", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON on stdout.")
def status(run_path: str | None, as_json: bool) -> int:
    """Tell how far a run has got, while it goes on or after: cells done, running, failed, time left."""
    from stresstest.commands.inspect import print_status

    return print_status(run_path, as_json)


@cli.command()
@click.argument("shards", metavar="RUN...", nargs=-1, required=True)
@click.option("--run-dir", default=None, help="Where the whole run is stored. (default: .stresstest/runs/TIME-COMMAND)")
@_OUTPUT
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
def merge(shards: tuple[str, ...], run_dir: str | None, output: tuple[str, ...], as_json: bool) -> int:
    """Join the run directories of all shards of a run (--shard I/N) into one, and print its result."""
    from stresstest.commands.merge import merge_runs

    return merge_runs([Path(shard) for shard in shards], run_dir, output, as_json)


@cli.command()
@click.argument("folder", default=".", type=str)
@click.option("--ci", type=click.Choice(["github", "gitlab"]), help="A gate for pull requests and its workflow.")
def init(folder: str, ci: str | None) -> int:
    """Write a model.py of your own to begin with, and a scenario for it, into FOLDER (here by default)."""
    from stresstest.commands.inspect import write_start

    return write_start(folder, ci)


@cli.command()
def doctor() -> int:
    """Check this machine: versions, devices, processes, determinism."""
    from stresstest.commands.inspect import print_diagnosis

    return print_diagnosis()


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> int:
    """Print the completion script of a shell: eval "$(stresstest completion bash)"."""
    completer = get_completion_class(shell)
    assert completer is not None, "click knows these shells"
    click.echo(completer(cli, {}, "stresstest", "_STRESSTEST_COMPLETE").source())
    return ExitCode.OK


for command in GATE_COMMANDS:
    cli.add_command(command)


if __name__ == "__main__":
    main()
