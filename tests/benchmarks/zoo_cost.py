"""What a step of ours costs beside the loop that people write, for a sample of the zoo. Run by hand:

    python tests/benchmarks/zoo_cost.py --sources FOLDER [--rounds 9] [--chunk 4] [--only WORD]

At width 256 where a width can be said. A step of ours is that of the training loop: batch by seed and step,
forward, backward, gradient norm, Adam, the constant predictor's loss on the batch, the checks; once more with the
default probes. Theirs draws a batch, by DataLoader where there is one, calls forward, backward and torch.optim.Adam,
and reads the loss. Both are checked to have the same loss on the same batch from the same weights; then they take
turns, and ratios are taken round by round, of the CPU time of one thread.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tables import show
from torch import Tensor, nn
from turns import Chunk, ratio, take_turns
from zoo import arguments, in_a_process, origin, prepare
from zoo_entries import ENTRIES, Entry

from stresstest.engine.probes import Probing
from stresstest.engine.train import train
from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.specs.profiles import make_spec
from stresstest.tasks import load_task
from stresstest.tasks.task import TRAINING
from stresstest.user_model.bench import UserBench, resolve_user_model, user_bench
from stresstest.user_model.factory import seeded

LR = 1e-4
LossOf = Callable[[nn.Module, Any], Tensor]


def _classes(model: nn.Module, batch: Any) -> Tensor:
    logits: Tensor = model(batch[0])
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), batch[1].reshape(-1))


def _first_time(model: nn.Module, batch: Any) -> Tensor:
    return _classes(model, (batch[0].t(), batch[1].t()))


def _gpt(model: nn.Module, batch: Any) -> Tensor:
    loss: Tensor = model(batch[0], batch[1])[1]
    return loss


def _lstm(model: Any, batch: Any) -> Tensor:
    hidden = model.init_hidden(len(batch[0]))
    return F.nll_loss(model(batch[0].t(), hidden)[0], batch[1].t().reshape(-1))


def _graph(model: nn.Module, batch: Any) -> Tensor:
    data: Any = _data()
    return F.cross_entropy(model(batch[0], data.edges)[data.train], batch[1][data.train])


# By source and name: the loss as its users write it.
SAMPLE: dict[tuple[str, str], LossOf] = {
    ("karpathy/nanoGPT:model.py", "GPT"): _gpt,
    ("karpathy/minGPT:mingpt/model.py", "GPT"): _gpt,
    ("x-transformers", "TransformerWrapper"): _classes,
    ("mambapy", "Mamba between an embedding and a linear layer"): _classes,
    ("pytorch/examples:word_language_model/model.py", "RNNModel, LSTM"): _lstm,
    ("majumderb/rezero:rezero/transformer/rztx.py", "RZTXEncoderLayer, one after the other, [T, B]"): _first_time,
    ("vit-pytorch:vit.py", "ViT"): _classes,
    ("mlp-mixer-pytorch", "MLPMixer"): _classes,
    ("torch_geometric", "GCN, a whole graph a step"): _graph,
    ("rtdl_revisiting_models", "FTTransformer"): lambda m, b: F.cross_entropy(m(b[0], None), b[1]),
    ("pytorch/examples:mnist/main.py", "Net of the MNIST example"): lambda m, b: F.nll_loss(m(b[0]), b[1]),
    ("siren-pytorch", "SirenNet"): lambda m, b: F.mse_loss(m(b[0]), b[1]),
}
_AT_256 = re.compile(r"(n_embd=|ninp=|nhid=|hidden_channels=|dim_hidden=)64")


def spec_of(entry: Entry, sources: Path) -> LrRangeSpec:
    """The settings of an entry at width 256."""
    words = [_AT_256.sub(r"\g<1>256", text) for text in arguments(entry, sources)]
    said: dict[str, Any] = {"seq_len": 32}
    for option, value in zip(words[::2], words[1::2], strict=True):
        name = option.removeprefix("--").replace("-", "_")
        said[name] = tuple(value.split(",")) if name == "set" else int(value) if value.isdigit() else value
    if "width" in said or "width" in entry.wrote:
        said["width"] = 256
    return resolve_user_model(make_spec(LrRangeSpec, "quick", said), sweeps_depth=False)


def measure(entry: Entry, loss_of: LossOf, sources: Path, rounds: int, steps: int) -> int:
    """Print the times, as JSON."""
    spec = spec_of(entry, sources)
    device = torch.device("cpu")
    bench = user_bench(spec, spec.variant[0], spec.depth, "adam", "cpu")
    check_same_loss(bench, loss_of)
    chunks = {
        "off": our_chunk(bench, Probing("off")),
        "economy": our_chunk(bench, Probing("economy")),
        "bare": bare_chunk(bench, spec, loss_of),
    }
    found = take_turns(chunks, rounds, steps, device)
    json.dump({"width": width_of(bench), "times": found}, sys.stdout)
    return 0


def width_of(bench: UserBench) -> int:
    """Parameters, by which a model's size is told where it has no one width."""
    return bench.model.layout.num_parameters


