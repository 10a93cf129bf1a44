"""Every optimizer equals its reference, for every replica of a population."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stresstest.engine.optimizer import Step
from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.engine.population import Population
from stresstest.engine.replicas import Training
from stresstest.models.layout import Segment
from stresstest.models.residual_mlp import ResidualMlp
from stresstest.models.transformer import Transformer
from stresstest.registry import OptionValue
from stresstest.specs.base import ModelSpec
from stresstest.tasks.task import Batch

NUM_STEPS = 25
LRS = (1e-3, 1e-2, 1e-1)
# A bank of two hidden matrices and a vector, and the shape of each tensor.
SEGMENTS = [Segment(0, 48, 2, True, (6, 4)), Segment(48, 52, 1, False)]
SHAPES = ((6, 4), (6, 4), (4,))
DECAYS = (True, True, False)
TOLERANCE = {torch.float64: (1e-12, 1e-13), torch.float32: (1e-5, 5e-7)}  # relative, absolute

# (initial row [P], gradients [T, P], learning rate) -> the row after each step, [T, P]
Reference = Callable[[Tensor, Tensor, float], Tensor]


@dataclass(frozen=True)
class Case:
    """One setting of one optimizer, and an implementation that is not ours."""

    name: str
    reference: Reference
    options: dict[str, OptionValue] = field(default_factory=dict)


def tensors_of(row_P: Tensor) -> list[Tensor]:
    parts = torch.split(row_P, [24, 24, 4])
    return [part.view(shape) for part, shape in zip(parts, SHAPES, strict=True)]


def torch_optim(
    kind: type[torch.optim.Optimizer],
    weight_decay: float = 0.0,
    start: Callable[[torch.optim.Optimizer], None] = lambda optimizer: None,
    of_vectors: float = 0.0,
    **options: Any,
) -> Reference:
    """A torch optimizer with this weight decay on the matrices; `start` is called with its first gradients there."""

    def run(row_P: Tensor, grad_TP: Tensor, lr: float) -> Tensor:
        weights = [nn.Parameter(tensor.clone()) for tensor in tensors_of(row_P)]
        groups = [
            {"params": weights[:2], "weight_decay": weight_decay},
            {"params": weights[2:], "weight_decay": of_vectors},
        ]
        optimizer = kind(groups, lr=lr, **options)  # type: ignore[call-arg]  # each kind has its own options
        rows = []
        for step, grad_P in enumerate(grad_TP):
            for weight, gradient in zip(weights, tensors_of(grad_P), strict=True):
                weight.grad = gradient.clone()
            if step == 0:
                start(optimizer)
            optimizer.step()
            rows.append(torch.cat([weight.detach().flatten() for weight in weights]))
        return torch.stack(rows)

    return run


def lamb(
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-6,
    weight_decay: float = 0.01,
    bias_correction: bool = True,
    adapt_when_no_decay: bool = True,
) -> Reference:
    """You et al. 2020, Alg. 2, tensor by tensor in float64, phi the identity."""

    def run(row_P: Tensor, grad_TP: Tensor, lr: float) -> Tensor:
        x = [tensor.double().clone() for tensor in tensors_of(row_P)]
        m, v = [torch.zeros_like(t) for t in x], [torch.zeros_like(t) for t in x]
        rows = []
        for t, grad_P in enumerate(grad_TP, start=1):
            for i, gradient in enumerate(tensors_of(grad_P.double())):
                m[i] = beta1 * m[i] + (1 - beta1) * gradient
                v[i] = beta2 * v[i] + (1 - beta2) * gradient**2
                correction = (1 - beta1**t, 1 - beta2**t) if bias_correction else (1.0, 1.0)
                decay = weight_decay if DECAYS[i] else 0.0
                update = m[i] / correction[0] / ((v[i] / correction[1]).sqrt() + eps) + decay * x[i]
                norms = float(x[i].norm()), float(update.norm())
                adapts = all(norms) and (adapt_when_no_decay or decay > 0)
                x[i] = x[i] - lr * (norms[0] / norms[1] if adapts else 1.0) * update
            rows.append(torch.cat([tensor.flatten() for tensor in x]))
        return torch.stack(rows)

    return run


def lion(beta1: float = 0.9, beta2: float = 0.99, weight_decay: float = 0.0) -> Reference:
    """Chen et al. 2023, Alg. 2, in float64."""

    def run(row_P: Tensor, grad_TP: Tensor, lr: float) -> Tensor:
        x, m, rows = row_P.double(), torch.zeros_like(row_P, dtype=torch.float64), []
        decay = weight_decay * torch.cat([torch.ones(48), torch.zeros(4)]).double()
        for gradient in grad_TP.double():
            x = x - lr * (torch.sign(beta1 * m + (1 - beta1) * gradient) + decay * x)
            m = beta2 * m + (1 - beta2) * gradient
            rows.append(x)
        return torch.stack(rows)

    return run


def muon(
    momentum: float = 0.95,
    nesterov: bool = True,
    match_rms_adamw: bool = True,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.01,
) -> Reference:
    """Jordan et al. 2024 in float64, matrix by matrix, and torch's AdamW for the vector."""
    adamw = torch_optim(torch.optim.AdamW, weight_decay, betas=(beta1, beta2), eps=eps)

    def run(row_P: Tensor, grad_TP: Tensor, lr: float) -> Tensor:
        x = [tensor.double().clone() for tensor in tensors_of(row_P)[:2]]
        m = [torch.zeros_like(t) for t in x]
        size = 0.2 * 6**0.5 if match_rms_adamw else 1.5**0.5
        rows = []
        for grad_P in grad_TP:
            for i, gradient in enumerate(tensors_of(grad_P.double())[:2]):
                m[i] = momentum * m[i] + (1 - momentum) * gradient
                update = (1 - momentum) * gradient + momentum * m[i] if nesterov else m[i]
                u, s, vh = torch.linalg.svd(update, full_matrices=False)
                s = s / s.norm()
                for _ in range(5):  # the iteration leaves singular vectors as they are
                    s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
                x[i] = x[i] - lr * weight_decay * x[i] - lr * size * (u * s) @ vh
            rows.append(torch.cat([tensor.flatten() for tensor in x]))
        vector_TP = adamw(row_P.double(), grad_TP.double(), lr)[:, 48:]
        return torch.cat([torch.stack(rows), vector_TP], dim=1)

    return run


