"""Settings of `stresstest scale`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from stresstest.experiments.sizes.path import AXES, FEWEST_SIZES, NAMES, on_the_path, parse_target
from stresstest.experiments.sizes.spec import SizedSpec, Sizes
from stresstest.specs.base import OneDepthSpec, TrainingSpec
from stresstest.specs.boundary import BoundarySpec
from stresstest.specs.kinds import MODELS, is_user_model, kind_of

_SHORTEST = 20  # steps of a hold
_FARTHEST = 2  # times the largest size: the target where none is given


Parametrization = Literal["sp", "mup", "completep"]


class ScaleSpec(SizedSpec, BoundarySpec):
    """Everything that decides the result of `stresstest scale`."""

    fewest_sizes: ClassVar[tuple[int, str]] = FEWEST_SIZES, "a law takes {} or more"

    variant: tuple[str, ...] = Field(
        ("pre-ln", "post-ln"), min_length=1, description=str(TrainingSpec.model_fields["variant"].description)
    )
    depth: int = Field(2, ge=1, description=str(OneDepthSpec.model_fields["depth"].description))
    widths: tuple[int, ...] = Field(
        (32, 44, 64, 92, 128, 180, 256), description="Widths along the path: 64,128,256 or 32:256:x1.41."
    )
    train_steps: Sizes = Field(
        (), description="Lengths of training along the path: so many steps an LR is held, 150:2400:x2."
    )
    parametrization: tuple[Parametrization, ...] = Field(  # type: ignore[assignment]  # several here, one elsewhere
        ("sp",),
        min_length=1,
        description=f"{TrainingSpec.model_fields['parametrization'].description} Several are compared: sp,mup.",
    )
    target: str = Field(
        "", description="Size to predict, beyond the path: width=1024, or width=384,depth=24 (off: twice the largest)."
    )
    coords: bool = Field(
        False, description="Only check, in 10 steps at start_lr, by which power of the width each layer's output moves."
    )
    theory: bool = Field(False, description=str(BoundarySpec.model_fields["theory"].description))

    @model_validator(mode="before")
    @classmethod
    def _default_path(cls, settings: Any) -> Any:
        """Widths grow where nothing else is asked to."""
        if not isinstance(settings, Mapping):
            return settings
        default = () if any(settings.get(listed) for listed in AXES) else _default_widths(settings.get("model"))
        found = {"widths": default} | dict(settings)
        return found | {"target": _as_text(found.get("target", ""))}

    @field_validator("parametrization", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        texts = [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
        return tuple(dict.fromkeys(texts)) if isinstance(texts, list | tuple) else texts

    @model_validator(mode="after")
    def _coordinates_are_compared_over_widths(self) -> Self:
        if not self.coords:
            return self
        if more := [listed for listed, axis in AXES.items() if axis in self.path and axis != "width"]:
            raise ValueError(f"coords compares the layers of one model over its width; leave out {more[0]}")
        if self.target:
            raise ValueError("coords predicts nothing; leave out target")
        if self.parallel != "off":
            raise ValueError(f"coords looks at whole activations, which parallel {self.parallel} splits; leave it out")
        if self.start_lr == 0.0:
            raise ValueError("start_lr 0 moves nothing; give the LR of the 10 steps, e.g. 1e-4")
        return self

    @property
    def parametrized(self) -> bool:
        """Whether anything is trained otherwise than as the models are written."""
        return self.parametrization != ("sp",)

    @property
    def axis(self) -> str:
        """The size, by the name that a target, a selector and a report give it."""
        return NAMES[next(iter(self.path))]

    @model_validator(mode="after")
    def _has_a_target(self) -> Self:
        if not self.path:
            raise ValueError("nothing grows; give widths, depths, batch_sizes, seq_lens or train_steps")
        if short := [steps for steps in self.path.get("hold_steps", ()) if steps < _SHORTEST]:
            raise ValueError(f"train_steps: {short[0]} are too few for a hold; give {_SHORTEST} or more")
        assert self.beyond, "one that cannot be read is an error of the settings"
        return self

    @property
    def beyond(self) -> dict[str, int]:
        """The settings of the target."""
        path = self.path
        asked = parse_target(self.target, list(path)) if self.target else {}
        first, sizes = next(iter(path.items()))
        return on_the_path(path, asked or {first: _FARTHEST * sizes[-1]})


def _default_widths(model: Any) -> tuple[int, ...]:
    """Those of a model that has its own, where wide ones take long."""
    own = kind_of(model).defaults if isinstance(model, str) and (is_user_model(model) or model in MODELS) else {}
    widths: tuple[int, ...] = own.get("widths", ScaleSpec.model_fields["widths"].default)
    return widths


def _as_text(target: Any) -> Any:
    """A target as an option has it: of `{"width": 1024}`, `width=1024`."""
    if isinstance(target, Mapping):
        return ",".join(f"{name}={value}" for name, value in target.items())
    return str(target) if isinstance(target, int) and not isinstance(target, bool) else target
