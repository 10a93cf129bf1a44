"""What `help` and `inspect.signature` show of an experiment's function: its settings, from the spec."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from inspect import Parameter, Signature
from typing import Any

from stresstest.experiments import settings_types
from stresstest.experiments.table import EXPERIMENTS
from stresstest.loggers.table import TRACKER_FORMS
from stresstest.results.records import Result

# What every function takes beside the settings of its spec: the default, and what it is.
CALL_SETTINGS: dict[str, tuple[Any, str]] = {
    "args": (None, "Arguments of the factory beside those that the experiment sweeps, by name."),
    "batch": (
        None,
        "A factory's data: a function batch(step, batch_size, generator) or a DataLoader; without, `task` and `data`.",
    ),
    "step": (None, "Function step(model, batch, lr) that trains a factory's model one step itself."),
    "baseline_loss": (None, "Loss of the best constant predictor, where a factory's data do not tell it."),
    "profile": ("quick", "quick, standard or full: how many seeds, and how finely."),
    "run_dir": (None, "Where the run is kept and goes on; the default is nowhere."),
    "log": (None, f"Trackers that are told of each cell as it ends, one or several: {', '.join(TRACKER_FORMS)}."),
    "quiet": (False, "No progress on stderr."),
}  # fmt: skip
_TAKES_OBJECTS = {
    "loss_fn": " Beside a factory, the function itself.",
    "optimizer": " Beside a factory, a function optimizer(params, lr) too.",
}


def keywords(command: str) -> list[str]:
    """All keywords that an experiment's function takes."""
    return [*_fields(command), *CALL_SETTINGS]


def signature_of(command: str) -> Signature:
    """The model, and every keyword with its default."""
    given = getattr(settings_types, f"{_camel(command)}Settings", None)
    kinds = {} if given is None else given.__annotations__
    defaults = {name: field.default for name, field in _fields(command).items()}
    defaults |= {name: default for name, (default, _) in CALL_SETTINGS.items()}
    model = Parameter("model", Parameter.POSITIONAL_OR_KEYWORD, annotation="str | Callable[..., nn.Module]")
    return Signature(
        [
            model,
            *(
                Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=kinds.get(name, Any))
                for name, default in defaults.items()
            ),
        ],
        return_annotation=Result,
    )


def docstring_of(command: str, summary: str) -> str:
    """What `help` prints below the signature."""
    head = f"""{summary}

The settings are those of `stresstest {command}`; what the environment and pyproject.toml say does not count. The
model's own defaults go before the ones named here. It trains in this process.

Returns the result, as result.json holds it. Raises ConfigError before any training where a setting is wrong, and
StresstestError where a cell ends without a result.

model: a factory, build(**kwargs) -> nn.Module, or what --model takes: a built-in architecture, FILE.py:FUNCTION,
    MODULE:FUNCTION or hf:MODEL.
"""
    return head + "\n".join(_entries(command))


def _entries(command: str) -> Iterator[str]:
    described = {name: str(field.description) for name, field in _fields(command).items()}
    described |= {name: text for name, (_, text) in CALL_SETTINGS.items()}
    for name, text in described.items():
        line = f"{name}: {text}{_TAKES_OBJECTS.get(name, '')}"
        yield textwrap.fill(line, 118, subsequent_indent="    ", break_on_hyphens=False)


def _fields(command: str) -> dict[str, Any]:
    return {name: field for name, field in EXPERIMENTS[command].spec.model_fields.items() if name != "model"}


def _camel(command: str) -> str:
    return "".join(part.capitalize() for part in command.split("-"))
