"""The callbacks in real fits of Trainer, Lightning and Keras."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from stresstest.errors import ConfigError

BREAK = 60


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(name: str = "watch.jsonl") -> list[dict[str, Any]]:
    return [row for line in Path(name).read_text().splitlines() if "step" in (row := json.loads(line))]


def test_none_of_the_libraries_is_imported_before_its_module_is() -> None:
    libraries = {"transformers", "pytorch_lightning", "lightning", "keras"}
    code = f"import sys, stresstest.watch; print(sorted({libraries} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


class Pairs(Dataset[dict[str, torch.Tensor]]):
    """Inputs of four numbers and their sum."""

    def __len__(self) -> int:
        return 640

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        x = torch.randn(4, generator=torch.Generator().manual_seed(index))
        return {"x": x, "labels": x.sum()}


class Net(nn.Module):
    """As Trainer wants it: a dict with the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))
        self.calls: list[float] = []

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        loss = (self.layers(x).squeeze(1) - labels).square().mean()
        self.calls.append(float(loss.detach()))
        return {"loss": loss}


def trainer_of(model: nn.Module, **given: Any) -> Any:
    from transformers import Trainer, TrainingArguments

    settings: dict[str, Any] = {"max_steps": 100, "learning_rate": 1e-2, "logging_steps": 10} | given
    args = TrainingArguments(
        output_dir="out",
        per_device_train_batch_size=8,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        **settings,
    )
    return Trainer(model, args, train_dataset=Pairs())


@pytest.mark.parametrize("accumulated", [1, 3])
def test_trainer_gives_the_loss_of_each_step_over_all_its_batches(accumulated: int) -> None:
    from stresstest.watch.transformers import WatchCallback

    model = Net()
    trainer = trainer_of(model, max_steps=12, gradient_accumulation_steps=accumulated, lr_scheduler_type="constant")
    WatchCallback().attach(trainer)
    trainer.train()
    losses = torch.tensor(model.calls).view(12, accumulated).mean(1).tolist()
    assert [row["loss"] for row in rows()] == pytest.approx(losses)
    assert [row["step"] for row in rows()] == [*range(1, 13)]
    assert {row["lr"] for row in rows()} == {1e-2}


def test_trainer_is_stopped_at_the_step_whose_nan_its_own_log_hides() -> None:
    from stresstest.watch.transformers import WatchCallback

    class Faulty(Net):
        def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            loss = super().forward(x, labels)["loss"]
            return {"loss": loss * torch.nan if len(self.calls) == 35 else loss}

    trainer = trainer_of(Faulty())
    callback = WatchCallback(on_break="stop", checkpoint="kept", save_every=10).attach(trainer)
    trainer.train()
    assert trainer.state.global_step == 35
    assert callback.verdict.outcome == "nonfinite"
    assert callback.verdict.first_bad_step == 35
    assert callback.verdict.checkpoint is not None
    kept = torch.load(callback.verdict.checkpoint, weights_only=True)
    assert kept["step"] < 35
    assert all(bool(torch.isfinite(value).all()) for value in kept["model"].values())
    assert not any(math.isnan(row.get("loss", 0.0)) for row in trainer.state.log_history)


def test_trainer_hands_the_scalars_to_its_loggers() -> None:
    from transformers import TrainerCallback

    from stresstest.watch.transformers import WatchCallback

    class Logger(TrainerCallback):
        def __init__(self) -> None:
            self.seen: list[dict[str, float]] = []

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            self.seen.append(dict(logs))

    trainer, logger = trainer_of(Net(), max_steps=20), Logger()
    trainer.add_callback(logger)
    WatchCallback(log=None).attach(trainer)
    trainer.train()
    assert logger.seen[0]["watch/alarm"] == 0.0
    assert logger.seen[0]["watch/lr"] > 0.0


def test_a_trainer_that_is_started_again_after_an_error_is_watched_on() -> None:
    from stresstest.watch.transformers import WatchCallback

    class Faulty(Net):
        def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            if len(self.calls) == 8:
                self.calls.append(math.nan)
                raise ValueError("a bad batch")
            return super().forward(x, labels)

    trainer = trainer_of(Faulty(), max_steps=12)
    callback = WatchCallback().attach(trainer)
    with pytest.raises(ValueError, match="a bad batch"):
        trainer.train()
    trainer.train()
    assert [row["step"] for row in rows()] == [*range(1, 9), *range(1, 13)]
    assert callback.watch is not None
    assert callback.watch.goes_on


def test_a_trainer_that_was_not_attached_is_refused() -> None:
    from stresstest.watch.transformers import WatchCallback

    trainer = trainer_of(Net())
    trainer.add_callback(WatchCallback())
    with pytest.raises(ConfigError, match=r"callback\.attach\(trainer\)"):
        trainer.train()


def fit_lightning(
    *callbacks: Any, accumulate: int = 1, breaks: int = BREAK, skips: frozenset[int] = frozenset(), **given: Any
) -> Any:
    import pytorch_lightning as pl

    class Regression(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))
            self.calls: list[float] = []

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor | None:
            if self.trainer.global_step in skips and batch_idx == self.trainer.global_step:
                return None
            x, y = batch
            loss = (self.network(x) - y).square().mean()
            self.calls.append(float(loss.detach()))
            self.log("plain", loss)
            self.log("doubled", 2 * loss)
            return loss

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)
            jump = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 if step < breaks else 1000.0)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": jump, "interval": "step"}}

    torch.manual_seed(0)
    x = torch.randn(1920, 4)
    loader = DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=32)
    trainer = pl.Trainer(
        callbacks=list(callbacks),
        accumulate_grad_batches=accumulate,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        **({"max_steps": 100, "logger": False, "enable_checkpointing": False} | given),
    )
    module = Regression()
    trainer.fit(module, loader)
    return trainer, module


