"""Other tools' live rules, step by step: each takes a loss and a gradient norm, and says whether it raises an alarm.

As the tools' own code where it is installed; Composer's NaNMonitor and llm-foundry's KillLossSpike, which need
Composer's trainer around them, are written from their documented rules.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable

import torch

Rule = Callable[[int, float, float], bool]


def lightning() -> Rule:
    """SpikeDetection of Lightning's fabric, as it comes."""
    from lightning.fabric.utilities.spike import SpikeDetection

    detection = SpikeDetection()

    def rule(step: int, loss: float, grad_norm: float) -> bool:
        value = torch.tensor(loss)
        if step >= detection.warmup and detection._is_spike(value):
            return True
        detection._update_stats(value)
        return False

    return rule


def nan_monitor() -> Rule:
    """Composer's NaNMonitor: a loss that is NaN."""
    return lambda step, loss, grad_norm: math.isnan(loss)


def kill_loss_spike() -> Rule:
    """llm-foundry's KillLossSpike: more than 4 in a row at twice the mean of 100, or half of them above the cap."""
    window: deque[float] = deque(maxlen=100)
    outliers, cap = 0, 10.0

    def rule(step: int, loss: float, grad_norm: float) -> bool:
        nonlocal outliers, cap
        fires = False
        if len(window) == window.maxlen:
            cap = min(max(window), cap) if step == window.maxlen else cap
            outliers = outliers + 1 if loss >= 2.0 * statistics.fmean(window) else 0
            high = sum(one > cap for one in window) >= 50 and step >= 200
            fires = outliers > 4 or high
        window.append(loss)
        return fires

    return rule


def trainpulse() -> Rule:
    """trainpulse's Monitor, its plateau alerts left out."""
    from trainpulse import Monitor

    monitor = Monitor()

    def rule(step: int, loss: float, grad_norm: float) -> bool:
        alerts = [*monitor.log("loss", step, loss), *monitor.log("grad_norm", step, grad_norm)]
        return any(alert.detector != "plateau" and alert.detector != "grad_vanish" for alert in alerts)

    return rule


def trainscope() -> Rule:
    """trainscope's default detector, a CUSUM; upward alone."""
    from trainscope.core.detectors.changepoint import ChangePointDetector

    detector = ChangePointDetector()

    def rule(step: int, loss: float, grad_norm: float) -> bool:
        score = detector.update(loss)
        return score is not None and score > 0.0

    return rule


def stabilityguard() -> Rule:
    """stabilityguard's SpikeDetector on the norm of the whole gradient."""
    from stabilityguard.core.spike_detector import SpikeDetector

    detector = SpikeDetector()

    def rule(step: int, loss: float, grad_norm: float) -> bool:
        found, *_ = detector.check({"model": grad_norm}, set() if math.isfinite(grad_norm) else {"model"})
        return bool(found)

    return rule


PEERS: dict[str, Callable[[], Rule]] = {
    "Lightning SpikeDetection": lightning,
    "Composer NaNMonitor (its rule)": nan_monitor,
    "llm-foundry KillLossSpike (its rule)": kill_loss_spike,
    "trainpulse Monitor": trainpulse,
    "trainscope CUSUM, upward": trainscope,
    "stabilityguard": stabilityguard,
}


def installed() -> dict[str, Callable[[], Rule]]:
    """Those that can be made here."""
    found = {}
    for name, make in PEERS.items():
        try:
            make()
        except ImportError:
            continue
        found[name] = make
    return found
