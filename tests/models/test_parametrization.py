"""A parametrization changes nothing at the base model's size, and what its papers say at another."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.engine.population import Population
from stresstest.engine.replicas import Training
from stresstest.engine.train import Batches
from stresstest.errors import ConfigError
from stresstest.experiments.document_parts import model_words
from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.experiments.plan import canonical
from stresstest.models.block import Model
from stresstest.models.build import make_model
from stresstest.models.scales import UpdateSize
from stresstest.specs.base import ShapeSpec
from stresstest.specs.parsing import parse_choice
from stresstest.specs.profiles import make_spec
from stresstest.tasks import load_task

SHAPE = {"width": 16, "heads": 2, "seq_len": 8, "base_width": 16}
KINDS = {
    "decoder": SHAPE,
    "encoder": SHAPE,
    "encoder-decoder": SHAPE,
    "mlp": {"width": 8, "base_width": 8},
}


def build(model: str = "decoder", variant: str = "pre-ln", depth: int = 2, **settings: Any) -> tuple[Model, Batches]:
    spec = ShapeSpec.model_validate({"model": model, **KINDS[model], **settings})
    task = load_task(make_spec(LrRangeSpec, "quick", {"model": model}).task, "synthetic", 4, spec.seq_len)
    return make_model(spec, variant, depth, task), Batches(task, torch.device("cpu"))


def losses(optimizer: str, steps: int = 3, **settings: Any) -> list[float]:
    model, batches = build(**settings)
    population = Population(model, [0], Training(OPTIMIZERS[optimizer], {}, torch.device("cpu")))
    lr_R = torch.tensor([0.01])
    return [float(population.step(batches.batch([0], step), lr_R).loss_R) for step in range(steps)]


def lr_scale(model: Model, size: UpdateSize) -> dict[str, float]:
    """The one factor of each kind of tensor."""
    scale_P = model.layout.scales(size).lr_P
    assert scale_P is not None
    found = {kind: bank.view(scale_P[None]).unique().tolist() for kind, bank in model.layout.banks.items()}
    assert all(len(factors) == 1 for factors in found.values())
    return {kind: factors[0] for kind, factors in found.items()}


@pytest.mark.parametrize("model", KINDS)
@pytest.mark.parametrize("variant", ["post-ln", "rezero", "normformer:res_scale=true"])
@pytest.mark.parametrize("parametrization", ["mup", "completep"])
def test_at_the_base_models_size_every_parametrization_trains_as_sp_to_the_bit(
    model: str, variant: str, parametrization: str
) -> None:
    at = {"model": model, "variant": variant, "depth": 3, "base_depth": 3}
    assert losses("adam", **at, parametrization=parametrization) == losses("adam", **at)


@pytest.mark.parametrize("parametrization", ["mup", "completep"])
def test_a_shared_embedding_trains_as_in_sp_at_the_base_models_size(parametrization: str) -> None:
    assert losses("sgd", tied=True, parametrization=parametrization) == losses("sgd", tied=True)


def test_a_wider_decoder_in_mup_has_the_learning_rates_of_table_9() -> None:
    """Yang et al. 2022, Tensor Programs V; the embedding's factor D^1/2 is of this project's models in sp already."""
    model, _ = build(width=64, parametrization="mup")
    adam, sgd = lr_scale(model, "unit"), lr_scale(model, "gradient")
    assert adam["embedding"] == adam["unembedding"] == 4.0**-0.5
    for matrix in ("qkv.weight", "output.weight", "fc1.weight", "fc2.weight"):
        assert (adam[matrix], sgd[matrix]) == (1 / 4, 1.0)
    assert sgd["embedding"] == sgd["unembedding"] == 1.0
    for vector in ("qkv.bias", "output.bias", "fc1.bias", "fc2.bias", "attention.pre.gain", "final.norm.bias"):
        assert (adam[vector], sgd[vector]) == (1.0, 4.0)


def test_a_feed_forward_layer_of_a_set_width_is_narrow_at_one_side() -> None:
    """Yang et al. 2022, Table 3: into a fixed width as an output layer, out of it as an input layer."""
    model, _ = build(width=64, ffn_width=32, parametrization="mup")
    known = build(ffn_width=32)[0]
    adam, sgd = lr_scale(model, "unit"), lr_scale(model, "gradient")
    assert (adam["fc1.weight"], sgd["fc1.weight"]) == (1 / 4, 1 / 4)
    assert (adam["fc2.weight"], sgd["fc2.weight"]) == (1.0, 4.0)
    assert (adam["fc1.bias"], sgd["fc1.bias"]) == (1.0, 1.0)
    for kind, ratio in (("fc1.weight", 1 / 4), ("fc2.weight", 1.0)):
        assert model.layout.banks[kind].inits[0].std == known.layout.banks[kind].inits[0].std * ratio


def test_a_deeper_decoder_in_completep_has_the_scales_of_its_table_1() -> None:
    """Dey et al. 2025, alpha = 1: eps of what is in a residual branch, and no other learning rate than muP's."""
    model, _ = build(depth=8, parametrization="completep")
    assert model.layout.scales("unit").lr_P is None
    eps_P = model.layout.scales("unit").eps_P
    assert eps_P is not None
    found = {kind: bank.view(eps_P[None]).unique().tolist() for kind, bank in model.layout.banks.items()}
    ends = {"embedding", "unembedding", "final.norm.gain", "final.norm.bias"}
    assert found == {kind: [1.0 if kind in ends else 1 / 4] for kind in model.layout.banks}


