"""Signal propagation: statistics against their formulas, and the papers' theorems."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stresstest.engine import signal_propagation as signal
from stresstest.engine.signal_propagation import GRADIENT_BATCHES, Signal, growth_law, measure_signal
from stresstest.engine.train import Batches
from stresstest.experiments.depth_sweep.spec import DepthSweepSpec
from stresstest.models.block import Model
from stresstest.models.build import make_model
from stresstest.models.transformer import Transformer
from stresstest.models.variants import VARIANTS
from stresstest.results.metrics import METRICS
from stresstest.specs.profiles import make_spec
from stresstest.tasks import load_task
from stresstest.tasks.task import INITIAL

CPU = torch.device("cpu")
TINY: dict[str, dict[str, Any]] = {
    "decoder": {"model": "decoder", "width": 8, "heads": 2, "seq_len": 6, "batch_size": 3},
    "encoder": {"model": "encoder", "width": 8, "heads": 2, "seq_len": 6, "batch_size": 3},
    "mlp": {"model": "mlp", "width": 8, "batch_size": 6},
}

PAIRS = [(kind, name) for name, variant in VARIANTS.items() for kind in TINY if kind not in variant.not_in]


def bench_of(kind: str, variant: str, depth: int, task_name: str = "", **settings: Any) -> tuple[Model, Batches]:
    spec = make_spec(DepthSweepSpec, "quick", TINY[kind] | {"init_only": True, "variant": variant} | settings)
    task = load_task(task_name or spec.task, spec.data, spec.batch_size, spec.seq_len)
    return make_model(spec, variant, depth, task), Batches(task, CPU)


def signal_of(kind: str, variant: str, depth: int = 4, seed: int = 0, **settings: Any) -> Signal:
    model, batches = bench_of(kind, variant, depth, **settings)
    return measure_signal(model, model.initial_row(seed), batches, seed)


@pytest.mark.parametrize("kind", TINY)
def test_the_gradient_is_averaged_over_batches_before_its_norm_is_taken(kind: str) -> None:
    model, batches = bench_of(kind, "pre-ln", 3)
    row_P = model.initial_row(5)
    leaves = model.layout.leaves(row_P[None])
    mean = torch.zeros_like(leaves[model.last_matrix])
    for step in range(GRADIENT_BATCHES):
        batch = batches.batch([5], step, INITIAL)
        loss = model.loss(leaves, batch.inputs, batch.targets).sum()
        mean += torch.autograd.grad(loss, leaves[model.last_matrix])[0] / GRADIENT_BATCHES
    found = measure_signal(model, row_P, batches, 5)
    np.testing.assert_allclose(found.grad_norm, [float(g.norm()) for g in mean[0]], rtol=1e-10)
    np.testing.assert_allclose(found.grad_mean_abs, [float(g.abs().mean()) for g in mean[0]], rtol=1e-10)


@pytest.mark.parametrize("kind", TINY)
def test_stream_branch_and_sum_are_those_of_the_blocks(kind: str) -> None:
    model, batches = bench_of(kind, "deepnorm", 3)
    row_P = model.initial_row(0)
    parameters = model.layout.unbind({k: b.detach() for k, b in model.layout.leaves(row_P[None]).items()})
    streams: list[Tensor] = [model.embed(parameters, batches.batch([0], 0, INITIAL).inputs)]
    sums: list[Tensor] = []
    last = "mlp" if kind == "mlp" else "ffn"

    def watch(layer: int, sublayer: str, branch: Tensor, joined: Tensor, stream: Tensor) -> None:
        if sublayer == last:
            streams.append(stream)
            sums.append(joined)

    model.walk(parameters, streams[0], watch)
    found = measure_signal(model, row_P, batches, 0)
    np.testing.assert_allclose(found.stream_rms, [float(x.square().mean().sqrt()) for x in streams], rtol=1e-10)
    np.testing.assert_allclose(found.activation_rms, [float(x.square().mean().sqrt()) for x in sums], rtol=1e-10)
    for x, similarity in zip(streams, found.similarity, strict=True):
        rows = x[0] if x.dim() == 4 else x  # sequences of tokens, or one batch of images
        pairs = [
            float(F.cosine_similarity(r[i], r[j], dim=0))
            for r in rows
            for i in range(len(r))
            for j in range(len(r))
            if i < j
        ]
        assert similarity == pytest.approx(np.mean(pairs), rel=1e-9)


@pytest.mark.parametrize(("kind", "variant"), PAIRS)
def test_every_variant_has_a_signal_and_every_number_a_name(kind: str, variant: str) -> None:
    found = signal_of(kind, variant, depth=3)
    assert set(found.metrics()) <= set(METRICS)
    assert {"grad_last", "stream_growth", "activation_rms", "similarity", "jacobian_mean_square"} <= set(
        found.metrics()
    )
    record = found.record()
    assert record["blocks"] == [1, 2, 3]
    assert all(len(record[name]) == 3 for name in found.curves)


@pytest.mark.parametrize("kind", TINY)
def test_rezero_is_the_identity(kind: str) -> None:
    found = signal_of(kind, "rezero", 6)
    assert (found.stream_rms == found.stream_rms[0]).all()
    assert not found.branch_rms.any()
    metrics = found.metrics()
    assert metrics["jacobian_mean_square"].low == metrics["stream_growth"].low == 1.0
    assert not found.grad_norm.any(), "a block's matrix learns only after its alpha has moved"


def test_what_lies_beyond_float64_is_an_open_bracket_and_never_a_number() -> None:
    found = signal_of("mlp", "residual", 8000)
    assert found.jacobian is None
    metrics = found.metrics()
    assert "stream_growth" not in metrics or metrics["stream_growth"].high is None
    assert "jacobian_mean_square" not in metrics
    record = found.record()
    assert record["stream_law"] is None
    assert None in record["stream_rms"], "not finite in JSON"
    vanished = signal_of("mlp", "plain", 4000).metrics()
    assert vanished["stream_growth"].high is not None
    assert vanished["stream_growth"].high < 1e-100


@pytest.mark.parametrize(
    ("values", "law", "rate"),
    [
        (np.arange(1, 101) ** 0.5, "power", 0.5),
        (3.0 * np.arange(1, 101.0) ** -1.2, "power", -1.2),
        (0.1 * 1.07 ** np.arange(1, 101), "geometric", 1.07),
        (5.0 * 0.9 ** np.arange(1, 40), "geometric", 0.9),
        (np.full(50, 2.0), "flat", 0.0),
    ],
)
def test_the_growth_law_of_a_planted_curve_is_found(values: np.ndarray, law: str, rate: float) -> None:
    noisy = values * np.exp(0.01 * np.random.default_rng(0).standard_normal(len(values)))
    found = growth_law(noisy)
    assert found is not None
    assert found["law"] == law
    assert found["rate"] == pytest.approx(rate, abs=0.01)


@pytest.mark.parametrize("values", [[1.0, 2.0], [1.0, 0.0, 1.0], [1.0, math.inf, 2.0], [math.nan] * 4])
def test_where_there_is_nothing_to_fit_there_is_no_law(values: list[float]) -> None:
    assert growth_law(np.array(values)) is None


def without_queries_and_keys(model: Transformer, row_P: Tensor) -> Tensor:
    """W_Q = W_K = 0: uniform attention, the setting of Xiong et al.'s theory."""
    row_P = row_P.clone()
    model.layout.banks["qkv.weight"].view(row_P[None])[:, :, :2] = 0.0
    return row_P