def torch_muon(nesterov: bool = True, match_rms_adamw: bool = True) -> Reference:
    """torch's Muon for the matrices, and its AdamW for the vector."""

    def run(row_P: Tensor, grad_TP: Tensor, lr: float) -> Tensor:
        weights = [nn.Parameter(tensor.clone()) for tensor in tensors_of(row_P)]
        adjust = "match_rms_adamw" if match_rms_adamw else "original"
        optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(weights[:2], lr=lr, weight_decay=0.01, nesterov=nesterov, adjust_lr_fn=adjust),
            torch.optim.AdamW(weights[2:], lr=lr, weight_decay=0.0),
        ]
        rows = []
        for grad_P in grad_TP:
            for weight, gradient in zip(weights, tensors_of(grad_P), strict=True):
                weight.grad = gradient.clone()
            for optimizer in optimizers:
                optimizer.step()
            rows.append(torch.cat([weight.detach().flatten() for weight in weights]))
        return torch.stack(rows)

    return run


def gi_adam(weight_decay: float = 0.0, **options: Any) -> Reference:
    """torch's Adam, whose v is the first g^2 (Kalra & Barkeshli 2024) before it takes a step."""

    def start(optimizer: torch.optim.Optimizer) -> None:
        for group in optimizer.param_groups:
            for weight in group["params"]:
                first = weight.grad + group["weight_decay"] * weight.detach()
                zeros = {"step": torch.tensor(0.0, dtype=torch.float64), "exp_avg": torch.zeros_like(first)}
                optimizer.state[weight] = {**zeros, "exp_avg_sq": first**2}

    return torch_optim(torch.optim.Adam, weight_decay, start, **options)


