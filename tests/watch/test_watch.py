"""The watch in a loop of torch: what it tells, stops, copies and writes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from stresstest.diagnosis.diagnose import diagnose_file
from stresstest.errors import ConfigError
from stresstest.logs.files import LogFile
from stresstest.watch import TrainingBrokeError, Watch
from stresstest.watch.signals import Signals

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
        ({"model": nn.LazyLinear(1)}, "the model has lazy layers"),
        ({"scaler": 3}, "scaler must be a GradScaler, not int"),
        ({"optimizer": torch.optim.SGD}, "optimizer must be a torch optimizer, not SGD"),
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
        (torch.tensor(1j), 1, "the loss must be a dense real tensor with data, not complex64 strided on cpu"),
        ({"loss": 1.0}, 1, "the loss must be a number or a tensor of one, not dict"),
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


@pytest.mark.parametrize("state", [{}, {"step": 1}, {"step": 1, "alarm": {}}, None])
def test_a_state_of_something_else_is_one_clear_line(state: Any) -> None:
    with pytest.raises(ConfigError, match=r"takes what watch\.state_dict\(\) gave"):
        Watch(log=None).load_state_dict(state)


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


def test_a_refused_loss_may_be_handed_over_again_for_the_same_step() -> None:
    watch = Watch(log=None)
    with pytest.raises(ConfigError):
        watch.update(torch.ones(2), 0)
    watch.update(torch.ones(2).mean(), 0)
    assert watch.scalars()["watch/loss"] == 1.0


def test_a_folder_that_fails_ends_no_training_and_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    loop = Loop(breaks=None)
    with Watch(loop.model, loop.optimizer, checkpoint="kept", save_every=10, keep="disk") as watch:
        loop.train(watch, 15)
        shutil.rmtree("kept")
        Path("kept").write_text("a file")
        loop.train(watch, 80, 15)
    assert watch.verdict.outcome == "stable"
    assert capsys.readouterr().err.count("no copy at step") == 1


def test_two_watches_do_not_write_one_log() -> None:
    first = Watch()
    with pytest.raises(ConfigError, match=r"another watch writes watch\.jsonl"):
        Watch()
    first.close()
    Watch().close()


def test_a_forked_process_writes_no_line_twice() -> None:
    code = "\n".join(
        (
            "import os, sys",
            "from stresstest.watch import Watch",
            "watch = Watch()",
            "watch.update(1.0, 0)",
            "child = os.fork()",
            "watch.update(2.0, 1)",
            "sys.exit() if child == 0 else os.waitpid(child, 0)",
            "watch.close()",
        )
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert [row["step"] for row in rows() if "step" in row] == [0, 1]


@pytest.mark.parametrize("log_every", [1, 10])
def test_a_thinned_log_still_holds_the_break(log_every: int) -> None:
    loop = Loop()
    watch = Watch(loop.model, loop.optimizer, on_break="stop", log_every=log_every)
    loop.train(watch)
    verdict = watch.close()
    (diagnosis,) = diagnose_file(LogFile(Path("watch.jsonl"), "watch.jsonl"))
    assert diagnosis.outcome == verdict.outcome
    steps = [row["step"] for row in rows() if "step" in row]
    assert len(steps) == len(set(steps)) <= 8 + BREAK / log_every + 10


def test_a_step_that_the_scaler_skips_is_no_break_in_the_log_either() -> None:
    loop, scaler = Loop(breaks=None), torch.amp.GradScaler("cpu")
    with Watch(loop.model, loop.optimizer, scaler=scaler) as watch:
        for step in range(60):
            loss = loop.step(step)
            watch.update(loss * torch.inf if step in (30, 40) else loss, step)
    (diagnosis,) = diagnose_file(LogFile(Path("watch.jsonl"), "watch.jsonl"))
    assert watch.verdict.outcome == diagnosis.outcome == "stable"
    assert [row["step"] for row in rows() if row.get("skipped")] == [30, 40]


def test_a_run_that_goes_on_is_never_said_not_to_have_learned() -> None:
    watch = Watch(log=None)
    for step in range(500, 800):
        watch.update(2.3 + 0.001 * (step * 7919 % 13), step)
    assert watch.close().outcome == "stable"


def test_the_norm_of_a_sparse_gradient_counts() -> None:
    model = nn.Sequential(nn.Embedding(10, 3, sparse=True), nn.Linear(3, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Watch(model, optimizer, log=None, probes="full") as watch:
        loss = model(torch.tensor([1, 1, 4])).square().sum()
        loss.backward()
        dense = torch.cat([p.grad.to_dense().flatten() for p in model.parameters() if p.grad is not None])
        optimizer.step()
        watch.update(loss, 0)
        assert watch.scalars()["watch/grad_norm"] == pytest.approx(float(dense.norm()))


def test_a_gradient_in_float16_has_a_norm_beyond_its_range() -> None:
    model = nn.Linear(4, 1).half()
    model.weight.grad = torch.full((1, 4), 60000.0, dtype=torch.float16)
    with Watch(model, log=None, probes="full") as watch:
        watch.update(1.0, 0)
        assert watch.scalars()["watch/grad_norm"] == pytest.approx(120000.0, rel=1e-3)


def test_after_going_back_the_signals_of_the_broken_steps_are_forgotten() -> None:
    loop = Loop()
    watch = Watch(loop.model, loop.optimizer, on_break="stop", checkpoint="kept", save_every=20)
    loop.train(watch)
    step = watch.restore()
    assert step is not None
    loop.breaks = 100
    loop.train(watch, 140, step + 1)
    moved = watch.close().moved
    assert moved[0].signal == "lr"
    assert moved[0].step == 100
    assert moved[0].times == pytest.approx(1000.0)


def test_a_learning_rate_that_decays_is_no_move() -> None:
    signals = Signals()
    for step in range(60):
        signals.add(step, {"lr": 1.0 - step / 60, "lr_1": 1.0 - step / 60})
    assert signals.moved(58) == ()


def test_groups_of_one_schedule_are_named_once() -> None:
    signals = Signals()
    for step in range(60):
        signals.add(step, {"lr": 1.0 if step < 50 else 10.0, "lr_1": 0.1 if step < 50 else 1.0})
    assert [one.signal for one in signals.moved(51)] == ["lr"]
