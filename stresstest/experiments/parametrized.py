"""What no parametrization says how to train: told before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence

from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.errors import ConfigError
from stresstest.models.variants import VARIANTS, SublayerPosition
from stresstest.specs.base import ShapeSpec
from stresstest.specs.parsing import Choice, parse_choice


def check_parametrization(spec: ShapeSpec, variants: Sequence[str], optimizers: Sequence[str]) -> None:
    """A `ConfigError` where the parametrization has no rule for a variant or an optimizer."""
    if spec.parametrization == "sp":
        return
    for label in optimizers:
        _check_optimizer(spec.parametrization, parse_choice(label, OPTIMIZERS))
    for label in variants if spec.parametrization == "completep" else ():
        choice = parse_choice(label, VARIANTS)
        place = SublayerPosition(1, 1, "mlp" if spec.model == "mlp" else "ffn")
        if VARIANTS[choice.name].wiring(place, **choice.options).skip == 0.0:
            raise ConfigError(
                f"variant {label} has no residual branch for completep to scale; use --parametrization mup"
            )


def _check_optimizer(name: str, choice: Choice) -> None:
    """Coupled decay and a trust ratio put gradients and weights together, which grow by different powers of width."""
    optimizer = OPTIMIZERS[choice.name]
    options = {**optimizer.options, **choice.options}
    size = optimizer.update_size
    if size == "shape":
        raise ConfigError(f"{choice.label} has no {name}: no rule is known for it; use adamw, or --parametrization sp")
    if size == "weights" and name == "completep":
        raise ConfigError(f"{choice.label} has no completep; use adamw, or --parametrization mup")
    if size == "weights" and not options.get("adapt_when_no_decay", True):
        raise ConfigError(f"{choice.label} has no {name}: it mixes the steps of LAMB and Adam; use lamb or adamw")
    if options.get("weight_decay") and (size == "weights" or (size == "unit" and not optimizer.decoupled_decay)):
        raise ConfigError(
            f"{choice.label} has no {name}: its weight decay is part of the gradient that it rescales; "
            f"use {choice.name}:weight_decay=0, or adamw"
        )
