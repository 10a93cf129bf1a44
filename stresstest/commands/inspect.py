"""The command `report`: a stored result again, and the index of all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stresstest.commands.show_result import show_result, show_unfinished
from stresstest.errors import ConfigError, ExitCode
from stresstest.experiments.unfinished import is_unfinished
from stresstest.reports.document import Fact
from stresstest.reports.output import Made, console, parse_output, write_outputs
from stresstest.results.records import read_result


def print_report(run_path: str | None, output: Sequence[str], as_json: bool, verbose: bool = False) -> int:
    """Render a stored result; never trains."""
    from stresstest.runs.directory import newest_run
    from stresstest.runs.stored import result_file

    outputs = [parse_output(text) for text in output]
    path = Path(run_path) if run_path else newest_run("manifest.json", "result.json")
    if is_unfinished(path) and not as_json:
        show_unfinished(path, outputs, verbose)
        return ExitCode.OK
    file = result_file(path)
    result = read_result(file)
    show_result(result, str(file.parent), outputs, as_json, verbose)
    return ExitCode.OK


def print_index(folder: str | None, output: Sequence[str], as_json: bool) -> int:
    """Write a page over all runs below a folder, and print the newest of them."""
    from stresstest.commands.run_index import index_document, index_runs, index_tables
    from stresstest.reports.terminal import print_document
    from stresstest.runs.directory import DEFAULT_ROOT

    if as_json:
        raise ConfigError("the index of runs has no JSON; leave out --json, or write -o csv:FOLDER")
    outputs = [parse_output(text, {}) for text in output]
    root = Path(folder) if folder else DEFAULT_ROOT
    runs = index_runs(root)
    document, page = index_document(root, runs), root / "index.html"
    write_outputs([("html", page), *outputs], Made(lambda: document, lambda: index_tables(runs), {}))
    print_document(document.with_facts([Fact("index", str(page), file=True)]), console())
    return ExitCode.OK
