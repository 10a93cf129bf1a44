"""The user's own optimizer, or several that step one after the other, of one replica: how it is built and stepped.

`optimizer(params, lr)` is built at the learning rate that is asked for, and untouched there. What takes no learning
rate is scaled in proportion: the first group that has one gets that which is asked for.
"""

from __future__ import annotations

import copy
import inspect
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stresstest.engine.replicas import FIRST_LR
from stresstest.user_code import UserCodeError, user_code
from stresstest.user_model.factory import Factory

ParameterGroup = dict[str, Any]
_CYCLES = ("min_lr", "max_momentum")  # what OneCycleLR and CyclicLR leave in a group, beside initial_lr
_LIGHTNING = ("lightning", "pytorch_lightning")
_LRS = ("lr", "learning_rate")  # by which a configure_optimizers is told
_CYCLED = ("betas", "momentum")  # what they move beside the LR


class UsersOptimizers:
    """What the user's code returns for one replica, built at `lr`.

    Groups `fixed`, in the order of all optimizers' groups, keep the LR that they were built with at any other.
    Raises `UserCodeError` where what is returned cannot be stepped.
    """

    def __init__(self, factory: Factory, module: nn.Module, lr: float, fixed: Sequence[bool] = ()) -> None:
        self._factory = factory
        self.each = built(factory, module, lr)
        groups = self.groups
        self.built_at = lr
        self._lr = float(np.float32(lr))  # as a population hands it on
        self._base = [float(group["lr"]) for group in groups]
        self._fixed = fixed or [False] * len(groups)
        self._takes_closure = [_must_have_closure(optimizer) for optimizer in self.each]
        self._tried = list(self._takes_closure)
        self._train()

    @property
    def groups(self) -> list[ParameterGroup]:
        """The parameter groups of all optimizers."""
        return [group for optimizer in self.each for group in optimizer.param_groups]

    @property
    def may_ask_again(self) -> bool:
        """Whether a step may ask for the loss and its gradient anew."""
        return any(self._takes_closure) or not all(self._tried)

    @property
    def must_ask_again(self) -> bool:
        """Whether a step cannot do without."""
        return any(self._takes_closure)

    def step(self, lr: float, closure: Callable[[], Tensor] | None = None) -> None:
        """One step of each optimizer in turn, at `lr`; `closure` redoes loss and gradient for those that ask for it."""
        self._set_lr(lr)
        with user_code("the optimizer's step()"):
            for place, optimizer in enumerate(self.each):
                if self._takes_closure[place]:
                    optimizer.step(closure)  # type: ignore[arg-type]  # it has one where it may ask
                elif self._tried[place]:
                    optimizer.step()
                else:
                    self._first_step(place, closure)

    @contextmanager
    def as_used(self) -> Iterator[None]:
        """The parameters as the trained model has them: schedule-free optimizers give an average of theirs."""
        switched = self._with_modes()
        for optimizer in switched:
            optimizer.eval()  # type: ignore[attr-defined]  # as `_with_modes` has seen
        try:
            yield
        finally:
            self._train()

    @property
    def has_modes(self) -> bool:
        """Whether the trained model's parameters are others than those that are trained."""
        return bool(self._with_modes())

    def moved(self, module: nn.Module) -> None:
        """Build those that have two modes anew: HeavyBall's find what they average by where the parameters lay."""
        if self.has_modes:
            stored = self.state()
            self.each = built(self._factory, module, self.built_at)
            self._train()
            self.restore(stored)

    def branch(self, each: Sequence[torch.optim.Optimizer]) -> UsersOptimizers:
        """The same of copies of its optimizers."""
        found = copy.copy(self)
        found.each = list(each)
        found._takes_closure, found._tried = list(self._takes_closure), list(self._tried)
        return found

    @property
    def num_tensors(self) -> int:
        """How many tensors the optimizers keep between steps."""
        return sum(_tensors_in(list(optimizer.state.values())) for optimizer in self.each)

    def state(self) -> dict[str, Any]:
        """What stepping changes."""
        return {"each": [optimizer.state_dict() for optimizer in self.each], "lr": self._lr}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a `state`."""
        for optimizer, stored in zip(self.each, state["each"], strict=True):
            optimizer.load_state_dict(stored)
        self._lr = state["lr"]

    def second_moment(self, parameters: Sequence[nn.Parameter]) -> tuple[Tensor, float] | None:
        """Adam's bias-corrected mean of squared gradients, [P], and its eps; `None` where there is none."""
        rows, eps = [], 0.0
        holds = {p: (optimizer, g) for optimizer in self.each for g in optimizer.param_groups for p in g["params"]}
        for parameter in parameters:
            if parameter not in holds:
                return None
            optimizer, group = holds[parameter]
            state = optimizer.state.get(parameter, {})
            square, betas, found = state.get("exp_avg_sq"), group.get("betas"), eps_of(group)
            if not isinstance(square, Tensor) or square.shape != parameter.shape:
                return None
            if "step" not in state or betas is None or found is None:
                return None
            rows.append((square / (1.0 - float(betas[1]) ** float(state["step"]))).flatten())
            eps = found
        return torch.cat(rows), eps

    def _first_step(self, place: int, closure: Callable[[], Tensor] | None) -> None:
        """Step without a closure, as most do; one that complains of it gets it from now on."""
        self._tried[place] = True
        try:
            self.each[place].step()
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            said = f"{type(error).__name__} {error} {frames[-1].line if frames else ''}"
            if "closure" not in said.lower():
                raise
            self._takes_closure[place] = True
            self.each[place].step(closure)  # type: ignore[arg-type]  # as above

    def _set_lr(self, lr: float) -> None:
        """Every group's LR, in proportion; at the LR of before nothing is touched."""
        if lr == self._lr:
            return
        self._lr = lr
        factor = 1.0 if lr == float(np.float32(self.built_at)) else lr / self.built_at
        for group, base, fixed in zip(self.groups, self._base, self._fixed, strict=True):
            if not fixed:
                _set(group, base * factor)

    def _train(self) -> None:
        for optimizer in self._with_modes():
            optimizer.train()  # type: ignore[attr-defined]  # as `_with_modes` has seen

    def _with_modes(self) -> list[torch.optim.Optimizer]:
        """Those that train in one mode and are evaluated in another."""
        return [o for o in self.each if all(callable(getattr(o, name, None)) for name in ("train", "eval"))]


