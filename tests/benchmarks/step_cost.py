"""What a step of our population costs beside a bare PyTorch loop on the same model. Run by hand:

    python tests/benchmarks/step_cost.py [--rounds 20] [--chunk 10] [--device auto] [--markdown]

A step of ours: draw the batch by seed and step, forward, backward, gradient norm, Adam, and the check
that loss, gradient and parameters are finite, which stays on the device. A bare step: draw a batch by
torch.randint, forward, zero_grad, backward, torch.optim.Adam; the loss is read by the host only where
that is said. The bare model is a plain nn.Module with the same weights (checked first: the same losses
over some steps). All take turns in chunks of steps, and ratios are taken round by round. On a CPU the
clock is CPU time on one thread (the wall clock of an idle core); on a GPU it waits for the device.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from tables import show
from torch import Tensor, nn
from turns import Chunk, ratio, take_turns

from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.engine.population import Population
from stresstest.engine.replicas import Training
from stresstest.engine.train import Batches
from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.experiments.plan import resolve_device
from stresstest.models.transformer import VOCABULARY, Transformer
from stresstest.runs.identity import environment
from stresstest.specs.base import ModelSpec
from stresstest.tasks import load_task
from stresstest.tasks.task import TRAINING

LR = 1e-3
CHECKED_STEPS = 5
OURS = "stresstest, R = 1"


class BareBlock(nn.Module):
    """A pre-LN block as people write it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """[B, T, D] to [B, T, D]."""
        batch, time_, width = x_BTD.shape
        qkv = self.qkv(self.norm1(x_BTD)).view(batch, time_, 3, self.heads, width // self.heads)
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x_BTD = x_BTD + self.out(mixed.transpose(1, 2).reshape(batch, time_, width))
        branch_BTD: Tensor = self.fc2(F.gelu(self.fc1(self.norm2(x_BTD))))
        return x_BTD + branch_BTD


class BareTransformer(nn.Module):
    """Embedding, sinusoidal positions, pre-LN blocks, final norm, untied output."""

    positions_TD: Tensor

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, spec.width)
        self.blocks = nn.ModuleList(BareBlock(spec.width, spec.heads) for _ in range(spec.depth))
        self.norm = nn.LayerNorm(spec.width)
        self.output = nn.Linear(spec.width, VOCABULARY, bias=False)
        rates = torch.exp(torch.arange(0, spec.width, 2) * (-math.log(10_000.0) / spec.width))
        angles = torch.arange(spec.seq_len)[:, None] * rates
        positions_TD = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
        self.register_buffer("positions_TD", positions_TD, persistent=False)

    def forward(self, inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """Mean cross-entropy of the next bytes."""
        embedded_BTD = self.embedding(inputs_BT)
        x_BTD = embedded_BTD * math.sqrt(embedded_BTD.shape[-1]) + self.positions_TD
        for block in self.blocks:
            x_BTD = block(x_BTD)
        return F.cross_entropy(self.output(self.norm(x_BTD)).flatten(0, 1), targets_BT.flatten())


BLOCK_MODULES = {"attention.pre": "norm1", "ffn.pre": "norm2", "output": "out"}
OTHER_PARAMETERS = {
    "embedding": "embedding.weight",
    "unembedding": "output.weight",
    "final.norm.gain": "norm.weight",
    "final.norm.bias": "norm.bias",
}


def bare_name(kind: str, layer: int) -> str:
    """The bare model's name of our parameter."""
    if layer == 0:
        return OTHER_PARAMETERS[kind]
    module, _, part = kind.rpartition(".")
    return f"blocks.{layer - 1}.{BLOCK_MODULES.get(module, module)}.{'bias' if part == 'bias' else 'weight'}"


def bare_copy(model: Transformer, population: Population) -> BareTransformer:
    """The bare model with the weights of the population's only replica."""
    bare = BareTransformer(model.spec).to(population.theta_RP.device)
    ours = model.layout.unbind(model.layout.leaves(population.theta_RP))
    shapes = {name: tensor.shape for name, tensor in bare.state_dict().items()}
    weights = {bare_name(*key): tensor.detach() for key, tensor in ours.items()}
    weights = {name: tensor.reshape(shapes[name]) for name, tensor in weights.items()}
    bare.load_state_dict(weights)
    return bare


def check_same_losses(model: Transformer, training: Training, batches: Batches) -> None:
    """Both models with both optimizers, on the same batches from the same weights."""
    population = Population(model, [0], training)
    bare = bare_copy(model, population)
    optimizer = torch.optim.Adam(bare.parameters(), lr=LR)
    lr_R = torch.full((1,), LR, device=training.device)
    for step in range(CHECKED_STEPS):
        batch = batches.batch([0], step)
        loss = bare(batch.inputs[0], batch.targets[0])
        torch.testing.assert_close(loss[None], population.step(batch, lr_R).loss_R, rtol=1e-4, atol=1e-4)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def our_chunk(model: Transformer, training: Training, batches: Batches, replicas: int) -> Chunk:
    seeds = list(range(replicas))
    population = Population(model, seeds, training)
    lr_R = torch.full((replicas,), LR, device=training.device)
    done = 0

    def run(steps: int) -> None:
        nonlocal done
        for step in range(done, done + steps):
            population.step(batches.batch(seeds, step), lr_R)
        done += steps

    return run


def bare_chunk(batches: Batches, bare: BareTransformer, data: Tensor, fused: bool, reads_loss: bool) -> Chunk:
    optimizer = torch.optim.Adam(bare.parameters(), lr=LR, fused=fused or None)
    size, seq_len = batches.task.batch_size, batches.task.num_inputs
    span = torch.arange(seq_len + 1, device=data.device)

    def run(steps: int) -> None:
        for _ in range(steps):
            offsets = torch.randint(len(data) - seq_len, (size, 1), device=data.device)
            tokens = data[offsets + span].long()
            loss = bare(tokens[:, :-1], tokens[:, 1:])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if reads_loss and not math.isfinite(loss.item()):
                raise ArithmeticError("the bare loop diverged")

    return run


def compare(model: Transformer, training: Training, batches: Batches, rounds: int, steps: int) -> list[list[str]]:
    """Rows of: contender, milliseconds per step, ours over it."""
    [bytes_] = batches.task.arrays(TRAINING)
    data = torch.from_numpy(bytes_.copy()).to(training.device)
    chunks = {OURS: our_chunk(model, training, batches, 1)}
    for fused, reads_loss in ((False, False), (False, True), (True, False), (True, True)):
        name = f"bare loop, Adam{'(fused=True)' if fused else ''}{', reads the loss' if reads_loss else ''}"
        bare = bare_copy(model, Population(model, [0], training))
        chunks[name] = bare_chunk(batches, bare, data, fused, reads_loss)
    found = take_turns(chunks, rounds, steps, training.device)
    return [
        [name, f"{statistics.median(times):.1f}", "" if name == OURS else ratio(found[OURS], times)]
        for name, times in found.items()
    ]


def throughput(
    model: Transformer, training: Training, batches: Batches, rounds: int, steps: int, sizes: Sequence[int]
) -> list[list[str]]:
    """Rows of: replicas, milliseconds per replica-step, the same over that of the first row."""
    chunks = {str(size): our_chunk(model, training, batches, size) for size in sizes}
    found = take_turns(chunks, rounds, steps, training.device)
    each = {name: [time_ / int(name) for time_ in times] for name, times in found.items()}
    first = each[str(sizes[0])]
    return [[name, f"{statistics.median(times):.2f}", ratio(times, first)] for name, times in each.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20, help="turns of each contender")
    parser.add_argument("--chunk", type=int, default=10, help="steps a turn")
    parser.add_argument("--replicas", default="1,2,4,8", help="populations to time")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables")
    args = parser.parse_args()
    torch.set_num_threads(1)
    device, spec = resolve_device(args.device), LrRangeSpec(variant=("pre-ln",))
    model = Transformer(spec, "pre-ln", {})
    training = Training(OPTIMIZERS["adam"], {}, torch.device(device))
    batches = Batches(load_task(spec.task, spec.data, spec.batch_size, spec.seq_len), training.device)
    check_same_losses(model, training, batches)
    facts = environment(device, spec.dtype)
    print(f"{facts['device_name']}, torch {facts['torch']}, {model.layout.num_parameters:,} parameters")
    how = f"median of {args.rounds} rounds (min to max)"
    rows = compare(model, training, batches, args.rounds, args.chunk)
    show(["loop", "ms per step", f"ours over it, {how}"], rows, args.markdown)
    sizes = [int(size) for size in args.replicas.split(",")]
    rows = throughput(model, training, batches, args.rounds, args.chunk, sizes)
    show(["R", "ms per replica-step", f"over that of R = {sizes[0]}, {how}"], rows, args.markdown)


if __name__ == "__main__":
    main()
