"""Language models: padding, masks, models that return their loss, auxiliary terms."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

SMALL = 40  # tokens


def hidden_layers(inputs, width=24):
    """Three of them, with nothing to hold them: above some learning rate they die."""
    sizes = [inputs, width, width, width]
    return nn.Sequential(*(nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in pairwise(sizes)))


class Bigram(nn.Module):
    def __init__(self, tokens=SMALL, width=16):
        super().__init__()
        self.embedding = nn.Embedding(tokens, width)
        self.mix = hidden_layers(width)
        self.output = nn.Linear(24, tokens)

    def forward(self, x):
        return self.output(self.mix(self.embedding(x)))


class Recurrent(nn.Module):
    """A GRU over tokens that takes its own loss, as nanoGPT does."""

    def __init__(self, width=16, hidden=24, ignored=-100):
        super().__init__()
        self.embedding = nn.Embedding(SMALL, width)
        self.body = nn.GRU(width, width, batch_first=True)
        self.mix = hidden_layers(width, hidden)
        self.output = nn.Linear(hidden, SMALL)
        self.ignored = ignored

    def forward(self, idx, targets=None):
        hidden = self.mix(self.body(self.embedding(idx))[0])
        if targets is None:
            return self.output(hidden[:, [-1]]), None
        logits = self.output(hidden)
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=self.ignored)


def counted(rows, length, generator):
    """Each token is the last plus 3, with one in ten wrong; the tokens themselves are not evenly spread."""
    x = (torch.rand(rows, length, generator=generator) ** 2 * SMALL).long()
    wrong = torch.randint(SMALL, (rows, length), generator=generator)
    return x, torch.where(torch.rand(rows, length, generator=generator) < 0.1, wrong, (x + 3) % SMALL)


def nano():
    return Recurrent()


def nano_batch(step, batch_size, generator):
    return counted(16, 12, generator)


def compiled():
    return torch.compile(Recurrent(), backend="eager")


def minus_one():
    return Recurrent(hidden=36, ignored=-1)


def minus_one_batch(step, batch_size, generator):
    """Sentences of 3 to 12 tokens, padded with -1."""
    x, y = counted(16, 12, generator)
    lengths = torch.randint(3, 13, (16, 1), generator=generator)
    return x, y.masked_fill(torch.arange(12) >= lengths, -1)


def padded():
    return Bigram()


def padded_batch(step, batch_size, generator):
    """Three quarters of all places are padding, token 0, on both sides."""
    x, y = counted(16, 24, generator)
    gone = torch.arange(24) >= torch.randint(3, 10, (16, 1), generator=generator)
    return (x % (SMALL - 1) + 1).masked_fill(gone, 0), (y % (SMALL - 1) + 1).masked_fill(gone, 0)


def padded_loss(model, batch):
    x, y = batch
    return F.cross_entropy(model(x).flatten(0, 1), y.flatten(), ignore_index=0)


class TimeFirst(nn.Module):
    """Torch's own default order: [T, B, ...] all through."""

    def __init__(self, width=16):
        super().__init__()
        self.embedding = nn.Embedding(SMALL, width)
        self.body = nn.GRU(width, width)
        self.mix = hidden_layers(width)
        self.output = nn.Linear(24, SMALL)

    def forward(self, x):
        return self.output(self.mix(self.body(self.embedding(x))[0]))


def time_first():
    return TimeFirst()


def time_first_batch(step, batch_size, generator):
    x, y = counted(16, 12, generator)
    return x.t(), y.t()


def crossed_axes():
    """The usual slip: the model is time-first, the targets are batch-first."""
    return TimeFirst()


def crossed_axes_batch(step, batch_size, generator):
    x, y = counted(16, 12, generator)
    return x.t(), y


def z_loss():
    return Bigram()


def z_loss_batch(step, batch_size, generator):
    return counted(16, 12, generator)


def z_loss_loss(model, batch):
    x, y = batch
    logits = model(x)
    return F.cross_entropy(logits.flatten(0, 1), y.flatten()) + 0.02 * logits.logsumexp(-1).square().mean()


class Experts(nn.Module):
    """Four experts behind a router with the load-balancing loss of Switch Transformers."""

    def __init__(self, width=16, experts=4):
        super().__init__()
        self.embedding = nn.Embedding(SMALL, width)
        self.router = nn.Linear(width, experts)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width)) for _ in range(experts)
        )
        self.output = nn.Linear(width, SMALL)

    def forward(self, x):
        h = self.embedding(x)
        share = self.router(h).softmax(-1)
        best, which = share.max(-1)
        mixed = sum(((which == i) * best).unsqueeze(-1) * expert(h) for i, expert in enumerate(self.experts))
        used = F.one_hot(which, len(self.experts)).float().flatten(0, -2).mean(0)
        balance = len(self.experts) * (used * share.flatten(0, -2).mean(0)).sum()
        return self.output(F.relu(mixed)), balance


def experts():
    return Experts()


def experts_batch(step, batch_size, generator):
    return counted(16, 12, generator)


def experts_loss(model, batch):
    x, y = batch
    logits, balance = model(x)
    return F.cross_entropy(logits.flatten(0, 1), y.flatten()) + 0.1 * balance


