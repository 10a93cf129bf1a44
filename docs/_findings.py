"""The page of what `stresstest diagnose` says beside a verdict, from its table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from _markdown import code, page, plain, table
from _package import RUN_KINDS, SEGMENT_KINDS, SPIKE_SIGNS, Kind


def findings_page() -> str:
    """Every kind of finding: how grave it is, when it is said, and whence that comes."""
    return page(
        "Findings in logs",
        "the table of findings",
        "`stresstest diagnose` gives each stretch of a log an outcome, and says beside it what else the log shows. "
        "Kinds are those of `--json`; each comes with its steps and the numbers that it rests on.\n\n"
        "- **info**: to be known; changes no verdict.\n"
        "- **warning**: the run may be sound, but something is otherwise than it was probably meant.\n"
        "- **broken**: the run did not train, or not to its end.",
        "What moved before a break is a coincidence in time: a log shows that the gradient norm rose and then the "
        "loss, not why. A row is often the mean of many steps, and a learning rate or gradient norm that of the last "
        "of them, so one row before is the nearest that can be said.",
        "## Of one stretch",
        _table(SEGMENT_KINDS),
        "## Of the whole run",
        _table(RUN_KINDS) + "\n\nThe first row after a resume is the mean of fewer steps, and is not judged.",
        "## Beside a spike",
        "The same, within the 5 rows before its first one (a twelfth of a short log), and only what moved: "
        + "; ".join(plain((sign.__doc__ or "").strip().rstrip(".")) for sign in SPIKE_SIGNS)
        + ".",
    )


def _table(kinds: Iterable[Kind[Any]]) -> str:
    return table(
        ["kind", "", "said where", "source"],
        ([code(kind.name), kind.severity, plain(kind.when), plain(kind.source)] for kind in kinds),
    )
