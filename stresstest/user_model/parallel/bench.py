"""`--parallel fsdp`: the bench of a replica that spans the ranks of a run, and what is checked of it before training.

What is inferred (the loss, the best constant predictor) and what the preflight tries is so on the whole model, on the
CPU in the host's memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from stresstest.engine.curvature import Loss
from stresstest.engine.probes import Probing
from stresstest.engine.replicas import FIRST_LR
from stresstest.engine.train import evaluate_batches
from stresstest.errors import ModelError, StoppedError
from stresstest.measurements.journal import SAVE_SECONDS, Journal
from stresstest.runs.ranks import DONE, LEFT, RanksLostError, ranks, start_ranks
from stresstest.runs.stopping import stop_if_requested
from stresstest.specs.base import TrainingSpec
from stresstest.tasks.task import INITIAL, TRAINING
from stresstest.user_code import UserCodeError
from stresstest.user_model.batches import UserBatch
from stresstest.user_model.bench import UserBench, user_bench
from stresstest.user_model.constants.constant import Constant
from stresstest.user_model.constants.predictor import ConstantLosses
from stresstest.user_model.factory import seeded
from stresstest.user_model.fresh import oddness
from stresstest.user_model.optimizers import UsersOptimizers
from stresstest.user_model.parallel.population import (
    ShardedUserModel,
    ShardedUserPopulation,
    local,
    part_of_whole,
    share_of,
)
from stresstest.user_model.population import USER_OPTIMIZER, UserPopulation

_TRIED_LRS = (FIRST_LR, 1.0)  # the latter for those that find their own, as Prodigy
_IN_PLACE = "does it change a block's output in place (x += y)? write x = x + y"
_TRIED_STEPS = 8  # of the user's optimizer, on shards and on the whole
_SAME = 5e-2  # relative: what rounding may change of an update: Muon's is in bfloat16, 3e-2
_ROUNDING = 1e-6  # of the parameters
_SAME_GRADIENT = 1e-2  # relative: and another device of a gradient


@dataclass
class ShardedBench(UserBench):
    """The bench of a replica on all ranks."""

    model: ShardedUserModel

    @property
    def capacity(self) -> int:
        """One replica."""
        return 1

    def populate(self, seeds: Sequence[int], lrs: Sequence[float]) -> UserPopulation:
        """A freshly initialised replica."""
        (seed,), (lr,) = seeds, lrs
        return ShardedUserPopulation(self.model, seed, self.training, lr)

    def objective(self, seed: int) -> tuple[Tensor, Loss]:
        """Never asked for: there is no theory of it."""
        raise NotImplementedError  # it needs all weights on one device

    def blame(self, seed: int, step: int) -> None:
        """A step that is not finite at the initial weights too is the data's: a `UserCodeError` that names it."""
        one = self.batches.batch([seed], step)[0]
        if not ShardedUserPopulation(self.model, seed, self.training, FIRST_LR).finite_step(one):
            raise UserCodeError(
                f"the loss or its gradient on {self.batches.named(step, TRAINING)} of seed {seed} is not finite at the "
                f"initial weights either, so the learning rate is not the cause{oddness(one.data)}; fix such "
                "batches or remove them"
            )


def sharded_bench(
    spec: TrainingSpec,
    variant: str,
    depth: int,
    optimizer: str,
    device: str,
    journal: Path | None = None,
    constant: Constant | None = None,
) -> ShardedBench:
    """The bench of the user's model on all ranks; each calls this, and builds the whole model on its host."""
    here = ranks().here
    where = torch.device("cpu" if device == "cpu" else f"cuda:{here.local_rank}")
    whole = user_bench(spec, variant, depth, optimizer, "cpu", None, constant)
    if refused := _refused(whole):
        raise UserCodeError(f"{refused}, which parallel fsdp does not take; train it on one device")
    batches = whole.batches
    share_of(batches.batch([0], 0, INITIAL)[0].data, here.rank, here.world)
    if whole.constant.paired:
        losses = ConstantLosses(whole.constant, whole.model.contract, whole.module())
        batches.judge(batches.baseline_loss, batches.chance_loss, _OfShares(losses, here.world))
    return ShardedBench(
        ShardedUserModel(whole.model, where),
        replace(whole.training, device=where),
        batches,
        journal=SharedJournal(journal),
        probing=Probing("off"),
        constant=whole.constant,
    )


