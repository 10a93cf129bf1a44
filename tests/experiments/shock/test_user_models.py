"""Shocks of a model of the user's own: batches of every form, optimizers with a closure, guards, what stays behind."""

from __future__ import annotations

import math
from collections import UserDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from stresstest.engine.guard import Guard
from stresstest.experiments.shock.arm import Arm
from stresstest.experiments.shock.batches import BAD, first_examples
from stresstest.experiments.shock.disturbance import Disturbance, Scene
from stresstest.experiments.shock.table import parse_shock
from stresstest.tasks.task import Batch
from stresstest.user_code import UserCodeError
from stresstest.user_model.batches import UserBatch
from stresstest.user_model.constants.targets import Targets
from stresstest.user_model.lost_moments import optimizers_in
from stresstest.user_model.micro_batches import MicroBatches
from stresstest.user_model.population import UserPopulation
from tests.experiments.shock.ahead import DRIFT
from tests.experiments.shock.benches import AFTER, SEED, TOTAL, base, bench_of, schedule_of, spec_of, trained


class Pair(NamedTuple):
    x: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Record:
    x: Tensor
    y: Tensor
    name: str


def _tokens(seed: int = 0) -> Tensor:
    return torch.randint(3, 40, (6, 5), generator=torch.Generator().manual_seed(seed))


def _labels(seed: int = 0) -> Tensor:
    return torch.where(_tokens(seed) % 3 == 0, -100, _tokens(seed + 1))


X, Y = _tokens(), _labels(2)
FORMS: dict[str, tuple[Any, Callable[[Any], tuple[Tensor, Tensor]]]] = {
    "pair": ((X, Y), lambda data: (data[0], data[1])),
    "list": ([X, Y], lambda data: (data[0], data[1])),
    "named": (Pair(X, Y), lambda data: (data.x, data.labels)),
    "dataclass": (Record(X, Y, "first"), lambda data: (data.x, data.y)),
    "dict": (
        {"labels": Y, "input_ids": X, "attention_mask": (X > 5).long(), "length": torch.full((6,), 5)},
        lambda data: (data["input_ids"], data["labels"]),
    ),
    "encoding": (UserDict(input_ids=X, labels=Y), lambda data: (data["input_ids"], data["labels"])),
}


def _scene(data: Any, targets: Targets | None = None) -> Scene:
    class Source:
        def batch(self, seeds: Any, step: int) -> Any:
            return [UserBatch(data, 1)]

    def draws() -> torch.Generator:
        return torch.Generator().manual_seed(5)

    return Scene(None, Source(), SEED, 30, draws, targets)  # type: ignore[arg-type]  # no replica is needed


def _changed(kind: str, data: Any, k: int = 0, targets: Targets | None = None) -> Any:
    return BAD[kind](_scene(data, targets), k)[0].data


@pytest.mark.parametrize("form", FORMS)
def test_targets_are_shuffled_in_every_form_of_batch_but_for_those_left_out(form: str) -> None:
    data, read = FORMS[form]
    found = _changed("shuffled", data)
    x, y = read(found)
    assert type(found) is type(data)
    assert torch.equal(x, X)
    assert torch.equal(y < 0, Y < 0)
    assert (y != Y).float().mean() > 0.5
    assert torch.equal(y[y >= 0].sort().values, Y[Y >= 0].sort().values)


@pytest.mark.parametrize("form", FORMS)
def test_a_batch_of_noise_leaves_masks_lengths_and_ignored_targets(form: str) -> None:
    data, read = FORMS[form]
    found = _changed("uniform", data)
    x, y = read(found)
    assert (x != X).float().mean() > 0.8
    assert torch.equal(y < 0, Y < 0)
    assert (y != Y)[Y >= 0].float().mean() > 0.8
    for new, old in ((x, X), (y[y >= 0], Y[Y >= 0])):
        assert old.min() <= new.min()
        assert new.max() <= old.max()
    if form == "dict":
        assert torch.equal(found["attention_mask"], data["attention_mask"])
        assert torch.equal(found["length"], data["length"])
    assert torch.equal(read(_changed("uniform", data))[0], x)  # drawn the same again
    assert not torch.equal(read(_changed("uniform", data, k=1))[0], x)


@pytest.mark.parametrize("form", FORMS)
def test_one_token_throughout(form: str) -> None:
    data, read = FORMS[form]
    x, y = read(_changed("constant", data))
    assert set(x.flatten().tolist()) == {int(X[0, 0])}
    assert torch.equal(y < 0, Y < 0)
    assert set(y[y >= 0].tolist()) == {int(Y[Y >= 0][0])}


