"""What `stresstest check` and `stresstest baseline update` are asked for, from plain data."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stresstest.scenario.library import find_scenario
from stresstest.scenario.reader import Scenario, load_scenario
from stresstest.scenario.request import Request, SettingSources, scenario_requests

LINE_SETTINGS = ("seeds", "profile", "device")  # what a check's line says of the experiments

_OWN = ("base", "baseline", "lenient", "as_json", "quiet", "verbose")


@dataclass(frozen=True)
class CheckRequest:
    """What `stresstest check` was asked for."""

    scenario: Scenario
    requests: Sequence[Request]
    words: Sequence[str]  # for `stresstest run`, on both sides
    reproduce: str
    base: str | None = None
    baseline: str | None = None
    lenient: bool = False
    outputs: Sequence[str] = ()
    as_json: bool = False
    quiet: bool = False
    verbose: bool = False  # a line for each cell, also where there is a bar

    @classmethod
    def of(cls, name: str, given: SettingSources, options: Mapping[str, Any]) -> CheckRequest:
        """A request from plain data: a scenario's file or name, what was given beside it, the check's own options."""
        loaded = load_scenario(find_scenario(name))
        return cls(
            scenario=loaded,
            requests=scenario_requests(name, loaded, given, {}),
            words=_run_words(options),
            reproduce=_reproduce_line(name, options),
            outputs=options.get("output", ()),
            **{name: options[name] for name in _OWN if name in options},
        )


def _run_words(options: Mapping[str, Any]) -> list[str]:
    """The options of `check` that `run` has too: each side is a process of its own."""
    words = []
    for name in ("jobs", "per_gpu", "cell_timeout", "device"):
        if options.get(name) is not None:
            words += [f"--{name.replace('_', '-')}", str(options[name])]
    return words + ["--fresh"] * bool(options.get("fresh")) + ["--retry-errors"]


def _reproduce_line(file: str, options: Mapping[str, Any]) -> str:
    """The line that gives this check again."""
    words = ["stresstest", "check", shlex.quote(file)]
    for name in ("base", "baseline", "seeds", "profile", "device"):
        if options.get(name) is not None:
            words += [f"--{name}", shlex.quote(str(options[name]))]
    return " ".join([*words, *(["--lenient"] if options.get("lenient") else [])])
