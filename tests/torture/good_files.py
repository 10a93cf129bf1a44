"""Good files of every kind that a command reads, for a torture to spoil."""

from __future__ import annotations

import io
import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from transformers import GPT2Config, GPT2LMHeadModel

import stresstest
from stresstest.gate.baseline import baseline_file, make_baseline
from stresstest.results.records import Result
from stresstest.results.sums import unseal
from stresstest.scenario.library import SHIPPED
from tests.torture.byte_changes import TINY

# What a file of this name in the current folder says to every command: a dry run times some steps, of small sizes.
SMALL = "[tool.stresstest]\nseeds = 2\n" + "".join(
    f"[tool.stresstest.{name}]\n{sizes}"
    for sizes, names in {
        "batch_size = 2\n": ("lr-range", "scale"),
        "depths = 1\nwidth = 8\nbatch_size = 2\n": ("depth-sweep",),
        "depth = 1\nwidth = 8\nbatch_size = 2\n": ("warmup", "race", "shock"),
        "depth = 1\nwidth = 8\n": ("batch-sweep",),
    }.items()
    for name in names
)
_OWN_MODEL = """
import torch

def build(depth=1, width=8):
    return torch.nn.Sequential(torch.nn.Embedding(16, width), torch.nn.Linear(width, 16))

def batch(step, size, generator):
    tokens = torch.randint(0, 16, (size, 6), generator=generator)
    return tokens, tokens
"""
_MLFLOW = """
CREATE TABLE runs (run_uuid VARCHAR(32) PRIMARY KEY, name VARCHAR(250), start_time BIGINT, lifecycle_stage VARCHAR(20));
CREATE TABLE metrics (key VARCHAR(250) NOT NULL, value FLOAT NOT NULL, timestamp BIGINT NOT NULL,
  run_uuid VARCHAR(32) NOT NULL, step BIGINT NOT NULL, is_nan BOOLEAN NOT NULL,
  PRIMARY KEY (key, timestamp, step, run_uuid, value, is_nan));
"""
_DRY = ("lr-range", "--dry-run", "-q", "--device", "cpu")
SIZES = ("--depth=1", "--width=8")  # for lr-range, which has none in the table: what has weights has its own


@dataclass(frozen=True)
class Kind:
    """A kind of file: its name in a folder, a good content, and what reads it, given the folder and the file."""

    name: str
    content: bytes
    read: Callable[[Path, Path], Sequence[str]]
    structured: str = ""  # json, json-lines or yaml


def good_files(folder: Path) -> list[Kind]:
    """One of each kind, written into a folder, which is the current one."""
    (folder / "pyproject.toml").write_text(SMALL)
    (folder / "own.py").write_text(_OWN_MODEL)
    kinds = [*_scenarios(), *_stored(folder), *_logs(), *_data(folder), *_weights(folder)]
    for kind in kinds:
        (folder / kind.name).parent.mkdir(parents=True, exist_ok=True)
        (folder / kind.name).write_bytes(kind.content)
    return kinds


def _reads(*words: str) -> Callable[[Path, Path], Sequence[str]]:
    return lambda folder, path: [word.format(folder=folder, path=path) for word in words]


def _scenarios() -> list[Kind]:
    claims = (SHIPPED / "papers" / "rezero-jacobian.yaml").read_bytes()
    return [
        Kind("scenario.yaml", (SHIPPED / "ci.yaml").read_bytes(), _reads("validate", "{path}"), "yaml"),
        Kind("claims.yaml", claims, _reads("validate", "{path}"), "yaml"),
        Kind("pyproject.toml", SMALL.encode(), _reads("warmup", "--dry-run", "-q")),
    ]


