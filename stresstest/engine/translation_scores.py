"""How good translations are: token accuracy, and BLEU of what they say."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from stresstest.engine.decoding import Decoding, translate
from stresstest.engine.population import Population, micro_batches
from stresstest.engine.train import VALIDATION_BATCHES, Batches
from stresstest.tasks.task import VALIDATION
from stresstest.tasks.translation import PADDING, TranslationTask


def translation_scores(
    population: Population, batches: Batches, seeds: Sequence[int], decoding: Decoding = Decoding()
) -> list[dict[str, float]]:
    """token_accuracy (0 to 1) and bleu (0 to 100) of each replica, on the validation batches that its loss is taken on.

    token_accuracy: the share of target tokens, the ends among them, that are the likeliest after the true ones before.
    bleu: corpus BLEU of what is decoded (Papineni et al. 2002; sacrebleu with tokenize=none, as the text is in tokens);
    what is longer than `seq_len` tokens is cut off.
    """
    import sacrebleu

    task = batches.task
    assert isinstance(task, TranslationTask), "only translations are scored"
    right_R = asked_R = torch.zeros(len(seeds), device=batches.device)
    said: list[list[str]] = [[] for _ in seeds]
    true: list[list[str]] = [[] for _ in seeds]
    for step in range(VALIDATION_BATCHES):
        drawn = batches.batch(seeds, step, VALIDATION)
        for (inputs, targets, *_), _ in micro_batches(drawn, population.training.micro_batch):
            asked = targets >= 0
            guess = population.logits(inputs).argmax(-1).view_as(targets)
            right_R = right_R + ((guess == targets) & asked).flatten(1).sum(1)
            asked_R = asked_R + asked.flatten(1).sum(1)
            decoded = translate(population, inputs[..., : task.seq_len], decoding).tolist()
            for row, (ours, theirs) in enumerate(zip(decoded, targets.clamp(min=PADDING).tolist(), strict=True)):
                said[row] += map(task.words, ours)
                true[row] += map(task.words, theirs)
    shares = (right_R / asked_R).tolist()
    scores = [sacrebleu.corpus_bleu(a, [b], tokenize="none", force=True).score for a, b in zip(said, true, strict=True)]
    return [{"token_accuracy": share, "bleu": score} for share, score in zip(shares, scores, strict=True)]
