"""Translations: the grammar's rules, pairs from files, the losses and the scores."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sacrebleu
import torch
from torch import Tensor

from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.engine.replicas import Training
from stresstest.engine.train import Batches
from stresstest.engine.translation_scores import translation_scores
from stresstest.errors import ConfigError
from stresstest.tasks.sentences import first_pairs, generate_pairs, number_words
from stresstest.tasks.task import INITIAL, TRAINING, VALIDATION
from stresstest.tasks.translation import BEGIN, END, PADDING, TranslationTask, load_translation

PAIRS = first_pairs(5_000, 3)
FINITE = "hat haben kann können muss müssen soll sollen darf dürfen".split()


def task_of(batch_size: int = 16, seq_len: int = 24, data: str = "synthetic") -> TranslationTask:
    return load_translation(data, batch_size, seq_len)


def test_the_same_seed_gives_the_same_pairs_and_a_longer_list_begins_with_a_shorter() -> None:
    assert first_pairs(50, 3) == PAIRS[:50]
    assert first_pairs(50, 4) != PAIRS[:50]
    assert next(generate_pairs(0)) == (
        "morgen malt Paul die Tür .".split(),
        "tomorrow Paul paints the door .".split(),
    )


@pytest.mark.parametrize(
    ("number", "german", "english"),
    [
        (2, "zwei", "two"),
        (14, "vierzehn", "fourteen"),
        (45, "fünf und vierzig", "forty five"),
        (60, "sechzig", "sixty"),
        (345, "dreihundert fünf und vierzig", "three hundred forty five"),
        (912, "neunhundert zwölf", "nine hundred twelve"),
    ],
)
def test_german_numbers_name_the_units_before_the_tens(number: int, german: str, english: str) -> None:
    assert number_words(number) == (german.split(), english.split())


def test_the_verb_is_second_in_a_main_clause_and_last_in_a_subordinate_one() -> None:
    times = "heute jetzt oft morgen immer manchmal".split()
    seen = Counter[str]()
    for german, _ in PAIRS:
        if german[0] in times and german[1] in FINITE:
            seen["inverted"] += 1
        for place, word in enumerate(german):
            if word in ("weil", "obwohl", "während", "dass") and german[place - 1] == ",":
                clause = german[place + 1 : -1]
                finite = [w for w in clause if w in FINITE]
                assert len(finite) <= 1
                if finite:
                    assert clause[-1] == finite[0], german
                    seen["verb last"] += 1
                assert clause[-1] not in ("an", "mit", "auf"), german  # there a separable verb is whole
                seen["whole"] += clause[-1].startswith(("anschau", "mitn", "aufm"))
    assert min(seen[what] for what in ("inverted", "verb last", "whole")) > 30, seen


def test_articles_and_adjectives_agree_in_case_and_gender() -> None:
    """What stands before a noun of each gender, as a grammar book has it; after "vor" and "hinter" the dative."""
    text = [" ".join(german) for german, _ in PAIRS]
    whole = "\n".join(text)
    before = {
        noun: set(re.findall(rf"(\w+) (?:(?:alt|jung|rot|neu)(\w+)) {noun}\b", whole))
        for noun in ("Hund", "Vogel", "Katze", "Frau", "Kind", "Pferd")
    }
    masculine = {("der", "e"), ("ein", "er"), ("den", "en"), ("einen", "en"), ("dem", "en"), ("einem", "en")}
    feminine = {("die", "e"), ("eine", "e"), ("der", "en"), ("einer", "en")}
    neuter = {("das", "e"), ("ein", "es"), ("dem", "en"), ("einem", "en")}
    for noun, found in before.items():
        allowed = masculine if noun in ("Hund", "Vogel") else feminine if noun in ("Katze", "Frau") else neuter
        assert found, noun
        assert found <= allowed, noun
    assert before["Hund"] | before["Vogel"] == masculine
    for wrong in ("ein alte Hund", "einen Katze", "der Kind", "die Hund", "das Katze", "einen alte", "dem alte"):
        assert not re.search(rf"\b{wrong}\b", whole)
    after = {
        line.split()[i + 1] for line in text for i, word in enumerate(line.split()[:-1]) if word in ("vor", "hinter")
    }
    counted = {word for number in range(2, 1000) for word in number_words(number)[0]}
    assert after - counted <= {"dem", "der", "den", "einem", "einer"}


def test_both_sides_say_the_same() -> None:
    """What can be told word by word: names, negation and the number of clauses."""
    for german, english in PAIRS:
        for name in ("Anna", "Peter", "Clara"):
            assert german.count(name) == english.count(name)
        assert german.count("nicht") == english.count("not")
        assert german.count("Katze") == english.count("cat")
        assert (german.count("Kinder") + german.count("Kindern")) == english.count("children")


def test_validation_holds_no_source_of_training() -> None:
    task = task_of()
    training = {row.tobytes() for row in task.sources[0]}
    assert len(task.sources[1]) > 1_500
    assert not any(row.tobytes() in training for row in task.sources[1])


def test_a_batch_has_source_target_and_the_target_a_token_on() -> None:
    task = task_of()
    batches = Batches(task, torch.device("cpu"))
    for stream, part in ((TRAINING, 0), (INITIAL, 0), (VALIDATION, 1)):
        inputs, targets, *_ = batches.batch([0, 5], 2, stream)
        assert inputs.shape == (2, 16, 48)
        assert targets.shape == (2, 16, 24)
        sources = {row.tobytes(): i for i, row in enumerate(task.sources[part])}
        for row, asked in zip(inputs.flatten(0, 1), targets.flatten(0, 1), strict=True):
            place = sources[row[:24].numpy().astype(np.int32).tobytes()]
            whole = task.targets[part][place]
            assert row[24:].tolist() == whole[:-1].tolist()
            assert row[24] == BEGIN
            length = int((whole != PADDING).sum()) - 1
            assert asked[:length].tolist() == whole[1 : length + 1].tolist()
            assert asked[length - 1] == END
            assert (asked[length:] == -1).all()


def test_the_baseline_is_the_unigram_entropy_of_the_targets() -> None:
    task = task_of()
    counts = Counter(token for _, english in first_pairs(20_000, 0) for token in [*english, "</s>"])
    kept = [
        [*english, "</s>"]
        for german, english in first_pairs(20_000, 0)
        if max(len(german), len(english)) < task.seq_len
    ]
    counts = Counter(token for sentence in kept for token in sentence)
    shares = np.array(list(counts.values())) / sum(counts.values())
    assert task.baseline_loss == pytest.approx(float(-(shares * np.log(shares)).sum()), rel=1e-9)
    assert task.left_out > 0


class Oracle:
    """A population of two that knows the answer to every source; the second never says more than `limit` words."""

    def __init__(self, task: TranslationTask, limit: int) -> None:
        self.known = {row.tobytes(): target for row, target in zip(task.sources[1], task.targets[1], strict=True)}
        self.task, self.limit = task, limit
        self.training = Training(OPTIMIZERS["adam"], {}, torch.device("cpu"))

    def logits(self, inputs: Tensor) -> Tensor:
        length, vocabulary = self.task.seq_len, self.task.num_classes
        out = torch.zeros(*inputs.shape[:2], length, vocabulary)
        for replica in range(inputs.shape[0]):
            for row in range(inputs.shape[1]):
                target = self.known[inputs[replica, row, :length].numpy().astype(np.int32).tobytes()][1:]
                for step, token in enumerate(target):
                    said = END if replica and step >= self.limit else int(token)
                    out[replica, row, step, said] = 1.0
        return out.flatten(1, 2)


def test_a_perfect_translation_scores_a_hundred_and_a_short_one_what_sacrebleu_says() -> None:
    task = task_of(batch_size=4)
    oracle: Any = Oracle(task, 5)
    batches = Batches(task, torch.device("cpu"))
    perfect, short = translation_scores(oracle, batches, [0, 0])
    assert perfect == {"token_accuracy": 1.0, "bleu": pytest.approx(100.0)}
    true = [
        task.words([t for t in row if t >= 0])
        for step in range(8)
        for row in batches.batch([0], step, VALIDATION).targets[0].tolist()
    ]
    said = [" ".join(sentence.split()[:5]) for sentence in true]
    assert short["bleu"] == pytest.approx(sacrebleu.corpus_bleu(said, [true], tokenize="none", force=True).score)
    assert 0.0 < short["bleu"] < 90.0
    assert 0.3 < short["token_accuracy"] < 1.0


def test_pairs_of_files_are_read_line_by_line(tmp_path: Path) -> None:
    pairs = PAIRS[:400]
    for name, side in (("de", 0), ("en", 1)):
        (tmp_path / name).write_text("".join(" ".join(pair[side]) + "\n" for pair in pairs))
    task = task_of(data=f"pairs:{tmp_path / 'de'},{tmp_path / 'en'}", seq_len=40)
    kept = [pair for i, pair in enumerate(pairs) if i % 23 == 0]
    assert [task.words(row[1:].tolist()) for row in task.targets[1]] == [" ".join(e) for _, e in kept]
    assert len(task.sources[0]) + len(task.sources[1]) == 400


TAGS = """<url>http://www.ted.com/talks/one</url>
<keywords>talks, science</keywords>
<speaker>Anna</speaker>
<talkid>535</talkid>
<title>{title}</title>
<description>TED Talk: {title}</description>
{sentences}
<reviewer></reviewer>
<translator href="http://www.ted.com/profiles/1">Peter</translator>
"""
SEGMENTS = """<?xml version="1.0" encoding="UTF-8"?>
<mteval>
<refset setid="iwslt2014" srclang="de" trglang="en" refid="ref">
<doc docid="535" genre="lectures">
<title>{title}</title>
{sentences}
</doc>
</refset>
</mteval>
"""


def iwslt(folder: Path, layout: str, line: str, sentences: tuple[list[str], list[str]]) -> str:
    """Two files as those of IWSLT 2014 are laid out."""
    for name, title, side in zip(("de", "en"), ("Die Zukunft", "The future"), sentences, strict=True):
        text = "\n".join(line.format(number=i, text=sentence) for i, sentence in enumerate(side, 1))
        (folder / name).write_text(layout.format(title=title, sentences=text), "utf-8")
    return f"pairs:{folder / 'de'},{folder / 'en'}"


SPOKEN = (
    ["Vielen Dank, Chris.", "", *["Es ist wirklich eine Ehre & mehr."] * 30],
    ["Thank you so much, Chris.", "(Applause)", *["It's truly an honor &amp; more."] * 30],
)


def test_iwslts_training_files_are_read_without_their_tags(tmp_path: Path) -> None:
    """As fairseq's script has them: titles and descriptions stay, and a pair without one of its sides is left out."""
    task = task_of(data=iwslt(tmp_path, TAGS, "{text}", SPOKEN), seq_len=20)
    assert len(task.sources[0]) + len(task.sources[1]) == 2 + 31
    assert task.words(task.targets[1][0][1:].tolist()) == "the future"  # the first of each 23
    assert [task.words(row[1:].tolist()) for row in task.targets[0][:3]] == [
        "ted talk : the future",
        "thank you so much , chris .",
        "it's truly an honor & more .",
    ]
    assert task.words(task.sources[0][1].tolist()) == "vielen dank , chris ."


