"""Every optimizer of the table says of itself what others need to know, and it is so."""

from __future__ import annotations

import inspect
import re
from dataclasses import MISSING, fields

import pytest
import torch
from torch import Tensor

from stresstest.engine import optimizers
from stresstest.engine.optimizer import Optimizer, Step
from stresstest.engine.optimizers import OPTIMIZERS, theory_formula
from stresstest.models.layout import Segment

SEGMENTS = [Segment(0, 6, 1, True, (2, 3))]
NO_CLOSED_FORM = {"radam", "lamb", "muon", "lion"}


def trained(name: str, gradient_scale: float, weight_decay: float, num_steps: int) -> tuple[Tensor, dict[str, Tensor]]:
    """(the row after some steps at one gradient, the optimizer's state)."""
    optimizer = OPTIMIZERS[name]
    theta_RP = torch.linspace(0.5, 1.5, 6, dtype=torch.float64)[None]
    grad_P = gradient_scale * torch.linspace(-1.0, 2.0, 6, dtype=torch.float64)
    state = {slot: torch.zeros_like(theta_RP) for slot in optimizer.slots}
    for step in range(1, num_steps + 1):
        at = torch.full((1, 1), float(step), dtype=torch.float64)
        lr_R1 = torch.full((1, 1), 1e-3, dtype=torch.float64)
        decay_P = torch.ones(6, dtype=torch.float64)
        seen = Step(theta_RP, grad_P.clone()[None], lr_R1, state, at, decay_P, SEGMENTS)
        optimizer.update(seen, **{**optimizer.options, "weight_decay": weight_decay})
    return theta_RP[0], state


@pytest.mark.parametrize("fact", ["adaptive", "decoupled_decay", "stability"])
def test_no_fact_has_a_default_that_a_new_optimizer_could_forget(fact: str) -> None:
    declared = next(field for field in fields(Optimizer) if field.name == fact)
    assert declared.default is MISSING
    assert declared.default_factory is MISSING
    assert inspect.signature(optimizers._optimizer).parameters[fact].default is inspect.Parameter.empty


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_adaptive_optimizer_moves_as_far_for_a_gradient_a_thousand_times_as_large(name: str) -> None:
    steps = 10  # radam's first five are momentum's
    start = torch.linspace(0.5, 1.5, 6, dtype=torch.float64)
    moves = []
    for scale in (1.0, 1000.0):
        before = start if name != "radam" else trained(name, scale, 0.0, steps - 1)[0]
        moves.append(float((trained(name, scale, 0.0, steps)[0] - before).norm()))
    assert (moves[1] == pytest.approx(moves[0], rel=1e-3)) == OPTIMIZERS[name].adaptive


@pytest.mark.parametrize("name", [name for name, optimizer in OPTIMIZERS.items() if optimizer.slots])
def test_decoupled_weight_decay_leaves_the_moments_alone(name: str) -> None:
    without, with_decay = (trained(name, 1.0, weight_decay, 1)[1] for weight_decay in (0.0, 0.1))
    alike = all(torch.equal(without[slot], with_decay[slot]) for slot in without)
    assert alike == OPTIMIZERS[name].decoupled_decay


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_printed_formula_is_the_one_that_is_computed(name: str) -> None:
    optimizer = OPTIMIZERS[name]
    if optimizer.stability is None:
        assert name in NO_CLOSED_FORM
        assert theory_formula(name) == f"no formula known for {name}"
        return
    options = {"beta": 0.75, "beta1": 0.75, "beta2": 0.5, "eps": 0.1}
    product = re.sub(r"(\d) (beta)", r"\1 * \2", optimizer.stability.formula)
    assert optimizer.stability.factor(options) == eval(product, {}, options)
    assert theory_formula(f"{name}:weight_decay=0.1").startswith(optimizer.stability.formula)
    assert ("P^-1/2" in theory_formula(name)) == (optimizer.stability.preconditioner is not None)


def test_of_an_optimizer_that_is_not_in_the_table_nothing_is_known() -> None:
    assert theory_formula("own") == "no formula known for own"