def theory(variant: str, depth: int, width: int, tokens: int, seed: int) -> np.ndarray:
    """E |x|^2 / d of every block's last sum before a post-norm, for Gaussian inputs."""
    spec = make_spec(
        DepthSweepSpec,
        "quick",
        {
            "model": "encoder",
            "init_only": True,
            "width": width,
            "ffn_width": width,
            "heads": 1,
            "activation": "relu",
            "variant": variant,
        },
    )
    model = make_model(spec, variant, depth, load_task("language", "synthetic", 8, tokens))
    assert isinstance(model, Transformer)
    row_P = without_queries_and_keys(model, model.initial_row(seed))
    parameters = model.layout.unbind({k: b.detach() for k, b in model.layout.leaves(row_P[None]).items()})
    generator = torch.Generator().manual_seed(seed)
    stream = torch.randn(1, 8, tokens, width, dtype=torch.float64, generator=generator)
    curves = signal._watched(model, parameters, stream)
    return np.square(curves["activation_rms"])


def test_lemma_2_of_xiong_for_post_ln() -> None:
    """E |x^{post,5}_l|^2 = 3/2 d in every layer."""
    squares = np.mean([theory("post-ln", 6, 128, 32, seed) for seed in range(6)], axis=0)
    np.testing.assert_allclose(squares, 1.5, rtol=0.05)


