"""The experiments, an entry each: what stands here is a command, a function, a scenario's command and a page.

Beside where an experiment is stand its name, summary and source once more: `--help` and `list` show those of all, and
import none.
"""

from __future__ import annotations

from stresstest.experiments.base import Experiments, Listed

EXPERIMENTS = Experiments(
    [
        Listed(
            "lr-range",
            "stresstest.experiments.lr_range.experiment:LrRange",
            "Ramp the learning rate every step until the loss explodes, then hold it to check.",
            "Smith 2017; Shleifer et al. 2021 (NormFormer), Fig. 5",
        ),
        Listed(
            "depth-sweep",
            "stresstest.experiments.depth_sweep.experiment:DepthSweep",
            "Find the boundary at growing depth: transformers, or residual MLPs of 10,000 blocks and more.",
            "Bachlechner et al. 2020 (ReZero); Xiong et al. 2020",
        ),
        Listed(
            "warmup",
            "stresstest.experiments.warmup.experiment:Warmup",
            "Map the loss over warm-up x peak LR: how much warm-up does it need, and how much does it matter?",
            "Xiong et al. 2020; Wortsman et al. 2023",
        ),
        Listed(
            "race",
            "stresstest.experiments.race.experiment:Race",
            "Race to a target loss: steps, tokens and seconds of variants and optimizers, each at its best learning "
            "rate.",
            "Bachlechner et al. 2020 (ReZero)",
        ),
        Listed(
            "batch-sweep",
            "stresstest.experiments.batch_sweep.experiment:BatchSweep",
            "Grow the batch size at a fixed budget of tokens: up to which size does each optimizer scale?",
            "You et al. 2019 (LAMB)",
        ),
        Listed(
            "scale",
            "stresstest.experiments.scale.experiment:Scale",
            "Measure the boundary along growing sizes and predict that of a size which you cannot afford to break.",
            "Wortsman et al. 2023; Everett et al. 2024; Yang et al. 2022; Dey et al. 2025",
        ),
        Listed(
            "shock",
            "stresstest.experiments.shock.experiment:ShockTest",
            "Disturb a run beside its undisturbed twin: what it survives, and how much of it.",
            "",
        ),
    ]
)
