"""The native kernel's passes over the rows of a population of residual MLPs.

What C++ is told of a model are places in a row of `theta_RP`, taken from its layout: it knows no names.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stresstest.engine.native import build, takes
from stresstest.engine.native.abi import (
    ENDS,
    KINDS,
    NORM_NUMBERS,
    OUT_GAIN,
    PARTS,
    POST_GAIN,
    BankTable,
    BatchTable,
    ModelTable,
    RowTable,
    UpdateTable,
)
from stresstest.engine.optimizer import Optimizer
from stresstest.errors import ConfigError
from stresstest.models.block import Model
from stresstest.models.parametrization import output_multiplier
from stresstest.models.residual_mlp import ResidualMlp
from stresstest.tasks.task import Batch


@dataclass(frozen=True)
class Rows:
    """What the kernel reads and writes of R replicas: parameters, gradients and an optimizer's state, [R, P] each."""

    theta_RP: Tensor
    grad_RP: Tensor
    state: Sequence[Tensor] = ()

    def table(self) -> RowTable:
        """The same for C++."""
        matrices = [self.theta_RP, self.grad_RP, *self.state]
        assert all(matrix.dtype == torch.float32 and matrix.stride(1) == 1 for matrix in matrices)
        missing = [None] * (4 - len(matrices))
        return RowTable(*map(_address, matrices), *missing, *(matrix.stride(0) for matrix in matrices))


@dataclass(frozen=True)
class Stepped:
    """What was seen on the way through the rows: gradient norms, and sums of the updated parameters, [R] each."""

    grad_norm_R: Tensor
    sum_R: Tensor


class NativeMlp:
    """The passes of one model and one optimizer; a `ConfigError` where the kernel cannot be had or takes them not."""

    def __init__(self, model: Model, optimizer: Optimizer, options: Mapping[str, float]) -> None:
        kernel = build.kernel()
        reason = takes(model.spec, model.variant.name, {}, optimizer, "float32", "cpu") or kernel.reason
        if reason or kernel.library is None:
            raise ConfigError(f"ask for kernel torch: {reason}")
        assert isinstance(model, ResidualMlp), "it is what the kernel takes"
        self._library = kernel.library
        self._library.stresstest_floats.restype = ctypes.c_int64
        self._model = model
        self._optimizer = optimizer
        self._options = {**optimizer.options, **options}
        self._tables = _Tables(model, optimizer)
        self._model_at = ctypes.byref(self._tables.model)

    @property
    def updates(self) -> bool:
        """Whether the optimizer has a native update, whose weight decay is of matrices."""
        return self._optimizer.name in KINDS and not self._options.get("decay_all")

    def losses(self, theta_RP: Tensor, batch: Batch, smoothing: float) -> Tensor:
        """The loss of each replica, [R]."""
        loss_R = torch.empty(len(theta_RP))
        fed = self._fed(batch, len(theta_RP), smoothing)
        rows = Rows(theta_RP, theta_RP).table()
        self._library.stresstest_losses(
            self._model_at, ctypes.byref(rows), ctypes.byref(fed.table), self._memory(fed), _pointer(loss_R)
        )
        return loss_R

    def gradients(self, rows: Rows, batch: Batch, share_R: Tensor | None = None) -> Tensor:
        """The loss of each replica, [R]; its gradient, times its share, goes to the rows."""
        return self._passes(rows, self._fed(batch, len(rows.theta_RP), share_R=share_R), None)[0]

    def step(self, rows: Rows, batch: Batch, lr_R: Tensor, step_R1: Tensor) -> tuple[Tensor, Stepped]:
        """Gradients and update in one pass over the layers: the losses, [R], and what was seen on the way.

        The same to the bit as `gradients`, `norms` and `update` one after the other.
        """
        fed = self._fed(batch, len(rows.theta_RP))
        return self._passes(rows, fed, self._update(lr_R, step_R1))

    def norms(self, rows: Rows) -> Tensor:
        """The norm of each gradient, [R]."""
        return self._over(rows, None).grad_norm_R

    def update(self, rows: Rows, lr_R: Tensor, step_R1: Tensor) -> Stepped:
        """One update of all parameters by the gradients in the rows."""
        return self._over(rows, self._update(lr_R, step_R1))

    def _passes(self, rows: Rows, fed: _Fed, update: _Update | None) -> tuple[Tensor, Stepped]:
        loss_R, found = torch.empty(fed.num_replicas), _nothing_yet(fed.num_replicas)
        table = rows.table()
        self._library.stresstest_step(
            self._model_at,
            None if update is None else ctypes.byref(update.table),
            ctypes.byref(table),
            ctypes.byref(fed.table),
            self._memory(fed),
            *map(_pointer, (loss_R, found.grad_norm_R, found.sum_R)),
        )
        return loss_R, found

    def _over(self, rows: Rows, update: _Update | None) -> Stepped:
        num_replicas = len(rows.theta_RP)
        found, table = _nothing_yet(num_replicas), rows.table()
        self._library.stresstest_update(
            self._model_at,
            None if update is None else ctypes.byref(update.table),
            ctypes.byref(table),
            ctypes.c_int64(num_replicas),
            *map(_pointer, (found.grad_norm_R, found.sum_R)),
        )
        return found

    def _fed(
        self, batch: Batch, num_replicas: int, smoothing: float | None = None, share_R: Tensor | None = None
    ) -> _Fed:
        assert batch.inputs.shape == (num_replicas, *batch.targets.shape[1:], self._model.num_inputs)
        return _Fed(batch, self._model.spec.label_smoothing if smoothing is None else smoothing, share_R)

    def _memory(self, fed: _Fed) -> ctypes.c_void_p:
        """Memory for the passes of one replica: that of the step before, where it is large enough."""
        needed = self._library.stresstest_floats(self._model_at, ctypes.c_int64(fed.size))
        if self._model.memory is None or len(self._model.memory) < needed:
            self._model.memory = None  # free it before more is taken
            self._model.memory = torch.empty(needed)
        return _pointer(self._model.memory)

    def _update(self, lr_R: Tensor, step_R1: Tensor) -> _Update:
        return _Update(self._optimizer, self._options, lr_R, step_R1[:, 0])


