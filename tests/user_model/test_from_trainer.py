"""What a transformers Trainer trains, beside `trainer.train()` with the same seed."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, Trainer, TrainerCallback

from stresstest import from_trainer
from stresstest.cli.main import run
from stresstest.errors import ConfigError
from stresstest.tasks.task import VALIDATION
from stresstest.user_code import UserCodeError
from stresstest.user_model.brought import Brought
from stresstest.user_model.factory import register_callable, seeded
from stresstest.user_model.trainer.from_trainer import TrainerRun
from tests.user_model.trainers import (
    LR,
    Stream,
    Text,
    arguments,
    assert_equal,
    bench_of,
    gpt2,
    here,
    make_trainer,
    natively,
    trainable,
)


class OwnLoss(Trainer):
    """A mean of its own: Trainer divides it by the number of accumulated batches."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        plain = F.cross_entropy(outputs.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        loss = plain / self.accelerator.num_processes + 1e-3 * outputs.logits.square().mean()
        return (loss, outputs) if return_outputs else loss


class OwnStep(Trainer):
    """Adds to the loss on its way to the backward pass."""

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        model.train()
        inputs = self._prepare_inputs(inputs)
        loss: Tensor = self.compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)
        loss = loss + 1e-2 * self.model.transformer.wte.weight.square().sum()
        self.accelerator.backward(loss)
        return loss.detach()


def seconds_loss(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
    loss = F.cross_entropy(outputs.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")
    return loss / num_items_in_batch


EVERYTHING = {
    "gradient_accumulation_steps": 3,  # of 10 batches an epoch
    "label_smoothing_factor": 0.1,
    "max_grad_norm": 0.5,
    "weight_decay": 0.1,
}
THREE = {"gradient_accumulation_steps": 3}
CASES: dict[str, dict[str, Any]] = {
    "as it comes, with dropout": {},
    "accumulation, smoothing, clipping, decay": EVERYTHING,
    "two workers": {"dataloader_num_workers": 2},
    "two workers and accumulation": {"dataloader_num_workers": 2, "gradient_accumulation_steps": 2},
    "batches of like length": {"train_sampling_strategy": "group_by_length", "data": Text(80)},  # an epoch of 20
    "an order that data_seed fixes": {"data_seed": 11},
    "no length, an epoch that ends within a step": {"data": Stream(), "max_steps": 1, "drop": 0.0, **THREE},
    "bfloat16": {"bf16": True},
    "bfloat16 with smoothing": {"bf16": True, "label_smoothing_factor": 0.1},
    "compute_loss of its own": {"kind": OwnLoss, "gradient_accumulation_steps": 2},
    "a compute_loss_func": {"compute_loss_func": seconds_loss, "gradient_accumulation_steps": 2},
    "training_step of its own": {"kind": OwnStep},
    "NEFTune": {"neftune_noise_alpha": 5.0},
    "activation checkpointing": {"activation_checkpointing": True},
    "adafactor": {"optim": "adafactor"},
    "an optimizer's class": {"optimizer_cls_and_kwargs": (torch.optim.NAdam, {"lr": LR, "betas": (0.8, 0.99)})},
}


@pytest.mark.parametrize("given", CASES.values(), ids=CASES.keys())
def test_batches_and_weights_are_those_of_train_to_the_bit(given: dict[str, Any]) -> None:
    make = partial(make_trainer, **given)
    assert_equal(here(make()), natively(make))


def test_a_model_that_is_given_starts_every_seed_and_stays_as_it_is() -> None:
    def make(**given: Any) -> Trainer:
        torch.manual_seed(7)
        return make_trainer(model=gpt2(), **given)

    trainer = make()
    before = trainable(trainer.model)
    assert_equal(here(trainer, seed=0), natively(make, seed=0))
    assert torch.equal(trainable(trainer.model), before)


def test_an_optimizer_that_is_given_is_built_again_for_each_replica_with_its_groups() -> None:
    def make(**given: Any) -> Trainer:
        torch.manual_seed(7)
        model = gpt2()
        matrices = [p for p in model.parameters() if p.ndim > 1]
        vectors = [p for p in model.parameters() if p.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "momentum": 0.5}]
        return make_trainer(model=model, optimizers=(torch.optim.SGD(groups, lr=LR, momentum=0.9), None), **given)

    assert_equal(here(make()), natively(make))


def test_an_optimizer_that_cannot_be_built_again_is_refused_in_a_line() -> None:
    class Secret(torch.optim.SGD):
        def __init__(self, parameters: Any, key: str) -> None:
            super().__init__(parameters, lr=LR)

    model = gpt2()
    brought = from_trainer(make_trainer(model=model, optimizers=(Secret(model.parameters(), "a"), None)))
    assert brought.optimizer is not None
    with pytest.raises(
        UserCodeError, match=r"is a Secret, which cannot be built again .*give a function that makes it"
    ):
        brought.optimizer(gpt2())


def test_a_trainer_in_bfloat16_computes_in_it_though_another_was_made_since() -> None:
    first = from_trainer(make_trainer(bf16=True))
    make_trainer()  # accelerate's state is global: this turned the first one's mixed precision off
    arguments().device  # noqa: B018  # resets it

    def dtypes(brought: Brought) -> set[torch.dtype]:
        assert brought.build is not None
        assert brought.backward is not None
        assert brought.stream is not None
        with seeded(0):
            model = brought.build()
        seen: set[torch.dtype] = set()
        model.transformer.h[0].mlp.c_fc.register_forward_hook(lambda part, given, output: seen.add(output.dtype))
        brought.backward(model, brought.stream.draw(0, 0, 0), 1.0)
        return seen

    assert dtypes(first) == {torch.bfloat16}
    assert dtypes(from_trainer(make_trainer())) == {torch.float32}
    assert dtypes(first) == {torch.bfloat16}


def test_a_patched_forward_computes_with_the_copy() -> None:
    def make(**given: Any) -> Trainer:
        torch.manual_seed(7)
        model = gpt2()
        inner = model.forward
        model.forward = lambda *args, **kwargs: inner(*args, **kwargs)  # as trl patches it
        return make_trainer(model=model, **{"remove_unused_columns": False, **given})

    assert_equal(here(make(), num_steps=4), natively(make, num_steps=4))


def test_the_loss_between_steps_is_that_of_the_step() -> None:
    brought = from_trainer(make_trainer(**EVERYTHING))
    assert brought.build is not None
    assert brought.loss_fn is not None
    assert brought.backward is not None
    assert brought.stream is not None
    with seeded(0):
        model = brought.build()
    data = brought.stream.draw(0, 3, 0)  # the last of an epoch, which has one batch
    assert len(data) == 1
    with seeded(5):
        loss = brought.loss_fn(model, data)
    with seeded(5):
        assert float(brought.backward(model, data, 1.0)) == pytest.approx(float(loss.detach()), abs=1e-6)


def test_a_gradient_can_be_scaled() -> None:
    brought = from_trainer(make_trainer(gradient_accumulation_steps=2))
    assert brought.build is not None
    assert brought.backward is not None
    assert brought.stream is not None
    gradients = []
    for scale in (1.0, 1024.0):
        with seeded(0):
            model = brought.build()
        with seeded(5):
            loss = brought.backward(model, brought.stream.draw(0, 0, 0), scale)
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]) / scale)
    assert torch.equal(*gradients)
    assert 1.0 < float(loss) < 10.0


