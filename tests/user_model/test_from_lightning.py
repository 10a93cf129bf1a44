"""What Lightning trains is trained here too: the reference is its own `Trainer.fit`."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import stresstest
from stresstest.errors import ConfigError, ModelError
from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.tasks.task import VALIDATION
from stresstest.user_model.bench import UserBench, resolve_user_model, user_bench
from stresstest.user_model.constants.constant import Constant
from stresstest.user_model.factory import register_callable
from stresstest.user_model.lightning.from_lightning import from_lightning, library_of
from stresstest.user_model.preflight import preflight

STEPS = 20
LR = 1e-2


@pytest.fixture(autouse=True)
def quiet_lightning() -> Iterator[None]:
    logger = logging.getLogger("pytorch_lightning")
    before = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logger.setLevel(before)


class Data(pl.LightningDataModule):
    """The length of a vector; an epoch of 21 batches."""

    def __init__(self, workers: int = 0, batch_size: int = 8) -> None:
        super().__init__()
        self.workers, self.batch_size = workers, batch_size
        self.prepared = False

    def prepare_data(self) -> None:
        self.prepared = True

    def setup(self, stage: str) -> None:
        assert self.prepared
        assert stage == "fit"
        x = torch.rand(21 * 8 + 40, 4, generator=torch.Generator().manual_seed(5))
        y = 4.0 * x.norm(dim=1, keepdim=True)
        self.train, self.held_out = TensorDataset(x[:-40], y[:-40]), TensorDataset(x[-40:], y[-40:])

    def train_dataloader(self) -> Any:
        return DataLoader(self.train, self.batch_size, shuffle=True, num_workers=self.workers)

    def val_dataloader(self) -> Any:
        return DataLoader(self.held_out, 8)


class Plain(pl.LightningModule):
    """The simplest there is, with everything that scripts log."""

    def __init__(self) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))

    def loss(self, batch: Any) -> Tensor:
        x, y = batch
        return F.mse_loss(self.net(x), y)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.loss(batch)
        self.log("train_loss", loss, prog_bar=True)
        self.log_dict({"step": float(self.trainer.global_step)})
        self.print(end="")
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), LR, weight_decay=0.1)


class Hooked(Plain):
    """Everything that changes training is the user's own."""

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch[0] * 2.0, batch[1]

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.seen = batch_idx

    def on_after_backward(self) -> None:
        for parameter in self.parameters():
            parameter.grad = parameter.grad.sign() if self.seen % 2 else parameter.grad

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        self.clip_gradients(optimizer, gradient_clip_val=0.01 * (1 + self.seen), gradient_clip_algorithm="value")

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any) -> None:
        optimizer.step(closure=optimizer_closure)
        if self.trainer.global_step % 3 == 0:
            with torch.no_grad():
                self.net[0].weight.mul_(0.99)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
        optimizer.zero_grad(set_to_none=False)


class Configured(Plain):
    """Built in configure_model, with the groups of its optimizer by what the Trainer says."""

    def __init__(self) -> None:
        super().__init__()
        del self.net
        self.net: Any = None

    def configure_model(self) -> None:
        if self.net is None:
            self.net = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))

    def configure_optimizers(self) -> Any:
        share = self.trainer.estimated_stepping_batches / 1000
        assert self.trainer.num_training_batches == 21
        return torch.optim.SGD(
            [{"params": self.net[0].parameters()}, {"params": self.net[2].parameters(), "lr": LR * share}], LR
        )


