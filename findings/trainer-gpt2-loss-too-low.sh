#!/usr/bin/env bash
# transformers 5.24.0: the loss that Trainer trains and logs for GPT-2 is not the model's, but less by (T - 1) / T.
#
# Guess before the run: Trainer divides by the number of targets in the accumulated batches, so that the loss of a step
# is the mean over targets, the same as model(**batch).loss.
# Seen: of a Llama it is. GPT-2's config has no loss_type, so Trainer does not know that the model shifts its labels, and
# counts each sequence's first token, which is no target: 64 instead of 56 here. Loss and gradient are 7/8 of the model's,
# and where sequences are short, a learning rate found for one loop is another one in the other under plain SGD.
#
# Output:
#   LlamaForCausalLM: Trainer counts 56 targets and takes 3.898; the model says 3.898, ratio 1.000
#   GPT2LMHeadModel: Trainer counts 64 targets and takes 3.429; the model says 3.918, ratio 0.875
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6 transformers==5.24.0 accelerate==1.15.0
cd "$folder"
"$folder/venv/bin/python" - 2> /dev/null <<'PY'
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

torch.manual_seed(0)
tokens = torch.randint(0, 50, (4, 8))
gpt2 = GPT2Config(vocab_size=50, n_positions=8, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
llama = LlamaConfig(
    vocab_size=50, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
    num_key_value_heads=2, max_position_embeddings=8,
)  # fmt: skip
models = GPT2LMHeadModel(gpt2).eval(), LlamaForCausalLM(llama).eval()
ratios = {}
for model in reversed(models):
    args = TrainingArguments("out", report_to="none", use_cpu=True, gradient_accumulation_steps=2)
    trainer = Trainer(model=model, args=args)
    batch = {"input_ids": tokens, "labels": tokens}
    batches, count = trainer.get_batch_samples(iter([batch, batch]), 2, torch.device("cpu"))
    with torch.no_grad():
        taken = sum(float(trainer.compute_loss(model, dict(one), num_items_in_batch=count)) for one in batches)
        said = float(model(**batch).loss)
    name = type(model).__name__
    ratios[name] = round(taken / said, 3)
    print(f"{name}: Trainer counts {int(count)} targets and takes {taken:.3f}; the model says {said:.3f}, ratio {taken / said:.3f}")
raise SystemExit(0 if ratios == {"LlamaForCausalLM": 1.0, "GPT2LMHeadModel": 0.875} else 1)
PY
