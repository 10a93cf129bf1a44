"""Batches of a DataLoader: those of a plain loop that sets the seed, whoever else draws; and what is refused."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    WeightedRandomSampler,
    get_worker_info,
)

import stresstest
from stresstest.cli.main import run
from stresstest.errors import ConfigError
from stresstest.specs.kinds import AS_BUILT
from stresstest.tasks.task import INITIAL, TRAINING, VALIDATION
from stresstest.user_code import UserCodeError
from stresstest.user_model.batches import FRESH
from stresstest.user_model.bench import resolve_user_model, user_bench
from stresstest.user_model.brought import Brought
from stresstest.user_model.dataloader import stream as loader_stream
from stresstest.user_model.dataloader.from_dataloader import from_dataloader
from stresstest.user_model.dataloader.stream import LoaderStream
from stresstest.user_model.factory import register_callable

STEPS = 20
TEACHER = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))


class Examples(Dataset[Any]):
    """96 examples, changed by the three global generators each time one is read."""

    def __init__(self, noise: float = 0.1, size: int = 96) -> None:
        self.x = torch.randn(size, 8, generator=torch.Generator().manual_seed(1))
        self.y = (self.x @ TEACHER).argmax(1)
        self.noise = noise

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> Any:
        shift = np.random.randn() + random.random() if self.noise else 0.0
        return self.x[i] + self.noise * (torch.randn(8) + shift), self.y[i]


class Stream(IterableDataset[Any]):
    """The same examples as they come, each worker its own part."""

    def __init__(self, noise: float = 0.1) -> None:
        self.examples = Examples(noise)

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        return (self.examples[i] for i in range(first, len(self.examples), step))


def shuffled(**more: Any) -> DataLoader[Any]:
    return DataLoader(Examples(), 16, shuffle=True, **more)


def in_order(**more: Any) -> DataLoader[Any]:
    return DataLoader(Examples(0.0), 8, **more)


LOADERS: dict[str, Callable[[], Any]] = {
    "shuffled": shuffled,
    "in order": in_order,
    "two workers": lambda: shuffled(num_workers=2),
    "persistent workers": lambda: shuffled(num_workers=2, persistent_workers=True, prefetch_factor=1),
    "iterable": lambda: DataLoader(Stream(), 16),
    "iterable, two workers": lambda: DataLoader(Stream(), 16, num_workers=2),
    "its own generator": lambda: shuffled(generator=torch.Generator()),
    "a sampler's own generator": lambda: DataLoader(
        Examples(), 16, sampler=RandomSampler(Examples(), generator=torch.Generator())
    ),
    "weighted": lambda: DataLoader(
        Examples(),
        16,
        sampler=WeightedRandomSampler(torch.linspace(0.1, 1.0, 96), 96),
        worker_init_fn=print,
        drop_last=True,
    ),
    "batches of a sampler": lambda: DataLoader(
        Examples(), batch_sampler=BatchSampler(RandomSampler(Examples()), 10, drop_last=False)
    ),
    "pinned": lambda: shuffled(pin_memory=True),
}


def native(loader: Any, seed: int, count: int) -> list[Any]:
    """The first batches of a script that sets the seed right before its loop; later epochs are seeded by us."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    for holder in (loader, getattr(loader, "sampler", None)):
        if getattr(holder, "generator", None) is not None:
            holder.generator.manual_seed(seed)  # type: ignore[union-attr]
    return list(itertools.islice(loader, count))


def draw(stream: LoaderStream, seed: int, steps: Any, which: int = TRAINING) -> list[Any]:
    return [stream.draw(seed, step, which) for step in steps]


def equal(one: Any, other: Any) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def all_equal(ones: list[Any], others: list[Any]) -> bool:
    return all(equal(one, other) for one, other in zip(ones, others, strict=True))


@pytest.mark.filterwarnings("ignore:'pin_memory' argument:UserWarning")
@pytest.mark.parametrize("name", LOADERS)
def test_the_first_epoch_is_that_of_a_loop_that_sets_the_seed(name: str) -> None:
    loader = LOADERS[name]()
    expected = native(loader, 3, 6)
    stream = LoaderStream(loader)
    torch.manual_seed(99)  # where the global generators stand is nothing to it, and it leaves them there
    state = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    assert all_equal(draw(stream, 3, range(len(expected))), expected)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert np.random.get_state()[1].tolist() == state[1]
    assert random.getstate() == state[2]