def _refused(whole: UserBench) -> str:
    """What a model does that only a whole one can, or nothing."""
    found, factory = whole.model.contract, whole.model.factory
    if found.differentiates:
        return "its loss takes gradients itself"
    if found.backward is not None or factory.backward is not None or factory.step is not None:
        return "it takes its gradient or step itself"
    if any(hasattr(part, "_orig_mod") for part in whole.module().modules()):
        return "it is compiled"
    return "its parameters have several dtypes" if whole.model.layout.mixed else ""


@dataclass(frozen=True)
class _OfShares:
    """The constant predictor's loss on a batch as the model's is taken: the mean over the ranks' shares."""

    loss: Callable[[UserBatch, torch.device], Tensor]
    world: int

    def __call__(self, one: UserBatch, device: torch.device) -> Tensor:
        shares = [replace(one, data=share_of(one.data, rank, self.world)) for rank in range(self.world)]
        return torch.stack([self.loss(share, device) for share in shares]).mean()


class SharedJournal(Journal):
    """A journal of which all ranks read the same and the first one writes: the courses that are finished.

    What is under way is not kept: its state lies on all ranks.
    """

    def __init__(self, path: Path | None = None) -> None:
        first = ranks().here.rank == 0
        super().__init__(path if first else None)
        found = [self._finished]
        dist.broadcast_object_list(found, 0)
        self._finished, self._under_way = found[0], None

    def finish(self, key: str, result: Any) -> None:
        """A course has ended."""
        super().finish(key, result)
        if time.monotonic() - self._saved_at >= SAVE_SECONDS:
            self._save(key, lambda: None)

    def offer(self, key: str, state: Callable[[], Any]) -> None:
        """All ranks stop where one of them was asked to."""
        asked = torch.zeros(1)
        try:
            stop_if_requested()
        except StoppedError:
            asked += 1.0
        dist.all_reduce(asked)
        if bool(asked):
            self._save(key, lambda: None)
            raise StoppedError("asked to stop")


def try_parallel(spec: TrainingSpec, variant: str, depth: int, device: str, constant: Constant | None) -> list[str]:
    """Try a sharded replica on all ranks, before any training: lines to print; what cannot be is a `ModelError`."""
    group = start_ranks(device)
    found, (kind, text, _) = group.train(_tried, (spec, variant, depth, device, constant))
    line = " ".join((text.splitlines() or [""])[-1].split())
    if kind == LEFT:
        raise RanksLostError(f"{spec.model}: a rank was lost before training: {line}")
    if kind != DONE or found is None:
        raise ModelError(f"{spec.model}: parallel fsdp: {line.removeprefix('stresstest.user_code.UserCodeError: ')}")
    return found


def _tried(task: tuple[TrainingSpec, str, int, str, Constant | None]) -> list[str]:
    spec, variant, depth, device, constant = task
    bench = sharded_bench(spec, variant, depth, spec.optimizers[0], device, None, constant)
    if bench.training.optimizer is USER_OPTIMIZER:
        for lr in _TRIED_LRS:
            _check_optimizer(bench, lr)
    _check_gradient(bench)
    population = bench.populate([0], [FIRST_LR])
    losses, _ = evaluate_batches(population, bench.batches, [0], INITIAL, 1)
    batch = bench.batches.batch([0], 0)
    population.step(batch, torch.full((1,), 1e-6))
    parameters = sum(p.numel() for p in bench.module().parameters() if p.requires_grad)
    world = dist.get_world_size()
    largest = torch.tensor([float(bench.model.layout.num_parameters)])
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    notes = [
        f"  parallel: fsdp over {world} ranks, at most {int(largest):,} of {parameters:,} parameters on each, "
        f"a batch in {world} shares; loss {losses[0, 0]:.4g} on the first batch. No theory, no probes"
    ]
    if any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in bench.module().modules()):
        notes.append("  note: its BatchNorm takes the statistics of each rank's share, as in any such training")
    return notes


