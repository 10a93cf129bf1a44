"""Models of transformers, from a config, with a dict for a batch."""

from __future__ import annotations

import torch
import transformers
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSequenceClassification

TOKENS = 48
transformers.logging.set_verbosity_error()


def counted(generator):
    """Each token is the last plus 5, with one in ten anew; small tokens start more often."""
    x = torch.zeros(8, 12, dtype=torch.long)
    x[:, 0] = (torch.rand(8, generator=generator) ** 2 * 12).long()
    for t in range(1, 12):
        anew = torch.randint(12, (8,), generator=generator)
        x[:, t] = torch.where(torch.rand(8, generator=generator) < 0.1, anew, (x[:, t - 1] + 5) % 12)
    return x


def gpt2():
    config = transformers.GPT2Config(
        vocab_size=TOKENS, n_embd=16, n_head=4, n_layer=1, n_positions=16, bos_token_id=0, eos_token_id=0
    )
    config.use_cache = False
    return AutoModelForCausalLM.from_config(config)


def gpt2_batch(step, batch_size, generator):
    x = counted(generator)
    return {"input_ids": x, "labels": x}


def bert_config(**more):
    return transformers.BertConfig(
        vocab_size=TOKENS,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.1,
        **more,
    )


def bert():
    return AutoModelForMaskedLM.from_config(bert_config())


def bert_batch(step, batch_size, generator):
    """Each row has one token, with one in ten anew; three of ten are hidden."""
    x = torch.randint(12, (16, 1), generator=generator).expand(16, 12)
    anew = torch.randint(12, (16, 12), generator=generator)
    x = torch.where(torch.rand(x.shape, generator=generator) < 0.1, anew, x)
    hidden = torch.rand(x.shape, generator=generator) < 0.3
    return {"input_ids": x.masked_fill(hidden, TOKENS - 1), "labels": x.masked_fill(~hidden, -100)}


def classifier():
    return AutoModelForSequenceClassification.from_config(bert_config(num_labels=3))


def classifier_batch(step, batch_size, generator):
    """Which of three marks stands first?"""
    y = torch.randint(3, (16,), generator=generator)
    x = torch.randint(3, TOKENS, (16, 8), generator=generator)
    x[:, 0] = y
    return {"input_ids": x, "attention_mask": torch.ones_like(x), "labels": y}


def on_bytes():
    """As it is, on the built-in bytes."""
    config = transformers.GPT2Config(
        vocab_size=256, n_embd=16, n_head=2, n_layer=1, n_positions=64, bos_token_id=0, eos_token_id=0
    )
    config.update({"use_cache": False, "initializer_range": 0.2, "resid_pdrop": 0.0, "embd_pdrop": 0.0})
    return AutoModelForCausalLM.from_config(config)


class Wrapped(nn.Module):
    """The same inside another module, which gives what it gives."""

    def __init__(self):
        super().__init__()
        self.inner = on_bytes()

    def forward(self, x):
        return self.inner(input_ids=x)


def wrapped():
    return Wrapped()
