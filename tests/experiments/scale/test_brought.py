"""Paths of models that their user brings, and of sizes that do not fit; against a closed form where there is one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import stresstest
from stresstest.errors import ConfigError
from stresstest.experiments import plan as planning
from stresstest.experiments.estimate import estimates
from stresstest.experiments.following import forecast_of
from stresstest.experiments.plan import Plan
from stresstest.experiments.scale.law.fit import law
from stresstest.experiments.scale.measure import plan
from stresstest.experiments.scale.spec import ScaleSpec
from stresstest.reports.progress import estimated
from stresstest.results.progress import Progress, SizeTime, TimeLeft
from stresstest.results.records import Result
from stresstest.runs.settings import RunSettings
from stresstest.specs.profiles import make_spec

OWN = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Net(nn.Module):
    def __init__(self, width, depth):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, width), *(nn.Linear(width, width) for _ in range(depth)))
        self.last = nn.Linear(width, 3)

    def forward(self, x):
        return self.last(self.layers(x))


def build(d_model=8, n_layer=1):
    return Net(d_model, n_layer)


def narrow(units=8):
    return Net(units, 1)


def tens(width=10):
    if width % 10:
        raise ValueError(f"{width} is not a multiple of 10")
    return Net(width, 1)


def draw(step, batch_size, generator):
    x = torch.randn(batch_size, 4, generator=generator)
    return x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long()


x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
loader = DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), batch_size=16)
"""
REGRESSION = '''
"""Linear regression on fixed data of a known spectrum: gradient descent holds LRs below 2 / largest eigenvalue."""

import torch
from torch import nn

ROWS, GROWTH = 256, 1.1


class Regression(nn.Module):
    def __init__(self, width):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        directions, _ = torch.linalg.qr(torch.randn(ROWS, width, generator=generator))
        spectrum = GROWTH * width * torch.linspace(0.3, 1.0, width)
        answer = torch.randn(width, generator=generator)
        self.register_buffer("design", ROWS**0.5 * directions * spectrum.sqrt())
        self.register_buffer("targets", ROWS**0.5 * directions @ (answer / answer.norm()))
        self.weight = nn.Parameter(0.1 * torch.randn(width) / (width * spectrum).sqrt())

    def forward(self, rows):
        return self.design[rows] @ self.weight


def build(width=8):
    return Regression(width)


def batch(step, batch_size, generator):
    return torch.arange(ROWS)


def loss_fn(model, rows):
    return 0.5 * (model(rows) - model.targets[rows]).square().mean()
'''


@pytest.fixture(scope="module", autouse=True)
def _files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder: Path = tmp_path_factory.mktemp("brought")
    (folder / "own.py").write_text(OWN)
    (folder / "regression.py").write_text(REGRESSION)
    with pytest.MonkeyPatch.context() as here:
        here.chdir(folder)
        yield


def planned(**given: Any) -> Plan:
    return plan(make_spec(ScaleSpec, "quick", {"seeds": "1", **given}))


def own(factory: str = "build", data: str = "draw", **given: Any) -> Plan:
    return planned(model=f"own.py:{factory}", batch_fn=f"own.py:{data}", **given)


def test_each_cell_of_a_path_is_of_its_own_model_whatever_its_arguments_are_called() -> None:
    found = own(widths="8,12,16", depths="1,2,3")
    assert [(found.spec_of(cell).width, cell.depth) for cell in found.cells] == [(8, 1), (12, 2), (16, 3)]
    numbers = [seen.need.parameters for cell in found.cells if (seen := found.own_of(cell)) is not None]
    assert numbers == [4 * (5 * w + d * w * (w + 1) + 3 * (w + 1)) for w, d in ((8, 1), (12, 2), (16, 3))]


def test_a_longer_training_is_not_tried_anew_and_a_loader_does_not_keep_a_width_from_growing() -> None:
    steps = own(train_steps="20,40,80")
    assert len({id(steps.own_of(cell)) for cell in steps.cells}) == 1
    assert [steps.spec_of(cell).width for cell in own(data="loader", widths="8,12,16").cells] == [8, 12, 16]