@pytest.mark.parametrize(
    ("variant", "kind", "adam", "sgd"),
    [
        ("pre-ln", "fc1.weight", 1.0, 4.0),
        ("pre-ln", "ffn.pre.gain", 1.0, 4.0),
        ("post-ln", "ffn.post.gain", 1 / 4, 1 / 4),
        ("admin", "ffn.skip", 1 / 4, 1 / 4),
        ("rezero", "gate", 1 / 4, 1 / 4),
        ("layerscale", "ffn.gate", 1 / 4, 1 / 4),
        ("pre-ln", "final.norm.gain", 1.0, 1.0),
    ],
)
def test_in_completep_all_blocks_together_step_as_far_as_the_base_models(
    variant: str, kind: str, adam: float, sgd: float
) -> None:
    """The sum over 4 times as many blocks: of branches that are 1/4 as large, of gates of 1/4, and of the stream."""
    growth = build(variant=variant, depth=8, parametrization="completep")[0].layout.growth[kind]
    assert (growth.lr("unit"), growth.lr("gradient")) == (adam, sgd)


@pytest.mark.parametrize("model", KINDS)
def test_completep_divides_every_residual_branch_by_the_growth_in_depth(model: str) -> None:
    settings = {"model": model, "depth": 6, "variant": "rezero:alpha=1"}
    deep, batches = build(**settings, parametrization="completep")
    plain, _ = build(**settings)
    inputs = batches.batch([0], 0).inputs
    rows = {one: one.initial_row(0).float() for one in (deep, plain)}
    kept = {kind: bank.view(rows[plain][None]) for kind, bank in plain.layout.banks.items()}
    torch.testing.assert_close(deep.layout.banks["gate"].view(rows[deep][None]), kept["gate"] / 3.0)
    kept["gate"] /= 3.0
    ours, expected = (one.logits(one.layout.unbind(one.layout.views(rows[one][None])), inputs) for one in (deep, plain))
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def moved(optimizer: str, lr: float, **settings: Any) -> float:
    """How far two steps move the logits, root mean square."""
    model, batches = build(**settings)
    choice = parse_choice(optimizer, OPTIMIZERS)
    training = Training(OPTIMIZERS[choice.name], choice.options, torch.device("cpu"))
    population = Population(model, [0], training)
    batch, lr_R = batches.batch([0], 0), torch.tensor([lr])

    def logits() -> torch.Tensor:
        return model.logits(model.layout.unbind(model.layout.views(population.theta_RP)), batch.inputs)

    before = logits()
    for _ in range(2):
        population.step(batch, lr_R)
    return float((logits() - before).square().mean().sqrt())