def _stored(folder: Path) -> list[Kind]:
    """A run's files, and the values of one that are kept in a repository."""
    whole, other = folder / "run", folder / "other"
    result = stresstest.lr_range("decoder", seeds=2, device="cpu", quiet=True, run_dir=whole, **TINY)
    stresstest.lr_range("decoder", seeds=2, device="cpu", quiet=True, run_dir=other, **TINY)
    names = ("result.json", "cells.jsonl", "manifest.json", "plan.json", "answer.json")
    stored = {name: (whole / name).read_bytes() for name in names}
    compared = (other / "result.json").read_bytes()
    (curves,) = sorted((whole / "curves").glob("*.npz"))[:1]
    return [
        Kind("run/result.json", stored["result.json"], _reads("report", "{folder}/run"), "json"),
        Kind("other/result.json", compared, _reads("compare", "{folder}/run", "{folder}/other"), "json"),
        Kind("alone/result.json", stored["result.json"], _reads("report", "{path}", "-o", "csv:tables"), "json"),
        Kind("beside/result.json", stored["result.json"], _reads("compare", "{folder}/run", "{path}"), "json"),
        Kind("run/cells.jsonl", stored["cells.jsonl"], _reads("status", "{folder}/run"), "json-lines"),
        Kind("other/cells.jsonl", stored["cells.jsonl"], _reads("diagnose", "{folder}/other"), "json-lines"),
        Kind("run/manifest.json", stored["manifest.json"], _reads("status", "{folder}/run"), "json"),
        Kind("run/plan.json", stored["plan.json"], _reads("status", "{folder}/run"), "json"),
        Kind("run/answer.json", stored["answer.json"], _reads("report", "--index", "{folder}"), "json"),
        Kind(f"run/curves/{curves.name}", curves.read_bytes(), _reads("report", "{folder}/run", "-v")),
        *_begun(folder, stored),
        *_baselines(result),
    ]


def _begun(folder: Path, stored: Mapping[str, bytes]) -> list[Kind]:
    """The same run before its result, as a version without checksums wrote it."""
    begun = folder / "begun"
    begun.mkdir()
    (begun / "cells.jsonl").write_bytes(
        b"".join(unseal(line)[0] + b"\n" for line in stored["cells.jsonl"].splitlines())
    )
    names = ("manifest.json", "plan.json")
    unsealed = {name: {k: v for k, v in json.loads(stored[name]).items() if k != "sum"} for name in names}
    return [
        Kind(f"begun/{name}", json.dumps(unsealed[name]).encode(), _reads("report", "begun"), "json") for name in names
    ]


def _baselines(result: Result) -> list[Kind]:
    gated = {"gate": {"max_stable_lr"}}
    kept = make_baseline("gate", {"gate": result}, gated, "0" * 40, "2026-11-27", "first").to_json().encode()
    files = [baseline_file(name, result.environment["key"]) for name in ("gate", "other")]
    lines = [("baseline", "show", "gate"), ("baseline", "status")]
    return [Kind(str(file), kept, _reads(*line), "json") for file, line in zip(files, lines, strict=True)]


def _logs() -> list[Kind]:
    steps = [{"step": i, "loss": 3.0 - 0.01 * i, "lr": 1e-3, "grad_norm": 1.0 + i % 3} for i in range(60)]
    names = tuple(steps[0])
    table = "\n".join([",".join(names), *(",".join(str(one[name]) for name in names) for one in steps)]).encode()
    state = {"log_history": steps, "global_step": 60, "max_steps": 60, "best_metric": None}
    lines = [f"epoch {one['step']} | loss {one['loss']:.4f} | lr {one['lr']:.2e}" for one in steps]
    bars = "\r".join(f" {i}%|##  | {i}/100 [00:0{i % 10}<00:30, loss={3.0 - 0.01 * i:.3f}]" for i in range(60))
    printed = {"output_type": "stream", "name": "stdout", "text": [f"{line}\n" for line in lines]}
    notebook = {"cells": [{"cell_type": "code", "outputs": [printed]}], "nbformat": 4}
    history = {"history": {name: [one[name] for one in steps] for name in names}}
    diagnose = _reads("diagnose", "{path}")
    return [
        Kind("log.csv", table, diagnose),
        Kind("log.jsonl", b"\n".join(json.dumps(one).encode() for one in steps), diagnose, "json-lines"),
        Kind("trainer_state.json", json.dumps(state).encode(), diagnose, "json"),
        Kind("history.json", json.dumps(history).encode(), diagnose, "json"),
        Kind("log.txt", "\n".join(lines).encode(), diagnose),
        Kind("bars.log", bars.encode(), diagnose),
        Kind("train.ipynb", json.dumps(notebook).encode(), diagnose, "json"),
        Kind("events.out.tfevents.1.here", _events(steps), diagnose),
        Kind("mlflow.db", _database(steps), diagnose),
    ]


