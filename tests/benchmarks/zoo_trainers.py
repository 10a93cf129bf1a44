"""The part of the zoo that brings its own training: Lightning's examples, Trainer, SFTTrainer, Accelerate."""

# ruff: noqa: E501  # the lines that users write are shown as they are
from __future__ import annotations

from zoo_entry import Entry, plain

_PL = "Lightning-AI/pytorch-lightning:examples/pytorch"
_MNIST = """
import torch
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
y = torch.arange(2048) % 10
x = torch.rand(10, 1, 28, 28).round()[y] * torch.rand(2048, 1, 28, 28)
loader = DataLoader(TensorDataset(x, y), batch_size=16, shuffle=True)
"""
_TEXT = """
import torch
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
x = (torch.randint(32, (2048, 1)) + torch.arange(17)) % 32
loader = DataLoader(TensorDataset(x[:, :-1], x[:, 1:]), batch_size=8, shuffle=True)
"""
_CAUSAL = """
import torch
from torch.utils.data import TensorDataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

torch.manual_seed(0)
tokens = (torch.randint(32, (512, 1)) + torch.arange(24)) % 32
rows = [{"input_ids": row, "labels": row} for row in tokens]


def make_trainer(depth=2, width=64):
    config = GPT2Config(vocab_size=32, n_positions=32, n_embd=width, n_layer=depth, n_head=4, bos_token_id=0, eos_token_id=1)
    arguments = TrainingArguments("out", per_device_train_batch_size=8, gradient_accumulation_steps=2, use_cpu=True, report_to="none")
    return Trainer(model_init=lambda: GPT2LMHeadModel(config), args=arguments, train_dataset=rows)


if __name__ == "__main__":
    make_trainer().train()
"""
_CLASSES = """
import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

torch.manual_seed(0)
tokens = torch.randint(32, (1024, 16))
rows = [{"input_ids": row, "attention_mask": torch.ones_like(row), "labels": int(row.sum() > 16 * 15.5)} for row in tokens]


def make_trainer(depth=2, width=64):
    sizes = {"hidden_size": width, "num_hidden_layers": depth, "num_attention_heads": 4, "intermediate_size": 4 * width}
    config = BertConfig(vocab_size=32, num_labels=2, max_position_embeddings=32, **sizes)
    arguments = TrainingArguments("out", per_device_train_batch_size=16, use_cpu=True, report_to="none")
    return Trainer(model_init=lambda: BertForSequenceClassification(config), args=arguments, train_dataset=rows)


if __name__ == "__main__":
    make_trainer().train()
"""
_SFT = """
import torch
from datasets import Dataset
from peft import LoraConfig
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

torch.manual_seed(0)
names = [f"w{number}" for number in range(29)]
words = Tokenizer(models.WordLevel({name: i for i, name in enumerate(["<pad>", "<eos>", "<unk>", *names])}, unk_token="<unk>"))
words.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")
starts = torch.randint(29, (256,)).tolist()
rows = [{"prompt": " ".join(names[(s + i) % 29] for i in range(4)), "completion": " ".join(names[(s + i) % 29] for i in range(4, 8))} for s in starts]


def make_trainer():
    torch.manual_seed(1)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=32, n_positions=32, n_embd=64, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=1))
    arguments = SFTConfig("out", per_device_train_batch_size=8, max_length=16, use_cpu=True, bf16=False, report_to="none")
    lora = LoraConfig(r=8, target_modules=["c_attn"], fan_in_fan_out=True)
    return SFTTrainer(model=model, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, peft_config=lora)


if __name__ == "__main__":
    make_trainer().train()
"""
_ACCELERATE = """
import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
x = torch.randn(2048, 16)
data = TensorDataset(x, (x @ torch.randn(16, 5)).argmax(1))


def main(width=64):
    accelerator = Accelerator(cpu=True)
    model = nn.Sequential(nn.Linear(16, width), nn.ReLU(), nn.Linear(width, 5))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    return accelerator.prepare(model, optimizer, DataLoader(data, batch_size=16, shuffle=True))
"""

TRAINERS: list[Entry] = [
    plain(
        "LitAutoEncoder",
        f"{_PL}/basics/autoencoder.py",
        "mine.py:build",
        """
from autoencoder import LitAutoEncoder; from data import loader
def build(width=64): return LitAutoEncoder(hidden_dim=width), loader
""",
        _MNIST,
    ),
    plain(
        "LitClassifier",
        f"{_PL}/basics/backbone_image_classifier.py",
        "mine.py:build",
        """
from backbone_image_classifier import Backbone, LitClassifier; from data import loader
def build(width=64): return LitClassifier(Backbone(width)), loader
""",
        _MNIST,
    ),
    plain(
        "LanguageModel with Trainer(gradient_clip_val=0.25)",
        f"{_PL}/basics/transformer.py",
        "mine.py:build",
        """
from transformer import LanguageModel; from lightning import Trainer; from data import loader
def build(): return LanguageModel(vocab_size=32), loader, Trainer(gradient_clip_val=0.25)
""",
        _TEXT,
    ),
    plain(
        "GAN, manual optimization",
        f"{_PL}/domain_templates/generative_adversarial_net.py",
        "mine.py:build",
        """
from generative_adversarial_net import GAN; from data import loader
def build(): return GAN((1, 28, 28)), loader
""",
        _MNIST,
    ),
    plain(
        "BoringModel",
        f"{_PL}/bug_report/bug_report_model.py",
        "mine.py:build",
        """
from bug_report_model import BoringModel, RandomDataset; from torch.utils.data import DataLoader
def build(): return BoringModel(), DataLoader(RandomDataset(32, 64), batch_size=2)
""",
    ),
    plain("a Trainer script, causal LM, 2 batches accumulated", "transformers", "data.py:make_trainer", has=_CAUSAL),
    plain("a Trainer script, sequence classification", "transformers", "data.py:make_trainer", has=_CLASSES),
    plain("an SFTTrainer script with LoRA", "trl", "data.py:make_trainer", has=_SFT),
    plain("what stands before a loop with Accelerate", "accelerate", "data.py:main", has=_ACCELERATE),
]