@pytest.mark.parametrize("name", LOADERS)
def test_a_batch_is_the_same_whoever_draws_in_between(name: str) -> None:
    alone = draw(LoaderStream(LOADERS[name]()), 1, range(STEPS))
    stream = LoaderStream(LOADERS[name]())
    for step in range(STEPS):
        stream.draw(2, step, TRAINING)
        stream.draw(1, step // 2, INITIAL)
        torch.rand(3), np.random.rand(3), random.random()
        assert equal(stream.draw(1, step, TRAINING), alone[step]), step


@pytest.mark.parametrize("name", ["shuffled", "two workers", "iterable", "a sampler's own generator"])
def test_a_later_start_gives_the_batches_of_one_that_never_stopped(name: str) -> None:
    through = draw(LoaderStream(LOADERS[name]()), 5, range(STEPS))
    assert all_equal(draw(LoaderStream(LOADERS[name]()), 5, range(9, STEPS)), through[9:])


def test_epochs_and_seeds_and_other_streams_have_orders_of_their_own() -> None:
    stream = LoaderStream(shuffled())
    first, second = draw(stream, 0, range(6)), draw(stream, 0, range(6, 12))
    others = [draw(stream, 1, range(6)), *(draw(stream, 0, range(6), which) for which in (INITIAL, VALIDATION, FRESH))]
    orders = [torch.cat([y for _, y in batches]).tolist() for batches in (first, second, *others)]
    assert len({tuple(order) for order in orders}) == 6
    assert len({tuple(sorted(order)) for order in orders}) == 1


def test_without_shuffling_other_streams_begin_where_training_does_not() -> None:
    stream = LoaderStream(in_order())
    examples = Examples(0.0).x.split(8)
    firsts = [stream.draw(0, 0, which)[0] for which in (TRAINING, INITIAL, VALIDATION, FRESH)]
    assert all_equal([[x] for x in firsts], [[examples[place]] for place in (0, 3, 6, 9)])


def test_a_held_out_loader_gives_the_validation_batches_from_its_start() -> None:
    held_out = DataLoader(Examples(0.0, 64), 8)
    stream = LoaderStream(shuffled(), held_out)
    assert stream.held_out
    assert all_equal(draw(stream, 0, range(8), VALIDATION), list(held_out))


def test_a_distributed_sampler_has_the_seed_and_the_epoch() -> None:
    data = Examples(0.0)
    stream = LoaderStream(DataLoader(data, 16, sampler=DistributedSampler(data, 1, 0)))
    sampler = DistributedSampler(data, 1, 0, seed=4)
    sampler.set_epoch(1)
    assert all_equal(draw(stream, 4, range(6, 12)), list(DataLoader(data, 16, sampler=sampler)))


@dataclass
class Pair:
    x: Tensor
    y: Tensor


class Movable:
    """What has no parts that are known, and a way to a device."""

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def to(self, device: Any) -> Movable:
        return Movable(self.x.to(device))


Named = namedtuple("Named", ["x", "y"])


@pytest.mark.parametrize(
    ("collated", "read"),
    [
        (lambda rows: {"x": torch.stack([x for x, _ in rows])}, lambda batch: batch["x"]),
        (lambda rows: Named(torch.stack([x for x, _ in rows]), 0), lambda batch: batch.x),
        (lambda rows: Pair(torch.stack([x for x, _ in rows]), torch.zeros(1)), lambda batch: batch.x),
        (lambda rows: Movable(torch.stack([x for x, _ in rows])), lambda batch: batch.x),
        (lambda rows: [x[: 1 + i % 3] for i, (x, _) in enumerate(rows)], torch.cat),
    ],
    ids=["dict", "namedtuple", "dataclass", "an object with to()", "ragged"],
)
def test_batches_of_any_kind_belong_to_whoever_draws_them(collated: Any, read: Any) -> None:
    stream = LoaderStream(shuffled(collate_fn=collated))
    drawn, kept = stream.draw(0, 0, TRAINING), read(stream.draw(0, 0, TRAINING)).clone()
    assert type(drawn) is type(collated([Examples()[0]]))
    for part in [drawn] if isinstance(drawn, Tensor) else drawn if isinstance(drawn, list) else [read(drawn)]:
        part.zero_()
    assert torch.equal(read(stream.draw(0, 0, TRAINING)), kept)


def test_the_last_batch_is_smaller_and_the_next_epoch_follows() -> None:
    stream = LoaderStream(DataLoader(Examples(), 40, shuffle=True))
    assert [len(y) for _, y in draw(stream, 0, range(6))] == [40, 40, 16, 40, 40, 16]


def test_what_has_been_drawn_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    monkeypatch.setattr(Examples, "__getitem__", lambda self, i: reads.append(i) or (self.x[i], self.y[i]))
    stream = LoaderStream(shuffled())
    draw(stream, 0, [step for step in range(STEPS) for _ in range(3)])
    once = len(reads)
    draw(stream, 0, range(STEPS))
    assert len(reads) == once == 3 * 96 + 2 * 16


def test_beyond_the_memory_batches_are_read_again_and_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = LoaderStream(shuffled())
    kept = draw(stream, 0, range(STEPS))
    monkeypatch.setattr(loader_stream, "_MOST_BYTES", 5 * loader_stream.size_of(kept[0]))
    small = LoaderStream(shuffled())
    for _ in range(2):
        assert all_equal(draw(small, 0, range(STEPS)), kept)
    assert small.seconds > 0.0


def test_many_orders_at_once_leave_few_iterators_alive() -> None:
    stream = LoaderStream(shuffled())
    for seed in range(20):
        stream.draw(seed, 0, TRAINING)
    assert sum(order.epochs is not None for order in stream._orders.values()) <= 9


def build(width: int = 16) -> nn.Module:
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 3))