class TwoByHand(Plain):
    """Manual optimization with two optimizers in turn, accumulation, clipping and schedulers at constant LRs."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        one, other = self.optimizers()
        self.toggle_optimizer(one)
        loss = self.loss(batch)
        self.manual_backward(loss)
        if (batch_idx + 1) % 2 == 0:
            self.clip_gradients(one, gradient_clip_val=0.3, gradient_clip_algorithm="norm")
            one.step()
            one.zero_grad()
        self.untoggle_optimizer(one)
        other.zero_grad()
        second = 0.1 * self.loss(batch)
        self.manual_backward(second)
        other.step()
        for scheduler in self.lr_schedulers():
            scheduler.step()
        self.log("train_loss", loss)

    def configure_optimizers(self) -> Any:
        parts = [
            torch.optim.Adam(self.net[0].parameters(), LR),
            torch.optim.SGD(self.net[2].parameters(), 2 * LR, momentum=0.9),
        ]
        return parts, [torch.optim.lr_scheduler.ConstantLR(part, 1.0) for part in parts]


class LogsTwo(TwoByHand):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        super().training_step(batch, batch_idx)
        self.log("d_loss", self.loss(batch))
        self.log_dict({"g_loss": 2.0 * self.loss(batch)})


class LogsGan(TwoByHand):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.loss(batch)
        self.log_dict({"d_loss": loss, "g_loss": -loss})


class Recorder(pl.Callback):
    def __init__(self, logged: str | None) -> None:
        self.logged = logged
        self.losses: list[float] = []
        self.weights: list[Tensor] = []

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *_: Any) -> None:
        value = trainer.callback_metrics[self.logged] if self.logged else outputs["loss"]
        self.losses.append(float(value))
        self.weights.append(nn.utils.parameters_to_vector(module.parameters()).detach().clone())


def native(build: Callable[[], Any], workers: int, seed: int, batches: int, **settings: Any) -> Recorder:
    """Lightning's own."""
    pl.seed_everything(seed)
    module = build()
    if isinstance(module, Configured):
        module.configure_model()
    seen = Recorder(None if module.automatic_optimization else "train_loss")
    pl.seed_everything(seed)
    trainer = pl.Trainer(
        limit_train_batches=batches if batches < 21 else 1.0,
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[seen],
        **settings,
    )
    trainer.fit(module, Data(workers))
    return seen


def given_trainer(**settings: Any) -> Any:
    return pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, **settings)


@contextmanager
def bench_of(thing: Any, **settings: Any) -> Iterator[UserBench]:
    with register_callable(thing, {}) as name:
        spec = resolve_user_model(LrRangeSpec(model=name, device="cpu", **settings), sweeps_depth=False)
        yield user_bench(spec, "as-built", 1, spec.optimizers[0], "cpu", constant=Constant("not looked for"))


def ours(thing: Any, seed: int, steps: int) -> tuple[list[float], list[Tensor]]:
    losses, weights = [], []
    with bench_of(thing) as bench:
        population = bench.populate([seed], [LR])
        for step in range(steps):
            readings = population.step(bench.batches.batch([seed], step), torch.tensor([LR]))
            losses.append(float(readings.loss_R[0]))
            weights.append(nn.utils.parameters_to_vector(population.modules[0].parameters()).detach().clone())
    return losses, weights


@pytest.mark.parametrize(
    ("build", "settings", "workers"),
    [
        (Plain, {}, 0),
        (Plain, {}, 2),
        (Plain, {"gradient_clip_val": 0.5}, 0),
        (Plain, {"gradient_clip_val": 0.1, "gradient_clip_algorithm": "value"}, 0),
        (Plain, {"precision": "bf16-mixed"}, 0),
        (Hooked, {}, 0),
        (Configured, {}, 0),
        (TwoByHand, {}, 0),
    ],
)
def test_the_first_steps_are_those_of_trainer_fit_to_the_bit(
    build: Callable[[], Any], settings: dict[str, Any], workers: int
) -> None:
    reference = native(build, workers, 3, 21, **settings)
    losses, weights = ours(lambda: (build(), Data(workers), given_trainer(max_epochs=1, **settings)), 3, STEPS)
    assert losses == pytest.approx(reference.losses[:STEPS], abs=1e-6)
    for mine, theirs in zip(weights, reference.weights[:STEPS], strict=True):
        assert torch.equal(mine, theirs)


def test_accumulated_batches_are_one_step_and_the_last_of_an_epoch_may_be_fewer() -> None:
    reference = native(Plain, 0, 3, 20, accumulate_grad_batches=3)
    losses, weights = ours(
        lambda: (Plain(), Data(), given_trainer(accumulate_grad_batches=3, limit_train_batches=20)), 3, 7
    )
    for step, after in enumerate([2, 5, 8, 11, 14, 17, 19]):
        first = 3 * step
        mean = 3 * sum(reference.losses[first : after + 1]) / (after + 1 - first)
        assert losses[step] == pytest.approx(mean, abs=1e-6)
        assert torch.equal(weights[step], reference.weights[after])


