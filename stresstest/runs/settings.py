"""How the cells of a plan are run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stresstest.errors import ConfigError

MOST_JOBS = 4096  # processes that anybody starts, on any machine


@dataclass(frozen=True)
class RunSettings:
    """How the cells of a plan are run; nothing here changes a result."""

    jobs: int | None = None  # tasks at once; None: as many as cores or room, or per_gpu on every GPU
    per_gpu: int = 1
    retry_errors: bool = False  # train cells again that failed before
    cell_timeout: float | None = None  # seconds; each cell is then trained by itself
    max_cells: int | None = None  # train so many, then stop
    fail_fast: bool = False  # stop at the first cell that fails
    executor: Literal["local", "ray", "slurm"] = "local"
    ray_address: str | None = None  # None: a cluster of this machine, started for the run
    slurm: tuple[tuple[str, str | int], ...] = ()  # submitit's parameters of a job
    storage: str | None = None  # of a search that drivers share; None: a journal in the run directory
    study: str = "warmup"  # the name of the search there
    shard: tuple[int, int] = (1, 1)  # (i, n): every n-th cell from the i-th on

    def __post_init__(self) -> None:
        for name, number in {"jobs": 1 if self.jobs is None else self.jobs, "per_gpu": self.per_gpu}.items():
            if not 1 <= number <= MOST_JOBS:
                raise ConfigError(f"{name} {number} is not a number of processes; give 1 to {MOST_JOBS}")

    @property
    def shown_storage(self) -> str:
        """The storage without its user, its password and its query, which may hold one too."""
        kind, separator, rest = (self.storage or "of the run").rpartition("://")
        return f"{kind}{separator}{rest.partition('?')[0].rpartition('@')[2]}"

    @property
    def storage_has_password(self) -> bool:
        """Whether the storage may not be shown as it is."""
        address, _, query = (self.storage or "").partition("://")[2].partition("?")
        return ":" in address.rpartition("@")[0] or "pass" in query.lower()
