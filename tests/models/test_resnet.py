"""The ResNet: held against torch's own modules, its sizes, and a replica among others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stresstest.cli.main import run
from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.engine.population import Population
from stresstest.engine.replicas import Training, row_of
from stresstest.engine.train import Batches
from stresstest.errors import ConfigError
from stresstest.experiments.lr_range.measure import plan
from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.models import resnet
from stresstest.models.layout import Parameters
from stresstest.models.resnet import ResNet
from stresstest.registry import OptionValue
from stresstest.specs.base import ModelSpec
from stresstest.specs.profiles import make_spec
from stresstest.tasks import load_task
from stresstest.tasks.task import VALIDATION

VARIANTS = ["vanilla", "fixup", "rezero"]


def model_of(variant: str, depth: int = 3, width: int = 4) -> ResNet:
    return ResNet(ModelSpec(model="resnet", depth=depth, width=width), variant, {}, 3072, 10)


def parameters_of(model: ResNet) -> Parameters:
    row = model.initial_row(0)
    row += 0.2 * torch.randn(row.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return model.layout.unbind(model.layout.views(row[None]))


def conv(weight: Tensor, stride: int = 1) -> nn.Conv2d:
    layer = nn.Conv2d(weight.shape[2], weight.shape[1], 3, stride, 1, bias=False, dtype=torch.float64)
    layer.weight.data.copy_(weight[0])
    return layer


def norm(p: Parameters, kind: str, block: int) -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(p[f"{kind}.gain", block].shape[1], dtype=torch.float64).train()
    layer.weight.data.copy_(p[f"{kind}.gain", block][0])
    layer.bias.data.copy_(p[f"{kind}.bias", block][0])
    return layer


def torchs(p: Parameters, variant: str, images: Tensor) -> Tensor:
    """Three blocks, one a stage, written down from the papers."""
    x = conv(p["stem.weight", 0])(images)
    x = torch.relu(x + p["stem.bias", 0][0] if variant == "fixup" else norm(p, "stem.norm", 0)(x))
    for block, (first, stride) in enumerate([("conv1.0", 1), ("conv1.1.in", 2), ("conv1.2.in", 2)], 1):
        one, two = conv(p[first, block], stride), conv(p[f"conv2.{block - 1}", block])
        shortcut = x
        if stride == 2:
            shortcut = torch.cat([x[:, :, ::2, ::2], torch.zeros_like(x[:, :, ::2, ::2])], 1)
        if variant == "fixup":
            bias = [p[f"bias{n}", block][0] for n in range(1, 5)]
            h = two(torch.relu(one(x + bias[0]) + bias[1]) + bias[2])
            x = torch.relu(shortcut + p["gate", block][0] * h + bias[3])
            continue
        h = norm(p, f"norm2.{block - 1}", block)(two(torch.relu(norm(p, f"norm1.{block - 1}", block)(one(x)))))
        x = shortcut + p["gate", block][0] * torch.relu(h) if variant == "rezero" else torch.relu(shortcut + h)
    return x.mean((2, 3)) @ p["output.weight", 0][0].T + p["output.bias", 0][0]


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_is_what_torchs_modules_compute(variant: str) -> None:
    model = model_of(variant)
    p = parameters_of(model)
    inputs = torch.randn(1, 5, 3072, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        ours, theirs = model.logits(p, inputs)[0], torchs(p, variant, inputs[0].view(5, 3, 32, 32))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("depth", "weights"), [(9, 270_896), (27, 853_040), (54, 1_726_256)])
def test_its_sizes_are_those_of_he_et_al(depth: int, weights: int) -> None:
    """Table 6 of He et al. 2016: 0.27M, 0.85M, 1.7M; by hand: convolutions and the last matrix, without its bias."""
    model = model_of("vanilla", depth, 16)
    kinds = [b for b in model.layout.banks.values() if "conv" in b.kind or b.kind in ("stem.weight", "output.weight")]
    assert sum(bank.numel * len(bank.layers) for bank in kinds) == by_hand(depth // 3)
    assert sum(bank.numel * len(bank.layers) for bank in kinds) == pytest.approx(weights, rel=0.02)


def by_hand(n: int) -> int:
    first = 27 * 16 + 2 * n * 9 * 16 * 16
    later = sum(9 * c // 2 * c + (2 * n - 1) * 9 * c * c for c in (32, 64))
    return first + later + 64 * 10


def test_fixup_and_rezero_start_as_the_identity_where_shapes_allow() -> None:
    for variant in ("fixup", "rezero"):
        model = model_of(variant, depth=3)
        p = model.layout.unbind(model.layout.views(model.initial_row(0)[None]))
        inputs = torch.randn(1, 2, 3072, dtype=torch.float64)
        heard: list[float] = []

        def watch(block: int, sublayer: str, branch: Tensor, *rest: Tensor, heard: list[float] = heard) -> None:
            heard.append(float(branch.abs().max()))

        with torch.no_grad():
            model.logits(p, inputs, watch)
        assert heard == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_replica_trains_as_if_alone(variant: str) -> None:
    task = load_task("images", "synthetic", 4, 1)
    batches = Batches(task, torch.device("cpu"))
    training = Training(OPTIMIZERS["momentum"], {}, torch.device("cpu"))
    ends = []
    for seeds in ([3], [0, 3, 5]):
        population = Population(model_of(variant), seeds, training)
        for step in range(3):
            population.step(batches.batch(seeds, step), torch.full((len(seeds),), 0.05))
        ends.append(population.theta_RP[seeds.index(3)].clone())
    assert torch.equal(*ends)


@pytest.mark.parametrize("variant", VARIANTS)
def test_all_replicas_at_once_are_as_one_by_one(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU runs, gradients too, in float64 on the CPU."""
    model = model_of(variant)
    theta_RP = torch.stack([model.initial_row(seed) for seed in (0, 1, 2)])
    theta_RP += 0.1 * torch.randn(theta_RP.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    inputs = torch.randn(3, 4, 3072, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    targets = torch.arange(12).view(3, 4) % 10
    found = []
    for how in (resnet.one_by_one, resnet.all_at_once):
        monkeypatch.setattr(resnet, "_replicas", how)
        leaves = model.layout.leaves(theta_RP)
        loss_R = model.loss(leaves, inputs, targets)
        found.append([loss_R.detach(), *torch.autograd.grad(loss_R.sum(), list(leaves.values()))])
    for alone, together in zip(*found, strict=True):
        torch.testing.assert_close(alone, together, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("options", [{}, {"scalar_lr": 1.0}])
def test_fixups_biases_and_scales_have_a_tenth_of_the_learning_rate(options: dict[str, OptionValue]) -> None:
    """Held against torch's SGD with a group of its own for them, as the authors have it."""
    batches = Batches(load_task("images", "synthetic", 4, 1), torch.device("cpu"))
    model = ResNet(ModelSpec(model="resnet", depth=3, width=4), "fixup", options, 3072, 10)
    training = Training(OPTIMIZERS["momentum"], {"weight_decay": 0.1}, torch.device("cpu"))
    population = Population(model, [3], training)
    places = model.layout.tensors()
    weights = {place.name: nn.Parameter(population.theta_RP[0, place.start : place.stop].clone()) for place in places}
    matrices = [tensor for name, tensor in weights.items() if name.startswith(("conv", "stem.w", "output.w"))]
    scalars = [tensor for tensor in weights.values() if all(tensor is not matrix for matrix in matrices)]
    slow = {"params": scalars, "lr": 0.2 * options.get("scalar_lr", 0.1), "weight_decay": 0.0}
    sgd = torch.optim.SGD([{"params": matrices}, slow], lr=0.2, momentum=0.9, weight_decay=0.1)
    for step in range(3):
        decayed = population.theta_RP[0] * model.layout.decay_mask()
        population.step(batches.batch([3], step), torch.tensor([0.2]))
        for place in places:
            columns = slice(place.start, place.stop)
            weights[place.name].grad = population.grad_RP[0, columns] - 0.1 * decayed[columns]
        sgd.step()
    for place in places:
        expected = weights[place.name].detach()
        torch.testing.assert_close(population.theta_RP[0, place.start : place.stop], expected, rtol=1e-5, atol=1e-7)


def batch_norms(p: Parameters) -> dict[str, nn.BatchNorm2d]:
    """torch's own, in the order of the network, in float32 as a population trains."""
    places = [("stem.norm", 0), *((f"norm{n}.{block - 1}", block) for block in (1, 2, 3) for n in (1, 2))]
    return {f"{kind}.{block}": norm(p, kind, block).float() for kind, block in places}


def torchs_of_norms(p: Parameters, norms: dict[str, nn.BatchNorm2d], images: Tensor) -> Tensor:
    """A vanilla network of three blocks whose norms are modules, which keep what they saw."""
    x = torch.relu(norms["stem.norm.0"](F.conv2d(images, p["stem.weight", 0][0], padding=1)))
    for block, (first, stride) in enumerate([("conv1.0", 1), ("conv1.1.in", 2), ("conv1.2.in", 2)], 1):
        h = F.conv2d(x, p[first, block][0], stride=stride, padding=1)
        h = torch.relu(norms[f"norm1.{block - 1}.{block}"](h))
        h = norms[f"norm2.{block - 1}.{block}"](F.conv2d(h, p[f"conv2.{block - 1}", block][0], padding=1))
        if stride == 2:
            x = torch.cat([x[:, :, ::2, ::2], torch.zeros_like(x[:, :, ::2, ::2])], 1)
        x = torch.relu(x + h)
    return x.mean((2, 3)) @ p["output.weight", 0][0].T + p["output.bias", 0][0]


@pytest.mark.parametrize("micro_batch", [None, 2])
@pytest.mark.parametrize("how", ["one_by_one", "all_at_once"])
def test_validation_has_the_running_statistics_that_torchs_modules_keep(
    how: str, micro_batch: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps of an LR of 0 leave the weights, so that what a module sees is what a population's norms saw."""
    monkeypatch.setattr(resnet, "_replicas", getattr(resnet, how))
    batches = Batches(load_task("images", "synthetic", 4, 1), torch.device("cpu"))
    training = Training(OPTIMIZERS["momentum"], {}, torch.device("cpu"), micro_batch=micro_batch)
    model, seeds = model_of("vanilla"), [5, 3]
    population = Population(model, seeds, training)
    p = model.layout.unbind(model.layout.views(population.theta_RP[1:]))
    norms = batch_norms(p)
    for step in range(3):
        population.step(batches.batch(seeds, step), torch.zeros(2))
        population.evaluate(batches.batch(seeds, step))  # as a step would read it, which leaves no trace
        for images in batches.batch(seeds, step).inputs[1].view(4, 3, 32, 32).split(micro_batch or 4):
            torchs_of_norms(p, norms, images)
    for module in norms.values():
        module.eval()
    held_out = batches.batch(seeds, 0, VALIDATION)
    logits = torchs_of_norms(p, norms, held_out.inputs[1].view(4, 3, 32, 32))
    expected = F.cross_entropy(logits, held_out.targets[1])
    torch.testing.assert_close(population.evaluate(held_out, as_trained=False)[1], expected, rtol=1e-5, atol=1e-6)
    assert abs(population.evaluate(held_out)[1] - expected) > 1e-3  # with the statistics of the batch


def test_running_statistics_go_on_where_a_row_is_kept_branched_off_or_restored() -> None:
    batches = Batches(load_task("images", "synthetic", 4, 1), torch.device("cpu"))
    training = Training(OPTIMIZERS["momentum"], {}, torch.device("cpu"))

    def trained(population: Population, seeds: list[int], first: int) -> Population:
        for step in range(first, first + 2):
            population.step(batches.batch(seeds, step), torch.full((len(seeds),), 0.05))
        return population

    def read(population: Population) -> Tensor:
        return population.evaluate(batches.batch([3], 0, VALIDATION), as_trained=False)

    model, seeds = model_of("rezero"), [0, 3, 5]
    whole = read(trained(trained(Population(model, [3], training), [3], 0), [3], 2))
    population = trained(Population(model, seeds, training), seeds, 0)
    branched = population.branch(1)
    restored = Population(model, [3], training)
    restored.restore(row_of(population.state(), 1))
    population.keep([1])
    for one in (population, branched, restored):
        assert torch.equal(read(trained(one, [3], 2)), whole)


def test_a_depth_that_its_stages_cannot_share_is_one_line() -> None:
    with pytest.raises(ConfigError, match="depth 4 of a resnet is not a multiple of its 3 stages; use 12"):
        plan(make_spec(LrRangeSpec, "quick", {"model": "resnet", "depth": 4}))


def test_a_variant_that_it_lacks_is_one_line() -> None:
    with pytest.raises(ConfigError, match="variant pre-ln does not exist for model resnet"):
        plan(make_spec(LrRangeSpec, "quick", {"model": "resnet", "variant": "pre-ln"}))
    with pytest.raises(ConfigError, match="variant fixup does not exist for model decoder"):
        plan(make_spec(LrRangeSpec, "quick", {"variant": "fixup"}))


def test_a_report_names_no_norm_function_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its BatchNorms are the model's, whatever --norm is for the others."""
    line = ["lr-range", "--model", "resnet", "--width", "2", "--seeds", "1", "--num-steps", "20", "--hold-steps", "20"]
    assert (
        run([*line, "--variant", "rezero", "--batch-size", "4", "-j", "1", "-q", "-v", "--run-dir", str(tmp_path)]) == 0
    )
    said = capsys.readouterr().out
    assert "4 images per step of synthetic" in said
    assert "layer-norm" not in said