def sgd(params: Any, lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(params, lr=lr, momentum=0.9)


@pytest.mark.parametrize(
    ("data", "workers", "accumulate"),
    [(Examples, 0, 1), (Examples, 2, 1), (Stream, 0, 1), (Stream, 2, 1), (Examples, 0, 2), (Stream, 2, 2)],
)
def test_weights_are_those_of_the_hand_loop_to_the_bit(workers: int, data: Any, accumulate: int) -> None:
    def loader() -> DataLoader[Any]:
        return DataLoader(data(), 4, shuffle=None if data is Stream else True, num_workers=workers)

    seed, lr = 2, 0.1
    torch.manual_seed(seed)
    model = build()
    optimizer = sgd(model.parameters(), lr)
    expected: list[float] = []
    drawn = native(loader(), seed, STEPS)
    for start in range(0, STEPS, accumulate):
        optimizer.zero_grad()
        expected.append(0.0)
        for x, y in drawn[start : start + accumulate]:
            loss = F.cross_entropy(model(x), y) / accumulate
            loss.backward()
            expected[-1] += loss.item()
        optimizer.step()
    with register_callable(build, {}, batch=loader, optimizer=sgd) as name:
        spec = resolve_user_model(stresstest_spec(name, accumulate=accumulate), sweeps_depth=False)
        bench = user_bench(spec, AS_BUILT, 1, "own", "cpu")
        population = bench.populate([seed], [lr])
        lr_R = torch.tensor([lr])
        losses = [float(population.step(bench.batches.batch([seed], t), lr_R).loss_R[0]) for t in range(len(expected))]
    assert spec.batch_size == 4
    assert losses == pytest.approx(expected, abs=1e-6)
    theirs = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert torch.equal(population.theta_RP[0], theirs)


def stresstest_spec(name: str, **more: Any) -> Any:
    from stresstest.experiments.table import EXPERIMENTS

    return EXPERIMENTS.specs["lr-range"](model=name, **more)


class OwnNumbers(Examples):
    def __init__(self) -> None:
        super().__init__()
        self.rng = np.random.default_rng(0)

    def __getitem__(self, i: int) -> Any:
        return self.x[i] + torch.from_numpy(self.rng.normal(size=8)).float(), self.y[i]


class OwnPlace(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        self.at = -1
        return self

    def __next__(self) -> Any:
        self.at += 1
        return torch.full((8,), float(self.at)), self.at % 3


def test_a_dataset_with_a_generator_of_its_own_is_named_with_its_cure() -> None:
    with pytest.raises(UserCodeError, match=r"batch 0 .* OwnNumbers\.rng keeps random numbers.* global generators"):
        LoaderStream(DataLoader(OwnNumbers(), 8)).check_repeatable()


def test_a_dataset_that_is_its_own_iterator_is_refused() -> None:
    with pytest.raises(UserCodeError, match=r"batch 1 .*keeps the place .*yield"):
        LoaderStream(DataLoader(OwnPlace(), 8)).check_repeatable()


def test_in_workers_both_are_the_same_in_every_run() -> None:
    for data in (OwnNumbers(), OwnPlace()):
        LoaderStream(DataLoader(data, 8, num_workers=1)).check_repeatable()


class Once(IterableDataset[Any]):
    def __init__(self) -> None:
        self.rows = iter([(torch.full((8,), float(i)), i % 3) for i in range(100)])

    def __iter__(self) -> Iterator[Any]:
        return self.rows


def test_a_loader_that_ends_names_the_step() -> None:
    with pytest.raises(UserCodeError, match="batch 25 of the DataLoader is not there: the loader ended"):
        draw(LoaderStream(DataLoader(Once(), 4)), 0, range(40))


def test_a_replay_that_gives_another_batch_names_the_step() -> None:
    class Rarely(Examples):
        def __getitem__(self, i: int) -> Any:
            found = self.x[i] if i != 50 else torch.full((8,), float(next(counter)))
            return found, self.y[i]

    counter = itertools.count()
    stream = LoaderStream(DataLoader(Rarely(), 8))
    draw(stream, 0, range(8))
    stream._orders[0, TRAINING].forget()
    with pytest.raises(UserCodeError, match="batch 6 of the DataLoader is another when it is drawn again"):
        draw(stream, 0, range(8))


class Raises(Examples):
    def __getitem__(self, i: int) -> Any:
        if i == 50:
            raise KeyError("no such file")
        return super().__getitem__(i)


class Dies(Examples):
    def __getitem__(self, i: int) -> Any:
        if i == 50:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(i)


@pytest.mark.parametrize("workers", [0, 1])
def test_what_raises_is_told_by_its_line(workers: int) -> None:
    stream = LoaderStream(DataLoader(Raises(), 8, num_workers=workers))
    with pytest.raises(UserCodeError) as caught:
        draw(stream, 0, range(8))
    assert caught.value.line.startswith("batch 6 of the DataLoader raised KeyError: 'no such file' (test_from_dat")
    assert "in __getitem__" in caught.value.line
    assert "\n" not in caught.value.line


def test_a_worker_that_is_killed_names_the_step_and_the_next_seed_goes_on() -> None:
    stream = LoaderStream(DataLoader(Dies(), 8, num_workers=1, prefetch_factor=1))
    with pytest.raises(
        UserCodeError, match=r"batch [56] of the DataLoader is not there: worker 0 .* was killed by SIGKILL"
    ):
        draw(stream, 0, range(8))
    draw(stream, 1, range(4))


NOT_LOADERS: dict[str, tuple[Callable[[], Any], str]] = {
    "a generator": (lambda: (i for i in range(3)), "got generator, which is its own iterator"),
    "an iterator": (lambda: iter([1]), "list_iterator, which is its own iterator"),
    "a dataset": (Examples, r"got a dataset, Examples; wrap it: DataLoader\("),
    "a tensor": (lambda: torch.zeros(3), "got Tensor; give a DataLoader, or a list of batches"),
    "a function": (lambda: shuffled, r"got a function; give what it returns: shuffled\(\)"),
    "a class": (lambda: Stream, "give a DataLoader"),
    "nothing": (lambda: None, "got NoneType; give a DataLoader"),
    "an empty list": (list, "got an empty list"),
    "in no order": (lambda: shuffled(num_workers=2, in_order=False), "in_order=False .* leave it out"),
}


@pytest.mark.parametrize("name", NOT_LOADERS)
def test_what_is_no_loader_is_one_line_with_what_would_be(name: str) -> None:
    given, line = NOT_LOADERS[name]
    with pytest.raises(ConfigError, match=line) as caught:
        from_dataloader(given())
    assert "\n" not in str(caught.value)


def test_a_held_out_loader_is_looked_at_as_well() -> None:
    with pytest.raises(ConfigError, match="validation got generator"):
        from_dataloader(shuffled(), validation=(i for i in range(3)))


@pytest.mark.parametrize(
    ("loader", "size"),
    [
        (lambda: shuffled(), 16),
        (lambda: DataLoader(Examples(), batch_sampler=BatchSampler(SequentialSampler(Examples()), 10, False)), 10),
        (lambda: DataLoader(Stream(), batch_size=None), 8),
        (lambda: [(torch.zeros(5, 8), torch.zeros(5))], 5),
    ],
    ids=["its own", "a batch sampler's", "of batches as they come", "a list's"],
)
def test_the_batch_size_is_the_loaders(loader: Callable[[], Any], size: int) -> None:
    assert from_dataloader(loader()).fixed == {"batch_size": size}


def test_the_number_of_workers_is_part_of_the_key() -> None:
    keys = {from_dataloader(shuffled(num_workers=count)).key for count in (0, 1, 2)}
    assert len(keys) == 3


def test_from_python_a_loader_goes_beside_a_model_or_brings_it() -> None:
    settings: dict[str, Any] = {"seeds": 1, "num_steps": 30, "hold_steps": 20, "theory": False, "quiet": True}
    loader = DataLoader(Examples(), 16, shuffle=True)
    beside = stresstest.lr_range(build, batch=loader, **settings)
    brought = stresstest.lr_range(stresstest.from_dataloader(loader, build), **settings)  # type: ignore[arg-type]
    assert isinstance(stresstest.from_dataloader(loader), Brought)
    assert beside.spec["batch_size"] == brought.spec["batch_size"] == 16
    assert beside.cells[0].ramp == brought.cells[0].ramp


FILE = """
import os, random
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from stresstest import from_dataloader

class Examples(Dataset):
    def __init__(self):
        self.x = torch.randn(96, 8, generator=torch.Generator().manual_seed(1))
        self.y = (self.x[:, 0] > 0).long() + (self.x[:, 1] > 0).long()
    def __len__(self):
        return 96
    def __getitem__(self, i):
        return self.x[i] + 0.1 * torch.randn(8), self.y[i]

class Fails(Examples):
    def __init__(self):
        super().__init__()
        self.reads = 0
    def __getitem__(self, i):
        self.reads += 1
        if self.reads > 6000:
            raise OSError("the disk is gone")
        return super().__getitem__(i)

def build(width=16):
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 3))

def loader(workers=0, data=Examples, **more):
    return DataLoader(data(), 16, shuffle=True, num_workers=workers, **more)

one = loader()
held_out = from_dataloader(one, validation=loader())
def later():
    return loader()
def spawned():
    return loader(1, multiprocessing_context="spawn")
def workers():
    return loader(2)
def fails():
    return loader(data=Fails)
def nothing():
    return 3
def raises():
    raise OSError("no such folder")
def a_generator():
    return (batch for batch in one)
whole = from_dataloader(one, build)
def made(width=8):
    return from_dataloader(one, lambda: build(width))
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(FILE)
    return tmp_path / "train.py"


def call(*words: str) -> int:
    return run(["lr-range", *words, *"--seeds 1 --num-steps 30 --hold-steps 20 --no-theory -q".split()])


@pytest.mark.parametrize(
    "words",
    [
        "--model train.py:build --batch-fn train.py:held_out",
        "--model train.py:build --batch-fn later",
        "--model train.py:made --width 8",
    ],
)
def test_on_the_command_line(words: str, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(*words.split(), "-j", "1", "-v") == 0
    out = capsys.readouterr()
    assert "16 examples per step" in out.out


REFUSED = {
    "--batch-fn nothing": "batch() has no parameters and returned int; return a DataLoader, or take (step, batch_size",
    "--batch-fn raises": "batch() raised OSError: no such folder (train.py:",
    "--batch-fn a_generator": "from_dataloader got generator, which is its own iterator",
    "--batch-fn one --batch-size 7": "batch_size 7: what train.py:build brings has 16; change it there",
}


@pytest.mark.parametrize("words", REFUSED)
def test_on_the_command_line_what_is_wrong_is_one_line(
    words: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("--model", "train.py:build", *words.split()) == 2
    err = capsys.readouterr().err
    assert REFUSED[words] in err
    assert err.count("\n") == 1


def test_a_batch_sweep_over_a_loader_says_what_to_write(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("batch-sweep --model train.py:build --batch-fn one -q".split()) == 2
    assert "write batch(step, batch_size, generator)" in capsys.readouterr().err


def test_a_loader_that_fails_later_costs_its_cell_and_names_the_step(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("--model", "train.py:build", "--batch-fn", "fails", "-j", "1") == 4
    out = " ".join(capsys.readouterr().out.split())
    assert "of the DataLoader raised OSError: the disk is gone (train.py:25, in __getitem__)" in out


_ENDS = """
import multiprocessing
from multiprocessing.util import Finalize

import torch
from torch.utils.data import DataLoader, TensorDataset

from stresstest import from_dataloader

if __name__ == "__main__":
    loader = DataLoader(TensorDataset(torch.arange(64.0)), 4, num_workers=2)
    stream = from_dataloader(loader).stream
    stream.draw(0, 0, 0)
    assert len(multiprocessing.active_children()) == 2
    Finalize(None, lambda: print(len(multiprocessing.active_children())), exitpriority=50)
"""


def test_workers_end_before_the_process_cleans_up(tmp_path: Path) -> None:
    (tmp_path / "ends.py").write_text(_ENDS)
    done = subprocess.run([sys.executable, "ends.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0"]
    assert "Traceback" not in done.stderr
