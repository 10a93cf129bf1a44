"""The scenarios that come with the package."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from stresstest.errors import ConfigError
from stresstest.registry import Registry, did_you_mean

_PACKAGE = Path(__file__).resolve().parents[1]
# In a wheel they are in the package; beside it in a checkout.
SHIPPED = next((path for path in (_PACKAGE / "scenarios", _PACKAGE.parent / "scenarios") if path.is_dir()), _PACKAGE)
PAPERS = "papers"  # the folder of those that claim what a paper does


@dataclass(frozen=True)
class Shipped:
    """A scenario that comes with the package: the question that its file opens with."""

    name: str
    summary: str
    source: str
    text: str


def shipped_scenarios() -> Registry[Shipped]:
    """The scenarios of the package, by name."""
    paths = [*sorted(SHIPPED.glob("*.yaml")), *sorted(SHIPPED.glob(f"{PAPERS}/*.yaml"))]
    entries = [(path.relative_to(SHIPPED).with_suffix("").as_posix(), path.read_text()) for path in paths]
    return Registry("scenario", [Shipped(name, _opening(text), f"{name}.yaml", text) for name, text in entries])


def find_scenario(name: str) -> Path:
    """A file, or a scenario of the package by its name."""
    for path in (Path(name), SHIPPED / f"{name}.yaml"):
        with contextlib.suppress(OSError):  # a name that is too long, say
            if path.is_file():
                return path
    known = did_you_mean(name, shipped_scenarios())
    raise ConfigError(f"scenario '{name}' not found, neither as a file nor among the shipped ones{known}")


def _opening(text: str) -> str:
    """The question that the comment at the top of a file asks, before its cost."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("# ") or line.startswith("# Cost:"):
            break
        lines.append(line.removeprefix("# ").strip())
    return " ".join(lines)