ADAM: dict[str, OptionValue] = {"beta1": 0.8, "beta2": 0.95, "eps": 1e-3, "weight_decay": 0.1}
TORCH_ADAM: dict[str, Any] = {"betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1}
LAMBS: list[dict[str, OptionValue]] = [
    {},
    ADAM,
    {"bias_correction": False},
    {"adapt_when_no_decay": False},
    {"adapt_when_no_decay": False, "weight_decay": 0.0, "bias_correction": False},
    {"weight_decay": 0.0},
]
MUONS: list[dict[str, OptionValue]] = [
    {},
    ADAM | {"momentum": 0.8},
    {"nesterov": False, "weight_decay": 0.0},
    {"match_rms_adamw": False},
]
EVERYWHERE: dict[str, OptionValue] = {"weight_decay": 0.1, "decay_all": True}
CASES = [
    Case("sgd", torch_optim(torch.optim.SGD)),
    Case("sgd", torch_optim(torch.optim.SGD, 0.1), {"weight_decay": 0.1}),
    Case("sgd", torch_optim(torch.optim.SGD, 0.1, of_vectors=0.1), EVERYWHERE),
    Case("momentum", torch_optim(torch.optim.SGD, momentum=0.9)),
    Case("momentum", torch_optim(torch.optim.SGD, 0.1, of_vectors=0.1, momentum=0.9), EVERYWHERE),
    Case("nesterov", torch_optim(torch.optim.SGD, 0.1, of_vectors=0.1, momentum=0.9, nesterov=True), EVERYWHERE),
    Case("momentum", torch_optim(torch.optim.SGD, 0.1, momentum=0.7), {"beta": 0.7, "weight_decay": 0.1}),
    Case("nesterov", torch_optim(torch.optim.SGD, momentum=0.9, nesterov=True)),
    Case(
        "nesterov",
        torch_optim(torch.optim.SGD, 0.1, momentum=0.7, nesterov=True),
        {"beta": 0.7, "weight_decay": 0.1},
    ),
    Case("adagrad", torch_optim(torch.optim.Adagrad)),
    Case("adagrad", torch_optim(torch.optim.Adagrad, 0.1, eps=1e-2), {"eps": 1e-2, "weight_decay": 0.1}),
    Case("rmsprop", torch_optim(torch.optim.RMSprop)),
    Case(
        "rmsprop",
        torch_optim(torch.optim.RMSprop, 0.1, alpha=0.9, eps=1e-2),
        {"alpha": 0.9, "eps": 1e-2, "weight_decay": 0.1},
    ),
    Case("adam", torch_optim(torch.optim.Adam)),
    Case("adam", torch_optim(torch.optim.Adam, **TORCH_ADAM), ADAM),
    Case("adamw", torch_optim(torch.optim.AdamW, 0.01)),
    Case("adamw", torch_optim(torch.optim.AdamW, **TORCH_ADAM), ADAM),
    Case("adamw", torch_optim(torch.optim.AdamW, 0.1, of_vectors=0.1), EVERYWHERE),
    Case("gi-adam", gi_adam()),
    Case("gi-adam", gi_adam(**TORCH_ADAM), ADAM),
    Case("radam", torch_optim(torch.optim.RAdam)),
    Case("radam", torch_optim(torch.optim.RAdam, **TORCH_ADAM), ADAM),
    *[Case("lamb", lamb(**options), options) for options in LAMBS],  # type: ignore[arg-type]  # of mixed types
    *[Case("muon", muon(**options), options) for options in MUONS],  # type: ignore[arg-type]  # of mixed types
    Case("lion", lion()),
    Case("lion", lion(0.8, 0.95, 0.1), {"beta1": 0.8, "beta2": 0.95, "weight_decay": 0.1}),
]


TORCH_MUONS: list[dict[str, OptionValue]] = [{}, {"nesterov": False}, {"match_rms_adamw": False}]
IN_BFLOAT16 = [Case("muon", torch_muon(**options), options | {"bfloat16": True}) for options in TORCH_MUONS]  # type: ignore[arg-type]  # of mixed types


def problem(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Initial rows [R, P] and gradients [T, R, P], with the corners that divide by zero."""
    generator = torch.Generator().manual_seed(0)
    theta_RP = torch.randn(len(LRS), 52, generator=generator, dtype=torch.float64)
    grad_TRP = torch.randn(NUM_STEPS, len(LRS), 52, generator=generator, dtype=torch.float64)
    theta_RP[0, 24:48] = 0.0  # a tensor without a norm
    grad_TRP[:, :, 3] = 0.0  # a weight without a gradient
    grad_TRP[:, 1, 48:] = 0.0  # a tensor without an update
    return theta_RP.to(dtype), grad_TRP.to(dtype)


def train(name: str, options: dict[str, OptionValue], theta_RP: Tensor, grad_TRP: Tensor) -> Tensor:
    """Our optimizer on all rows at once: the rows after each step, [T, R, P]."""
    optimizer, theta_RP, rows = OPTIMIZERS[name], theta_RP.clone(), []
    lr_R1 = torch.tensor(LRS, dtype=theta_RP.dtype)[:, None]
    decay_P = torch.cat([torch.ones(48), torch.zeros(4)]).to(theta_RP.dtype)
    state = {slot: torch.zeros_like(theta_RP) for slot in optimizer.slots}
    for step, grad_RP in enumerate(grad_TRP, start=1):
        step_R1 = torch.full((len(theta_RP), 1), step, dtype=torch.float64)
        optimizer.update(Step(theta_RP, grad_RP.clone(), lr_R1, state, step_R1, decay_P, SEGMENTS), **options)
        rows.append(theta_RP.clone())
    return torch.stack(rows)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}-{case.options}")
def test_an_optimizer_equals_its_reference_in_every_replica(case: Case, dtype: torch.dtype) -> None:
    theta_RP, grad_TRP = problem(dtype)
    ours_TRP = train(case.name, case.options, theta_RP, grad_TRP)
    for row, lr in enumerate(LRS):
        reference_TP = case.reference(theta_RP[row], grad_TRP[:, row], lr)
        rtol, atol = TOLERANCE[dtype]
        torch.testing.assert_close(ours_TRP[:, row], reference_TP.to(dtype), rtol=rtol, atol=atol)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_has_a_reference_at_its_defaults(name: str) -> None:
    assert any(case.name == name and not case.options for case in CASES)


@pytest.mark.parametrize(
    ("name", "option"), [(name, key) for name, entry in OPTIMIZERS.items() for key in entry.options]
)
def test_an_option_has_a_reference_away_from_its_default(name: str, option: str) -> None:
    default = OPTIMIZERS[name].options[option]
    cases = [*CASES, *IN_BFLOAT16]
    assert any(case.name == name and case.options.get(option, default) != default for case in cases)


@pytest.mark.parametrize("bfloat16", [True, False])
@pytest.mark.parametrize("case", IN_BFLOAT16, ids=lambda case: str(case.options))
def test_muon_moves_as_torchs_but_for_the_rounding_to_bfloat16(case: Case, bfloat16: bool) -> None:
    theta_RP, grad_TRP = problem(torch.float32)
    ours_TRP = train("muon", case.options | {"bfloat16": bfloat16}, theta_RP, grad_TRP)
    for row, lr in enumerate(LRS):
        moved_TP, expected_TP = (
            torch.cat([theta_RP[None, row], rows_TP]).diff(dim=0)
            for rows_TP in (ours_TRP[:, row], case.reference(theta_RP[row], grad_TRP[:, row], lr))
        )
        rounding = 15 * torch.finfo(torch.bfloat16).eps  # three products an iteration
        assert ((moved_TP - expected_TP).norm(dim=1) <= rounding * expected_TP.norm(dim=1)).all()


def test_muon_moves_every_direction_of_a_matrix_about_as_far() -> None:
    theta_RP, grad_TRP = problem(torch.float64)
    moved_RP = train("muon", {"weight_decay": 0.0}, theta_RP, grad_TRP[:1])[0] - theta_RP
    for row, lr in enumerate(LRS):
        values = torch.linalg.svdvals(tensors_of(moved_RP[row])[0]) / (lr * 0.2 * 6**0.5)
        assert values.min() > 0.65
        assert values.max() < 1.25


def test_a_models_hidden_matrices_are_those_of_its_blocks_queries_apart_from_keys(tiny: ModelSpec) -> None:
    layout = Transformer(tiny, "pre-ln", {}).layout
    found = {kind: (s.rows, s.matrix) for kind, s in zip(layout.banks, layout.segments(), strict=True) if s.matrix}
    square = (2, (16, 16))
    expected = {"qkv.weight": (6, (16, 16)), "output.weight": square, "fc1.weight": (2, (64, 16))}
    assert found == expected | {"fc2.weight": (2, (16, 64))}
    mlp = ResidualMlp(tiny.model_copy(update={"model": "mlp"}), "residual", {}, 12, 10)
    assert [s.matrix for s in mlp.layout.segments() if s.matrix] == [(16, 16)]


def test_lamb_without_decay_and_adaptation_is_adam() -> None:
    theta_RP, grad_TRP = problem(torch.float64)
    bare = train("lamb", {"weight_decay": 0.0, "adapt_when_no_decay": False}, theta_RP, grad_TRP)
    torch.testing.assert_close(bare, train("adam", {"eps": 1e-6}, theta_RP, grad_TRP), rtol=1e-12, atol=1e-12)


def test_gi_adam_takes_adams_direction_at_sqrt_of_one_minus_beta2_to_the_t_of_the_lr() -> None:
    """Of a gradient that stays the same: v is g^2 at every step, and its correction makes it larger."""
    theta_RP, grad_TRP = problem(torch.float64)
    steady_TRP = grad_TRP[:1].expand(NUM_STEPS, -1, -1)
    options: dict[str, OptionValue] = {"beta2": 0.9, "eps": 0.0}
    moved = train("gi-adam", options, theta_RP, steady_TRP).diff(dim=0)
    adam = train("adam", options, theta_RP, steady_TRP).diff(dim=0)
    share_T = torch.sqrt(1.0 - 0.9 ** torch.arange(2, NUM_STEPS + 1, dtype=torch.float64))
    moving = steady_TRP[0] != 0
    torch.testing.assert_close(moved[:, moving], (share_T[:, None, None] * adam)[:, moving], rtol=1e-9, atol=1e-12)


def test_lamb_moves_a_tensor_by_the_learning_rate_times_its_norm() -> None:
    theta_RP, grad_TRP = problem(torch.float64)
    moved_RP = train("lamb", {}, theta_RP, grad_TRP[:1])[0] - theta_RP
    norm_R = theta_RP[:, :24].norm(dim=1)
    torch.testing.assert_close(moved_RP[:, :24].norm(dim=1), torch.tensor(LRS).double() * norm_R)


def test_clipping_equals_torch_in_every_replica_and_is_reported(tiny: ModelSpec) -> None:
    tokens = torch.randint(256, (4, 2, 13), generator=torch.Generator().manual_seed(0))
    batch = Batch(tokens[..., :-1], tokens[..., 1:])
    lr_R = torch.full((4,), 0.1)
    model, seeds = Transformer(tiny, "pre-ln", {}), range(4)
    sgd, cpu = OPTIMIZERS["sgd"], torch.device("cpu")
    free = Population(model, seeds, Training(sgd, {}, cpu))
    readings = free.step(batch, lr_R)
    limit = float(readings.grad_norm_R.median())
    clipped = Population(model, seeds, Training(sgd, {}, cpu, clip_norm=limit))
    start_RP = clipped.theta_RP.clone()
    clipped_readings = clipped.step(batch, lr_R)
    assert clipped_readings.clipped_R.tolist() == (readings.grad_norm_R > limit).tolist()
    assert 0 < clipped_readings.clipped_R.sum() < 4
    for row in range(4):
        weights = nn.Parameter(start_RP[row])
        weights.grad = free.grad_RP[row].clone()
        norm = nn.utils.clip_grad_norm_([weights], limit)
        torch.testing.assert_close(clipped_readings.grad_norm_R[row], norm, rtol=1e-6, atol=0.0)
        torch.testing.assert_close(clipped.grad_RP[row], weights.grad, rtol=1e-6, atol=0.0)
        torch.testing.assert_close(clipped.theta_RP[row], weights.detach() - 0.1 * weights.grad, rtol=1e-6, atol=1e-8)
