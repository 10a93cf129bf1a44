"""A replica of the user's model that spans devices: torch's `fully_shard` over the ranks of a process group.

Every rank holds its part of each parameter, gradient and optimizer state, and takes its share of each batch. What a
step measures is of all ranks, and the same number on each: so they decide alike.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from stresstest.engine.probes import ActivationSnapshot, Look
from stresstest.engine.replicas import FIRST_LR, Readings, Replicas, Training
from stresstest.runs.ranks import ranks
from stresstest.user_code import UserCodeError, user_code
from stresstest.user_model.batches import UserBatch, moved, tensors
from stresstest.user_model.carried import kept
from stresstest.user_model.contract import Contract
from stresstest.user_model.factory import seeded
from stresstest.user_model.layout import OwnLayout, OwnParameter
from stresstest.user_model.micro_batches import MicroBatches
from stresstest.user_model.optimizers import UsersOptimizers
from stresstest.user_model.population import USER_OPTIMIZER, UserModel, UserPopulation


class ShardedUserModel(UserModel):
    """The user's architecture, with the layout of this rank's part of each parameter."""

    def __init__(self, whole: UserModel, device: torch.device) -> None:
        self.of_one = whole.contract
        super().__init__(whole.factory, _of_all(whole.contract, device), *whole._where)
        self._mesh = init_device_mesh(device.type, (dist.get_world_size(),))
        self.layout = LocalLayout(self.layout, self.sharded(0))

    def sharded(self, seed: int) -> nn.Module:
        """A freshly initialised module whose parameters lie on all ranks; it was built whole on this one's host."""
        return shard(self.make(seed), self._mesh)


class LocalLayout(OwnLayout):
    """The part of a module's trainable parameters that lies on this rank, [P] in all."""

    def __init__(self, whole: OwnLayout, module: nn.Module) -> None:
        self.dtypes, self.mixed, self.rounds, self.dtype = whole.dtypes, whole.mixed, whole.rounds, whole.dtype
        self.parameters = []
        start = 0
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                self.parameters.append(OwnParameter(name, local(parameter).shape, start, parameter.dtype))
                start = self.parameters[-1].stop
        self.num_parameters = start