def test_settings_of_the_trainer_stand_and_clipping_may_be_changed() -> None:
    with register_callable(make_trainer(gradient_accumulation_steps=2, max_grad_norm=0.5), {}) as name:
        assert bench_of(name).training.clip_norm == 0.5
        assert bench_of(name, clip_norm=2.0).training.clip_norm == 2.0
        with pytest.raises(ConfigError, match=r"batch_size 16: .*brings has 8; change it there"):
            bench_of(name, batch_size=16)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_best_constant_predictor_is_found(accumulation: int) -> None:
    with register_callable(make_trainer(gradient_accumulation_steps=accumulation), {}) as name:
        constant = bench_of(name).constant
    assert "the shares of the classes, with the loss's own divisor" in constant.text
    assert 2.5 < constant.baseline_loss < 4.0


def test_held_out_batches_come_from_the_evaluation_set_in_its_order() -> None:
    brought = from_trainer(make_trainer(eval_dataset=Text(16, seed=5), per_device_eval_batch_size=8))
    assert brought.stream is not None
    assert brought.stream.held_out
    for step in range(3):
        drawn = brought.stream.draw(1, step, VALIDATION)
        expected = Text(16, seed=5).words[8 * (step % 2) :][:8]
        assert torch.equal(drawn["input_ids"], expected)


def test_batches_can_be_drawn_again_and_in_any_order() -> None:
    brought = from_trainer(make_trainer(gradient_accumulation_steps=3))
    assert brought.stream is not None
    first = [brought.stream.draw(1, step, 0) for step in range(12)]
    brought.stream.draw(2, 5, 0)
    anew = from_trainer(make_trainer(gradient_accumulation_steps=3)).stream
    assert anew is not None
    for step in (11, 4, 7):
        again = [brought.stream.draw(1, step, 0), anew.draw(1, step, 0)]
        for other in again:
            assert all(torch.equal(a["labels"], b["labels"]) for a, b in zip(first[step], other, strict=True))


