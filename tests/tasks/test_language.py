"""The language task: its split, its batches, its baseline loss and its complaints."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import entropy

from stresstest.engine.train import Batches
from stresstest.errors import ConfigError
from stresstest.tasks.generator import generate_text
from stresstest.tasks.language import DATA_SOURCES, SYNTHETIC_BYTES, LanguageTask, load_language
from stresstest.tasks.task import INITIAL, TRAINING, VALIDATION, Batch

STREAMS = (TRAINING, INITIAL, VALIDATION)
TEXT = generate_text(5003)


def task_on(data: bytes = TEXT, batch_size: int = 4, seq_len: int = 12) -> LanguageTask:
    return LanguageTask(data, batch_size, seq_len)


def batches_of(data: bytes = TEXT, batch_size: int = 4, seq_len: int = 12) -> Batches:
    return Batches(task_on(data, batch_size, seq_len), torch.device("cpu"))


def file_of(folder: Path, data: bytes, name: str = "corpus.bin") -> str:
    """The bytes as a file; how the command line names it."""
    (folder / name).write_bytes(data)
    return f"path:{folder / name}"


def test_training_has_the_first_nine_tenths_and_validation_the_rest() -> None:
    task = task_on()
    assert (len(task.training), len(task.validation)) == (4503, 500)
    assert task.training.tobytes() + task.validation.tobytes() == TEXT


@pytest.mark.parametrize("data", [TEXT, bytes(range(256)) * 4, b"aab" * 50, b"a" * 99 + b"b" * 11], ids=len)
def test_the_baseline_loss_is_the_entropy_of_the_training_bytes(data: bytes) -> None:
    task = task_on(data)
    counts = np.unique(np.frombuffer(data[: len(task.training)], np.uint8), return_counts=True)[1]
    assert task.baseline_loss == pytest.approx(float(entropy(counts)), rel=1e-12)


def test_the_validation_bytes_do_not_touch_the_baseline_loss() -> None:
    assert task_on(TEXT[:4503] + b"z" * 500).baseline_loss == task_on().baseline_loss


def test_a_byte_unseen_in_training_counts_as_half_a_one() -> None:
    task = task_on(b"ab" * 90 + b"z" * 20)
    assert task.log_prior[ord("a")] == pytest.approx(math.log(90 / 180))
    assert task.log_prior[ord("z")] == pytest.approx(math.log(0.5 / 180))


def test_the_constant_loss_is_the_cross_entropy_of_the_unigram_distribution() -> None:
    batches = batches_of()
    batch = batches.batch((0, 5), 3, VALIDATION)
    log_prior = torch.from_numpy(batches.task.log_prior)
    expected = [F.nll_loss(log_prior.expand(48, 256), rows.flatten()) for rows in batch.targets]
    torch.testing.assert_close(batches.constant_loss(batch).double(), torch.stack(expected), rtol=1e-6, atol=0.0)


def test_the_constant_loss_averages_to_the_baseline_loss_over_the_training_bytes() -> None:
    batches = batches_of()
    everything = torch.from_numpy(task_on().training.astype(np.int64))[None, None]
    loss = batches.constant_loss(Batch(everything, everything))
    assert float(loss) == pytest.approx(batches.task.baseline_loss, rel=1e-6)


@pytest.mark.parametrize("stream", STREAMS)
def test_the_offsets_of_a_seed_are_the_same_whoever_the_neighbours_are(stream: int) -> None:
    task, seeds = task_on(), (3, 0, 11, 3)
    together = task.places(seeds, 7, stream)
    assert together.shape == (4, 4)
    for row, seed in enumerate(seeds):
        np.testing.assert_array_equal(task.places([seed], 7, stream)[0], together[row])
    np.testing.assert_array_equal(together[0], together[3])


def test_offsets_differ_between_seeds_steps_and_streams() -> None:
    task = task_on(generate_text(200_000), batch_size=32)
    drawn = [
        tuple(task.places([seed], step, stream)[0]) for seed in range(5) for step in range(10) for stream in STREAMS
    ]
    assert len(set(drawn)) == len(drawn)
    assert all(len(set(offsets)) > 28 for offsets in drawn)


@pytest.mark.parametrize(("stream", "part"), [(TRAINING, 117), (INITIAL, 117), (VALIDATION, 13)])
@pytest.mark.parametrize("seq_len", [1, 5, 12])
def test_offsets_reach_every_place_and_stay_inside_their_part(stream: int, part: int, seq_len: int) -> None:
    task = task_on(TEXT[:130], batch_size=16, seq_len=seq_len)
    drawn = np.concatenate([task.places(range(8), step, stream).ravel() for step in range(40)])
    assert set(drawn.tolist()) == set(range(part - seq_len))


def test_offsets_are_spread_evenly() -> None:
    task = task_on(TEXT[:130], batch_size=64)
    drawn = np.concatenate([task.places(range(50), step).ravel() for step in range(50)])
    counts = np.bincount(drawn)
    assert abs(counts - counts.mean()).max() < 5 * math.sqrt(counts.mean())


def test_offsets_take_the_largest_seed_and_step() -> None:
    offsets = task_on().places([2**32 - 1], 2**31)
    assert offsets.min() >= 0
    assert offsets.max() < 4503 - 12


@pytest.mark.parametrize("stream", STREAMS)
def test_a_batch_holds_the_bytes_at_its_offsets(stream: int) -> None:
    batches, seeds = batches_of(), (4, 9)
    offsets, batch = batches.task.places(seeds, 2, stream), batches.batch(seeds, 2, stream)
    base = len(task_on().training) if stream == VALIDATION else 0
    end = len(TEXT) if stream == VALIDATION else len(task_on().training)
    assert batch.inputs.shape == batch.targets.shape == (2, 4, 12)
    for row in range(2):
        for column, offset in enumerate(offsets[row] + base):
            assert bytes(batch.inputs[row, column].tolist()) == TEXT[offset : offset + 12]
            assert bytes(batch.targets[row, column].tolist()) == TEXT[offset + 1 : offset + 13]
            assert base <= offset
            assert offset + 13 <= end


def test_a_batch_of_a_seed_is_the_same_whoever_the_neighbours_are() -> None:
    batches = batches_of()
    assert torch.equal(batches.batch((8, 1, 5), 6).inputs[1:], batches.batch((1, 5), 6).inputs)
    assert not torch.equal(batches.batch((1,), 6).inputs, batches.batch((1,), 7).inputs)


def test_a_path_reads_exactly_the_bytes_of_the_file(tmp_path: Path) -> None:
    data = bytes(range(256)) * 3 + b"\r\n\x00\xff"
    assert load_language(file_of(tmp_path, data, "a:b c.bin"), 4, 12).data == data


def test_the_synthetic_text_is_the_generators() -> None:
    assert load_language("synthetic", 4, 12).data == generate_text(SYNTHETIC_BYTES)


def test_the_text_of_pydoc_is_english() -> None:
    assert load_language("pydoc", 4, 12).data.count(b" the ") > 1000


@pytest.mark.parametrize("position", [0, 2500, 5002])
def test_the_fingerprint_changes_with_a_byte(position: int) -> None:
    changed = bytearray(TEXT)
    changed[position] ^= 1
    assert task_on(bytes(changed)).fingerprint != task_on().fingerprint
    assert task_on(TEXT + b"\n").fingerprint != task_on().fingerprint
    assert task_on(bytes(bytearray(TEXT)), 8, 3).fingerprint == task_on().fingerprint


@pytest.mark.parametrize("name", DATA_SOURCES)
def test_a_data_source_says_what_it_is(name: str) -> None:
    assert DATA_SOURCES[name].summary.strip()


@pytest.mark.parametrize("seq_len", [1, 2, 12, 64, 128])
def test_a_file_one_byte_too_short_is_refused_with_the_bytes_it_needs(tmp_path: Path, seq_len: int) -> None:
    needed = 10 * (seq_len + 1)
    short = file_of(tmp_path, TEXT[: needed - 1], "short.txt")
    with pytest.raises(ConfigError, match=rf"{re.escape(short)}' has {needed - 1} bytes.* at least {needed} "):
        load_language(short, 4, seq_len)
    assert len(load_language(file_of(tmp_path, TEXT[:needed], "enough.txt"), 4, seq_len).validation) == seq_len + 1


def test_an_empty_file_is_refused_with_the_bytes_it_needs(tmp_path: Path) -> None:
    empty = file_of(tmp_path, b"", "empty.txt")
    with pytest.raises(ConfigError, match=rf"{re.escape(empty)}' has 0 bytes.* at least 130 "):
        load_language(empty, 4, 12)


@pytest.mark.parametrize("name", ["missing.txt", "", "."])
def test_a_file_that_is_not_there_is_refused_by_its_name(tmp_path: Path, name: str) -> None:
    path = str(tmp_path / name) if name else ""
    with pytest.raises(ConfigError, match=rf"'{re.escape(path)}'.*--data path:FILE"):
        load_language(f"path:{path}", 4, 12)


def test_a_file_of_one_repeated_byte_is_refused(tmp_path: Path) -> None:
    constant = file_of(tmp_path, b"\n" * 1000, "constant.txt")
    with pytest.raises(ConfigError, match=rf"{re.escape(constant)}' repeats one byte"):
        load_language(constant, 4, 12)


def test_an_unknown_source_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown data source 'sinthetic'; did you mean 'synthetic'\?"):
        load_language("sinthetic", 4, 12)


def test_synthetic_takes_nothing_behind_a_colon() -> None:
    with pytest.raises(ConfigError, match="synthetic has no argument"):
        load_language("synthetic:2", 4, 12)


def test_wikitexts_tokens_are_read_as_they_are(tmp_path: Path) -> None:
    """Its files have a heading between equals signs, a line a paragraph, and <unk> for what is rare."""
    text = (
        " \n = Valkyria Chronicles III = \n \n Senj\u014d no <unk> 3 , lit . Valkyria @-@ of the Battlefield 3 \n" * 9
    )
    (tmp_path / "wiki.train.tokens").write_text(text, "utf-8")
    task = load_language(f"path:{tmp_path / 'wiki.train.tokens'}", 2, 16)
    assert (task.training.tobytes() + task.validation.tobytes()).decode() == text


def test_enwik8_has_its_own_split_and_another_file_is_none(tmp_path: Path) -> None:
    """Ninety million for training and the next five for validation, as everybody has them; the rest is not read."""
    file = tmp_path / "enwik8"
    with file.open("wb") as out:
        out.truncate(100_000_000)
        out.write(b"ab")
        out.seek(90_000_000)
        out.write(b"xy")
        out.seek(95_000_000)
        out.write(b"zz")
    task = load_language(f"enwik8:{file}", 1, 8)
    assert (len(task.training), len(task.validation)) == (90_000_000, 5_000_000)
    assert bytes(task.training[:2]) == b"ab"
    assert bytes(task.validation[:2]) == b"xy"
    assert ord("z") not in task.validation[-8:]
    load_language.cache_clear()
    file.write_bytes(b"text" * 1000)
    with pytest.raises(ConfigError, match="has 4000 bytes; enwik8 has 100000000: use path:"):
        load_language(f"enwik8:{file}", 1, 8)
