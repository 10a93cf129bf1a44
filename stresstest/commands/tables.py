"""The commands `list` and `show`: what there is, by its tables."""

from __future__ import annotations

import math
from typing import Any

from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.engine.schedules import DECAYS, WARMUPS
from stresstest.errors import ConfigError, ExitCode
from stresstest.experiments.shock.guards import GUARDS
from stresstest.experiments.shock.table import SHOCKS
from stresstest.experiments.table import EXPERIMENTS
from stresstest.models.variants import NORMS, PARAMETRIZATIONS, VARIANTS
from stresstest.registry import Registry, did_you_mean
from stresstest.reports.output import console
from stresstest.results.metrics import METRICS
from stresstest.scenario.library import shipped_scenarios
from stresstest.specs.kinds import MODELS
from stresstest.specs.parsing import exact_text
from stresstest.tasks.images import IMAGE_SOURCES
from stresstest.tasks.language import DATA_SOURCES
from stresstest.tasks.translation import PAIR_SOURCES


def _tables() -> dict[str, Registry[Any]]:
    return {
        "experiments": EXPERIMENTS.entries,
        "scenarios": shipped_scenarios(),
        "models": MODELS,
        "variants": VARIANTS,
        "norms": NORMS,
        "parametrizations": PARAMETRIZATIONS,
        "optimizers": OPTIMIZERS,
        "warm-ups": WARMUPS,
        "decays": DECAYS,
        "data": DATA_SOURCES,
        "translations": PAIR_SOURCES,
        "images": IMAGE_SOURCES,
        "shocks": SHOCKS,
        "guards": GUARDS,
        "metrics": METRICS,
    }


def print_tables(kind: str | None) -> int:
    """Print one table or all: name, first sentence, source."""
    tables = _tables()
    if kind is not None and kind not in tables:
        raise ConfigError(f"unknown kind '{kind}'{did_you_mean(kind, tables)}")
    from rich.table import Table as RichTable

    out = console()
    for name, table in tables.items():
        if kind in (None, name):
            shown = RichTable(name, "", "source", box=None, pad_edge=False, title_justify="left")
            shown.columns[0].no_wrap = True
            for entry in table.values():
                shown.add_row(entry.name, entry.summary, entry.source, style=None)
            out.print(shown)
            out.print()
    return ExitCode.OK


def print_entry(name: str) -> int:
    """Print all that is known of one entry."""
    tables = _tables()
    found = [(kind, table[name]) for kind, table in tables.items() if name in table]
    if not found:
        everything = [entry for table in tables.values() for entry in table]
        raise ConfigError(f"unknown name '{name}'{did_you_mean(name, everything)}")
    out = console()
    for kind, entry in found:
        out.print(f"[bold]{name}[/bold] ({kind})", entry.summary, sep="\n", markup=True)
        if entry.source:
            out.print(f"source: {entry.source}", markup=False)
        if kind == "scenarios":
            out.print(f"\n{entry.text}", markup=False, soft_wrap=True)
        for option, default in getattr(entry, "options", {}).items():
            shown = str(default).lower() if isinstance(default, bool) else default
            if isinstance(default, float) and math.isnan(default):
                dose = entry.dose
                out.print(f"dose: {name}:{option}=..., tried: {', '.join(map(exact_text, dose.tried))}", markup=False)
                continue
            words = getattr(entry, "choices", {}).get(option, ())
            others = f" (or {', '.join(word for word in words if word != shown)})" if words else ""
            out.print(f"option: {name}:{option}={shown}{others}", markup=False)
    return ExitCode.OK
