"""Fine-tuning from weights that the test itself trained, of all parameters and of LoRA adapters, beside a hand loop."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stresstest.cli.main import run

TOKENS, LENGTH, BATCH, STEPS = 32, 16, 16, 40
MODEL = f"""
import torch
from torch import nn
from tests.user_model.test_fine_tuning import bigrams, drawn

def build(variant="full"):
    from transformers import GPT2Config, GPT2LMHeadModel
    config = GPT2Config(vocab_size={TOKENS}, n_embd=32, n_head=2, n_layer=1, n_positions={LENGTH}, use_cache=False,
                        bos_token_id=0, eos_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    model = GPT2LMHeadModel(config)
    model.load_state_dict(torch.load("weights.pt"))
    if variant == "lora":
        from peft import LoraConfig, get_peft_model
        adapters = LoraConfig(r=4, lora_alpha=8, target_modules=["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True)
        model = get_peft_model(model, adapters)
    return model

def batch(step, batch_size, generator):
    tokens = drawn(TASK, generator)
    return {{"input_ids": tokens, "labels": tokens}}
"""


@cache
def bigrams(task: int) -> Tensor:
    """[V, V]: the chances of the next token; of task 1 a quarter of the rows are others than of task 0."""
    generator = torch.Generator().manual_seed(11)
    first, second = (torch.rand(TOKENS, TOKENS, generator=generator) ** 6 for _ in range(2))
    others = torch.randperm(TOKENS, generator=generator)[: TOKENS // 4]
    if task:
        first[others] = second[others]
    return first / first.sum(1, keepdim=True)


def drawn(task: int, generator: torch.Generator) -> Tensor:
    """[B, T] tokens of the chain."""
    chances = bigrams(task)
    tokens = torch.randint(TOKENS, (BATCH, LENGTH), generator=generator)
    for t in range(1, LENGTH):
        tokens[:, t] = torch.multinomial(chances[tokens[:, t - 1]], 1, generator=generator)[:, 0]
    return tokens


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a model that was trained from scratch on task 0, and the files that go on from it."""
    pytest.importorskip("peft")
    path = tmp_path_factory.mktemp("tuned")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        patch.syspath_prepend(Path(__file__).parents[2])
        patch.syspath_prepend(path)
        for name, task in (("other", 1), ("same", 0)):
            Path(f"{name}.py").write_text(MODEL.replace("TASK", str(task)))
        from transformers import GPT2Config, GPT2LMHeadModel

        torch.manual_seed(0)
        config = GPT2Config(
            vocab_size=TOKENS, n_embd=32, n_head=2, n_layer=1, n_positions=LENGTH, bos_token_id=0, eos_token_id=0
        )
        model = GPT2LMHeadModel(config)
        trained(model, 0, 3e-3, 500, seed=1)
        torch.save(model.state_dict(), "weights.pt")
        model.save_pretrained("full")
        importlib.import_module("other").build("lora").save_pretrained("lora")
        adapter = json.loads(Path("lora/adapter_config.json").read_text())
        Path("lora/adapter_config.json").write_text(json.dumps({**adapter, "base_model_name_or_path": "full"}))
        yield path


def trained(model: nn.Module, task: int, lr: float, steps: int, seed: int) -> None:
    """Adam at a constant learning rate, by hand."""
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=lr)
    for tokens in batches_of(task, seed, steps):
        optimizer.zero_grad()
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()


@cache
def batches_of(task: int, seed: int, number: int) -> list[Tensor]:
    """So many batches."""
    generator = torch.Generator().manual_seed(seed)
    return [drawn(task, generator) for _ in range(number)]


def held_out(model: nn.Module, task: int) -> float:
    """The loss on 60 batches that nothing trained on."""
    tokens = torch.cat(batches_of(task, 99, 60))
    with torch.no_grad():
        return float(model(input_ids=tokens, labels=tokens).loss)


def by_hand(module: Any, variant: str, task: int, lr: float) -> float:
    """What a constant learning rate brings the held-out loss by, the mean of three seeds."""
    gains = []
    for seed in range(3):
        torch.manual_seed(seed)
        model = module.build(variant)
        start = held_out(model, task)
        trained(model, task, lr, STEPS, seed=100 + seed)
        gains.append(start - held_out(model, task))
    return sum(gains) / len(gains)


def cell_of(file: str, variant: str, model: str = "") -> dict[str, Any]:
    model = model or f"{file}.py:build --variant {variant}"
    words = f"lr-range --model {model} --seeds 1 --num-steps 40 --hold-steps {STEPS}"
    code = run([*words.split(), *"--no-theory --probes off -j 1 -q --run-dir".split(), f"{file}-{variant}"])
    assert code == 0
    (cell,) = json.loads(Path(f"{file}-{variant}/result.json").read_text())["cells"]
    found: dict[str, Any] = cell
    return found


@pytest.mark.filterwarnings("ignore")  # of transformers and peft
@pytest.mark.parametrize("variant", ["full", "lora"])
def test_the_bracket_of_fine_tuning_contains_the_edge_of_a_hand_loop(folder: Path, variant: str) -> None:
    module = importlib.import_module("other")
    cell = cell_of("other", variant)
    bracket = cell["metrics"]["max_stable_lr"]
    assert {trial["outcome"] for trial in cell["hold"] if trial["lr"] <= bracket["low"]} <= {"stable", "spiked"}
    assert by_hand(module, variant, 1, bracket["low"]) > 0.02
    assert by_hand(module, variant, 1, bracket["high"]) < -0.02


@pytest.mark.filterwarnings("ignore")
def test_where_nothing_is_left_to_learn_the_boundary_is_the_largest_harmless_lr(folder: Path) -> None:
    module = importlib.import_module("same")
    cell = cell_of("same", "full")
    bracket = cell["metrics"]["max_stable_lr"]
    outcomes = {trial["lr"]: trial["outcome"] for trial in cell["hold"]}
    assert outcomes[bracket["low"]] == "flat"
    assert outcomes[bracket["high"]] in ("relapsed", "exploded")
    assert by_hand(module, "full", 0, bracket["low"] / 2) > -0.05
    assert by_hand(module, "full", 0, bracket["high"]) < -0.05


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["full", "lora"])
def test_the_bracket_from_a_saved_folder_contains_the_edge_of_a_hand_loop(folder: Path, kind: str) -> None:
    module = importlib.import_module("other")
    cell = cell_of("folder", kind, f"hf:{kind} --batch-fn other.py:batch")
    bracket = cell["metrics"]["max_stable_lr"]
    assert by_hand(module, kind, 1, bracket["low"]) > 0.02
    assert by_hand(module, kind, 1, bracket["high"]) < -0.02


@pytest.mark.filterwarnings("ignore")
def test_a_factory_with_weights_from_a_file_gives_what_the_folder_gives(folder: Path) -> None:
    plain = Path("other.py").read_text().replace('    model.load_state_dict(torch.load("weights.pt"))\n', "")
    Path("plain.py").write_text(plain)
    no_dropout = "resid_pdrop=0.0,embd_pdrop=0.0,attn_pdrop=0.0"
    files = cell_of("file", "full", "plain.py:build --from-weights weights.pt")
    folders = cell_of("again", "full", f"hf:full --batch-fn other.py:batch --set {no_dropout}")
    assert files["metrics"] == folders["metrics"]
    assert [(trial["lr"], trial["outcome"]) for trial in files["hold"]] == [
        (trial["lr"], trial["outcome"]) for trial in folders["hold"]
    ]
