"""How a trained model says its translations: the likeliest token at each place, or a beam search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from stresstest.engine.population import Population
from stresstest.tasks.translation import BEGIN, END, PADDING

LengthOf = Literal["tokens", "gnmt"]


@dataclass(frozen=True)
class Decoding:
    """How wide the beam is, 1 for greedy, and by what a finished sentence's log-probability is divided.

    That is length^penalty, as in fairseq, or with `length` "gnmt" ((5 + length) / 6)^penalty (Wu et al. 2016, Eq. 14;
    Vaswani et al. 2017), of a length with the end counted.
    """

    beam: int = 1
    penalty: float = 1.0
    length: LengthOf = "tokens"

    def divisor(self, num_tokens: int) -> float:
        """Of the log-probability of a sentence of so many tokens."""
        return float(((5 + num_tokens) / 6 if self.length == "gnmt" else num_tokens) ** self.penalty)


def translate(population: Population, source_RBS: Tensor, decoding: Decoding) -> Tensor:
    """What each replica says to each source, padded behind its end, [R, B, T]; longer sentences are cut off."""
    if decoding.beam == 1:
        return _greedy(population, source_RBS)
    return _beam_search(population, source_RBS, decoding)


def _greedy(population: Population, source_RBS: Tensor) -> Tensor:
    """The likeliest next token, step by step, until every sentence has ended."""
    length = source_RBS.shape[-1]
    target = torch.full_like(torch.cat([source_RBS, source_RBS[..., :1]], -1), PADDING)
    target[..., 0] = BEGIN
    ended = torch.zeros_like(target[..., 0], dtype=torch.bool)
    for step in range(length):
        guess = _next_logits(population, source_RBS, target, step).argmax(-1)
        target[..., step + 1] = torch.where(ended, PADDING, guess)
        ended |= guess == END
        if ended.all():
            break
    return target[..., 1:]


def _beam_search(population: Population, source_RBS: Tensor, decoding: Decoding) -> Tensor:
    """The best of `beam` finished sentences, as fairseq finds them.

    A sentence is finished where its end is among the `beam` best continuations; as many that have not ended go on.
    """
    (*batch, length), beam = source_RBS.shape, decoding.beam
    target_RBKT = source_RBS.new_full((*batch, beam, length + 1), PADDING)
    target_RBKT[..., 0] = BEGIN
    score_RBK = torch.full((*batch, beam), -torch.inf, device=source_RBS.device)
    score_RBK[..., 0] = 0.0  # all are the same at first
    said_RBT, best_RB = target_RBKT[:, :, 0, 1:].clone(), score_RBK[..., 1].clone()
    finished_RB = torch.zeros_like(best_RB, dtype=torch.long)
    for step in range(length):
        logits = [_next_logits(population, source_RBS, target_RBKT[:, :, k], step) for k in range(beam)]
        found_RBKV = score_RBK[..., None] + torch.stack(logits, 2).float().log_softmax(-1)
        score_RBC, place_RBC = found_RBKV.flatten(2).topk(2 * beam)
        from_RBC, token_RBC = place_RBC // found_RBKV.shape[-1], place_RBC % found_RBKV.shape[-1]
        target_RBCT = target_RBKT.gather(2, from_RBC[..., None].expand(-1, -1, -1, length + 1))
        target_RBCT[..., step + 1] = token_RBC

        ends_RBC = (token_RBC == END) | (step + 1 == length)
        over_RBK = ends_RBC[..., :beam] & score_RBC[..., :beam].isfinite() & (finished_RB < beam)[..., None]
        over_score_RBK = torch.where(over_RBK, score_RBC[..., :beam] / decoding.divisor(step + 1), -torch.inf)
        top_RB, which_RB = over_score_RBK.max(-1)
        row = which_RB[..., None, None].expand(-1, -1, 1, length)
        better_RB = top_RB > best_RB
        said_RBT = torch.where(better_RB[..., None], target_RBCT[..., 1:].gather(2, row)[:, :, 0], said_RBT)
        best_RB = torch.where(better_RB, top_RB, best_RB)
        finished_RB += over_RBK.sum(-1)
        if (finished_RB >= beam).all():
            break

        on_RBK = ends_RBC.to(torch.uint8).argsort(dim=-1, stable=True)[..., :beam]
        score_RBK = score_RBC.gather(2, on_RBK)
        target_RBKT = target_RBCT.gather(2, on_RBK[..., None].expand(-1, -1, -1, length + 1))
    return said_RBT


def _next_logits(population: Population, source_RBS: Tensor, target_RBT: Tensor, step: int) -> Tensor:
    """Of the token after the first `step` of each target, [R, B, V]."""
    logits = population.logits(torch.cat([source_RBS, target_RBT[..., : source_RBS.shape[-1]]], -1))
    return logits.view(*source_RBS.shape, -1)[:, :, step]