class ShardedUserPopulation(UserPopulation):
    """One replica of the user's model on all ranks. `theta_RP` and `grad_RP` are this rank's parts, [1, P]."""

    model: ShardedUserModel

    def __init__(self, model: ShardedUserModel, seed: int, training: Training, lr: float) -> None:
        module = model.sharded(seed)
        self._modules = [module]
        self._parameters = [[p for p in module.parameters() if p.requires_grad]]
        self._users = []
        self._begin(model, torch.cat([local(p).flatten() for p in self._parameters[0]])[None], training)
        if training.optimizer is USER_OPTIMIZER:
            self._users.append(UsersOptimizers(model.factory, module, lr, model.fixed_groups))

    def anew(self, seed: int) -> ShardedUserPopulation:
        """A replica at its start, by itself."""
        return ShardedUserPopulation(self.model, seed, self.training, FIRST_LR)

    def step(self, batch: Sequence[UserBatch], lr_R: Tensor) -> Readings:
        """One optimizer step; what it measured is the first rank's, on every rank."""
        read = super().step(batch, lr_R.to(self.theta_RP.device))
        parts = [read.loss_R, read.grad_norm_R, read.health_R, read.clipped_R, read.skipped_R]
        agreed = torch.stack([part.double() for part in parts])
        dist.broadcast(agreed, 0)
        loss_R, norm_R, health_R, clipped_R, skipped_R = agreed
        return Readings(loss_R.float(), norm_R.float(), health_R.long(), clipped_R.bool(), skipped_R.bool())

    def evaluate(self, batch: Sequence[UserBatch], as_trained: bool = True) -> Tensor:
        """The loss of each replica, [R]: in training mode, or as the trained model is used; buffers stay."""
        module, one = self._modules[0], batch[0]
        module.train(as_trained)
        with torch.no_grad(), self._as_used(0), kept(module), seeded(one.seed), self._autocast():
            loss = self.model.contract.loss(module, self._share(one))
        module.train()
        return loss.detach().float()[None]

    def look(self, batch: Sequence[UserBatch], kind: Look = ActivationSnapshot) -> ActivationSnapshot:
        """Never asked for: probes are off."""
        raise NotImplementedError  # a look is at whole activations

    @contextmanager
    def trained_module(self, row: int) -> Iterator[nn.Module]:
        """The replica with the parameters of the trained model, in training mode; buffers stay."""
        module = self._modules[row]
        with torch.no_grad(), self._as_used(row), kept(module), self._autocast():
            yield module

    def finite_step(self, one: UserBatch) -> bool:
        """Whether the loss of a batch and its gradient are finite, on all ranks."""
        loss_R = self._backward([one], None)
        return bool((loss_R.isfinite() & self._norm(self.grad_RP).isfinite()).all())

    def gradient_of(self, one: UserBatch) -> Tensor:
        """This rank's part of the gradient of a batch, [P]."""
        self._backward([one], None)
        return self.grad_RP[0]

    def _share(self, one: UserBatch) -> Any:
        return share_of(one.data, dist.get_rank(), dist.get_world_size())

    def _gradient(self, row: int, one: UserBatch, scale: float) -> Tensor:
        parameters = self._parameters[row]
        for parameter in parameters:
            parameter.grad = None
        with seeded(one.seed):
            with self._autocast():
                loss = self.model.contract.loss(self._modules[row], self._share(one))
            with user_code("loss.backward()"):
                (loss if scale == 1.0 else loss * scale).backward()  # type: ignore[no-untyped-call]  # torch's
        for parameter, part in zip(parameters, self._parts(self.grad_RP[row]), strict=True):
            part.zero_() if parameter.grad is None else part.copy_(local(parameter.grad))
            if not self._users:
                parameter.grad = None  # the optimizer reads the matrix
        return loss.detach()

    def _norm(self, matrix_RP: Tensor) -> Tensor:
        """The norm of each row over all ranks, [R]."""
        square_R = super()._norm(matrix_RP).double().square()
        dist.all_reduce(square_R)
        return square_R.sqrt().to(matrix_RP.dtype)

    def _health(self, loss_R: Tensor, grad_norm_R: Tensor, skipped_R: Tensor) -> Tensor:
        health_R = super()._health(loss_R, grad_norm_R, skipped_R)
        dist.all_reduce(health_R, dist.ReduceOp.MAX)  # only whether a parameter is finite differs between ranks
        return health_R

    def _clip(self, grad_norm_R: Tensor) -> Tensor:
        return Replicas._clip(self, grad_norm_R)

    def _bind(self) -> None:
        self._push()

    def _push(self) -> None:
        """Let the module's parameters be what the matrix says: they lie in storages of `fully_shard`'s own."""
        with torch.no_grad():
            for parameter, part in zip(self._parameters[0], self._parts(self.theta_RP[0]), strict=True):
                local(parameter).copy_(part)

    def _update(self, lr_R: Tensor) -> None:
        super()._update(lr_R)
        if not self._users:
            self._push()

    def _again(self, row: int, first_P: Tensor) -> Tensor:
        raise UserCodeError("asks for the loss again (a closure), which --parallel fsdp cannot give; use another")

    def _hand_out(self, row: int) -> None:
        if self.training.clip_norm is None and self._last[1][row] == 1.0:
            return
        for parameter, part in zip(self._parameters[row], self._parts(self.grad_RP[row]), strict=True):
            if parameter.grad is not None:
                local(parameter.grad).copy_(part)

    def _take_back(self, row: int) -> None:
        for parameter, part in zip(self._parameters[row], self._parts(self.theta_RP[row]), strict=True):
            part.copy_(local(parameter))

    @contextmanager
    def _as_used(self, row: int) -> Iterator[None]:
        if not self._users or not self._users[row].has_modes:
            yield
            return
        before_P = self.theta_RP[row].clone()
        with self._users[row].as_used():
            yield
        self.theta_RP[row] = before_P
        self._push()


