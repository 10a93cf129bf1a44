"""A replica trains as if it were alone, and what is not finite is reported as what it is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.engine.population import Population
from stresstest.engine.replicas import (
    BAD_GRADIENT,
    BAD_LOSS,
    BAD_PARAMETER,
    DTYPES,
    FINITE,
    FIRST_LOSS_SCALE,
    Readings,
    Training,
)
from stresstest.engine.train import Batches, initialise, train
from stresstest.models.transformer import Transformer
from stresstest.models.variants import NORMS, VARIANTS
from stresstest.specs.base import ModelSpec
from stresstest.tasks.generator import generate_text
from stresstest.tasks.language import LanguageTask

CPU = torch.device("cpu")
NUM_STEPS = 12
OF_TRANSFORMERS = [name for name, variant in VARIANTS.items() if "decoder" not in variant.not_in]
SEEDS = (0, 1, 2, 2, 4, 5, 6, 7)  # a seed may stand in several rows
LRS = tuple(float(lr) for lr in np.geomspace(1e-3, 1.0, len(SEEDS)))
LONERS = (3, 6)
Case = tuple[str, str, str, float | None]  # variant, optimizer, dtype, clip_norm
PRE_LN: Case = ("pre-ln", "adam", "float32", None)
CASES: list[Case] = [
    *[(variant, "adam", "float32", None) for variant in OF_TRANSFORMERS],
    *[("pre-ln", optimizer, "float32", None) for optimizer in OPTIMIZERS if optimizer != "adam"],
    ("pre-ln", "adam", "float32", 0.5),
    ("pre-ln", "adam", "bfloat16", None),
    ("pre-ln", "adam", "float16", None),
]
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))


@pytest.fixture(scope="module")
def batches() -> Batches:
    return Batches(LanguageTask(generate_text(20_000), batch_size=4, seq_len=12), CPU)


def populate(spec: ModelSpec, case: Case, rows: Sequence[int] = range(len(SEEDS))) -> Population:
    variant, optimizer, dtype, clip_norm = case
    training = Training(OPTIMIZERS[optimizer], {}, CPU, DTYPES[dtype], clip_norm)
    return Population(Transformer(spec, variant, {}), [SEEDS[row] for row in rows], training)


def advance(
    population: Population, batches: Batches, rows: Sequence[int], steps: Sequence[int] = range(NUM_STEPS)
) -> Tensor:
    """Train these rows' seeds at their learning rates: the loss of each step, [T, R]."""
    seeds, lr_R = [SEEDS[row] for row in rows], torch.tensor([LRS[row] for row in rows])
    return torch.stack([population.step(batches.batch(seeds, step), lr_R).loss_R for step in steps])


def one_step(population: Population, batches: Batches, lr: float = 1e-3) -> Readings:
    seeds = SEEDS[: population.num_replicas]
    return population.step(batches.batch(seeds, 0), torch.full((len(seeds),), lr))


def assert_identical(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=0.0, atol=0.0, equal_nan=True)


def part(population: Population, kind: str) -> Tensor:
    """The parameters of a kind, [R, layers, ...], to be written to."""
    return population.model.layout.banks[kind].view(population.theta_RP)


@every_case
def test_a_replica_trains_as_if_it_were_alone(tiny: ModelSpec, batches: Batches, case: Case) -> None:
    rows = range(len(SEEDS))
    together = populate(tiny, case)
    initialise(together, batches, SEEDS)
    loss_TR = advance(together, batches, rows)
    assert len(set(loss_TR[4].tolist())) == len(SEEDS)
    for row in LONERS:
        alone = populate(tiny, case, [row])
        initialise(alone, batches, [SEEDS[row]])
        assert_identical(advance(alone, batches, [row])[:, 0], loss_TR[:, row])
        assert_identical(alone.theta_RP[0], together.theta_RP[row])


@every_case
def test_a_nan_in_a_neighbour_changes_nothing(tiny: ModelSpec, batches: Batches, case: Case) -> None:
    rows, others = (0, 1, 2, 3), [0, 2, 3]
    healthy, infected = populate(tiny, case, rows), populate(tiny, case, rows)
    infected.theta_RP[1] = torch.nan
    expected_TR, loss_TR = advance(healthy, batches, rows), advance(infected, batches, rows)
    assert loss_TR[:, 1].isnan().all()
    assert expected_TR[:, others].isfinite().any(0).all()
    assert_identical(loss_TR[:, others], expected_TR[:, others])
    assert_identical(infected.theta_RP[others], healthy.theta_RP[others])