def check_same_loss(bench: UserBench, loss_of: LossOf) -> None:
    """Ours and theirs, of one fresh model on one batch."""
    one, module = bench.batches.batch([0], 0)[0], bench.module()
    with torch.no_grad(), seeded(one.seed):
        ours = bench.model.contract.loss(module, one.data)
    with torch.no_grad(), seeded(one.seed):
        torch.testing.assert_close(loss_of(module, one.data), ours, rtol=1e-5, atol=1e-6)


def our_chunk(bench: UserBench, probing: Probing) -> Chunk:
    population = bench.populate([0], [LR])
    done = 0

    def run(steps: int) -> None:
        nonlocal done
        for _ in train(population, bench.batches, [0], np.full((steps, 1), LR), done, probing):
            pass
        done += steps

    return run


def bare_chunk(bench: UserBench, spec: LrRangeSpec, loss_of: LossOf) -> Chunk:
    module, batches = bench.module(), theirs(spec)
    optimizer = torch.optim.Adam(module.parameters(), lr=LR)

    def run(steps: int) -> None:
        for _ in range(steps):
            loss = loss_of(module, next(batches))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()

    return run


def theirs(spec: LrRangeSpec) -> Iterator[Any]:
    """Batches as people draw them: of their DataLoader, of an array at random places, or one and the same."""
    data = _data()
    loader = getattr(data, "loader", None)
    if data is not None and loader is None:
        while True:
            yield data.x, data.y
    while loader is not None:
        yield from loader
    arrays = load_task(spec.task, spec.data, spec.batch_size, spec.seq_len).arrays(TRAINING)
    if spec.task == "images":
        images = torch.from_numpy(arrays[0].copy()).float()
        classes = torch.from_numpy(arrays[1].copy()).long()
        side = int(images[0].numel() ** 0.5)
        while True:
            places = torch.randint(len(images), (spec.batch_size,))
            yield images[places].view(-1, 1, side, side), classes[places]
    text, span = torch.from_numpy(arrays[0].copy()), torch.arange(spec.seq_len + 1)
    while True:
        tokens = text[torch.randint(len(text) - spec.seq_len, (spec.batch_size, 1)) + span].long()
        yield tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()


def _data() -> ModuleType | None:
    """data.py of the entry, beside its mine.py."""
    return importlib.import_module("data") if Path("data.py").exists() else None


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sources", type=Path, required=True, help="folder of the repositories")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each")
    parser.add_argument("--chunk", type=int, default=4, help="steps a turn")
    parser.add_argument("--only", default="", help="entries whose name or source contains this")
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for (source, name), loss_of in SAMPLE.items():
        if args.only.lower() not in f"{name} {source}".lower():
            continue
        [entry] = [one for one in ENTRIES if (one.source, one.name) == (source, name)]
        with tempfile.TemporaryDirectory() as folder:
            beside = prepare(entry, args.sources, Path(folder))
            work = lambda: measure(entry, loss_of, args.sources, args.rounds, args.chunk)  # noqa: B023, E731
            code = in_a_process(Path(folder), beside, work)
            out, said = (Path(folder, kind).read_text() for kind in ("out.txt", "said.txt"))
        if code:
            print(f"{origin(entry)} {name}: {said.strip().splitlines()[-1]}", file=sys.stderr)
            continue
        found = json.loads(out)
        times = found["times"]
        milliseconds = [f"{statistics.median(times[kind]):.1f}" for kind in ("bare", "off")]
        ratios = [ratio(times[kind], times["bare"]) for kind in ("off", "economy")]
        rows.append([name, origin(entry), f"{found['width']:,}", *milliseconds, *ratios])
    how = f"median of {args.rounds} rounds (min to max)"
    heads = ["model", "from", "parameters", "their ms per step", "ours", f"ours over theirs, {how}", "with probes"]
    show(heads, rows, args.markdown)


if __name__ == "__main__":
    main()
