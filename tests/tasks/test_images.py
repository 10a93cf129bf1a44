"""The image task: generated shapes, CIFAR-10's files, digits, batches and complaints."""

from __future__ import annotations

import builtins
import hashlib
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from stresstest.engine.train import Batches
from stresstest.errors import ConfigError
from stresstest.tasks.images import IMAGE_SOURCES, SYNTHETIC_IMAGES, ImageTask, load_images
from stresstest.tasks.shapes import FIGURES, generate_images
from stresstest.tasks.task import INITIAL, TRAINING, VALIDATION, splitmix64

SMALL = generate_images(3, 400)


def task_on(count: int = 400, batch_size: int = 5) -> ImageTask:
    pixels, classes = SMALL[0].reshape(400, -1), SMALL[1]
    return ImageTask((pixels[:count], classes[:count]), (pixels[300:], classes[300:]), batch_size)


def test_the_generated_images_are_these_bytes() -> None:
    digest = hashlib.sha256(SMALL[0].tobytes() + SMALL[1].tobytes()).hexdigest()
    assert digest == "6b5a99dd072d37c3d83bc0e7863fdfb05b0a45a69c27bf867b3f48010d30ee0d"


def test_an_image_depends_on_its_seed_and_number_only() -> None:
    few, many = generate_images(3, 10), SMALL
    np.testing.assert_array_equal(few[0], many[0][:10])
    np.testing.assert_array_equal(few[1], many[1][:10])
    assert not np.array_equal(generate_images(4, 10)[0], few[0])


def test_the_random_words_are_the_published_splitmix64() -> None:
    """The first outputs for seed 1234567 that the generator's author and Rosetta Code give."""
    gamma = 0x9E3779B97F4A7C15
    states = np.array([(1234567 + i * gamma) % 2**64 for i in range(3)], np.uint64)
    assert splitmix64(states).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_every_class_occurs_as_often_as_another_and_looks_different() -> None:
    pixels, classes = generate_images(0, 3000)
    counts = np.bincount(classes, minlength=len(FIGURES))
    assert len(counts) == len(FIGURES) == 10
    assert abs(counts - 300).max() < 5 * math.sqrt(300)
    # Polarity cancels: the mean image of a class is grey, so that no pixel tells the class by itself.
    means = np.stack([pixels[classes == c].mean(0) for c in range(10)])
    assert abs(means - 127.5).max() < 40
    assert pixels.std() > 60


def test_a_linear_model_does_badly_and_a_small_network_does_not_saturate() -> None:
    pixels, classes = generate_images(0, 5000)
    held_out, held_out_classes = generate_images(1, 1000)
    x, test_x = (p.reshape(len(p), -1) / 127.5 - 1.0 for p in (pixels, held_out))
    linear = LogisticRegression(C=1e-3, max_iter=30, tol=1e-2).fit(x[:2000], classes[:2000])
    network = MLPClassifier((64,), max_iter=12, random_state=0, batch_size=100)
    with pytest.warns(match="Maximum iterations"):
        network.fit(x, classes)
    assert linear.score(test_x, held_out_classes) < 0.25
    assert 0.4 < network.score(test_x, held_out_classes) < 0.9


def test_the_synthetic_source_has_a_validation_part_of_its_own() -> None:
    task = load_images("synthetic", 8)
    assert (len(task.training[1]), len(task.validation[1])) == SYNTHETIC_IMAGES
    assert task.num_inputs == 3 * 32 * 32
    seen = {row.tobytes() for row in task.training[0]}
    assert not any(row.tobytes() in seen for row in task.validation[0])


def test_the_losses_it_is_judged_against_are_entropies() -> None:
    task = task_on(300)
    counts = np.bincount(task.training[1])
    assert task.baseline_loss == pytest.approx(float(entropy(counts)), rel=1e-12)
    assert task.chance_loss == pytest.approx(math.log(10))
    assert np.exp(task.log_prior).sum() == pytest.approx(1.0)


def test_a_class_that_is_not_seen_counts_as_half_a_one() -> None:
    pixels = np.zeros((4, 6), np.uint8)
    task = ImageTask((pixels, np.array([0, 0, 1, 1], np.uint8)), (pixels, np.zeros(4, np.uint8)), 2)
    assert task.log_prior[1] == pytest.approx(math.log(0.5))
    assert task.log_prior[9] == pytest.approx(math.log(0.5 / 4))