@every_case
def test_dropping_rows_midway_changes_nothing_in_the_rest(tiny: ModelSpec, batches: Batches, case: Case) -> None:
    rows, kept = (0, 1, 2, 3, 4), [1, 4]
    whole, thinned = populate(tiny, case, rows), populate(tiny, case, rows)
    expected_TR = advance(whole, batches, rows)
    first_TR = advance(thinned, batches, rows, range(5))
    gradients = thinned.grad_RP[kept].clone()
    thinned.keep(kept)
    assert thinned.num_replicas == 2
    assert_identical(thinned.grad_RP, gradients)  # which a last look is taken of
    last_TR = advance(thinned, batches, kept, range(5, NUM_STEPS))
    assert_identical(torch.cat([first_TR[:, kept], last_TR]), expected_TR[:, kept])
    assert_identical(thinned.theta_RP, whole.theta_RP[kept])


def test_the_training_loop_drops_the_rows_it_is_sent(tiny: ModelSpec, batches: Batches) -> None:
    case, lr_TR = PRE_LN, np.tile(LRS, (NUM_STEPS, 1))
    expected_TR = advance(populate(tiny, case), batches, range(len(SEEDS))).double().numpy()
    blocks = train(populate(tiny, case), batches, SEEDS, lr_TR)
    seen = [next(blocks), blocks.send((0, 5)), blocks.send((1, 2, 4, 7))]
    assert [block.rows for block in seen] == [tuple(range(8)), (1, 2, 3, 4, 6, 7), (3, 6)]
    for number, block in enumerate(seen):
        np.testing.assert_array_equal(block.loss, expected_TR[4 * number : 4 * number + 4, list(block.rows)])
    with pytest.raises(StopIteration):
        blocks.send(())


def test_the_training_loop_ends_when_every_row_is_dropped(tiny: ModelSpec, batches: Batches) -> None:
    blocks = train(populate(tiny, PRE_LN, (0, 1)), batches, SEEDS[:2], np.full((NUM_STEPS, 2), 1e-3))
    next(blocks)
    with pytest.raises(StopIteration):
        blocks.send((0, 1))


@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_a_broken_weight_in_use_is_reported_as_a_bad_loss(tiny: ModelSpec, batches: Batches, value: float) -> None:
    population = populate(tiny, PRE_LN, (0, 1, 2))
    part(population, "fc1.weight")[1, 0, 3, 3] = value
    assert one_step(population, batches).health_R.tolist() == [FINITE, BAD_LOSS, FINITE]


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_a_broken_weight_that_the_loss_did_not_see_is_reported_as_a_bad_parameter(
    tiny: ModelSpec, batches: Batches, value: float
) -> None:
    population = populate(tiny, ("pre-ln", "sgd", "float32", None), (0, 1, 2))
    part(population, "embedding")[1, 0, 255] = value  # a byte that ASCII text lacks
    readings = one_step(population, batches)
    assert readings.loss_R.isfinite().all()
    assert readings.health_R.tolist() == [FINITE, BAD_PARAMETER, FINITE]


def test_a_gradient_whose_norm_overflows_is_reported_as_a_bad_gradient(tiny: ModelSpec, batches: Batches) -> None:
    population = populate(tiny, PRE_LN, (0, 1, 2))
    part(population, "unembedding")[1] *= 1e36
    readings = one_step(population, batches)
    assert readings.loss_R.isfinite().all()
    assert readings.grad_norm_R.isfinite().tolist() == [True, False, True]
    assert readings.health_R.tolist() == [FINITE, BAD_GRADIENT, FINITE]


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(("lr", "first"), [(torch.finfo(torch.float32).max, BAD_PARAMETER), (1e10, FINITE)])
def test_a_huge_learning_rate_is_not_finite_at_once(
    tiny: ModelSpec, batches: Batches, name: str, lr: float, first: int
) -> None:
    population = populate(tiny, ("pre-ln", name, "float32", None), (0,))
    assert [int(one_step(population, batches, lr).health_R) for _ in range(3)] == [first, BAD_LOSS, BAD_LOSS]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("variant", OF_TRANSFORMERS)
def test_half_precision_follows_full_precision(tiny: ModelSpec, batches: Batches, variant: str, dtype: str) -> None:
    full, half = (populate(tiny, (variant, "sgd", d, None), (0, 1)) for d in ("float32", dtype))
    half._scale_R.fill_(256.0)  # no overflow in any variant
    expected, readings = one_step(full, batches), one_step(half, batches)
    assert half.theta_RP.dtype == torch.float32
    assert not torch.equal(readings.loss_R, expected.loss_R)
    assert not readings.skipped_R.any()
    torch.testing.assert_close(readings.loss_R, expected.loss_R, rtol=1e-2, atol=0.0)
    torch.testing.assert_close(readings.grad_norm_R, expected.grad_norm_R, rtol=5e-2, atol=0.0)