class _Tables:
    """What C++ is told of a model, and what is particular to each bank."""

    def __init__(self, model: ResidualMlp, optimizer: Optimizer) -> None:
        spec, banks = model.spec, model.layout.banks
        self._places = _places(model)
        self._ends = np.array([banks[end].start if end in banks else -1 for end in ENDS], np.int64)
        self._constants = np.array([(w.skip, w.gate, w.pre_gain) for w in model.wirings.values()], np.float32)
        kinds_of = (*PARTS, *((end,) for end in ENDS))
        self._banks = (BankTable * len(kinds_of))(*(_bank(kinds, model, optimizer) for kinds in kinds_of))
        self.model = ModelTable(
            spec.depth,
            spec.width,
            model.num_inputs,
            model.num_classes,
            NORM_NUMBERS[spec.norm],
            1 if "gate" in banks else spec.width if "mlp.gate" in banks else 0,
            output_multiplier(spec),
            *(array.ctypes.data for array in (self._ends, self._places, self._constants)),
            self._banks,
            *(int((self._places[:, part] >= 0).sum()) for part in (OUT_GAIN, POST_GAIN)),
        )


def _places(model: ResidualMlp) -> NDArray[np.int64]:
    """Where each part of each block starts in a row, [depth, parts]; -1 where there is none."""
    places = np.full((model.spec.depth, len(PARTS)), -1, np.int64)
    for part, kinds in enumerate(PARTS):
        for bank in (model.layout.banks[kind] for kind in kinds if kind in model.layout.banks):
            layers = slice(None) if bank.layers == [0] else np.array(bank.layers) - 1  # one that all share
            places[layers, part] = bank.start + bank.numel * np.arange(len(bank.layers))
    return places


def _bank(kinds: Sequence[str], model: ResidualMlp, optimizer: Optimizer) -> BankTable:
    """What is particular to the bank that has one of these names."""
    for kind in kinds:
        if kind in model.layout.banks:
            decays, growth = model.layout.banks[kind].is_matrix, model.layout.growth.get(kind)
            return BankTable(decays, growth.lr(optimizer.update_size) if growth else 1.0, growth.eps if growth else 1.0)
    return BankTable()


class _Fed:
    """A batch for C++."""

    def __init__(self, batch: Batch, smoothing: float, share_R: Tensor | None = None) -> None:
        self.num_replicas, self.size = batch.targets.shape
        self._kept = batch.inputs.float().contiguous(), batch.targets.long().contiguous()
        self._share_R = None if share_R is None else share_R.float().contiguous()
        shares = None if self._share_R is None else _address(self._share_R)
        self.table = BatchTable(self.num_replicas, self.size, *map(_address, self._kept), shares, smoothing)


class _Update:
    """An optimizer's update for C++: its options, and what is particular to each replica's step."""

    def __init__(self, optimizer: Optimizer, options: Mapping[str, float], lr_R: Tensor, step_R: Tensor) -> None:
        first = options.get("beta1", options.get("beta", options.get("alpha", 0.0)))
        second = options.get("beta2", 0.0)
        is_adam = {"mean", "square"} <= set(optimizer.slots)
        self._rows = _rows_of_steps(lr_R, step_R, first, second) if is_adam else _plain_rows(lr_R)
        self.table = UpdateTable(
            KINDS[optimizer.name],
            optimizer.decoupled_decay,
            first,
            second,
            options.get("eps", 0.0),
            options.get("weight_decay", 0.0),
            self._rows.ctypes.data,
        )


def _plain_rows(lr_R: Tensor) -> NDArray[np.float32]:
    rows = np.zeros((len(lr_R), 5), np.float32)
    rows[:, 0] = lr_R.numpy()
    return rows


def _rows_of_steps(lr_R: Tensor, step_R: Tensor, beta1: float, beta2: float) -> NDArray[np.float32]:
    """Learning rate, bias corrections, RAdam's factor (0 while it is plain momentum), whether it is the first step."""
    step = step_R.numpy()
    rest = beta2**step
    unbiased = 1.0 - rest
    longest = 2.0 / (1.0 - beta2) - 1.0
    length = longest - 2.0 * step * rest / unbiased
    rectified = np.sqrt(
        np.maximum((length - 4.0) * (length - 2.0) * longest, 0.0) / ((longest - 4.0) * (longest - 2.0) * length)
    )
    factors = np.where(length > 5.0, rectified * np.sqrt(unbiased), 0.0)
    columns = (lr_R.numpy(), 1.0 / (1.0 - beta1**step), unbiased**-0.5, factors, step == 1.0)
    return np.stack(columns, axis=1).astype(np.float32)


def _nothing_yet(num_replicas: int) -> Stepped:
    return Stepped(torch.empty(num_replicas), torch.empty(num_replicas))


def _address(tensor: Tensor) -> int:
    return tensor.data_ptr()


def _pointer(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())