def shard(module: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """The module, sharded by its repeated blocks and as a whole; blocks that the factory has sharded stay as they are.

    Raises `UserCodeError` for what `fully_shard` does not take.
    """
    scalars = [name for name, parameter in module.named_parameters() if parameter.ndim == 0]
    if scalars:
        raise UserCodeError(f"parameter {scalars[0]} has no axis, and fully_shard needs one; give it the shape (1,)")
    # `check_gradient` sees what this warns of: an in-place change of what a block puts out, which loses its gradient
    warnings.filterwarnings("ignore", "FSDP2-wrapped module", UserWarning)
    with user_code("fully_shard(model)"):
        if not any(isinstance(part, FSDPModule) for part in module.modules()):
            for block in repeated_blocks(module):
                fully_shard(block, mesh=mesh)
        if not isinstance(module, FSDPModule):
            fully_shard(module, mesh=mesh)
        if callable(getattr(module, "training_step", None)):
            register_fsdp_forward_method(module, "training_step")
    return module


def part_of_whole(tensor: Tensor) -> Tensor:
    """What lies on this rank of a tensor that is whole."""
    parts = tensor.detach().chunk(dist.get_world_size())
    return parts[dist.get_rank()] if dist.get_rank() < len(parts) else tensor.detach()[:0]


def repeated_blocks(module: nn.Module) -> list[nn.Module]:
    """The parts of a list or sequence that stands more than once in it, by class, and has parameters; the outermost."""
    found: list[nn.Module] = []
    for part in module.children():
        number = Counter(type(child) for child in part.children())
        if isinstance(part, nn.ModuleList | nn.Sequential) and max(number.values(), default=0) > 1:
            blocks = [
                c for c in part.children() if number[type(c)] > 1 and any(p.requires_grad for p in c.parameters())
            ]
            found += blocks
            found += [deeper for c in part.children() if c not in blocks for deeper in repeated_blocks(c)]
        else:
            found += repeated_blocks(part)
    return list(dict.fromkeys(found))


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor, in its own storage."""
    part = tensor.detach()
    return part.to_local() if isinstance(part, DTensor) else part


def share_of(data: Any, rank: int, world: int) -> Any:
    """One of `world` equal shares of a batch along the first axis of its tensors; else a `UserCodeError`."""
    if isinstance(data, MicroBatches):
        raise UserCodeError("its batches come in micro-batches, which parallel fsdp does not take; give whole ones")
    lengths = {part.shape[0] for part in tensors(data) if part.ndim}
    if len(lengths) != 1:
        raise UserCodeError(
            "the batch cannot be split between the ranks: its tensors have first axes of "
            f"{', '.join(map(str, sorted(lengths))) or 'no length'}; give tensors whose first axis counts examples"
        )
    (length,) = lengths
    if length % world:
        raise UserCodeError(f"a batch of {length} examples cannot be split between {world} ranks; make it divide")
    size = length // world
    return _sliced(data, slice(rank * size, (rank + 1) * size), length)


def _sliced(data: Any, part: slice, length: int) -> Any:
    if isinstance(data, Tensor):
        return data[part] if data.ndim else data
    if isinstance(data, Mapping):
        return {key: _sliced(value, part, length) for key, value in data.items()}
    if isinstance(data, list | tuple):
        if len(data) == length and not any(isinstance(one, Tensor) for one in data) and length > 1:
            return type(data)(data[part])  # of texts, say
        parts = [_sliced(one, part, length) for one in data]
        return type(data)(*parts) if hasattr(data, "_fields") else tuple(parts)
    if isinstance(data, bool | int | float | str | None):
        return data
    raise UserCodeError(
        f"the batch cannot be split between the ranks: it holds {type(data).__name__}; give tensors, tuples or dicts"
    )


class _WithValue(torch.autograd.Function):
    """A loss whose value is another's and whose gradient is its own."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, value: Tensor) -> Tensor:
        return value

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def _of_all(contract: Contract, device: torch.device) -> Contract:
    """The loss of a share, with the value of the mean over all ranks' shares; a rank that raises does not do so alone.

    The gradient is the share's: `fully_shard` takes the mean of them.
    """

    def loss(module: nn.Module, data: Any) -> Tensor:
        with ranks().alike():
            own = contract.loss(module, moved(data, device))
            mean = own.detach().clone()
            dist.all_reduce(mean)
        if not torch.is_grad_enabled():
            for part in module.modules():
                if isinstance(part, FSDPModule):
                    part.reshard()  # a gathered parameter would not follow what becomes of its shards
        mean /= dist.get_world_size()
        return _WithValue.apply(own, mean) if own.requires_grad else mean  # type: ignore[no-untyped-call]

    return replace(contract, loss=loss)