def test_lemma_2_of_xiong_for_pre_ln() -> None:
    """(1 + l/2) d <= E |x^pre_{l+1}|^2 <= (1 + 3l/2) d after layer l; uniform attention takes the mean over tokens."""
    squares = np.mean([theory("pre-ln", 10, 128, 32, seed) for seed in range(6)], axis=0)
    layers = np.arange(1, 11)
    assert (squares > (1 + layers / 2) * 0.97).all()
    assert (squares < (1 + 3 * layers / 2) * 1.03).all()


@pytest.mark.parametrize(("variant", "exponent"), [("post-ln", 0.0), ("pre-ln", -0.42)])
def test_theorem_1_of_xiong(variant: str, exponent: float) -> None:
    """The last FFN matrix's gradient does not change with depth in Post-LN, and falls as 1/sqrt(L) in Pre-LN.

    With |x|^2 = (1 + L/2) d before the final norm (Lemma 2 for many tokens) the slope of the latter over
    the paper's depths is -0.42.
    """
    depths = (6, 8, 10, 12, 14)
    settings = {"width": 128, "ffn_width": 128, "heads": 1, "seq_len": 16, "batch_size": 8, "activation": "relu"}
    logs = []
    for depth in depths:
        model, batches = bench_of("encoder", variant, depth, "language", tied=True, **settings)  # all places asked for
        assert isinstance(model, Transformer)
        norms = []
        for seed in range(8):
            row_P = without_queries_and_keys(model, model.initial_row(seed))
            leaves = {k: b.detach() for k, b in model.layout.leaves(row_P[None]).items()}
            norms.append(float(signal._mean_gradient(model, leaves, batches, seed)[-1].norm()))
        logs.append(np.mean(np.log(norms)))
    slope = np.polyfit(np.log(depths), logs, 1)[0]
    assert slope == pytest.approx(exponent, abs=0.12)  # three standard errors of 8 seeds


def test_the_stream_of_pre_ln_grows_as_the_root_of_the_block() -> None:
    law = signal_of("encoder", "pre-ln", 64, width=32, seq_len=16).record()["stream_law"]
    assert law["law"] == "power"
    assert law["rate"] == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("variant", ["plain", "residual"])
def test_without_a_norm_the_stream_of_a_deep_mlp_goes_geometrically(variant: str) -> None:
    law = signal_of("mlp", variant, 200, width=16).record()["stream_law"]
    assert law["law"] == "geometric"
    assert (law["rate"] > 1.1) == (variant == "residual")
    assert (law["rate"] < 0.98) == (variant == "plain")


def test_a_noise_input_changes_the_jacobian_and_nothing_else() -> None:
    model, batches = bench_of("mlp", "plain", 3)
    row_P = model.initial_row(0)
    data, noise = (measure_signal(model, row_P, batches, 0, noise_input) for noise_input in (False, True))
    assert data.jacobian != noise.jacobian
    for name, curve in data.curves.items():
        np.testing.assert_array_equal(curve, noise.curves[name])


def test_measuring_leaves_the_parameters_as_they_are() -> None:
    model, batches = bench_of("mlp", "pre-ln", 3)
    row_P = model.initial_row(0)
    before = row_P.clone()
    measure_signal(model, row_P, batches, 0)
    assert torch.equal(row_P, before)