@pytest.mark.parametrize("form", FORMS)
def test_the_first_examples_in_every_form_of_batch(form: str) -> None:
    data, read = FORMS[form]
    [one] = first_examples([UserBatch(data, 1)], 2)
    x, y = read(one.data)
    assert torch.equal(x, X[:2])
    assert torch.equal(y, Y[:2])


def test_a_batch_in_parts_is_disturbed_in_each() -> None:
    data = MicroBatches((FORMS["dict"][0], FORMS["pair"][0]), (0.5, 0.5))
    shuffled, noise = _changed("shuffled", data), _changed("uniform", data)
    for found in (shuffled, noise):
        assert found.shares == data.shares
        assert not torch.equal(found.parts[0]["labels"], Y)
        assert not torch.equal(found.parts[1][1], Y)
    accumulated = [{"input_ids": X, "labels": Y}, {"input_ids": X + 1, "labels": Y}]
    parts = _changed("shuffled", accumulated)
    assert all(not torch.equal(part["labels"], Y) for part in parts)
    assert torch.equal(parts[1]["input_ids"], X + 1)


def test_a_language_model_whose_labels_are_its_inputs_keeps_both_apart() -> None:
    """`labels=input_ids`, one tensor: shuffled targets are not shuffled inputs, and noise is the same in both."""
    data = {"input_ids": X, "labels": X}
    shuffled, noise = _changed("shuffled", data), _changed("uniform", data)
    assert torch.equal(shuffled["input_ids"], X)
    assert not torch.equal(shuffled["labels"], X)
    assert torch.equal(noise["input_ids"], noise["labels"])


def test_numbers_are_drawn_and_shuffled_example_by_example() -> None:
    x, y = torch.randn(64, 3, generator=torch.Generator().manual_seed(1)) * 5 + 2, torch.arange(64.0)[:, None] * 2
    shuffled = _changed("shuffled", (x, y))[1]
    assert not torch.equal(shuffled, y)
    assert torch.equal(shuffled.sort(dim=0).values, y)
    drawn = _changed("uniform", (x, y))[0]
    assert float(drawn.mean()) == pytest.approx(2.0, abs=1.5)
    assert float(drawn.std()) == pytest.approx(5.0, rel=0.2)


def test_targets_that_were_found_go_before_names() -> None:
    data = {"labels": X, "classes": Y}
    found = _changed("shuffled", data, targets=Targets("classes"))
    assert torch.equal(found["labels"], X)
    assert not torch.equal(found["classes"], Y)


def test_a_batch_without_tensors_or_targets_says_so() -> None:
    with pytest.raises(UserCodeError, match="no targets are known"):
        _changed("shuffled", (X, X, Y))
    with pytest.raises(UserCodeError, match="no tensors were found"):
        _changed("uniform", object())
    with pytest.raises(UserCodeError, match="no axis of examples"):
        first_examples([UserBatch((X, Y[:3]), 1)], 2)


@pytest.mark.parametrize("kind", BAD)
def test_places_that_a_masked_model_is_not_asked_for_stay_so(kind: str) -> None:
    bench = bench_of(spec_of(model="encoder"))
    batch = bench.batches.batch([SEED], 5)
    line = base(bench, schedule_of(0.01), after=1)
    scene = Scene(line.population, bench.batches, SEED, 5, lambda: torch.Generator().manual_seed(5))
    found = BAD[kind](scene, 0)
    assert isinstance(found, Batch)
    if kind != "repeated":
        assert torch.equal(found.targets < 0, batch.targets < 0)
        assert not torch.equal(found.targets, batch.targets)


def _flip(where: str, layer: str = "") -> Disturbance:
    return parse_shock(f"bit-flip:count=1,bit=30,where={where}" + (f",layer={layer}" if layer else "")).at(1.0)


