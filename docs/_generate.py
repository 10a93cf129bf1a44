"""Write the pages that are made from the code: python docs/_generate.py [--check].

With --check nothing is written; pages that are not as they would be written are named, and the exit code is 1.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "docs"), str(ROOT)]  # this checkout's package, whatever is installed

from _findings import findings_page  # noqa: E402
from _markdown import GENERATED, page  # noqa: E402
from _papers import claims_page  # noqa: E402
from _reference import (  # noqa: E402
    data_page,
    exit_codes_page,
    metrics_page,
    models_page,
    optimizers_page,
    python_page,
    schedules_page,
    shocks_page,
    variants_page,
)
from _schemas import diagnosis_page, readers_page, result_page, scenario_page  # noqa: E402
from _settings import commands_page, settings_page  # noqa: E402
from _tables import tables_page  # noqa: E402

REFERENCE: Mapping[str, tuple[str, Callable[[], str]]] = {  # by file: its line on the index, and what writes it
    "commands.md": ("Every command with its arguments and options", commands_page),
    "settings.md": ("Every setting: values, default, meaning", settings_page),
    "metrics.md": ("Every metric: unit, scale, meaning", metrics_page),
    "variants.md": ("Every norm variant with its equation", variants_page),
    "models.md": ("Built-in models, norm functions", models_page),
    "optimizers.md": ("Built-in optimizers with their references", optimizers_page),
    "schedules.md": ("Warm-ups and decays", schedules_page),
    "shocks.md": ("What may happen to a run, what might save it", shocks_page),
    "data.md": ("Data sources by task", data_page),
    "log-findings.md": ("What is said of a log beside its outcome", findings_page),
    "tables.md": ("Every column of CSV and Parquet, every tracker", tables_page),
    "scenario-schema.md": ("Every key of a scenario file", scenario_page),
    "result-schema.md": ("Every field of `result.json`", result_page),
    "log-readers.md": ("Every form of a log that `diagnose` reads", readers_page),
    "diagnosis-schema.md": ("Every field of `diagnose --json`", diagnosis_page),
    "exit-codes.md": ("What the exit codes mean", exit_codes_page),
    "python-api.md": ("Functions, their arguments and results", python_page),
}


def main() -> int:
    """Write or check all pages."""
    pages = {ROOT / "docs" / path: text for path, text in generated().items()}
    stale = [path for path, text in pages.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if "--check" in sys.argv[1:]:
            print(f"{path.relative_to(ROOT)} is stale; run python docs/_generate.py", file=sys.stderr)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text := pages[path])
            print(f"wrote {path.relative_to(ROOT)} ({len(text.splitlines())} lines)")
    return 1 if stale and "--check" in sys.argv[1:] else 0


def generated() -> dict[str, str]:
    """Every generated page by its path under docs/."""
    pages = {f"reference/{name}": write() for name, (_, write) in REFERENCE.items()}
    pages["reference/index.md"] = _index()
    pages["papers/claims.md"] = claims_page()
    for name in ("CONTRIBUTING", "CHANGELOG", "SECURITY"):
        pages[f"{name.lower()}.md"] = _of_the_root(f"{name}.md")
    return pages


def _index() -> str:
    lines = [f"- [{line}]({name})" for name, (line, _) in REFERENCE.items()]
    return page("Reference", "the code", "Generated from the tables in the code.", "\n".join(lines))


def _of_the_root(name: str) -> str:
    """A file of the repository's root as a page; its links go from there."""
    text = (ROOT / name).read_text()
    linked = re.sub(r"\]\((?!https?:|#|mailto:)(?:docs/)?([^)]+)\)", _relinked, text)
    return GENERATED.format(source=f"{name} of the repository's root") + "\n\n" + linked


def _relinked(found: re.Match[str]) -> str:
    target = found[1]
    path, hash_, anchor = target.partition("#")
    if "/" not in path and path in ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"):
        path = path.lower()
    return f"]({path}{hash_}{anchor})"


if __name__ == "__main__":
    sys.exit(main())