@pytest.mark.parametrize("build", [Plain, TwoByHand])
def test_two_replicas_train_beside_each_other_as_each_does_alone(build: Callable[[], Any]) -> None:
    alone = ours(lambda: (build(), Data()), 1, 6)[1]
    with bench_of(lambda: (build(), Data())) as bench:
        population = bench.populate([0, 1], [3 * LR, LR])
        for step in range(6):
            population.step(bench.batches.batch([0, 1], step), torch.tensor([3 * LR, LR]))
        mine = nn.utils.parameters_to_vector(population.modules[1].parameters())
    assert torch.equal(mine, alone[-1])


@pytest.mark.parametrize("build", [Plain, TwoByHand])
def test_a_resumed_replica_goes_on_to_the_bit(build: Callable[[], Any]) -> None:
    with bench_of(lambda: (build(), Data())) as bench:
        populations = [bench.populate([0], [LR]) for _ in range(2)]
        for step in range(5):
            populations[0].step(bench.batches.batch([0], step), torch.tensor([LR]))
        populations[1].restore(populations[0].state())
        for step in range(5, 25):
            for population in populations:
                population.step(bench.batches.batch([0], step), torch.tensor([2 * LR]))
        assert torch.equal(populations[0].theta_RP, populations[1].theta_RP)


def test_learning_rates_are_set_in_proportion_and_schedulers_stay_off() -> None:
    class Warm(TwoByHand):
        def configure_optimizers(self) -> Any:
            parts = super().configure_optimizers()[0]
            return parts, [torch.optim.lr_scheduler.LinearLR(part, 0.01, 1.0, 5) for part in parts]

    with bench_of(lambda: (Warm(), Data())) as bench:
        population = bench.populate([0], [LR])
        for step, lr in enumerate([LR, 0.5 * LR, 2.0 * LR]):
            population.step(bench.batches.batch([0], step), torch.tensor([lr]))
            loop = bench.model.factory.step.__self__  # type: ignore[union-attr]
            lrs = [group["lr"] for optimizer in loop.trainer.optimizers for group in optimizer.param_groups]
            assert lrs == pytest.approx([lr, 2.0 * lr])


@pytest.mark.parametrize("build", [Plain, TwoByHand])
def test_evaluation_changes_nothing_of_a_replica(build: Callable[[], Any]) -> None:
    with bench_of(lambda: (build(), Data())) as bench:
        looked, not_looked = (bench.populate([0], [LR]) for _ in range(2))
        for step in range(4):
            looked.evaluate(bench.batches.batch([0], step, VALIDATION), as_trained=False)
            for population in (looked, not_looked):
                population.step(bench.batches.batch([0], step), torch.tensor([LR]))
        assert torch.equal(looked.theta_RP, not_looked.theta_RP)


def test_a_function_gives_fresh_weights_and_an_object_its_own_to_each_seed() -> None:
    with bench_of(lambda: from_lightning(Plain(), Data())) as bench:
        rows = bench.populate([0, 1], [LR, LR]).theta_RP
        assert not torch.equal(rows[0], rows[1])
    module = Plain()
    with bench_of(from_lightning(module, Data())) as bench:
        rows = bench.populate([0, 1], [LR, LR]).theta_RP
        assert torch.equal(rows[0], rows[1])
        assert torch.equal(rows[0], nn.utils.parameters_to_vector(module.parameters()))


def test_several_loaders_are_joined_as_lightning_joins_them() -> None:
    class Both(Data):
        def train_dataloader(self) -> Any:
            return {"a": DataLoader(self.train, 8), "b": DataLoader(self.held_out, 4)}

    class Sum(Plain):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self.loss(batch["a"]) + self.loss(batch["b"])

    with bench_of(lambda: (Sum(), Both())) as bench:
        drawn = [bench.batches.batch([0], step)[0].data for step in range(12)]
    x = drawn[0]["b"][0]
    assert drawn[11]["a"][0].shape == (8, 4)
    assert torch.equal(drawn[10]["b"][0], x)  # the shorter one begins again


