"""All that the generated pages read of the package: the one place that knows where things are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

import stresstest
from stresstest.cli.commands import cli
from stresstest.diagnosis.findings.base import Kind
from stresstest.diagnosis.findings.table import RUN_KINDS, SEGMENT_KINDS, SPIKE_SIGNS
from stresstest.diagnosis.records import diagnosis_schema
from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.engine.schedules import DECAYS, WARMUPS
from stresstest.errors import ExitCode
from stresstest.experiments.shock.guards import GUARDS
from stresstest.experiments.shock.table import SHOCKS
from stresstest.experiments.table import EXPERIMENTS
from stresstest.logs.readers.table import READERS
from stresstest.models.variants import NORMS, PARAMETRIZATIONS, VARIANTS, Sublayer, SublayerPosition, Variant, Wiring
from stresstest.results.metrics import METRICS
from stresstest.results.records import Cell, Result
from stresstest.scenario.library import PAPERS, SHIPPED, shipped_scenarios
from stresstest.scenario.reader import load_scenario
from stresstest.scenario.schema import scenario_schema
from stresstest.specs.kinds import MODELS
from stresstest.specs.profiles import PROFILES
from stresstest.tasks.images import IMAGE_SOURCES
from stresstest.tasks.language import DATA_SOURCES
from stresstest.tasks.translation import PAIR_SOURCES
from stresstest.testing import assert_stable

COMMANDS: Mapping[str, click.Command] = {
    name: command
    for name in cli.list_commands(click.Context(cli))
    if (command := cli.get_command(click.Context(cli), name)) is not None
}
SOURCES: Mapping[str, Mapping[str, Any]] = {  # by task
    "language": DATA_SOURCES,
    "masked-language": DATA_SOURCES,
    "translation": PAIR_SOURCES,
    "images": IMAGE_SOURCES,
}

__all__ = [
    "COMMANDS",
    "DECAYS",
    "EXPERIMENTS",
    "GUARDS",
    "METRICS",
    "MODELS",
    "NORMS",
    "OPTIMIZERS",
    "PAPERS",
    "PARAMETRIZATIONS",
    "PROFILES",
    "READERS",
    "RUN_KINDS",
    "SEGMENT_KINDS",
    "SHIPPED",
    "SHOCKS",
    "SOURCES",
    "SPIKE_SIGNS",
    "VARIANTS",
    "WARMUPS",
    "Cell",
    "ExitCode",
    "Kind",
    "Result",
    "Sublayer",
    "SublayerPosition",
    "Variant",
    "Wiring",
    "cli",
    "diagnosis_schema",
    "exported",
    "load_scenario",
    "scenario_schema",
    "shipped_scenarios",
]


def exported() -> dict[str, Any]:
    """The Python API by the name that a user imports: what the root offers, and the assertion for pytest."""
    public = {
        f"stresstest.{name}": getattr(stresstest, name) for name in stresstest.__all__ if not name.startswith("_")
    }
    return public | {"stresstest.testing.assert_stable": assert_stable}
