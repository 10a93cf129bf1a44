"""stresstest: where does training break, and how sure is that? See `stresstest --help`.

From Python: `stresstest.lr_range(build, seeds=3)`, `depth_sweep`, `warmup`, `race` and `batch_sweep` (see
`stresstest.api`).
"""

from typing import Any


def __getattr__(name: str) -> Any:
    """The commands as functions, imported when asked for: the command line needs none of them."""
    if name in ("lr_range", "depth_sweep", "warmup", "race", "batch_sweep"):
        from stresstest import api

        return getattr(api, name)
    raise AttributeError(f"module 'stresstest' has no attribute '{name}'")