def _events(steps: Sequence[Mapping[str, float]]) -> bytes:
    file = io.BytesIO()
    writer = RecordWriter(file)
    writer.write(Event(wall_time=1.0, file_version="brain.Event:2").SerializeToString())
    for one in steps:
        values = [Summary.Value(tag=f"train/{name}", simple_value=one[name]) for name in ("loss", "grad_norm")]
        event = Event(wall_time=1000.0 + one["step"], step=int(one["step"]), summary=Summary(value=values))
        writer.write(event.SerializeToString())
    return file.getvalue()


def _database(steps: Sequence[Mapping[str, float]]) -> bytes:
    with closing(sqlite3.connect(":memory:")) as database:
        database.executescript(_MLFLOW)
        database.execute("INSERT INTO runs VALUES ('a', 'first', 1000, 'active')")
        rows = [("loss", one["loss"], 1000 + one["step"], "a", one["step"], False) for one in steps]
        database.executemany("INSERT INTO metrics VALUES (?,?,?,?,?,?)", rows)
        database.commit()
        return database.serialize()


def _data(folder: Path) -> list[Kind]:
    draw = np.random.default_rng(0)
    pictures = b"".join(bytes([i % 10]) + draw.bytes(3072) for i in range(20))
    for i in range(1, 6):
        (folder / "cifar").mkdir(exist_ok=True)
        (folder / "cifar" / f"data_batch_{i}.bin").write_bytes(pictures)
    source = "\n".join(" ".join(f"w{k}" for k in draw.integers(0, 50, 6)) for _ in range(60)).encode()
    (folder / "train.en").write_bytes(source.replace(b"w", b"v"))
    texts = b"some text to learn from, again and again. " * 400
    tags = b"".join(b'<seg id="%d"> ein Satz aus %d Wort %d . </seg>\n' % (i, i % 7, i) for i in range(60))
    (folder / "tags.en").write_bytes(tags.replace(b"ein Satz", b"a sentence"))
    sentences = partial(_reads, *_DRY, *SIZES, "--model", "encoder-decoder", "--data")
    images = _reads(*_DRY, "--model", "resnet", "--depth=3", "--width=8", "--data", "cifar10:cifar")
    return [
        Kind("text.txt", texts, _reads(*_DRY, *SIZES, "--data", "path:{path}")),
        Kind("cifar/test_batch.bin", pictures, images),
        Kind("train.de", source, sentences("pairs:train.de,train.en")),
        Kind("tags.de", tags, sentences("pairs:tags.de,tags.en")),
    ]


def _weights(folder: Path) -> list[Kind]:
    """Checkpoints: a state dict for a model of one's own, and a folder of transformers."""
    from safetensors.torch import save

    state = {"0.weight": torch.ones(16, 8), "1.weight": torch.ones(16, 8), "1.bias": torch.zeros(16)}
    stored = io.BytesIO()
    torch.save(state, stored)
    config = GPT2Config(n_layer=1, n_embd=8, n_head=2, n_positions=16, vocab_size=256, bos_token_id=0, eos_token_id=0)
    GPT2LMHeadModel(config).save_pretrained(folder / "gpt")
    own = partial(_reads, *_DRY, "--model", "own.py:build", "--batch-fn", "own.py:batch")
    theirs = _reads(*_DRY, "--model", "hf:gpt", "--seq-len", "8")
    return [
        Kind("state.pt", stored.getvalue(), own("--from-weights", "state.pt")),
        Kind("state.safetensors", save(state), own("--from-weights", "state.safetensors")),
        Kind("gpt/config.json", (folder / "gpt" / "config.json").read_bytes(), theirs, "json"),
        Kind("gpt/model.safetensors", (folder / "gpt" / "model.safetensors").read_bytes(), theirs),
    ]
