"""`stresstest check --history`: what earlier checks found, commit by commit."""

from __future__ import annotations

from collections.abc import Sequence

from stresstest.errors import ConfigError, ExitCode
from stresstest.gate.history import read_history
from stresstest.gate.history_report import history_document
from stresstest.gate.under_way import CHECKS
from stresstest.reports.document import Fact
from stresstest.reports.output import Made, Tables, console, parse_output, write_outputs
from stresstest.reports.terminal import print_document
from stresstest.scenario.library import find_scenario
from stresstest.scenario.reader import load_scenario


def show_history(name: str, limit: int, outputs: Sequence[str]) -> int:
    """Print what the recorded checks of a scenario found of each metric, and write a page; never trains."""
    written = [parse_output(text, {}) for text in outputs]
    scenario = load_scenario(find_scenario(name)).name
    document, page = history_document(read_history(scenario, CHECKS, limit)), CHECKS / f"{scenario}.history.html"
    CHECKS.mkdir(parents=True, exist_ok=True)

    def no_tables() -> Tables:
        raise ConfigError("the history of a gate has no rows of cells; write html or md")

    write_outputs([("html", page), *written], Made(lambda: document, no_tables, {}))
    print_document(document.with_facts([Fact("report", str(page), file=True)]), console())
    return ExitCode.OK