def all_masked():
    return Bigram()


def all_masked_batch(step, batch_size, generator):
    """The answer begins at 4 to 13 of 12 tokens: now and then a batch of two has none."""
    x, y = counted(2, 12, generator)
    return x, y.masked_fill(torch.arange(12) < torch.randint(4, 15, (2, 1), generator=generator), -100)


def answers_only():
    return Bigram(width=24)


def answers_only_batch(step, batch_size, generator):
    """A prompt that is masked, and at least four tokens of answer."""
    x, y = counted(16, 12, generator)
    return x, y.masked_fill(torch.arange(12) < torch.randint(2, 8, (16, 1), generator=generator), -100)


class Translator(nn.Module):
    """Two stacks without a forward: what calls them is the loss."""

    def __init__(self, width=16):
        super().__init__()
        self.source, self.target = nn.Embedding(SMALL, width), nn.Embedding(SMALL, width)
        self.reader = nn.GRU(width, width, batch_first=True)
        self.writer = nn.GRU(width, width, batch_first=True)
        self.mix = hidden_layers(2 * width, 28)
        self.output = nn.Linear(28, SMALL)

    def encode(self, source):
        return self.reader(self.source(source))[0]

    def decode(self, memory, target):
        return self.output(self.mix(torch.cat([self.writer(self.target(target))[0], memory], -1)))


def translator():
    return Translator()


def translator_batch(step, batch_size, generator):
    x, y = counted(16, 10, generator)
    return {"src": x, "tgt": y}


def translator_loss(model, batch):
    shifted = F.pad(batch["tgt"][:, :-1], (1, 0))
    logits = model.decode(model.encode(batch["src"]), shifted)
    return F.cross_entropy(logits.flatten(0, 1), batch["tgt"].flatten())


class Cloze(nn.Module):
    """Hidden tokens from those on both sides."""

    def __init__(self, width=16):
        super().__init__()
        self.embedding = nn.Embedding(SMALL + 1, width)
        self.mix = hidden_layers(2 * width, 32)
        self.output = nn.Linear(32, SMALL)

    def forward(self, x):
        h = self.embedding(x)
        return self.output(self.mix(torch.cat([h.roll(1, 1), h.roll(-1, 1)], -1)))


def cloze():
    return Cloze()


def cloze_batch(step, batch_size, generator):
    """Every token stands three times in a row; of some, the one in the middle is hidden behind a mask token."""
    x = (torch.rand(48, 6, generator=generator) ** 2 * SMALL).long().repeat_interleave(3, 1)
    hidden = (torch.rand(x.shape, generator=generator) < 0.5) & (torch.arange(18) % 3 == 1)
    noise = torch.randint(SMALL, x.shape, generator=generator)
    y = torch.where(torch.rand(x.shape, generator=generator) < 0.1, noise, x)
    return x.masked_fill(hidden, SMALL), y.masked_fill(~hidden, -100)


def splits():
    return Bigram(width=24)


def splits_batch(step, batch_size, generator, split):
    """Training and validation data are apart: the first has the lower half of the tokens alone."""
    x, y = counted(16, 12, generator)
    return (x, y) if split == "validation" else (x // 2, y // 2)


class Skipgram(nn.Module):
    """Word vectors by negative sampling."""

    def __init__(self, width=8):
        super().__init__()
        self.words, self.contexts = nn.Embedding(SMALL, width), nn.Embedding(SMALL, width)

    def forward(self, word, context):
        return 2.0 * (self.words(word) * self.contexts(context)).sum(-1)


def skipgram():
    return Skipgram()


def skipgram_batch(step, batch_size, generator):
    """A word, what stands beside it, and five that do not."""
    x, y = counted(64, 1, generator)
    return x, y, torch.randint(SMALL, (64, 5), generator=generator)


def skipgram_loss(model, batch):
    word, context, others = batch
    return -(F.logsigmoid(model(word, context)).mean() + F.logsigmoid(-model(word, others)).sum(1).mean())


class Carries(nn.Module):
    """A recurrent model that goes on with the hidden state of the batch before."""

    def __init__(self, width=16):
        super().__init__()
        self.embedding = nn.Embedding(SMALL, width)
        self.body = nn.GRU(width, width, batch_first=True)
        self.mix = hidden_layers(width)
        self.output = nn.Linear(24, SMALL)
        self.register_buffer("state", torch.zeros(1, 16, width))

    def forward(self, x):
        hidden, last = self.body(self.embedding(x), self.state.clone())
        self.state.copy_(last.detach())
        return self.output(self.mix(hidden))


def carries():
    return Carries()


class LastToken(nn.Module):
    """A sum of digits, asked for at the end of a sequence."""

    def __init__(self, width=16):
        super().__init__()
        self.embedding = nn.Embedding(10, width)
        self.output = nn.Sequential(hidden_layers(3 * width, 16), nn.Linear(16, 4))

    def forward(self, x):
        return self.output(self.embedding(x).flatten(1))


def last_token():
    return LastToken()


def last_token_batch(step, batch_size, generator):
    x = torch.randint(10, (32, 3), generator=generator)
    return x, (x.sum(1) // 7).clamp(max=3)
