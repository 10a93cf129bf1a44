"""Fine-tuning from a folder: makes a small GPT-2 with a tokenizer and a LoRA adapter, as save_pretrained() writes them.

    python fine_tune.py
    stresstest lr-range --model hf:tiny --seq-len 32 --data pydoc
    stresstest lr-range --model hf:tiny-lora --seq-len 32 --data pydoc

The first run trains all weights from where the folder has them, the second the adapter alone; both on the text that
it has read a little of, through the tokenizer. With --data path:FILE it is your text. It needs transformers and peft:
pip install 'transformers>=5' peft
"""

import json
from pathlib import Path
from pydoc_data.topics import topics

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

TEXT = "\n".join(topics[name] for name in sorted(topics))[:200_000]
STEPS, BATCH, LENGTH = 150, 16, 32


def tokenizer_of(text: str) -> PreTrainedTokenizerFast:
    """Byte pairs, 400 of them."""
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False
    )
    words.train_from_iterator([text], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>")


def trained(tokenizer: PreTrainedTokenizerFast) -> GPT2LMHeadModel:
    """A GPT-2 of two layers that has read a little of Python's documentation."""
    torch.manual_seed(0)
    sizes = {"n_embd": 32, "n_head": 2, "n_layer": 2, "n_positions": LENGTH}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), bos_token_id=0, eos_token_id=0, **sizes))
    tokens = torch.tensor(tokenizer(TEXT, verbose=False)["input_ids"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(STEPS):
        rows = tokens[torch.randint(len(tokens) - LENGTH, (BATCH, 1)) + torch.arange(LENGTH)]
        optimizer.zero_grad()
        model(input_ids=rows, labels=rows).loss.backward()
        optimizer.step()
    return model


if __name__ == "__main__":
    tokenizer = tokenizer_of(TEXT)
    model = trained(tokenizer)
    model.save_pretrained("tiny")
    tokenizer.save_pretrained("tiny")
    lora = LoraConfig(r=4, target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM")
    get_peft_model(model, lora).save_pretrained("tiny-lora")
    config = Path("tiny-lora/adapter_config.json")
    config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": "tiny"}, indent=2))
