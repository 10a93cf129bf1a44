"""The best constant predictor of a cross-entropy that a trainer takes in a way of its own.

Trainer divides that of some models by another number than its targets'; fused heads never make their logits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from stresstest.user_code import UserCodeError
from stresstest.user_model.batches import UserBatch, UserBatches
from stresstest.user_model.constants.constant import Constant, cross_entropy
from stresstest.user_model.constants.fit import Constants, Objective, mean_loss
from stresstest.user_model.constants.outlet import Outlet
from stresstest.user_model.constants.plain import FIRST_BATCHES, of_classes
from stresstest.user_model.constants.targets import TARGET_NAMES, Targets, classes_of
from stresstest.user_model.contract import Contract
from stresstest.user_model.factory import seeded

PLAIN = 1e-4  # relative: as far as a user's loss may be from a plain one that it is taken for


def puts_out_one(contract: Contract, outlet: Outlet) -> bool:
    """Whether one tensor carries the loss; of what a trainer brought, one in each forward pass."""
    return len(outlet.slots) == 1 or (contract.backward is not None and len({leaf for _, leaf in outlet.slots}) == 1)


def of_scaled_classes(contract: Contract, module: nn.Module, batches: UserBatches, outlet: Outlet) -> Constant | None:
    """That of a cross-entropy which each batch divides by a number of its own, as Trainer does for some models."""
    ones = batches.fresh(FIRST_BATCHES)
    objective = Objective(contract, module, outlet)
    if not puts_out_one(contract, outlet) or len(objective.shapes(ones[0])[0]) < 2:
        return None
    classes = objective.shapes(ones[0])[0][-1]
    for targets in classes_of(ones[0].data):
        if _is_scaled(objective, ones[:4], targets, classes):
            plain = of_classes(targets, classes, batches)
            assert plain.log_prior is not None, "classes have shares"
            constants = Constants((("last", plain.log_prior),), (0,) * len(outlet.slots))
            baseline = mean_loss(objective, ones, constants)
            return replace(_in_units(plain, baseline / plain.baseline_loss), outlet=outlet)
    return None


def _is_scaled(objective: Objective, ones: Sequence[UserBatch], targets: Targets, classes: int) -> bool:
    """Whether the loss is a batch's cross-entropy times a number that no outputs change, at two made-up logits."""
    try:
        for one in ones:
            first, second = (_ratio(objective, one, targets, made_up_logits(classes, turn)) for turn in (0.0, 1.0))
            if not abs(first - second) <= PLAIN * abs(second) or not 0.1 < second < 10.0:
                return False
    except (UserCodeError, IndexError, RuntimeError):
        return False
    return True


def _ratio(objective: Objective, one: UserBatch, targets: Targets, logits: Tensor) -> float:
    """The loss at constant logits, in units of the cross-entropy there."""
    with torch.no_grad():
        theirs = objective.loss(one, Constants((("last", logits),), (0,) * len(objective.outlet.slots)))
    labels = targets(one.data)
    return float(theirs) / float(cross_entropy(labels, logits.log_softmax(0).to(labels.device)))


def made_up_logits(classes: int, turn: float = 0.0) -> Tensor:
    """Made-up logits, no two alike."""
    return torch.linspace(-1.0 + turn, 1.0 + turn, classes).sin() * 2.0 + torch.linspace(0.0, 1.0 - 3.0 * turn, classes)


def of_fused_classes(contract: Contract, module: nn.Module, batches: UserBatches) -> Constant | None:
    """That of a loss which no module's outputs carry, but which is the cross-entropy of the logits all the same.

    It is if it keeps its ratio to that when all weights are others.
    """
    ones = batches.fresh(FIRST_BATCHES)
    for targets in classes_of(ones[0].data):
        try:
            found = [_fused_ratio(contract, module, one, targets) for one in ones]
            with _other_weights(module):
                again = [_fused_ratio(contract, module, one, targets) for one in ones[:2]]
        except Exception:  # whatever the user's code says of a call that is not its own
            continue
        if all(abs(a - b) <= PLAIN * abs(b) for (a, _), (b, _) in zip(found, again, strict=False)):
            plain = of_classes(targets, found[0][1], batches)
            ratios = torch.tensor([ratio for ratio, _ in found], dtype=torch.float64)
            exact = bool(((ratios - 1.0).abs() <= PLAIN).all())
            return plain if exact else _in_units(plain, float(ratios.mean()))
    return None


def _fused_ratio(contract: Contract, module: nn.Module, one: UserBatch, targets: Targets) -> tuple[float, int]:
    """The loss in units of the cross-entropy of the model's logits, and how many classes these have."""
    module.eval()
    try:
        with torch.no_grad(), seeded(one.seed):
            theirs = float(contract.loss(module, one.data))
            parts = [one.data] if isinstance(one.data, Mapping) else list(one.data)
            each = [_logits_and_targets(module, part, targets) for part in parts]
    finally:
        module.train()
    logits_NC, labels_N = (torch.cat(several) for several in zip(*each, strict=True))
    plain = torch.nn.functional.cross_entropy(logits_NC.float(), labels_N)
    return theirs / float(plain), logits_NC.shape[-1]


def _logits_and_targets(module: nn.Module, data: Mapping[str, Tensor], targets: Targets) -> tuple[Tensor, Tensor]:
    """[N, C] and [N]."""
    logits: Tensor = module(**{key: value for key, value in data.items() if key not in TARGET_NAMES}).logits
    wanted = logits[:, :-1] if targets.shifted else logits
    return wanted.flatten(0, -2), targets(data).flatten()


@contextmanager
def _other_weights(module: nn.Module) -> Iterator[None]:
    """All trainable weights are a little larger for a while."""
    before = [(p, p.detach().clone()) for p in module.parameters() if p.requires_grad]
    with torch.no_grad():
        for parameter, _ in before:
            parameter.mul_(1.05).add_(0.01)
        try:
            yield
        finally:
            for parameter, value in before:
                parameter.copy_(value)


def _in_units(plain: Constant, unit: float) -> Constant:
    """Of a loss that is so many times the cross-entropy; that of each batch is not known."""
    return Constant(
        f"{plain.text}, with the loss's own divisor",
        plain.baseline_loss * unit,
        plain.chance_loss * unit,
        plain.error * unit,
        plain.learnable * unit,
        unit=plain.unit,
    )