quiet = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


@quiet
def test_lightning_is_stopped_at_a_bad_learning_rate_and_the_cause_is_named() -> None:
    from stresstest.watch.lightning import WatchCallback

    callback = WatchCallback(on_break="stop", checkpoint="kept", save_every=20)
    trainer, _ = fit_lightning(callback)
    verdict = callback.verdict
    assert trainer.global_step <= BREAK + 12
    assert verdict.broken
    assert verdict.first_bad_step == BREAK + 1
    assert verdict.moved[0].signal == "lr"
    assert verdict.moved[0].times == pytest.approx(1000.0)
    assert verdict.checkpoint is not None
    assert torch.load(verdict.checkpoint, weights_only=True)["step"] < BREAK


@quiet
def test_lightning_gives_the_mean_loss_of_the_batches_that_a_step_accumulates() -> None:
    from stresstest.watch.lightning import WatchCallback

    _, module = fit_lightning(WatchCallback(), accumulate=4, max_steps=12)
    losses = torch.tensor(module.calls[:48]).view(12, 4).mean(1).tolist()
    assert [row["loss"] for row in rows()] == pytest.approx(losses)
    assert [row["step"] for row in rows()] == [*range(12)]


@quiet
def test_lightning_reads_the_gradient_before_clipping() -> None:
    from stresstest.watch.lightning import WatchCallback

    fit_lightning(WatchCallback(probes="full"), max_steps=3, gradient_clip_val=1e-4)
    assert min(row["grad_norm"] for row in rows()) > 1e-2


@quiet
def test_a_lightning_step_without_a_loss_is_refused() -> None:
    from stresstest.watch.lightning import WatchCallback

    with pytest.raises(ConfigError, match="training_step logs no 'gan_loss'"):
        fit_lightning(WatchCallback(metric="gan_loss"))


@quiet
def test_a_batch_that_lightning_skips_is_left_out() -> None:
    from stresstest.watch.lightning import WatchCallback

    _, module = fit_lightning(WatchCallback(), skips=frozenset({3}), max_steps=8)
    assert len(rows()) == len(module.calls)
    assert [row["loss"] for row in rows()] == pytest.approx(module.calls)


@quiet
def test_two_callbacks_of_a_lightning_fit_keep_their_own_metric_and_state() -> None:
    from stresstest.watch.lightning import WatchCallback

    one, other = WatchCallback(metric="plain", log="one.jsonl"), WatchCallback(metric="doubled", log="other.jsonl")
    trainer, _ = fit_lightning(one, other, max_steps=8)
    trainer.save_checkpoint("kept.ckpt")
    kept = torch.load("kept.ckpt", weights_only=True)["callbacks"]
    assert {one.state_key, other.state_key} <= set(kept)
    losses = [
        [json.loads(line).get("loss") for line in Path(name).read_text().splitlines()]
        for name in ("one.jsonl", "other.jsonl")
    ]
    plain, doubled = ([loss for loss in each if loss is not None] for each in losses)
    assert len(plain) == 8
    assert doubled == pytest.approx([2 * loss for loss in plain])


KERAS = """
import os, sys, json
os.environ["KERAS_BACKEND"] = "torch"
import keras, numpy as np, torch
from stresstest.watch.keras import WatchCallback
keras.utils.set_random_seed(0)
x = np.random.default_rng(0).normal(size=(640, 4)).astype("float32")
y = x.sum(axis=1, keepdims=True)
model = keras.Sequential([keras.layers.Dense(16, activation="tanh"), keras.layers.Dense(1)])
jump = keras.optimizers.schedules.PiecewiseConstantDecay([BREAK - 1], [0.05, 50.0])
model.compile(optimizer=keras.optimizers.SGD(jump, momentum=0.9), loss="mse")
alone = []
class Alone(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        rows = slice(32 * batch, 32 * batch + 32)
        alone.append(float(np.mean((model(x[rows]).detach().numpy() - y[rows]) ** 2)))
callback = WatchCallback(on_break="stop", checkpoint="kept", save_every=20)
model.fit(x, y, batch_size=32, epochs=10, shuffle=False, verbose=0, callbacks=[Alone(), callback])
verdict = callback.verdict
class Fails(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        raise ValueError("a bad batch")
try:
    model.fit(x, y, verbose=0, callbacks=[callback, Fails()])
except ValueError:
    model.fit(x, y, batch_size=32, epochs=1, verbose=0, callbacks=[callback])
again = callback.watch.goes_on
kept = torch.load(verdict.checkpoint, weights_only=True)
print(json.dumps({"outcome": verdict.outcome, "first": verdict.first_bad_step, "steps": len(alone), "alone": alone,
                  "signal": verdict.moved[0].signal, "times": verdict.moved[0].times, "kept": kept["step"],
                  "again": again}))
"""


def test_keras_is_stopped_at_a_bad_learning_rate_and_its_means_are_undone() -> None:
    script = KERAS.replace("BREAK", str(BREAK))
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, env=os.environ)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["outcome"] == "exploded"
    assert found["first"] == BREAK + 1
    assert found["steps"] <= BREAK + 12
    assert (found["signal"], found["times"]) == ("lr", pytest.approx(1000.0))
    assert found["kept"] < BREAK
    assert found["again"]
    assert [row["loss"] for row in rows()][:BREAK] == pytest.approx(found["alone"][:BREAK], rel=1e-3, abs=1e-5)