def test_data_of_the_module_itself_is_found() -> None:
    class Own(Plain):
        def train_dataloader(self) -> Any:
            x = torch.rand(64, 4)
            return DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), 16)

    with bench_of(Own()) as bench:
        assert bench.batches.batch([0], 0)[0].data[0].shape == (16, 4)


def test_a_module_that_steps_by_itself_may_take_the_batches_of_its_file() -> None:
    def batch(step: int, batch_size: int, generator: torch.Generator) -> Any:
        x = torch.rand(8, 4, generator=generator)
        return x, x.sum(1, keepdim=True)

    with register_callable(TwoByHand, {}, batch=batch) as name:
        spec = resolve_user_model(LrRangeSpec(model=name, device="cpu"), sweeps_depth=False)
        assert any("its training_step" in note for note in preflight(spec, [1], "cpu").notes)


def test_loaders_may_stand_in_the_place_of_a_data_module() -> None:
    data = Data()
    data.prepare_data()
    data.setup("fit")
    loaders = data.train_dataloader(), data.val_dataloader()
    expected = ours(lambda: (Plain(), Data()), 0, 3)[1]
    assert torch.equal(ours(lambda: (Plain(), *loaders), 0, 3)[1][-1], expected[-1])
    assert torch.equal(ours(lambda: from_lightning(Plain(), loaders), 0, 3)[1][-1], expected[-1])


def test_the_verdict_of_manual_optimization_is_the_one_of_automatic() -> None:
    class ByHand(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            optimizer, loss = self.optimizers(), self.loss(batch)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            return loss

    few: dict[str, Any] = {"seeds": 1, "num_steps": 40, "hold_steps": 20, "theory": False}
    automatic = stresstest.lr_range(lambda: (Plain(), Data()), **few)
    found = [automatic, stresstest.lr_range(lambda: (ByHand(), Data()), **few)]
    boundaries = [one.summary[0].metrics["explosion_lr"] for one in found]
    assert boundaries[0] == boundaries[1]


def checked(thing: Any) -> None:
    with register_callable(thing, {}) as name:
        preflight(resolve_user_model(LrRangeSpec(model=name, device="cpu"), sweeps_depth=False), [1], "cpu")


@pytest.mark.parametrize(
    ("thing", "words"),
    [
        (lambda: from_lightning(LogsTwo(), Data(), monitor="val_loss"), "logged no 'val_loss', only"),
        (lambda: (LogsGan(), Data()), "logged 'd_loss', 'g_loss'; return the number"),
        (lambda: (Plain(), Data(), given_trainer(overfit_batches=2)), "overfit_batches=2"),
        (
            lambda: (Plain(), Data(), given_trainer(callbacks=[pl.callbacks.GradientAccumulationScheduler({0: 2})])),
            "GradientAccumulationScheduler",
        ),
    ],
)
def test_what_cannot_be_taken_is_one_line(thing: Any, words: str) -> None:
    with pytest.raises((ConfigError, ModelError)) as error:
        checked(thing)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("monitor", [None, "g_loss"])
def test_of_several_logged_numbers_that_of_training_or_the_one_named_is_judged(monitor: str | None) -> None:
    with bench_of(from_lightning(LogsTwo(), Data(), monitor=monitor)) as bench:
        population = bench.populate([0], [LR])
        judged = population.step(bench.batches.batch([0], 0), torch.tensor([LR])).loss_R[0]
        logged = bench.model.factory.step.__self__._logged  # type: ignore[union-attr]
        assert float(judged) == float(logged[monitor or "train_loss"])


def test_arguments_in_the_wrong_place_are_one_line() -> None:
    with pytest.raises(ConfigError, match="module is Data; give a LightningModule"):
        from_lightning(Data(), Plain())


def test_both_packages_of_lightning_are_known() -> None:
    unified = type("LightningModule", (), {"__module__": "lightning.pytorch.core.module"})
    assert library_of(unified(), "LightningModule") == "lightning.pytorch"
    assert library_of(Plain(), "LightningModule") == "pytorch_lightning"
    assert library_of(nn.Linear(1, 1), "LightningModule") is None
