"""The one verdict object: every rendering, and the exit code, is made of it and of nothing else."""

from __future__ import annotations

from typing import Any, Literal

from stresstest.errors import ExitCode
from stresstest.gate.statistics import TestVerdict
from stresstest.reports.document import Document
from stresstest.reports.in_python import InPython
from stresstest.results.brief import Brief
from stresstest.results.records import MetricSummary
from stresstest.scenario.thresholds import Level

VERDICT_SCHEMA = "stresstest.verdict/1"
PASSES: tuple[TestVerdict, ...] = ("identical", "no-change", "within-noise", "improved")
UNDECIDED: tuple[TestVerdict, ...] = ("inconclusive", "insufficient-seeds", "no-data", "no-baseline", "incomparable")
WORST_FIRST: tuple[TestVerdict, ...] = ("errored", "regressed", *UNDECIDED, *reversed(PASSES))


class GatedRow(Brief):
    """A row of a result: of which experiment, and where it stands there. No depth: over all depths."""

    experiment: str
    variant: str
    depth: int | None
    optimizer: str
    point: dict[str, Any] = {}


class GateLine(Brief):
    """One metric of one row, beside the base's.

    differences, by seed: the least and largest value in `unit`, negative where the head is worse; `None` is
    unbounded. p is of a loss, adjusted over the lines; it may be called at `alpha`, this look's share.
    """

    kind: Literal["gate"] = "gate"
    place: GatedRow
    metric: str
    threshold: str
    level: Level
    verdict: TestVerdict
    reason: str = ""
    base: MetricSummary | None = None
    head: MetricSummary | None = None
    unit: str
    differences: dict[str, tuple[float | None, float | None]] = {}
    median: tuple[float | None, float | None] = (None, None)
    p: float | None = None
    n: int = 0
    alpha: float | None = None
    tolerance: float
    resolution: float
    reproduce: str = ""


class LimitLine(Brief):
    """One limit on the head alone: `value` is the aggregate, or `None` where there is none."""

    kind: Literal["limit"] = "limit"
    place: GatedRow
    metric: str
    threshold: str
    level: Level
    passed: bool
    value: str
    reason: str = ""
    head: MetricSummary | None = None
    reproduce: str = ""


class CheckVerdict(InPython, Brief):
    """What `stresstest check` found."""

    schema_: str = VERDICT_SCHEMA
    scenario: str
    mode: Literal["base", "baseline", "limits", "compare"]
    base: dict[str, Any]
    head: dict[str, Any]
    alpha: float
    looks: list[int]
    seeds: int
    lines: list[GateLine]
    limits: list[LimitLine]
    failures: list[str] = []  # cells of the head without a result
    warnings: list[str] = []
    lenient: bool = False
    reproduce: str

    @property
    def verdict(self) -> TestVerdict | Literal["passed"]:
        """The worst of the lines that count; `passed` where there are none."""
        found = {line.verdict for line in self.lines if line.level == "error"}
        if self.failures:
            found.add("errored")
        if any(not limit.passed and limit.level == "error" for limit in self.limits):
            found.add("regressed")
        return next((verdict for verdict in WORST_FIRST if verdict in found), "passed")

    @property
    def exit_code(self) -> ExitCode:
        """DESIGN's: 4 before 99 before 3."""
        if self.verdict == "errored":
            return ExitCode.MODEL_FAILED
        if self.verdict == "regressed":
            return ExitCode.GATE_CROSSED
        if self.verdict in UNDECIDED and not self.lenient:
            return ExitCode.NO_VERDICT
        return ExitCode.OK

    def _document(self) -> Document:
        from stresstest.gate.report import verdict_document

        return verdict_document(self)

    def to_json(self) -> str:
        """The text of `verdict.json`."""
        import json

        stored = self.model_dump(mode="json")
        head = {"schema": stored.pop("schema_"), "verdict": self.verdict, "exit_code": int(self.exit_code)}
        return json.dumps(head | stored, indent=1) + "\n"
