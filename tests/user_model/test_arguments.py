"""What a factory takes: a config's entries, names that others have for depth and width, a vocabulary of bytes."""

import re
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from stresstest.errors import ConfigError
from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.specs.profiles import make_spec
from stresstest.user_model.arguments import REQUIRED, arguments
from stresstest.user_model.bench import resolve_user_model, user_bench
from stresstest.user_model.factory import factory_of
from stresstest.user_model.preflight import preflight

MODEL = """
import torch
import re
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


@pytest.mark.parametrize(("width", "heads"), [(6, 2), (7, 1), (1, 1), (0, 2), (-3, 2)])
def test_heads_are_as_many_as_divide_a_width_that_can_be(width: int, heads: int) -> None:
    assert arguments(_Headed).build(depth=1, width=width).seen == (width, heads)
    assert arguments(_Headed).build(depth=1, width=width, heads=5).seen == (width, 5)


@dataclass
class _Sizes:
    n_layers: int
    dim: int = 8
    heads: int = 2


class _Headed:
    def __init__(self, config: _Sizes) -> None:
        self.seen = (config.dim, config.heads)


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


def test_a_config_by_any_name_is_known_by_its_annotation_and_model_args_by_its_name() -> None:
    class Known:
        def __init__(self, sizes: _Sizes) -> None:
            self.seen = sizes.n_layers

    class Named:
        def __init__(self, model_args: _Sizes) -> None:
            self.seen = model_args.n_layers

    for kind in (Known, Named):
        taken = arguments(kind)
        assert taken.known_as == {"depth": "n_layers", "width": "dim"}
        assert taken.build(depth=3).seen == 3


def test_a_depth_that_has_no_number_of_its_own_is_named_as_it_is_called_there(tmp_path: Path) -> None:
    (tmp_path / "none.py").write_text("from torch import nn\ndef build(n_layer=None): return nn.Linear(2, n_layer)\n")
    spec = make_spec(LrRangeSpec, "quick", {"model": f"{tmp_path / 'none.py'}:build", "depth": 2})
    with pytest.raises(ConfigError, match=r"calls it n_layer, .*give --set n_layer=N"):
        resolve_user_model(spec, sweeps_depth=False)


_SHORT = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, max_seq_len=16):
        super().__init__()
        self.embed, self.places = nn.Embedding(256, 8), nn.Embedding(max_seq_len, 8)

    def forward(self, x):
        return self.embed(x) + self.places(torch.arange(x.shape[1]))


class Pixels(nn.Linear):
    def __init__(self):
        super().__init__(49, 10)
"""


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("Net", {}, "it has max_seq_len=16, and --seq-len is 64: give --seq-len 16"),
        ("Net", {"set": ("max_seq_len=40",)}, "it has max_seq_len=40, and --seq-len is 64: give --seq-len 40"),
        ("Pixels", {"task": "images", "data": "digits"}, "images of --data digits are 1 x 8 x 8"),
    ],
)
def test_a_model_of_other_sizes_than_the_built_in_data_is_told_theirs(
    tmp_path: Path, name: str, settings: dict[str, Any], says: str
) -> None:
    (tmp_path / "short.py").write_text(_SHORT)
    spec = make_spec(LrRangeSpec, "quick", {"model": f"{tmp_path / 'short.py'}:{name}", **settings})
    with pytest.raises(ConfigError, match=re.escape(says)):
        preflight(resolve_user_model(spec, sweeps_depth=False), [1], "cpu")


KINDS_OF_CONFIG = """
from __future__ import annotations
from torch import nn
{imports}


{config}


class Net(nn.Sequential):
    def __init__(self, {parameter}):
        super().__init__(nn.Embedding(config.vocab_size, config.n_embd), nn.Linear(config.n_embd, config.vocab_size))
"""
FIELDS = "vocab_size: int = 99\n    n_embd: int = 16"


@pytest.mark.parametrize(
    ("imports", "config", "parameter"),
    [
        ("from dataclasses import dataclass", f"@dataclass\nclass C:\n    {FIELDS}", "config: None | C"),
        ("from dataclasses import dataclass", f"@dataclass\nclass NetCfg:\n    {FIELDS}", "config"),
        ("import typing", f"class C(typing.NamedTuple):\n    {FIELDS}", "config: typing.Optional[C]"),
        ("from attrs import define", f"@define\nclass NetConfig:\n    {FIELDS}", "config"),
        ("from pydantic import BaseModel", f"class NetConfig(BaseModel):\n    {FIELDS}", "config"),
    ],
)
def test_a_config_is_known_in_whatever_it_is_written(tmp_path: Path, imports: str, config: str, parameter: str) -> None:
    pytest.importorskip(imports.split()[1])
    (tmp_path / "kinds.py").write_text(KINDS_OF_CONFIG.format(imports=imports, config=config, parameter=parameter))
    spec = make_spec(LrRangeSpec, "quick", {"model": f"{tmp_path / 'kinds.py'}:Net", "width": 24})
    module = factory_of(resolve_user_model(spec, False)).make(0, "as-built", 1, 24)
    assert [tuple(p.shape) for p in module.parameters()] == [(256, 24), (256, 24), (256,)]


def test_a_model_of_hugging_face_says_its_config_beside_it(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    (tmp_path / "hub.py").write_text("from transformers import GPT2LMHeadModel as Net\n")
    spec = make_spec(LrRangeSpec, "quick", {"model": f"{tmp_path / 'hub.py'}:Net", "width": 24, "depth": 1})
    config: Any = factory_of(resolve_user_model(spec, False)).make(0, "as-built", 1, 24).config
    assert (config.n_embd, config.n_layer, config.vocab_size) == (24, 1, 256)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"set": ("n_layer=0",)}, "set n_layer=0: not a whole number from 1 on"),
        ({"set": ("n_layer=two",)}, "set n_layer=two: not a whole number from 1 on"),
        ({"set": ("depth=-1",)}, "set n_layer=-1: not a whole number from 1 on"),
        ({"variant": ("a",)}, "has no argument 'variant', only .depth, width, "),
    ],
)
def test_sizes_that_are_none_are_a_line(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        resolve_user_model(spec_of(tmp_path, "Net", **settings), False)


def test_a_config_that_is_not_found_is_asked_for_with_a_form_that_works(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("from torch import nn\nclass Own(nn.Linear):\n    def __init__(self, cfg): ...\n")
    spec = make_spec(LrRangeSpec, "quick", {"model": f"{tmp_path / 'own.py'}:Own"})
    with pytest.raises(ConfigError, match=r"needs 'cfg'; write a function beside it, def build.*return Own\(cfg\)"):
        resolve_user_model(spec, False)
