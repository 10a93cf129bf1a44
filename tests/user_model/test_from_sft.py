"""trl's SFTTrainer beside its own `train()`: completions, LoRA, packing, bfloat16."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

from stresstest import from_trainer
from stresstest.user_model.factory import register_callable, seeded
from tests.user_model.trainers import LR, arguments, assert_equal, bench_of, here, natively

WORDS = "the a cat dog sat ran on mat rug big small red blue and then it was who what yes no . ?".split()
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


def tokenizer() -> PreTrainedTokenizerFast:
    """One number a word."""
    vocabulary = {word: index for index, word in enumerate(["<pad>", "<eos>", "<unk>", *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")


def questions(count: int = 96) -> list[dict[str, str]]:
    """Prompts of two words, which are the beginning of the answer."""
    places = torch.randint(0, len(WORDS) - 2, (count, 2), generator=torch.Generator().manual_seed(0)).tolist()
    return [
        {"prompt": f"{WORDS[a]} {WORDS[b]} ?", "completion": " ".join([WORDS[a], WORDS[b], "."][: 2 + a % 2])}
        for a, b in places
    ]


def make_trainer(lora: bool = True, as_text: bool = False, seed: int = 0, **given: Any) -> SFTTrainer:
    """Fine-tunes a GPT-2 whose weights are always the same."""
    with seeded(5):
        sizes = {"vocab_size": 32, "n_positions": 64, "n_embd": 16, "n_layer": 1, "n_head": 2}
        model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=1))
    rows = [{"text": f"{row['prompt']} {row['completion']}"} for row in questions()] if as_text else questions()
    plain = {key: value for key, value in vars(arguments(seed=seed)).items() if key in _ASKED}
    callbacks = given.pop("callbacks", None)
    return SFTTrainer(
        model=model,
        args=SFTConfig(**{**plain, "max_length": 32, "bf16": False, "learning_rate": LR, **given}),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer(),
        callbacks=callbacks,
        peft_config=LoraConfig(r=4, target_modules=["c_attn"], lora_dropout=0.1, fan_in_fan_out=True) if lora else None,
    )


_ASKED = (
    "output_dir",
    "per_device_train_batch_size",
    "report_to",
    "use_cpu",
    "disable_tqdm",
    "save_strategy",
    "logging_strategy",
    "lr_scheduler_type",
    "seed",
)
CASES: dict[str, dict[str, Any]] = {
    "adapters": {},
    "adapters in bfloat16, accumulated": {"bf16": True, "gradient_accumulation_steps": 2},
    "all weights": {"lora": False},
    "all weights, smoothed: by the forward before it was patched": {"lora": False, "label_smoothing_factor": 0.1},
    "packed text": {"as_text": True, "packing": True, "packing_strategy": "wrapped"},
}


@pytest.mark.parametrize("given", CASES.values(), ids=CASES.keys())
def test_batches_and_weights_are_those_of_train_to_the_bit(given: dict[str, Any]) -> None:
    make = partial(make_trainer, **given)
    assert_equal(here(make(seed=3)), natively(make))


def test_adapters_alone_are_trained_and_the_base_stays() -> None:
    brought = from_trainer(make_trainer())
    assert brought.build is not None
    model = brought.build()
    assert all("lora_" in name for name, parameter in model.named_parameters() if parameter.requires_grad)


@pytest.mark.parametrize("lora", [True, False])
def test_the_best_constant_predictor_is_found(lora: bool) -> None:
    with register_callable(make_trainer(lora=lora), {}) as name:
        constant = bench_of(name).constant
    assert 1.5 < constant.baseline_loss < 4.0
