"""stresstest: where does training break, and how sure is that?

From Python: `stresstest.lr_range(build, seeds=3)`, and the other functions of `dir(stresstest)`. From the command line:
`stresstest --help`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stresstest.api import (
        batch_sweep,
        check,
        compare,
        depth_sweep,
        diagnose,
        diagnose_losses,
        experiment,
        from_dataloader,
        from_lightning,
        from_trainer,
        load_result,
        load_results,
        lr_range,
        papers,
        race,
        run,
        scale,
        shock,
        warmup,
    )
    from stresstest.diagnosis.records import Diagnosis
    from stresstest.errors import ConfigError, StresstestError
    from stresstest.gate.claims import Judged
    from stresstest.gate.records import CheckVerdict
    from stresstest.results.records import Result

    __version__: str

__all__ = [
    "CheckVerdict",
    "ConfigError",
    "Diagnosis",
    "Judged",
    "Result",
    "StresstestError",
    "__version__",
    "batch_sweep",
    "check",
    "compare",
    "depth_sweep",
    "diagnose",
    "diagnose_losses",
    "experiment",
    "from_dataloader",
    "from_lightning",
    "from_trainer",
    "load_result",
    "load_results",
    "lr_range",
    "papers",
    "race",
    "run",
    "scale",
    "shock",
    "warmup",
]

if not TYPE_CHECKING:  # a type checker is to complain of a name that is not there

    def __getattr__(name: str) -> object:
        """What `__all__` lists and each registered experiment, imported when asked for: `--help` needs none of it."""
        if name == "__version__":
            return _version()
        if name in __all__:
            return getattr(import_module("stresstest.api"), name)
        if not name.startswith("_"):
            from stresstest.experiments.table import EXPERIMENTS

            if (command := name.replace("_", "-")) in EXPERIMENTS:
                return import_module("stresstest.api").experiment(command)
        raise AttributeError(f"module 'stresstest' has no attribute '{name}'")

    def __dir__() -> list[str]:
        from stresstest.experiments.table import EXPERIMENTS

        return sorted({*__all__, *(command.replace("-", "_") for command in EXPERIMENTS)})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("train-stresstest")
    except PackageNotFoundError:
        return "unknown"