@pytest.mark.parametrize("where", ["gradient", "activation"])
@pytest.mark.parametrize("optimizer", ["own", "adam"])
def test_a_guard_against_what_is_not_finite_keeps_a_run_alive(where: str, optimizer: str) -> None:
    """Of the shocked step nothing is left: the run goes on as one that leaves out this update."""
    bench = bench_of(spec_of(own="build", optimizer_fn="adam", optimizer=optimizer))
    guarded = replace(bench, training=replace(bench.training, guard=Guard()))

    def in_gradient(scene: Scene) -> None:
        scene.population.grad_RP[0, 5] = math.inf

    @contextmanager
    def in_activation(scene: Scene) -> Iterator[None]:
        assert isinstance(scene.population, UserPopulation)
        last = scene.population.modules[0].get_submodule("3")
        handle = last.register_forward_hook(lambda module, inputs, found: found * math.inf)
        yield
        handle.remove()

    shock = Disturbance(steps=1, gradient=in_gradient)
    if where == "activation":
        shock = Disturbance(steps=1, forward=in_activation)
    runs = []
    for one in (bench, guarded):
        line = base(one, schedule_of(0.01)).branch()
        line.shocked(shock, "drawn")
        runs.append(line)
    alone, saved = runs
    assert saved.run.skipped == 1
    assert not saved.run.detector.over
    assert bool(saved.population.theta_RP.isfinite().all())
    assert alone.run.detector.over
    still = base(bench, schedule_of(0.01))
    still.shocked(Disturbance(steps=1, frozen=True), "")
    assert saved.run.losses == still.run.losses
    assert torch.equal(saved.population.theta_RP, still.population.theta_RP)


@pytest.mark.parametrize("where", ["gradient", "activation"])
def test_an_optimizer_that_asks_for_the_gradient_again_meets_the_flip(where: str) -> None:
    before = base(bench_of(spec_of(own="build", optimizer_fn="lbfgs")), schedule_of(0.01))
    twin, shocked = before.branch(), before.branch()
    for line in (twin, shocked):
        line.lr_N = line.lr_N[: AFTER + 1]
    twin.go(AFTER + 1)
    shocked.shocked(_flip(where, "3.bias" if where == "gradient" else "3"), "drawn")
    assert shocked.run.losses == twin.run.losses
    assert not torch.equal(shocked.population.theta_RP, twin.population.theta_RP)


@pytest.mark.parametrize(
    "text", ["bit-flip:count=1,where=gradient", "bit-flip:count=1,where=activation", "half-precision:steps=2"]
)
def test_after_an_error_the_population_trains_as_before(text: str) -> None:
    line = base(bench_of(spec_of(own="build")), schedule_of(0.01))
    training = line.population.training

    class Fails:
        def __getattr__(self, name: str) -> Any:
            raise UserCodeError("no more batches")

    line.bench = replace(line.bench, batches=Fails())  # type: ignore[arg-type]  # nothing that it could be given
    with pytest.raises(UserCodeError, match="no more batches"):
        line.shocked(parse_shock(text).at(2.0), "drawn")
    assert line.population.training is training
    assert line.population.between is None
    with line.population.within() as entered:
        assert entered is None


def test_a_branch_of_a_step_of_their_own_loses_the_moments_of_its_optimizer_alone() -> None:
    bench = bench_of(spec_of(own="counted", step_fn="whole_step"))
    losses, _ = trained(bench, schedule_of(0.01))
    before = base(bench, schedule_of(0.01))
    lost = before.branch()
    lost.shocked(parse_shock("lost-moments").at(1.0), "")
    before.go(TOTAL)
    assert before.run.losses == losses
    assert lost.run.losses[: AFTER + 1] == losses[: AFTER + 1]
    assert lost.run.losses[AFTER + 2 :] != losses[AFTER + 2 :]


@dataclass
class Course:
    """What a loop keeps of a model."""

    optimizers: list[torch.optim.Optimizer]


def test_what_a_model_brought_to_the_run_is_nothing_that_the_run_taught_it() -> None:
    spec = spec_of(own=f"{Path(__file__).with_name('ahead.py')}:build", after=25, train_steps=80, peak_lr=0.05)
    bench = bench_of(spec)
    twin = Arm(bench, spec, SEED, "", 0.05).twin
    pairs = [one.data for step in range(50, 80) for one in bench.batches.batch([SEED], step)]
    start = [float((y - x).square().mean()) for x, y in pairs]  # its forecast is x
    assert twin.learned == pytest.approx(sum(start) / 30 - twin.loss_T[-30:].mean(), rel=1e-5)
    assert twin.learned == pytest.approx(DRIFT**2, rel=0.1)  # the constant predictor is off by about 10, squared


def test_optimizers_are_found_wherever_a_loop_keeps_them() -> None:
    module = torch.nn.Linear(2, 2)
    first, second = torch.optim.SGD(module.parameters(), lr=1.0), torch.optim.Adam(module.parameters())
    second.inner = first  # type: ignore[attr-defined]  # as SAM has one
    module.kept = {"course": Course([second])}  # type: ignore[assignment]  # whatever a module may hold
    assert list(optimizers_in(vars(module))) == [second, first]