def _check_gradient(bench: ShardedBench) -> None:
    """The gradient of a batch is the mean of those that the whole model has of its shares."""
    one = bench.batches.batch([0], 0, INITIAL)[0]
    whole, world = bench.module(), dist.get_world_size()
    population = ShardedUserPopulation(bench.model, 0, replace(bench.training, dtype=torch.float32), FIRST_LR)
    same_numbers = bench.training.device.type == "cpu"  # are drawn on a GPU: with dropout off there
    for module in (whole, *population.modules):
        module.train(same_numbers)
    for rank in range(world):
        with seeded(one.seed):
            (bench.model.of_one.loss(whole, share_of(one.data, rank, world)) / world).backward()  # type: ignore[no-untyped-call]
    try:
        found_P = population.gradient_of(one).cpu()
    except UserCodeError as error:
        if "setStorage" in error.line:  # a parameter that no hook has gathered for the backward pass
            raise UserCodeError(f"{_IN_PLACE} ({error.line[:80]})", error.text) from None
        raise
    wanted = [torch.zeros_like(p) if p.grad is None else p.grad for p in whole.parameters() if p.requires_grad]
    wanted_P = torch.cat([part_of_whole(g.to_dense() if g.is_sparse else g).flatten() for g in wanted])
    squares = torch.stack([(found_P - wanted_P).double().square().sum(), wanted_P.double().square().sum()])
    dist.all_reduce(squares)
    off = float((squares[0] / squares[1]).sqrt())
    if off > _SAME_GRADIENT:
        raise UserCodeError(f"the sharded model's gradient is {off:.2g} of its size off the whole model's; {_IN_PLACE}")


def _check_optimizer(bench: ShardedBench, lr: float) -> None:
    """The user's optimizer updates shards as it does the whole: one that reads a shard for the tensor does not."""
    factory, fixed = bench.model.factory, bench.model.fixed_groups
    whole, parts = bench.module(), bench.model.sharded(0)
    optimizers = [UsersOptimizers(factory, module, lr, fixed) for module in (whole, parts)]
    if optimizers[0].must_ask_again:
        raise UserCodeError("the optimizer asks for the loss again (a closure), which it does not give; use another")
    generator = torch.Generator().manual_seed(0)
    pairs = [(p, q) for p, q in zip(whole.parameters(), parts.parameters(), strict=True) if p.requires_grad]
    slopes = [_slope(p, generator) for p, _ in pairs]
    for _ in range(_TRIED_STEPS):
        for (p, q), slope in zip(pairs, slopes, strict=True):
            p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype).add_(slope)
            q.grad = torch.zeros_like(q)
            local(q.grad).copy_(part_of_whole(p.grad))
        with ranks().alike():
            for each in optimizers:
                each.step(lr)
    starts = [p for p in bench.module().parameters() if p.requires_grad]
    for start, (p, q) in zip(starts, pairs, strict=True):
        before, wanted = part_of_whole(start), part_of_whole(p)
        off = (local(q).cpu() - wanted).norm()
        if not bool(off <= _SAME * (wanted - before).norm() + _ROUNDING * before.norm()):
            raise UserCodeError(
                "the optimizer updates a sharded parameter otherwise than the whole one (it may read this rank's part, "
                "as float(p.norm()) does); use one that takes DTensors, or one of stresstest's"
            )


def _slope(parameter: Tensor, generator: torch.Generator) -> Tensor:
    """What gradients have in common from step to step: much on the first rank, nothing on the last."""
    falling = torch.linspace(10.0, 0.0, len(parameter), dtype=parameter.dtype)
    random = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return random * falling.view(-1, *[1] * (parameter.ndim - 1))