REFUSED: Mapping[str, tuple[dict[str, Any], str]] = {
    "no width": ({"factory": "narrow", "widths": "8,12,16"}, "widths: own.py:narrow has no argument 'width', only (un"),
    "no path": ({"factory": "narrow"}, "widths: own.py:narrow has no argument 'width'"),
    "no depth": ({"factory": "tens", "depths": "1,2,3"}, "depths: own.py:tens has no argument 'depth', only (width)"),
    "set beside": ({"set": "d_model=8", "widths": "8,12,16"}, "widths: set has d_model=8; leave it out there"),
    "its own refusal": (
        {"factory": "tens", "widths": "10,16,20"},
        "width 16: own.py:tens: own.py:tens(width=16) raised",
    ),
    "its own length": ({"seq_lens": "8,12,16"}, "seq_lens: the batches that own.py:build trains on are its own"),
    "its own batches": ({"data": "loader", "batch_sizes": "8,16,32"}, "every batch that own.py:build trains on has 16"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_factory_cannot_grow_in_is_refused_in_a_line(case: str) -> None:
    given, line = REFUSED[case]
    with pytest.raises(ConfigError) as refused:
        own(**given)
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)


SHAPE = {"heads": 2, "seq_len": 8, "variant": "pre-ln", "depth": 1}


@pytest.mark.parametrize("given", [{"widths": "8,16,32,4096,8192", **SHAPE}, {"model": "own.py:build"}])
def test_sizes_that_do_not_fit_the_memory_are_left_out_with_a_word(
    given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    brought = {"batch_fn": "own.py:draw", "widths": "8,16,32,4096,8192"} if "model" in given else {}
    monkeypatch.setattr(planning, "free_bytes", lambda device: 100 << 20)
    found = planned(**given, **brought)
    assert [found.spec_of(cell).width for cell in found.cells] == [8, 16, 32]
    (said,) = found.said
    assert said.startswith("left out, as it does not fit: width 4096 (")
    assert said.endswith("and 100 MiB are free), and 1 larger with it")


def test_where_too_few_sizes_fit_nothing_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "free_bytes", lambda device: 100 << 20)
    with pytest.raises(ConfigError, match=r"width 4096 .*: 2 of the path's sizes fit, and a law takes 3"):
        planned(widths="8,16,4096", **SHAPE)
    with pytest.raises(ConfigError, match="width 4096: depth 1 of pre-ln needs"):
        planned(widths="4096,8192,16384", **SHAPE)


def test_a_longer_path_or_another_target_trains_no_cell_again() -> None:
    first = planned(widths="8,16,24", **SHAPE)
    longer = planned(widths="8,16,24,32", target=128, **SHAPE)
    assert {cell.key for cell in first.cells} == {cell.key for cell in longer.in_order(longer.cells)[:3]}
    assert longer.spec == planned(widths="8,16,24,32", target={"width": 128}, **SHAPE).spec


def test_a_path_is_estimated_size_by_size() -> None:
    spec = make_spec(ScaleSpec, "quick", {"widths": "8,16,32", "train_steps": "20,40,80", **SHAPE})
    one, two, three = estimates(spec)
    assert [each.size for each in (one, two, three)] == [
        f"width {width}, train steps {steps}" for width, steps in ((8, 20), (16, 40), (32, 80))
    ]
    assert one.parameters < two.parameters < three.parameters
    assert one.flops_a_step < two.flops_a_step < three.flops_a_step
    assert three.steps - two.steps == 2 * (two.steps - one.steps)
    assert one.runs == 3


def test_a_dry_run_says_what_each_size_costs_and_all_its_cells_are_known() -> None:
    found = planned(widths="8,16,32", train_steps="20,40,80", **SHAPE)
    progress, _ = forecast_of(found, RunSettings(jobs=1))
    assert progress.total == len(found.cells) == 3
    assert [(each.size, each.cells) for each in progress.sizes] == [
        (f"width {width}, train steps {steps}", 1) for width, steps in ((8, 20), (16, 40), (32, 80))
    ]
    assert progress.left is not None
    assert sum(each.seconds for each in progress.sizes) == pytest.approx(progress.left.seconds)


def test_the_first_line_names_a_size_that_takes_more_than_half() -> None:
    sizes = [SizeTime("width 64", 3, 0.01, 30.0), SizeTime("width 256", 3, 0.03, 90.0)]
    progress = Progress(0, 6, 0.0, TimeLeft(60.0, 60.0, 60.0), sizes=tuple(sizes))
    assert estimated(progress, 2) == "6 cells: about 60 s on 2 processes; width 256 takes 75% of it"
    even = Progress(0, 6, 0.0, TimeLeft(60.0, 60.0, 60.0), sizes=(sizes[0], sizes[0]))
    assert estimated(even, 2) == "6 cells: about 60 s on 2 processes"


@pytest.fixture(scope="module")
def regression() -> Result:
    """Gradient descent on quadratics whose largest eigenvalue grows with the width."""
    held = {"optimizer": "sgd", "hold_resolution": "quarter-octave", "probes": "off"}
    short = {"seeds": 2, "num_steps": 60, "hold_steps": 60}
    return stresstest.scale("regression.py:build", widths="8,32,128", quiet=True, **held, **short)


def test_on_a_quadratic_each_bracket_holds_two_over_the_largest_eigenvalue(regression: Result) -> None:
    assert len(regression.cells) == 6
    for cell in regression.cells:
        found, exact = cell.metrics["max_stable_lr"], 2.0 / (1.1 * dict(cell.point)["width"])
        assert found.low is not None
        assert found.high is not None
        assert found.low < exact < found.high == pytest.approx(2**0.25 * found.low)


def test_on_a_quadratic_the_law_is_one_over_the_largest_eigenvalue(regression: Result) -> None:
    sizes = sorted({dict(cell.point)["width"] for cell in regression.cells})
    cells = [[c.metrics["max_stable_lr"] for c in regression.cells if dict(c.point)["width"] == w] for w in sizes]
    known = law(sizes, cells)
    assert known is not None
    assert known.exponent.median == pytest.approx(-1.0, abs=0.03)
    predicted = known.predict(256)
    assert predicted.low < 2.0 / (1.1 * 256) < predicted.high


def test_paths_that_cross_share_no_cell_and_parametrizations_share_those_of_sp() -> None:
    widths, depths = ScaleSpec(widths=(32, 64, 128)), ScaleSpec(widths=(), depths=(1, 2, 4), width=64)
    both = widths.model_copy(update={"parametrization": ("sp", "mup")})
    keys = [{cell.key for cell in plan(spec).cells} for spec in (widths, depths, both)]
    assert not keys[0] & keys[1], "a stored cell says where on its own path it lies"
    assert keys[0] < keys[2]