@pytest.mark.parametrize("stream", [TRAINING, INITIAL, VALIDATION])
def test_a_batch_holds_the_images_at_its_places(stream: int) -> None:
    task = task_on(300)
    batches = Batches(task, torch.device("cpu"))
    places, batch = task.places((4, 9), 2, stream), batches.batch((4, 9), 2, stream)
    pixels, classes = task.validation if stream == VALIDATION else task.training
    assert batch.inputs.shape == (2, 5, 3072)
    np.testing.assert_array_equal(batch.targets.numpy(), classes[places])
    np.testing.assert_allclose(batch.inputs.numpy(), pixels[places] / 127.5 - 1.0, atol=1e-6)
    assert torch.equal(batches.batch((9,), 2, stream).inputs, batch.inputs[1:])


def test_places_reach_every_image_and_no_other() -> None:
    task = task_on(40)
    drawn = np.concatenate([task.places(range(8), step).ravel() for step in range(30)])
    assert set(drawn.tolist()) == set(range(40))


def cifar10(folder: Path, records: int = 3) -> str:
    """A folder like CIFAR-10's binary version, of few records."""
    for number in range(6):
        name = f"data_batch_{number}.bin" if number else "test_batch.bin"
        rows = np.full((records, 3073), 10 * number, np.uint8)
        rows[:, 0] = np.arange(records) + number
        (folder / name).write_bytes(rows.tobytes())
    return f"cifar10:{folder}"


def test_cifar10_is_read_from_its_binary_files(tmp_path: Path) -> None:
    task = load_images(cifar10(tmp_path), 2)
    assert task.training[0].shape == (15, 3072)
    assert task.training[1].tolist() == [n + i for n in range(1, 6) for i in range(3)]
    assert task.training[0][::3, 0].tolist() == [10, 20, 30, 40, 50]
    assert task.validation[1].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("data_batch_3.bin", None, "data_batch_3.bin' cannot be read .* data_batch_1.bin to 5.bin and test_batch.bin"),
        ("test_batch.bin", b"", "has 0 bytes, which is not a multiple of the record size 3073"),
        ("data_batch_1.bin", bytes(3072), "has 3072 bytes, which is not a multiple of the record size 3073"),
        ("data_batch_5.bin", b"\x0a" + bytes(3072), "contains class 10; CIFAR-10 has classes 0 to 9"),
    ],
)
def test_a_cifar10_file_of_another_kind_is_refused(tmp_path: Path, file: str, content: bytes | None, said: str) -> None:
    source = cifar10(tmp_path)
    path = tmp_path / file
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        load_images(source, 2)


def test_cifar10s_python_version_is_not_unpickled(tmp_path: Path) -> None:
    (tmp_path / "data_batch_1").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(ConfigError, match=r"is CIFAR-10's Python version, whose pickles are not read.*binary\.tar\.gz"):
        load_images(f"cifar10:{tmp_path}", 2)


@pytest.mark.parametrize("argument", ["", "nowhere"])
def test_a_cifar10_folder_that_is_not_there_is_refused(argument: str) -> None:
    with pytest.raises(ConfigError, match=rf"data folder '{argument}' does not exist; give --data cifar10:FOLDER"):
        load_images(f"cifar10:{argument}", 2)


def test_the_digits_are_scikit_learns() -> None:
    task = load_images("digits", 4)
    assert (len(task.training[1]), len(task.validation[1]), task.num_inputs) == (1437, 360, 64)
    assert task.training[0].max() == 255


def test_the_digits_need_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match="needs scikit-learn; pip install scikit-learn"):
        load_images("digits", 3)


@pytest.mark.parametrize("text", ["synthetic:2", "digits:2"])
def test_what_takes_nothing_behind_a_colon_says_so(text: str) -> None:
    with pytest.raises(ConfigError, match="has no argument"):
        load_images(text, 4)


def test_images_of_one_class_are_refused(tmp_path: Path) -> None:
    source = cifar10(tmp_path, records=1)
    for path in tmp_path.glob("data_batch_*.bin"):
        path.write_bytes(bytes(3073))
    with pytest.raises(ConfigError, match=f"{re.escape(source)}' has only one class"):
        load_images(source, 2)


def test_an_unknown_source_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"unknown image source 'sinthetic'; did you mean 'synthetic'\?"):
        load_images("sinthetic", 4)


def test_the_hash_changes_with_a_pixel() -> None:
    task = task_on(300)
    changed = task.training[0].copy()
    changed[5, 5] ^= 1
    other = ImageTask((changed, task.training[1]), task.validation, 5)
    assert other.description["hash"] != task.description["hash"]


@pytest.mark.parametrize("name", IMAGE_SOURCES)
def test_an_image_source_says_what_it_is(name: str) -> None:
    assert IMAGE_SOURCES[name].summary.strip()
