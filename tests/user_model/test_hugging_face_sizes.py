"""Batches of Hugging Face's families: the size that is asked for, in a sweep and in micro-batches; their data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from stresstest.cli.main import run
from stresstest.experiments.batch_sweep import measure
from stresstest.experiments.batch_sweep.spec import BatchSweepSpec
from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.specs.profiles import make_spec
from stresstest.user_model.bench import UserBench, user_bench

SMALL = {"model": "hf:bert", "depth": 1, "width": 16, "seq_len": 16, "optimizer": "adam", "device": "cpu"}


def bench_of(kind: type[Any], **settings: Any) -> tuple[UserBench, Any]:
    spec = make_spec(kind, "quick", {**SMALL, **settings})
    return user_bench(spec, "as-built", 1, "adam", "cpu"), spec


def rows(bench: UserBench) -> int:
    return len(bench.batches.batch([0], 0)[0].data["input_ids"])


@pytest.mark.parametrize("model", ["hf:bert", "hf:gpt2"])  # of the family's batches, and the built-in bytes
def test_a_batch_sweep_trains_on_batches_of_each_size(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bench, spec = bench_of(BatchSweepSpec, model=model, batch_sizes="4,8", tokens=2560, num_lrs=2, seeds="1")
    seen: dict[int, int] = {}
    recipe = measure.recipe

    def watched(sized: Any, runs: Any) -> Any:
        seen[sized.batches.batch_size] = rows(sized)
        return recipe(sized, [(seed, lrs[:20]) for seed, lrs in runs])

    monkeypatch.setattr(measure, "recipe", watched)
    measure.measure_batches(bench, spec, measure.plan(spec.model_copy(update={"variant": ("as-built",)})).cells)
    assert seen == {4: 4, 8: 8}


def test_accumulate_splits_a_batch_of_the_size_that_is_asked_for() -> None:
    no_dropout = "hidden_dropout_prob=0,attention_probs_dropout_prob=0"
    whole, _ = bench_of(LrRangeSpec, batch_size=8, set=no_dropout)
    split, _ = bench_of(LrRangeSpec, batch_size=8, set=no_dropout, accumulate=4)
    [one] = split.batches.batch([0], 0)
    assert rows(whole) == 8
    assert [len(part["input_ids"]) for part, _ in one.parts] == [2, 2, 2, 2]
    losses = [
        bench.populate([0], [1e-3]).step(bench.batches.batch([0], 0), torch.tensor([1e-3])).loss_R
        for bench in (whole, split)
    ]
    assert torch.allclose(*losses, atol=1e-6)


@pytest.mark.parametrize("command", ["lr-range", "batch-sweep --batch-sizes 4,8 --tokens 2560 --num-lrs 2"])
def test_sentences_of_ones_own_are_translated(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("de.txt").write_text("".join(f"das ist ein satz {i}\n" for i in range(80)))
    Path("en.txt").write_text("".join(f"this is sentence {i}\n" for i in range(80)))
    words = f"{command} --model hf:t5 --depth 1 --width 16 --seq-len 16 --data pairs:de.txt,en.txt --seeds 1 -j 1"
    short = "--num-steps 20 --hold-steps 20 --batch-size 4 --no-theory" if command == "lr-range" else ""
    assert run([*words.split(), *short.split()]) == 0
    assert "pairs:de.txt,en.txt" in "".join(capsys.readouterr())