def built(factory: Factory, module: nn.Module, lr: float) -> list[torch.optim.Optimizer]:
    """The optimizers of a replica at `lr`, their groups as before any scheduler."""
    where = "optimizer(params, lr)" if factory.optimizer is not None else "configure_optimizers()"
    wanted = [parameter for parameter in module.parameters() if parameter.requires_grad]
    with user_code(where):
        found = of_returned(_returned(factory, module, wanted, lr), module, wanted)
    if not takes_lr(factory):
        _scale(found, lr)
    return found


def of_returned(
    returned: Any, module: nn.Module, wanted: Sequence[nn.Parameter] | None = None
) -> list[torch.optim.Optimizer]:
    """The optimizers in what the user's code returns, their groups as before any scheduler.

    `wanted` are the parameters as they were before it was called. Raises `UserCodeError` where they cannot train them.
    """
    found = _flat(returned)
    if not found:
        raise UserCodeError("did not return an optimizer; return a torch.optim.Optimizer")
    for optimizer in found:
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise UserCodeError(f"returned {type(optimizer).__name__}; return a torch.optim.Optimizer")
        _undo_schedulers(optimizer)
    _check(found, module, wanted or [parameter for parameter in module.parameters() if parameter.requires_grad])
    return found


def takes_lr(factory: Factory) -> bool:
    """Whether the user's function is told the learning rate."""
    if factory.optimizer is None:
        return False
    takes = inspect.signature(factory.optimizer).parameters
    return "lr" in takes or any(p.kind == p.VAR_KEYWORD for p in takes.values())


def fixed_groups(factory: Factory, modules: Sequence[nn.Module]) -> tuple[bool, ...]:
    """Whether each group's LR is the same at another that is asked for; both `modules` are of one architecture."""
    if not takes_lr(factory):
        return ()
    at = [built(factory, module, lr) for module, lr in zip(modules, (FIRST_LR, 2.0 * FIRST_LR), strict=True)]
    first, second = ([float(g["lr"]) for optimizer in each for g in optimizer.param_groups] for each in at)
    return tuple(a == b != 0.0 for a, b in zip(first, second, strict=True))


def eps_of(group: Mapping[str, Any]) -> float | None:
    """A group's eps, where it is one number: Adafactor and CAME have two."""
    eps = group.get("eps")
    return float(eps) if isinstance(eps, int | float) or (isinstance(eps, Tensor) and eps.numel() == 1) else None


