"""A Hugging Face Trainer that is watched: a NaN in one batch, which Trainer's own log hides, stops the run.

    python watch_trainer.py

Needs `transformers` and `accelerate`. `logging_nan_inf_filter` is on, as it is by default.
"""

import torch
from torch.utils.data import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from stresstest.watch.transformers import WatchCallback


class Sums(Dataset):
    """Sums of two digits, "3+4=07", as numbers of ten digits, a plus and an equals sign."""

    def __len__(self) -> int:
        return 400

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        a, b = index // 10 % 10, index % 10
        text = torch.tensor([a, 10, b, 11, (a + b) // 10, (a + b) % 10])
        return {"input_ids": text, "labels": text}


class Faulty(Trainer):
    """Step 31 has a loss that is not finite."""

    def compute_loss(self, *args, **kwargs):
        """The model's loss."""
        loss = super().compute_loss(*args, **kwargs)
        return loss * float("nan") if self.state.global_step == 30 else loss


def main() -> None:
    """Train, and print why it stopped."""
    torch.manual_seed(0)  # Trainer sets its own seed after the model was made
    config = LlamaConfig(
        vocab_size=12,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        bos_token_id=0,
        eos_token_id=0,
    )
    args = TrainingArguments(
        output_dir="sums",
        per_device_train_batch_size=8,
        gradient_accumulation_steps=2,
        learning_rate=1e-3,
        max_steps=75,
        logging_steps=10,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Faulty(LlamaForCausalLM(config), args, train_dataset=Sums())
    callback = WatchCallback(on_break="stop", checkpoint="checkpoints", save_every=10).attach(trainer)
    trainer.train()
    print(f"stopped after {trainer.state.global_step} steps: {callback.verdict}")


if __name__ == "__main__":
    main()
