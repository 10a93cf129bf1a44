"""A Hugging Face Trainer as it is: its data, loss, optimizer, clipping and accumulation are taken over.

    stresstest lr-range --model trainer.py:make_trainer --depth 2

Seed s trains as `trainer.train()` does with `TrainingArguments(seed=s)`; its learning rate is replaced by those that
are tested. Needs `transformers` and `accelerate`.
"""

import torch
from torch.utils.data import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments


class Sums(Dataset):
    """Sums of two digits, "3+4=07", as numbers of ten digits, a plus and an equals sign."""

    def __len__(self) -> int:
        return 400

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        a, b = index // 10 % 10, index % 10
        text = torch.tensor([a, 10, b, 11, (a + b) // 10, (a + b) % 10])
        return {"input_ids": text, "labels": text}


def make_trainer(depth: int = 2, width: int = 32) -> Trainer:
    """The trainer to test: with model_init each seed has its own weights."""
    config = LlamaConfig(
        vocab_size=12,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=depth,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=8,
        bos_token_id=0,
        eos_token_id=0,
    )
    args = TrainingArguments(
        output_dir="sums",
        per_device_train_batch_size=8,
        gradient_accumulation_steps=2,
        weight_decay=0.1,
        report_to="none",
        use_cpu=True,
    )
    return Trainer(model_init=lambda: LlamaForCausalLM(config), args=args, train_dataset=Sums())


if __name__ == "__main__":
    make_trainer().train()