LRS = {"sgd": 0.02, "adam": 0.002, "lamb:weight_decay=0": 0.02}


@pytest.mark.parametrize("optimizer", LRS)
def test_in_mup_alone_a_step_moves_the_outputs_of_a_wide_model_as_far_as_those_of_a_wider_one(optimizer: str) -> None:
    def ratio(parametrization: str) -> float:
        narrow, wide = (
            moved(optimizer, LRS[optimizer], model="mlp", depth=1, width=width, parametrization=parametrization)
            for width in (128, 512)
        )
        return wide / narrow

    assert 0.75 < ratio("mup") < 1.1
    assert ratio("sp") > 1.5


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("variant", ["pre-ln", "post-ln", "layerscale:init=1"])
def test_in_completep_alone_a_step_moves_the_outputs_of_a_deep_model_as_far_as_those_of_a_deeper_one(
    variant: str, optimizer: str
) -> None:
    def ratio(parametrization: str) -> float:
        at = {"variant": variant, "parametrization": parametrization}
        shallow, deep = (moved(optimizer, LRS[optimizer], depth=depth, **at) for depth in (2, 16))
        return deep / shallow

    assert 0.6 < ratio("completep") < 1.3
    assert not 0.5 < ratio("mup") < 1.7


@pytest.mark.parametrize("model", KINDS)
def test_without_an_own_width_of_the_feed_forward_layer_mup_starts_at_the_weights_of_sp(model: str) -> None:
    wide = {"model": model, "width": 48}
    torch.testing.assert_close(
        build(**wide, parametrization="mup")[0].initial_row(0), build(**wide)[0].initial_row(0), rtol=1e-12, atol=0.0
    )


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"optimizer": "adam:weight_decay=0.1"}, "adam:weight_decay=0.1 has no mup: its weight decay is part"),
        ({"optimizer": "lamb"}, "use lamb:weight_decay=0, or adamw"),
        ({"optimizer": "lamb:weight_decay=0", "parametrization": "completep"}, "has no completep; use adamw"),
        ({"optimizer": "muon"}, "muon has no mup: no rule is known for it; use adamw, or --parametrization sp"),
        ({"variant": ("plain",), "parametrization": "completep"}, "variant plain has no residual branch"),
    ],
)
def test_what_has_no_rule_is_refused_in_one_line(settings: dict[str, Any], line: str) -> None:
    spec = make_spec(LrRangeSpec, "quick", {"parametrization": "mup", **settings})
    with pytest.raises(ConfigError, match=line):
        canonical(spec)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"model": "resnet"}, "model resnet has no setting parametrization; leave it out"),
        ({"heads": 3, "width": 96}, "base_width 32 is not divisible by heads 3; use 33"),
    ],
)
def test_a_model_that_cannot_be_scaled_says_why(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        ShapeSpec.model_validate({"parametrization": "mup", **settings})


@pytest.mark.parametrize(
    ("parametrization", "words"),
    [
        ("sp", "decoder, depth 6, width 64"),
        ("mup", "decoder, depth 6, width 64, muP of width 32"),
        ("completep", "decoder, depth 6, width 64, CompleteP of width 32 and depth 2"),
    ],
)
def test_a_report_says_which_parametrization_it_is_of(parametrization: str, words: str) -> None:
    spec = make_spec(LrRangeSpec, "quick", {"parametrization": parametrization, "depth": 6, "width": 64})
    assert model_words(spec.model_dump(), {}) == words
