"""The watch in a loop of torch: what it tells, stops, copies and writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from stresstest.diagnosis.diagnose import diagnose_file
from stresstest.errors import ConfigError
from stresstest.logs.files import LogFile
from stresstest.watch import TrainingBrokeError, Watch

BREAK = 80


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Loop:
    """A small regression; from step `breaks` on its learning rate is far too high."""

    def __init__(self, breaks: int | None = BREAK) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05, momentum=0.9)
        self.breaks = breaks
        self.taken = 0

    def step(self, step: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(32, 4, generator=generator)
        self.optimizer.param_groups[0]["lr"] = 0.05 if self.breaks is None or step < self.breaks else 50.0
        loss = (self.model(x) - x.sum(1, keepdim=True)).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.taken += 1
        return loss

    def train(self, watch: Watch, steps: int = 120, first: int = 0) -> None:
        for step in range(first, steps):
            watch.update(self.step(step), step)
            if watch.should_stop:
                break


def rows(path: str = "watch.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_a_broken_run_is_stopped_within_ten_steps_and_its_cause_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    loop = Loop()
    watch = Watch(loop.model, loop.optimizer, on_break="stop", checkpoint="kept", save_every=20)
    loop.train(watch)
    verdict = watch.close()
    assert loop.taken <= BREAK + 11
    assert verdict.broken
    assert verdict.first_bad_step == BREAK + 1
    assert verdict.moved[0].signal == "lr"
    assert verdict.moved[0].times == pytest.approx(1000.0)
    assert verdict.moved[0].steps_before == 1
    assert "lr 1,000 times its usual value, 1 step before the first bad loss" in capsys.readouterr().err


def test_a_sound_run_is_called_stable_and_leaves_no_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    loop = Loop(breaks=None)
    with Watch(loop.model, loop.optimizer, checkpoint="kept", save_every=20) as watch:
        loop.train(watch)
    assert watch.verdict.outcome == "stable"
    assert list(Path("kept").iterdir()) == []
    assert capsys.readouterr().err == "stresstest watch: stable at step 119\n"


def test_watching_changes_nothing_of_the_training() -> None:
    alone, watched = Loop(breaks=None), Loop(breaks=None)
    for step in range(60):
        alone.step(step)
    with Watch(watched.model, watched.optimizer, probes="full", checkpoint="kept", save_every=5) as watch:
        watched.train(watch, 60)
    for a, b in zip(alone.model.parameters(), watched.model.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("keep", ["memory", "disk"])
def test_the_checkpoint_is_the_state_after_its_step_from_before_the_break(keep: Any) -> None:
    loop = Loop()
    watch = Watch(loop.model, loop.optimizer, on_break="stop", checkpoint="kept", save_every=15, keep=keep)
    loop.train(watch)
    path = watch.close().checkpoint
    assert path is not None
    kept = torch.load(path, weights_only=True)
    assert kept["step"] < BREAK
    again = Loop()
    for step in range(kept["step"] + 1):
        again.step(step)
    for name, value in again.model.state_dict().items():
        assert torch.equal(kept["model"][name], value)
    momentum = again.optimizer.state_dict()["state"][0]["momentum_buffer"]
    assert torch.equal(kept["optimizer"]["state"][0]["momentum_buffer"], momentum)
    assert len(list(Path("kept").iterdir())) <= 2


def test_a_restored_run_goes_on_as_one_that_never_broke() -> None:
    loop, sound = Loop(), Loop(breaks=None)
    watch = Watch(loop.model, loop.optimizer, on_break="stop", checkpoint="kept", save_every=15)
    loop.train(watch)
    step = watch.restore()
    assert step is not None
    assert step < BREAK
    assert not watch.should_stop
    loop.breaks = None
    loop.train(watch, 200, step + 1)
    for n in range(200):
        sound.step(n)
    assert watch.close().outcome == "stable"
    for a, b in zip(loop.model.parameters(), sound.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_raise_raises_the_verdict() -> None:
    loop = Loop()
    watch = Watch(loop.model, loop.optimizer, on_break="raise")
    with pytest.raises(TrainingBrokeError, match=r"from step 81 on; moved first") as caught, watch:
        loop.train(watch)
    assert caught.value.verdict.first_bad_step == BREAK + 1


def test_the_parameter_that_is_not_finite_is_named() -> None:
    loop = Loop(breaks=None)
    watch = Watch(loop.model, loop.optimizer, on_break="stop")
    loop.train(watch, 30)
    with torch.no_grad():
        loop.model[2].weight[0, 3] = torch.nan
    watch.update(loop.step(30), 30)
    verdict = watch.close()
    assert verdict.outcome == "nonfinite"
    assert verdict.nonfinite == "gradient of 0.weight" or verdict.nonfinite == "0.weight"


def test_diagnose_reads_the_log_and_finds_the_same_break() -> None:
    loop = Loop(breaks=None)
    with Watch(loop.model, loop.optimizer) as watch:
        loop.train(watch, 60)
        watch.update(float("nan"), 60)
    (diagnosis,) = diagnose_file(LogFile(Path("watch.jsonl"), "watch.jsonl"))
    assert diagnosis.outcome == "nonfinite"
    assert diagnosis.loss_key == "loss"
    assert diagnosis.rows == 61


def test_each_row_has_the_loss_and_the_learning_rate_of_its_step() -> None:
    loop = Loop()
    losses = []
    with Watch(loop.model, loop.optimizer) as watch:
        for step in range(BREAK + 1):
            losses.append(float(loop.step(step).detach()))
            watch.update(losses[-1], step)
    found = [row for row in rows() if "step" in row]
    assert [row["loss"] for row in found] == losses
    assert [row["lr"] for row in found[-2:]] == [0.05, 50.0]


def test_gradient_norm_is_that_of_torch_and_the_one_given_goes_before() -> None:
    loop = Loop(breaks=None)
    watch = Watch(loop.model, loop.optimizer, probes="full")
    watch.update(loop.step(0), 0)
    norm = float(nn.utils.get_total_norm([p.grad for p in loop.model.parameters() if p.grad is not None]))
    assert watch.scalars()["watch/grad_norm"] == pytest.approx(norm)
    watch.update(loop.step(1), 1, grad_norm=7.0)
    assert watch.scalars()["watch/grad_norm"] == 7.0
    watch.close()


def test_gradients_are_read_before_clipping_where_asked() -> None:
    loop = Loop(breaks=None)
    with Watch(loop.model, loop.optimizer, probes="full") as watch:
        loss = loop.model(torch.ones(2, 4)).square().mean()
        loss.backward()
        watch.gradients()
        norm = float(nn.utils.clip_grad_norm_(loop.model.parameters(), 1e-3))
        loop.optimizer.step()
        watch.update(loss, 0)
        assert watch.scalars()["watch/grad_norm"] == pytest.approx(norm)


def test_a_resumed_run_is_appended_and_the_seam_is_seen() -> None:
    loop = Loop(breaks=None)
    with Watch(loop.model, loop.optimizer) as watch:
        loop.train(watch, 50)
        kept = watch.state_dict()
    with Path("watch.jsonl").open("a") as stream:
        stream.write('{"step": 50, "los')  # killed while it wrote
    with Watch(loop.model, loop.optimizer) as watch:
        watch.load_state_dict(kept)
        assert watch.state == "calm"
        loop.train(watch, 80, 50)
    lines = Path("watch.jsonl").read_text().splitlines()
    whole = [json.loads(line) for line in lines if line.endswith("}")]
    assert [row["step"] for row in whole if "step" in row] == [*range(80)]
    assert [row["event"] for row in whole if "event" in row] == ["started", "closed", "started", "resumed", "closed"]


def test_hooks_are_gone_after_close() -> None:
    loop = Loop(breaks=None)
    with Watch(loop.model, loop.optimizer, probes="full") as watch:
        loop.train(watch, 5)
    assert not loop.optimizer._optimizer_step_pre_hooks
    assert not any(module._forward_hooks for module in loop.model.modules())


def test_a_flat_run_is_called_so_at_its_end_alone(capsys: pytest.CaptureFixture[str]) -> None:
    watch = Watch(log=None)
    for step in range(300):
        watch.update(2.3 + 0.001 * (step * 7919 % 13), step)
    assert capsys.readouterr().err == ""
    assert watch.close().outcome == "failed-to-train"
    assert "never fell by more than its noise" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"on_break": "explode"}, "on_break must be one of warn, stop, raise, not 'explode'"),
        ({"probes": "all"}, "probes must be one of off, economy, full"),
        ({"save_every": 0}, "save_every must be a whole number of steps, at least 1, not 0"),
        ({"model": nn.ReLU()}, "the model has no parameters"),
        ({"model": "gpt2"}, "model must be a torch.nn.Module, not str"),
        ({"optimizer": 0.1}, "optimizer must be a torch optimizer, not float"),
        ({"checkpoint": "kept"}, "checkpoint needs model="),
        ({"log": "/proc/none/watch.jsonl"}, "cannot write /proc/none/watch.jsonl"),
        ({"model": nn.Linear(1, 1), "checkpoint": "/proc/none"}, "cannot write to /proc/none"),
        (
            {"model": nn.Linear(1, 1), "checkpoint": "c", "also": {"model": nn.ReLU()}},
            "the name 'model', which is taken",
        ),
    ],
)
def test_a_wrong_setting_is_one_clear_line(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Watch(**given)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("loss", "step", "words"),
    [
        (torch.ones(3), 1, "the loss must be one number, not a tensor of shape [3]: take its mean"),
        ("1.0", 1, "the loss must be a number or a tensor of one, not str"),
        (1.0, 0, "step 0 after step 0: count every step once"),
        (1.0, 0.5, "step must be a whole number, not 0.5"),
    ],
)
def test_a_wrong_update_is_one_clear_line(loss: Any, step: Any, words: str) -> None:
    watch = Watch(log=None)
    watch.update(2.0, 0)
    with pytest.raises(ConfigError) as caught:
        watch.update(loss, step)
    assert words in str(caught.value)


def test_an_update_after_close_is_refused() -> None:
    watch = Watch(log=None)
    watch.close()
    with pytest.raises(ConfigError, match="update after close"):
        watch.update(1.0, 0)


def test_restoring_without_a_copy_is_refused() -> None:
    with pytest.raises(ConfigError, match="no copy to restore"):
        Watch(log=None).restore()


def test_a_full_disk_ends_the_log_and_not_the_training(capsys: pytest.CaptureFixture[str]) -> None:
    loop = Loop(breaks=None)
    Path("full.jsonl").symlink_to("/dev/full")
    with Watch(loop.model, loop.optimizer, log="full.jsonl") as watch:
        loop.train(watch, 30)
    assert watch.verdict.last_step == 29
    assert capsys.readouterr().err.count("no more is written to full.jsonl: No space left on device") == 1
