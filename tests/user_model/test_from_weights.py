"""`--from-weights`: a state dict goes into what the factory builds, whole and from wherever checkpoints keep it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stresstest.cli.main import run
from stresstest.errors import ConfigError
from stresstest.user_code import UserCodeError
from stresstest.user_model.state_dict import with_weights

MODEL = """
from torch import nn

def build(width=8):
    return nn.Sequential(nn.Embedding(256, width), nn.Linear(width, 256))
"""
TINY = "--seeds 2 --num-steps 20 --hold-steps 20 --no-theory --probes off -j 1 -q".split()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("model.py").write_text(MODEL)
    return tmp_path


def net(seed: int, width: int = 8) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Embedding(256, width), nn.Linear(width, 256))


def put(stored: Any, name: str = "w.pt") -> nn.Module:
    """A net of other weights, after what a file holds was put into it."""
    torch.save(stored, name)
    module = net(1)
    with_weights("", name)["weights"](module)
    return module


def same(module: nn.Module, state: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, state[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model.", "module._orig_mod.", "model.net."])
@pytest.mark.parametrize("under", [None, "state_dict", "model", "model_state_dict"])
def test_a_state_dict_is_found_where_checkpoints_keep_it_and_under_their_prefixes(
    prefix: str, under: str | None
) -> None:
    state = net(0).state_dict()
    stored: Any = {f"{prefix}{name}": value for name, value in state.items()}
    assert same(put({under: stored, "epoch": 3} if under else stored), state)


def test_a_model_that_is_wrapped_takes_the_plain_weights() -> None:
    state = net(0).state_dict()
    torch.save(state, "w.pt")
    wrapped = nn.Module()
    wrapped.add_module("model", net(1))
    with_weights("", "w.pt")["weights"](wrapped)
    assert same(wrapped.get_submodule("model"), state)


def test_a_tied_parameter_may_stand_under_one_of_its_names() -> None:
    def tied(seed: int) -> nn.Module:
        module = net(seed)
        module[1].weight = module[0].weight  # type: ignore[index]
        return module

    state = tied(0).state_dict()
    del state["1.weight"]
    torch.save(state, "w.pt")
    module = tied(1)
    with_weights("", "w.pt")["weights"](module)
    assert torch.equal(module.state_dict()["1.weight"], state["0.weight"])


def test_safetensors_are_read() -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    state = net(0).state_dict()
    safetensors.save_file(state, "w.safetensors")
    module = net(1)
    with_weights("", "w.safetensors")["weights"](module)
    assert same(module, state)


def test_what_does_not_fit_is_named_and_nothing_is_loaded() -> None:
    state = net(0).state_dict()
    state["2.bias"] = state.pop("1.bias")
    before = net(1).state_dict()
    torch.save(state, "w.pt")
    module = net(1)
    with pytest.raises(UserCodeError, match=r"it lacks 1\.bias; the model lacks 2\.bias"):
        with_weights("", "w.pt")["weights"](module)
    assert same(module, before)
    with pytest.raises(UserCodeError, match=r"0\.weight is \[256, 4\] there and \[256, 8\] in the model"):
        put(net(0, width=4).state_dict())


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        (nn.Linear(2, 2), "holds more than tensors, which would run code"),
        ({"epoch": 3, "loss": 1.0}, "holds epoch, loss, and no state dict"),
        ([1, 2], "holds a list, and no state dict"),
    ],
)
def test_a_file_without_a_state_dict_is_a_line(stored: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        put(stored)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--model model.py:build --from-weights gone.pt", "file gone.pt not found"),
        ("--model decoder --from-weights gone.pt", "works only with your own model"),
        ("--model model.py:build --random-init", "random-init works only with hf:FOLDER"),
    ],
)
def test_bad_input_is_one_line(capsys: pytest.CaptureFixture[str], words: str, said: str) -> None:
    assert run(["lr-range", *words.split()]) == 2
    err = capsys.readouterr().err.strip()
    assert said in err
    assert len(err.splitlines()) == 1


def test_seeds_start_alike_and_the_files_content_is_part_of_a_cells_key(capsys: pytest.CaptureFixture[str]) -> None:
    keys = []
    for seed in (0, 5):
        torch.save(net(seed).state_dict(), "w.pt")
        words = ["--model", "model.py:build", "--from-weights", "w.pt", "--run-dir", f"run{seed}"]
        assert run(["lr-range", *words, *TINY, "-v"]) == 0
        stored = json.loads(Path(f"run{seed}/result.json").read_text())
        assert stored["data"]["starts_from"] == "the weights in w.pt"
        keys.append({cell["key"] for cell in stored["cells"]})
    assert keys[0].isdisjoint(keys[1])
    said = " ".join(capsys.readouterr().out.split())
    assert "from the weights in w.pt (seeds differ in their batches and dropout alone)" in said
