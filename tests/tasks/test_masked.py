"""Masked language modelling: what is hidden, what is asked for, and what the losses are."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stresstest.engine.train import Batches
from stresstest.errors import ConfigError
from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.models.transformer import Transformer
from stresstest.specs.base import ModelSpec
from stresstest.specs.profiles import make_spec
from stresstest.tasks import load_task
from stresstest.tasks.language import load_language
from stresstest.tasks.masked import MASK, NOT_ASKED, MaskedTask
from stresstest.tasks.task import INITIAL, TRAINING, VALIDATION, Batch, splitmix64

SEEDS = [0, 1, 7]


def batches_of(batch_size: int = 64, seq_len: int = 40) -> Batches:
    task = load_task("masked-language", "synthetic", batch_size, seq_len)
    assert isinstance(task, MaskedTask)
    return Batches(task, torch.device("cpu"))


def batch(step: int = 0, stream: int = TRAINING, batches: Batches | None = None) -> Batch:
    return (batches or batches_of()).batch(SEEDS, step, stream)


def test_fifteen_per_cent_of_each_sequence_are_asked_for() -> None:
    found = batch()
    assert found.inputs.shape == found.targets.shape == (3, 64, 40)
    assert ((found.targets != NOT_ASKED).sum(-1) == 6).all()


def test_what_is_asked_for_is_the_byte_that_stood_there_and_the_rest_is_untouched() -> None:
    """Put back, every sequence is found in the data where it was drawn from."""
    batches = batches_of()
    found = batch(batches=batches)
    asked = found.targets != NOT_ASKED
    whole = torch.where(asked, found.targets, found.inputs)
    task = batches.task
    assert isinstance(task, MaskedTask)
    starts = task.places(SEEDS, 0) & 0xFFFFFFFF
    for replica in range(3):
        for row in range(64):
            start = int(starts[replica, row])
            assert whole[replica, row].tolist() == task.training[start : start + 40].tolist()


def test_eighty_per_cent_are_masked_ten_are_random_and_ten_stay() -> None:
    batches = batches_of(256, 40)
    kept = masked = other = 0
    values = []
    for step in range(20):
        found = batch(step, batches=batches)
        asked = found.targets != NOT_ASKED
        inputs, targets = found.inputs[asked], found.targets[asked]
        masked += int((inputs == MASK).sum())
        kept += int((inputs == targets).sum())
        changed = inputs[(inputs != MASK) & (inputs != targets)]
        other += len(changed)
        values.append(changed)
    total = masked + kept + other
    assert total == 20 * 3 * 256 * 6
    for share, expected in ((masked, 0.8), (kept, 0.1 + 0.1 / 256), (other, 0.1 - 0.1 / 256)):
        assert share / total == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / total))
    assert len(set(torch.cat(values).tolist())) == 256  # of all bytes, not of those in the text alone


def test_every_place_is_asked_for_equally_often() -> None:
    batches = batches_of(256, 20)
    counts = sum((batch(step, batches=batches).targets != NOT_ASKED).flatten(0, 1).sum(0) for step in range(20))
    assert isinstance(counts, torch.Tensor)
    expected = 20 * 3 * 256 * 3 / 20
    assert float(((counts - expected) ** 2 / expected).sum()) < 43.8  # chi-squared of 19 degrees, 0.1 %


def test_what_is_hidden_is_drawn_anew_in_every_step_and_by_seed() -> None:
    first, again = batch(3), batch(3)
    assert torch.equal(first.inputs, again.inputs)
    assert torch.equal(first.targets, again.targets)
    assert not torch.equal(first.targets, batch(4).targets)
    assert not torch.equal(first.targets[0], first.targets[1])
    alone = batches_of().batch([7], 3)
    assert torch.equal(alone.inputs[0], first.inputs[2])
    for stream in (INITIAL, VALIDATION):
        assert not torch.equal(first.targets, batch(3, stream).targets)


def test_the_mixing_function_is_the_one_that_draws_places() -> None:
    from stresstest.tasks.masked import _mixed

    keys = np.array([0, 1, 12345, (1 << 40) + 7], np.uint64)
    assert _mixed(torch.from_numpy(keys.astype(np.int64))).tolist() == (splitmix64(keys) >> np.uint64(1)).tolist()


def test_the_losses_are_those_of_the_places_that_are_asked_for() -> None:
    spec = ModelSpec.model_validate({"model": "encoder", "depth": 1, "width": 8, "heads": 2})
    model, batches = Transformer(spec, "pre-ln", {}, 257), batches_of(4, 12)
    found = batch(batches=batches)
    theta_RP = torch.stack([model.initial_row(seed).float() for seed in SEEDS])
    leaves = {kind: bank.detach() for kind, bank in model.layout.leaves(theta_RP).items()}
    loss_R = model.loss(leaves, found.inputs, found.targets)
    logits = model.logits(model.layout.unbind(leaves), found.inputs)
    assert logits.shape == (3, 48, 257)
    prior = torch.from_numpy(batches.task.log_prior).float()
    for replica in range(3):
        targets = found.targets[replica].flatten()
        asked = targets >= 0
        theirs = F.cross_entropy(logits[replica][asked], targets[asked])
        assert float(loss_R[replica]) == pytest.approx(float(theirs), rel=1e-6)
        constant = float(-prior[targets[asked]].mean())
        assert float(batches.constant_loss(found)[replica]) == pytest.approx(constant, rel=1e-6)


def test_a_masked_byte_is_told_from_both_sides() -> None:
    """A byte after the hidden one changes what is predicted there: there is no causal mask."""
    spec = ModelSpec.model_validate({"model": "encoder", "depth": 1, "width": 8, "heads": 2})
    model = Transformer(spec, "pre-ln", {}, 257)
    leaves = model.layout.leaves(model.initial_row(0)[None])
    tokens = torch.full((1, 1, 6), 65)
    tokens[..., 2] = MASK
    other = tokens.clone()
    other[..., 5] = 66
    parameters = model.layout.unbind(leaves)
    assert not torch.equal(model.logits(parameters, tokens)[0, 2], model.logits(parameters, other)[0, 2])


def test_the_constant_predictor_is_the_language_tasks() -> None:
    masked, plain = (load_task(name, "synthetic", 4, 12) for name in ("masked-language", "language"))
    assert masked.baseline_loss == plain.baseline_loss
    assert masked.log_prior[:256].tolist() == plain.log_prior.tolist()
    assert masked.chance_loss == pytest.approx(math.log(257))
    assert load_language("synthetic", 4, 12).description["hash"] == masked.description["hash"]


def test_a_short_sequence_has_one_place_that_is_asked_for() -> None:
    found = Batches(load_task("masked-language", "synthetic", 2, 2), torch.device("cpu")).batch([0], 0)
    assert ((found.targets != NOT_ASKED).sum(-1) == 1).all()


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"ab")
    with pytest.raises(ConfigError, match="too few for sequences"):
        load_task("masked-language", f"path:{tmp_path / 'small'}", 2, 12)
    with pytest.raises(ConfigError, match="task language does not fit model encoder; use task masked-language"):
        make_spec(LrRangeSpec, "quick", {"model": "encoder", "task": "language"})
    with pytest.raises(ConfigError, match="works only with built-in models"):
        make_spec(LrRangeSpec, "quick", {"model": "model.py:build", "task": "masked-language"})