@pytest.mark.parametrize("changes", [{"qk_norm": True}, *[{"norm": norm} for norm in NORMS]], ids=str)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_trains_every_norm(
    tiny: ModelSpec, batches: Batches, dtype: str, changes: dict[str, str]
) -> None:
    population = populate(tiny.model_copy(update=changes), ("normformer", "adam", dtype, None), (0, 1))
    loss_TR = torch.stack([one_step(population, batches, 1e-2).loss_R for _ in range(NUM_STEPS)])
    assert (loss_TR[-1] < loss_TR[0] - 0.5).all()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_overflow_of_the_loss_scale_skips_the_step_of_its_replica_only(
    tiny: ModelSpec, batches: Batches, optimizer: str
) -> None:
    case = ("pre-ln", optimizer, "float16", None)
    population, untouched = populate(tiny, case, (0, 1, 2)), populate(tiny, case, (0, 1, 2))
    for each in (population, untouched):
        one_step(each, batches)
    before_RP, state = population.theta_RP.clone(), {k: v.clone() for k, v in population._state.items()}
    population._scale_R[1] = 1e38
    readings, expected = one_step(population, batches), one_step(untouched, batches)
    assert readings.skipped_R.tolist() == [False, True, False]
    assert readings.health_R.tolist() == [FINITE] * 3
    assert torch.equal(population.theta_RP[1], before_RP[1])
    assert all(torch.equal(matrix[1], state[slot][1]) for slot, matrix in population._state.items())
    assert population._scale_R.tolist() == pytest.approx([FIRST_LOSS_SCALE, 5e37, FIRST_LOSS_SCALE])
    for row in (0, 2):
        assert readings.loss_R[row] == expected.loss_R[row]
        assert torch.equal(population.theta_RP[row], untouched.theta_RP[row])
        assert not torch.equal(population.theta_RP[row], before_RP[row])
    population._scale_R.fill_(FIRST_LOSS_SCALE)
    one_step(population, batches)
    assert torch.equal(population.theta_RP[1], untouched.theta_RP[1]), "a skipped step was counted"


def test_the_loss_scale_falls_until_the_gradient_fits(tiny: ModelSpec, batches: Batches) -> None:
    population = populate(tiny, ("pre-ln", "adam", "float16", None), (0,))
    population._scale_R.fill_(2.0**40)
    skipped = [bool(one_step(population, batches).skipped_R) for _ in range(30)]
    assert skipped == [True] * sum(skipped) + [False] * (30 - sum(skipped))
    assert 10 < sum(skipped) < 30
    assert population._scale_R.item() == 2.0 ** (40 - sum(skipped))


def test_the_loss_scale_doubles_after_two_hundred_steps_without_a_skip(batches: Batches) -> None:
    spec = ModelSpec(depth=1, width=4, heads=1, seq_len=12)
    population = populate(spec, ("pre-ln", "sgd", "float16", None), (0, 1))
    population._scale_R.fill_(2.0)
    for step in range(200):
        assert population._scale_R.tolist() == [2.0, 2.0]
        if step == 100:
            population._scale_R[1] = 1e38
        assert one_step(population, batches).skipped_R.tolist() == [False, step == 100]
        if step == 100:
            population._scale_R[1] = 2.0
    assert population._scale_R.tolist() == [4.0, 2.0]


def test_an_overflow_that_no_loss_scale_mends_is_a_bad_gradient(tiny: ModelSpec, batches: Batches) -> None:
    spec = tiny.model_copy(update={"norm": "dyt"})
    population = populate(spec, ("pre-ln", "sgd", "float16", None), (0, 1, 2))
    part(population, "final.norm.alpha")[1:] = torch.inf  # tanh is finite, its gradient 0 * inf
    population._scale_R[2] = 1.0
    readings = one_step(population, batches)
    assert readings.loss_R.isfinite().all()
    assert readings.skipped_R.tolist() == [False, True, True]
    assert readings.health_R.tolist() == [FINITE, BAD_PARAMETER, BAD_GRADIENT]


def test_nothing_is_clipped_without_a_limit(tiny: ModelSpec, batches: Batches) -> None:
    population = populate(tiny, PRE_LN, (0, 1))
    part(population, "unembedding")[1] *= 1e6
    readings = one_step(population, batches)
    assert readings.grad_norm_R[1] > 1e4
    assert readings.clipped_R.tolist() == [False, False]


def test_evaluation_changes_nothing(tiny: ModelSpec, batches: Batches) -> None:
    population = populate(tiny, PRE_LN, (0, 1))
    before_RP, batch = population.theta_RP.clone(), batches.batch(SEEDS[:2], 0)
    loss_R = population.evaluate(batch)
    assert torch.equal(population.theta_RP, before_RP)
    assert_identical(population.step(batch, torch.ones(2)).loss_R, loss_R)


@pytest.mark.parametrize("variant", OF_TRANSFORMERS)
def test_initialising_sets_admins_skips_and_nothing_else(tiny: ModelSpec, batches: Batches, variant: str) -> None:
    population = populate(tiny, (variant, "adam", "float32", None), (0, 1))
    before_RP = population.theta_RP.clone()
    initialise(population, batches, SEEDS[:2])
    changed = {
        kind
        for kind, bank in population.model.layout.banks.items()
        if not torch.equal(bank.view(before_RP), bank.view(population.theta_RP))
    }
    assert changed == ({"attention.skip", "ffn.skip"} if variant == "admin" else set())