def unheld(optimizers: Sequence[torch.optim.Optimizer], module: nn.Module) -> list[str]:
    """Names of the trainable parameters that no optimizer holds."""
    held = {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    return [name for name, p in module.named_parameters() if p.requires_grad and id(p) not in held]


def check_automatic(module: nn.Module) -> None:
    """Raise where a LightningModule steps its optimizers itself, which only its Trainer can let it."""
    step = getattr(module, "training_step", None)
    if not callable(step):
        return
    if getattr(module, "automatic_optimization", True) is False:
        raise UserCodeError(
            "steps its optimizers itself (automatic_optimization = False); give from_lightning(module, datamodule)"
        )
    if "optimizer_idx" in inspect.signature(step).parameters:
        raise UserCodeError(
            "training_step expects optimizer_idx, one loss per optimizer; write a loss_fn(model, batch) that returns "
            "one loss, and an optimizer(params, lr) beside it"
        )


def configures(kind: Any) -> bool:
    """Whether a module's class has a `configure_optimizers` that asks for nothing but an LR.

    Lightning's own, which returns `None`, is none.
    """
    configure = getattr(kind, "configure_optimizers", None)
    if not callable(configure) or configure.__module__.partition(".")[0] in _LIGHTNING:
        return False
    asked = list(inspect.signature(configure).parameters.values())[1:]
    return all(
        p.name in _LRS or p.default is not p.empty for p in asked if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    )


def _returned(factory: Factory, module: nn.Module, wanted: Sequence[nn.Parameter], lr: float) -> Any:
    if factory.optimizer is None:
        configure = getattr(module, "configure_optimizers", None)
        if not callable(configure):
            raise UserCodeError(
                "is missing, and so is an optimizer(params, lr) in the model's file; write one, or use --optimizer adam"
            )
        wanted_lr = {name: lr for name in inspect.signature(configure).parameters if name in _LRS}
        return configure(**wanted_lr)
    takes = inspect.signature(factory.optimizer).parameters
    subject = module if next(iter(takes), "") == "model" else list(wanted)
    return factory.optimizer(subject, **({"lr": lr} if takes_lr(factory) else {}))


def _flat(returned: Any) -> list[Any]:
    """The optimizers in what Lightning accepts: one, several, a dict or several, (optimizers, schedulers)."""
    if returned is None:
        return []
    if isinstance(returned, Mapping):
        if "optimizer" not in returned:
            raise UserCodeError(
                f"returned a dict with {', '.join(map(str, returned))}; the key of its optimizer must be 'optimizer'"
            )
        if returned.get("frequency", 1) != 1:
            raise UserCodeError("returned a 'frequency'; leave it out: here all optimizers step after every loss")
        return _flat(returned["optimizer"])
    if isinstance(returned, list | tuple):
        if len(returned) == 2 and all(isinstance(part, list | tuple) for part in returned):
            returned = returned[0]  # (optimizers, schedulers)
        return [optimizer for part in returned for optimizer in _flat(part)]
    return [returned]


def _undo_schedulers(optimizer: torch.optim.Optimizer) -> None:
    """LR, betas and momentum as they were before a scheduler was made, whose first step is taken at once."""
    groups = optimizer.param_groups
    if any("initial_lr" in group and any(key in group for key in _CYCLES) for group in groups):
        given = [float(group["initial_lr"]) for group in groups]
        first = next((lr for lr in given if lr), 1.0)
        for group, lr in zip(groups, given, strict=True):
            _set(group, _number(optimizer.defaults["lr"]) * (lr / first))
            group.update(
                {key: optimizer.defaults[key] for key in _CYCLED if key in group and key in optimizer.defaults}
            )
        return
    for group in groups:
        if "initial_lr" in group:
            _set(group, _number(group["initial_lr"]))


def _check(found: Sequence[torch.optim.Optimizer], module: nn.Module, wanted: Sequence[nn.Parameter]) -> None:
    groups = [group for optimizer in found for group in optimizer.param_groups]
    lrs = [_number(group.get("lr")) for group in groups]
    if not any(lrs):
        raise UserCodeError(
            "gives every parameter group an LR of 0, so nothing would train; give at least one group an LR"
        )
    now = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if len(now) != len(wanted) or any(a is not b for a, b in zip(now, wanted, strict=True)):
        raise UserCodeError("changed the model's parameters; change or freeze them in the factory")
    if len(unheld(found, module)) == len(wanted):
        raise UserCodeError("holds none of the model's parameters; pass it the params it receives")


def _number(lr: Any) -> float:
    if not isinstance(lr, int | float | Tensor):
        raise UserCodeError(
            f"gives a group the LR {lr}, so it probably has a schedule of its own; pass lr=lr and switch the "
            "schedule off (Adafactor: relative_step=False, scale_parameter=False, warmup_init=False)"
        )
    return float(lr)


def _scale(found: Sequence[torch.optim.Optimizer], lr: float) -> None:
    groups = [group for optimizer in found for group in optimizer.param_groups]
    given = [float(group["lr"]) for group in groups]
    first = next(one for one in given if one)
    for group, one in zip(groups, given, strict=True):
        _set(group, lr if one == first else lr * (one / first))


def _set(group: ParameterGroup, lr: float) -> None:
    if isinstance(group["lr"], Tensor):
        group["lr"] = torch.full_like(group["lr"], lr)
    else:
        group["lr"] = lr


def _must_have_closure(optimizer: torch.optim.Optimizer) -> bool:
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    return closure is not None and closure.default is closure.empty


def _tensors_in(value: Any) -> int:
    if isinstance(value, Mapping):
        return sum(_tensors_in(part) for part in value.values())
    if isinstance(value, list | tuple):
        return sum(_tensors_in(part) for part in value)
    return int(isinstance(value, Tensor))
