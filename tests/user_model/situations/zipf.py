"""Thousands of tokens, few of which are frequent; few examples a step."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

TOKENS = 2048
ZIPF = 1.0 / torch.arange(1, TOKENS + 1).double() ** 1.1
ZIPF = ZIPF / ZIPF.sum()
FOLLOWS = torch.randperm(TOKENS, generator=torch.Generator().manual_seed(11))


def zipf_tokens(rows, length, generator):
    return torch.multinomial(ZIPF, rows * length, replacement=True, generator=generator).view(rows, length)


def hidden_layers(inputs, width=24):
    """Three of them, with nothing to hold them: above some learning rate they die."""
    sizes = [inputs, width, width, width]
    return nn.Sequential(*(nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in pairwise(sizes)))


class Bigram(nn.Module):
    def __init__(self, tokens=TOKENS, width=16):
        super().__init__()
        self.embedding = nn.Embedding(tokens, width)
        self.mix = hidden_layers(width)
        self.output = nn.Linear(24, tokens)

    def forward(self, x):
        return self.output(self.mix(self.embedding(x)))


def zipf():
    return Bigram()


def zipf_batch(step, batch_size, generator):
    """Nineteen of twenty next tokens follow from the last; the twentieth is drawn anew."""
    x, anew = zipf_tokens(4, 32, generator), zipf_tokens(4, 32, generator)
    return x, torch.where(torch.rand(x.shape, generator=generator) < 0.95, FOLLOWS[x], anew)


class Unigram(nn.Module):
    """One bias per token: the constant predictor itself."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(TOKENS))

    def forward(self, x):
        return self.bias.expand(*x.shape, TOKENS)


def unigram():
    return Unigram()


def unigram_batch(step, batch_size, generator):
    return zipf_batch(step, batch_size, generator)


class Adaptive(nn.Module):
    """torch's adaptive softmax: no logits over all tokens are ever made."""

    def __init__(self, width=16):
        super().__init__()
        self.embedding = nn.Embedding(TOKENS, width)
        self.mix = hidden_layers(width)
        self.output = nn.AdaptiveLogSoftmaxWithLoss(24, TOKENS, [50, 400])

    def forward(self, x):
        return self.mix(self.embedding(x))


def adaptive():
    return Adaptive()


def adaptive_loss(model, batch):
    x, y = batch
    return model.output(model(x).flatten(0, 1), y.flatten()).loss