def test_accelerate_looks_for_wrappers_once_and_finds_them_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(label_smoothing_factor=0.1)
    asked: list[nn.Module] = []
    kind = type(trainer.accelerator)
    unwrap = kind.unwrap_model

    def counted(accelerator: Any, model: nn.Module, *args: Any, **kwargs: Any) -> Any:
        asked.append(model)
        return unwrap(accelerator, model, *args, **kwargs)

    monkeypatch.setattr(kind, "unwrap_model", counted)
    run = TrainerRun(trainer)
    model = run.build()
    data = next(iter(run.training()))
    asked.clear()
    for _ in range(3):
        run.loss(model, dict(data))
    assert asked == [model]
    wrapped = nn.parallel.DataParallel(model)
    with run._as(model):
        assert [trainer.accelerator.unwrap_model(wrapped) for _ in range(2)] == [model, model]


def test_what_does_not_run_here_is_named() -> None:
    class Early(TrainerCallback):
        """Would stop training."""

    notes = " ".join(from_trainer(make_trainer(callbacks=[Early()], model=gpt2(), data_seed=3, bf16=True)).notes)
    assert "callbacks do not run here: Early" in notes
    assert "every seed starts from the weights" in notes
    assert "data_seed=3" in notes
    assert "bfloat16" in notes
    assert "callbacks" not in " ".join(from_trainer(make_trainer()).notes)


def test_what_would_train_in_another_way_is_refused_in_a_line() -> None:
    class OwnLoop(Trainer):
        def _inner_training_loop(self, *args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError

    with pytest.raises(ConfigError, match="OwnLoop overrides _inner_training_loop, so it does not train by"):
        from_trainer(make_trainer(kind=OwnLoop))
    with pytest.raises(ConfigError, match="Trainer has no train_dataset"):
        from_trainer(Trainer(model=gpt2(), args=arguments()))
    with pytest.raises(ConfigError, match=r"from_trainer takes a transformers.Trainer, not Linear"):
        from_trainer(nn.Linear(1, 1))


def test_nothing_is_written_and_no_callback_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Loud(TrainerCallback):
        def __getattribute__(self, name: str) -> Any:
            if name in ("on_train_begin", "on_step_end", "on_save", "on_log", "on_evaluate"):
                raise AssertionError(name)
            return super().__getattribute__(name)

    monkeypatch.chdir(tmp_path)
    often = {"save_strategy": "steps", "save_steps": 1, "logging_strategy": "steps", "logging_steps": 1}
    here(make_trainer(callbacks=[Loud()], output_dir=str(tmp_path / "out"), **often), num_steps=3)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_seq2seq_trainer_trains_a_bart() -> None:
    from transformers import BartConfig, BartForConditionalGeneration

    sizes = dict.fromkeys(("encoder_layers", "decoder_layers"), 1) | {"d_model": 16, "vocab_size": 50}
    heads = dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2)
    widths = dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 16)

    def make(**given: Any) -> Trainer:
        args = Seq2SeqTrainingArguments(**{**arguments(**given).to_dict(), "predict_with_generate": True})
        config = BartConfig(**sizes, **heads, **widths, max_position_embeddings=32)
        return Seq2SeqTrainer(
            args=args,
            model_init=lambda: BartForConditionalGeneration(config),
            train_dataset=Text(),
            callbacks=given.get("callbacks"),
        )

    def with_callbacks(callbacks: Any = None, **given: Any) -> Trainer:
        trainer = make(**given)
        for callback in callbacks or ():
            trainer.add_callback(callback)
        return trainer

    assert_equal(here(with_callbacks(), num_steps=6), natively(with_callbacks, num_steps=6))


def test_a_function_of_a_file_is_swept_and_rebuilt_by_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "train_it.py"
    file.write_text(
        "from tests.user_model.trainers import make_trainer as make\n\n\n"
        "def make_trainer(depth=1, width=16):\n    return make(depth=depth, width=width)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    sizes = ["--depths", "1,2", "--width", "8", "--seeds", "1", "--measure", "outcome", "--train-steps", "20"]
    code = run(["depth-sweep", "--model", "train_it.py:make_trainer", *sizes, "-j", "2"])
    said = capsys.readouterr().err
    assert code == 0, said[-2000:]
    assert "factory arguments: depth, width" in said
    assert "depth 2 seed 0" in said