def test_iwslts_xml_is_read_segment_by_segment(tmp_path: Path) -> None:
    task = task_of(data=iwslt(tmp_path, SEGMENTS, '<seg id="{number}"> {text} </seg>', SPOKEN), seq_len=20)
    assert len(task.sources[0]) + len(task.sources[1]) == 31
    assert task.words(task.sources[0][0].tolist()) == "es ist wirklich eine ehre & mehr ."
    assert task.words(task.targets[0][0][1:].tolist()) == "it's truly an honor & more ."


def test_subwords_are_joined_for_bleu() -> None:
    task = task_of()
    parts = TranslationTask(("<pad>", "<s>", "</s>", "<unk>", "ha@@", "us", "."), task.sources, task.targets, 1, 24, 0)
    assert parts.words([4, 5, 6, 2, 5]) == "haus ."


@pytest.mark.parametrize(
    ("de", "en", "message"),
    [
        ("a b\nc\n", "x\n", "has 2 lines and .*en 1; each line of one must translate the same line of the other"),
        ("a b\n\nc\n", "x\ny\nz\n", "de' line 2 is empty"),
        ("a\nb\n", "x\n \n", "en' line 2 is empty"),
        ("a\n", "x\n", "has 1 pairs of at most 23 tokens"),
        ("", "", "has 0 pairs"),
        ("w " * 30 + "\n" + "v " * 30 + "\n", "x\ny\n", r"2 are longer"),
    ],
)
def test_pairs_that_do_not_fit_are_one_line(tmp_path: Path, de: str, en: str, message: str) -> None:
    (tmp_path / "de").write_text(de)
    (tmp_path / "en").write_text(en)
    with pytest.raises(ConfigError, match=message):
        load_translation(f"pairs:{tmp_path / 'de'},{tmp_path / 'en'}", 4, 24)


@pytest.mark.parametrize(
    ("argument", "message"),
    [("one", "names one file"), ("no,such", "cannot be read"), ("", "names one file")],
)
def test_pairs_that_are_not_there_are_one_line(argument: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_translation(f"pairs:{argument}", 4, 24)
