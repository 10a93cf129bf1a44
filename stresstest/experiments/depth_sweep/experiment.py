"""`stresstest depth-sweep` as an experiment."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any

from stresstest.experiments.base import Cost, Experiment, Resolution, Row
from stresstest.experiments.depth_sweep.findings import depth_sweep_findings
from stresstest.experiments.depth_sweep.spec import DepthSweepSpec
from stresstest.experiments.resolution import HOLDS_SPREAD, boundary_steps, exact, hold_metrics, ramp_metrics, scores
from stresstest.reports.numbers import NO_DATA
from stresstest.results.records import Cell, Result
from stresstest.results.summary import Reduced, depth_rows, trend_rows
from stresstest.specs.kinds import is_user_model

if TYPE_CHECKING:
    from stresstest.experiments.plan import Plan
    from stresstest.reports.document import Document

_PROBE_STEPS = 50  # what signal propagation at one point costs, in steps, about
_BISECTED = math.log2(1.1)  # octaves: the bisection ends there
_SIGNAL = (
    "grad_ratio grad_mismatch grad_last stream_growth activation_rms branch_share similarity jacobian_mean_square "
    "jacobian_condition grad_slope"
).split()
_TRAINED = ("grad_last_trained", "grad_mismatch_trained", "activation_rms_trained")
_RECIPE = ("recipe_loss", "seconds_per_step", "peak_bytes")
_AT_START = ("grad_exponent", "grad_rate", "activation_exponent", "activation_rate")


class DepthSweep(Experiment[DepthSweepSpec]):
    """The boundary, a fixed recipe and signal propagation at growing depth."""

    name = "depth-sweep"
    spec = DepthSweepSpec
    summary = "Find the boundary at growing depth: transformers, or residual MLPs of 10,000 blocks and more."
    details = (
        "With no options: the boundary of five norm variants at depth 2 to 16, three seeds; about 15 minutes on 2 "
        "cores. `--model mlp` asks which depth a fixed recipe trains (`--measure outcome`), `--init-only` how signals "
        "and gradients come through, in seconds."
    )
    source = "Bachlechner et al. 2020 (ReZero); Xiong et al. 2020"
    varies = ()
    gated = ("max_stable_lr", "max_trainable_depth")

    def plan(self, spec: DepthSweepSpec) -> Plan:
        """One cell a variant, depth and seed; with a bisection, more."""
        from stresstest.experiments.depth_sweep.measure import plan

        return plan(spec)

    def metrics(self, spec: DepthSweepSpec) -> dict[str, Resolution]:
        """Of the signal where the model's blocks are known, and of what is trained."""
        built_in = not is_user_model(spec.model)
        found = exact(["parameters"] if built_in else [])
        found |= exact(_SIGNAL if built_in and spec.model != "resnet" else [])
        found |= exact(_TRAINED if spec.probe_steps else [])
        found |= exact(["encoder_grad_ratio"] if spec.model == "encoder-decoder" else [])
        if spec.init_only:
            return found | exact(_AT_START, over_all=True)
        found |= ramp_metrics(spec) if {"ramp", "hold"} & set(spec.measure) else {}
        found |= hold_metrics(spec) if "hold" in spec.measure else {}
        if "outcome" in spec.measure:
            widest = max((math.log2(b / a) for a, b in pairwise(spec.depths)), default=0.0)
            found |= scores(spec) | exact(_RECIPE) | {"steps_to_target": Resolution(1.0)}
            found["max_trainable_depth"] = Resolution(_BISECTED if spec.bisect else widest, over_all=True)
        return found | exact(("max_stable_lr_exponent", *_AT_START), over_all=True)

    def rows(self, spec: DepthSweepSpec) -> list[Row]:
        """One a variant and depth, and one a variant over all depths."""
        found: list[Row] = []
        for variant, optimizer in product(spec.variant, spec.optimizers):
            at = {"variant": variant, "optimizer": optimizer}
            found += [*(at | {"depth": depth} for depth in spec.depths), at]
        return found

    def cost(self, spec: DepthSweepSpec) -> Cost:
        """Signal propagation, and what is trained."""
        steps = _PROBE_STEPS
        if not spec.init_only:
            steps += spec.train_steps if "outcome" in spec.measure else 0
            steps += boundary_steps(spec) if "hold" in spec.measure else 0
            steps += spec.num_steps if "ramp" in spec.measure and "hold" not in spec.measure else 0
        return Cost(len(spec.seeds), len(spec.seeds) * steps, spec.batch_size)

    def spread(self, spec: DepthSweepSpec) -> float:
        """A search takes as many holds as it needs."""
        return HOLDS_SPREAD if "hold" in spec.measure and not spec.init_only else super().spread(spec)

    def reduce(self, spec: DepthSweepSpec, cells: Sequence[Cell], data: Mapping[str, Any] = NO_DATA) -> Reduced:
        """One row a variant and depth, one a variant over depth, and what they say."""
        rows, trends = depth_rows(cells, spec.optimizer), trend_rows(cells, spec.optimizer)
        return Reduced(rows, trends, depth_sweep_findings(rows, trends, cells, spec.model_dump(mode="json"), data))

    def document(self, result: Result) -> Document:
        """Tables over variants and depths, what depth does, charts, Jacobians."""
        from stresstest.experiments.depth_sweep.document import document

        return document(result)

    def asks_for_more(self, spec: DepthSweepSpec) -> str:
        """A bisection does."""
        return "--bisect" if spec.bisect else ""
