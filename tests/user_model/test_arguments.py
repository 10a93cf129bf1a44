"""What a factory takes: a config's entries, names that others have for depth and width, a vocabulary of bytes."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.specs.profiles import make_spec
from stresstest.user_model.arguments import REQUIRED, arguments
from stresstest.user_model.bench import resolve_user_model, user_bench
from stresstest.user_model.factory import factory_of

MODEL = """
import torch
from dataclasses import dataclass
from torch import nn


@dataclass
class NetConfig:
    block_size: int
    vocab_size: int = 50304
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768


class Net(nn.Module):
    def __init__(self, config):
        super().__init__()
        assert config.n_embd % config.n_head == 0
        self.config = config
        self.body = nn.Sequential(nn.Embedding(config.vocab_size, config.n_embd),
                                  *(nn.Linear(config.n_embd, config.n_embd) for _ in range(config.n_layer)),
                                  nn.Linear(config.n_embd, config.vocab_size))

    def forward(self, idx, targets=None):
        logits = self.body(idx)
        if targets is None:
            return logits, None
        return logits, nn.functional.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))


def plain(vocab_size, d_model=32, num_layers=3):
    return nn.Sequential(nn.Embedding(vocab_size, d_model),
                         *(nn.Linear(d_model, d_model) for _ in range(num_layers)), nn.Linear(d_model, vocab_size))
"""


def spec_of(path: Path, name: str, **settings: Any) -> Any:
    (path / "net.py").write_text(MODEL)
    return make_spec(LrRangeSpec, "quick", {"model": f"{path / 'net.py'}:{name}", **settings})


def built(path: Path, name: str, **settings: Any) -> nn.Module:
    spec = resolve_user_model(spec_of(path, name, **settings), sweeps_depth=False)
    return factory_of(spec).make(0, spec.variant[0], spec.depth, spec.width)


def test_a_class_that_takes_a_config_is_built_from_the_entries_of_the_dataclass_beside_it(tmp_path: Path) -> None:
    config = built(tmp_path, "Net", depth=2, width=32).config
    assert (config.n_layer, config.n_embd) == (2, 32)
    assert config.vocab_size == 256  # bytes, as long as there is no data of its own
    assert 32 % config.n_head == 0
    assert config.n_head == 8


def test_entries_that_are_set_stay_as_they_are(tmp_path: Path) -> None:
    config = built(tmp_path, "Net", set="n_layer=1,n_embd=24,n_head=3,vocab_size=300,block_size=99").config
    assert vars(config) == {"n_layer": 1, "n_embd": 24, "n_head": 3, "vocab_size": 300, "block_size": 99}


def test_depth_and_width_reach_a_factory_by_the_names_that_it_has_for_them(tmp_path: Path) -> None:
    model = built(tmp_path, "plain", depth=5, width=16)
    assert len(model) == 7
    assert model[0].weight.shape == (256, 16)


def test_the_defaults_of_a_factory_are_those_of_depth_and_width(tmp_path: Path) -> None:
    spec = resolve_user_model(spec_of(tmp_path, "plain"), sweeps_depth=False)
    assert (spec.depth, spec.width) == (3, 32)


def test_a_config_may_come_from_a_function_of_the_class() -> None:
    class Net:
        def __init__(self, config: Any) -> None:
            self.config = config

        @staticmethod
        def get_default_config() -> SimpleNamespace:
            return SimpleNamespace(model_type="small", vocab_size=None, dropout=0.1)

    taken = arguments(Net, has_data=False)
    made = taken.build(dropout=0.5).config
    assert vars(made) == {"model_type": "small", "vocab_size": 256, "dropout": 0.5}


def test_a_config_is_found_by_the_annotation_of_its_parameter() -> None:
    taken = arguments(_Annotated)
    assert taken.takes == {"depth": REQUIRED, "width": 8, "heads": 2, "bias": True}
    assert taken.build(depth=3, bias=False).seen == (3, 8, False)


@dataclass
class _Sizes:
    n_layers: int
    dim: int = 8
    heads: int = 2


class _Annotated:
    def __init__(self, model_config: _Sizes | None, bias: bool = True) -> None:
        assert model_config is not None
        self.seen = (model_config.n_layers, model_config.dim, bias)


def test_a_factory_by_our_names_is_taken_as_it_is() -> None:
    def build(depth: int = 2, width: int = 4, hidden_size: int = 7) -> nn.Module:
        return nn.Linear(width, hidden_size)

    assert arguments(build).build is build
    assert arguments(build).known_as == {}


def test_what_a_factory_prints_is_heard_once_and_not_among_the_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "from torch import nn\ndef build():\n    print('BUILT')\n    return nn.Linear(2, 2)\n"
    (tmp_path / "loud.py").write_text(code)
    spec = make_spec(LrRangeSpec, "quick", {"model": f"{tmp_path / 'loud.py'}:build"})
    factory = factory_of(spec)
    for seed in range(3):
        factory.make(seed, "as-built", 1, 64)
    out, err = capsys.readouterr()
    assert "BUILT" not in out
    assert err.count("BUILT") == 1


def test_pixels_in_a_row_become_images_for_a_model_without_convolutions_that_takes_no_rows(tmp_path: Path) -> None:
    (tmp_path / "vit.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Patches(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.out = nn.Linear(64, 10)\n"
        "    def forward(self, x):\n        b, c, h, w = x.shape\n        return self.out(x.reshape(b, -1)[:, :64])\n"
    )
    spec = make_spec(LrRangeSpec, "quick", {"model": f"{tmp_path / 'vit.py'}:Patches", "task": "images"})
    spec = resolve_user_model(spec, sweeps_depth=False)
    x, _ = user_bench(spec, "as-built", 1, "adam", "cpu").batches.batch([0], 0)[0].data
    assert isinstance(x, torch.Tensor)
    assert x.ndim == 4
