"""Settings of `stresstest scale`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from stresstest.experiments.scale.path import (
    AXES,
    EXAMPLES,
    FEWEST_SIZES,
    NAMES,
    on_the_path,
    parse_sizes,
    parse_target,
)
from stresstest.models.variants import STAGES
from stresstest.specs.base import OF_NO_MODEL, OneDepthSpec, TrainingSpec
from stresstest.specs.boundary import BoundarySpec
from stresstest.specs.kinds import MODELS, is_user_model, kind_of
from stresstest.specs.profiles import PROFILES

_OWN_UNIT = 8  # of a range of widths of the user's own model, whose heads are not known
_HUGGING_FACE_UNIT = 16  # of the narrowest heads that a config is given there
_SHORTEST = 20  # steps of a hold
_FARTHEST = 2  # times the largest size: the target where none is given


Parametrization = Literal["sp", "mup", "completep"]
Sizes = Annotated[tuple[int, ...], OF_NO_MODEL]


class ScaleSpec(BoundarySpec, OneDepthSpec):
    """Everything that decides the result of `stresstest scale`."""

    variant: tuple[str, ...] = Field(
        ("pre-ln", "post-ln"), min_length=1, description=str(TrainingSpec.model_fields["variant"].description)
    )
    depth: int = Field(2, ge=1, description=str(OneDepthSpec.model_fields["depth"].description))
    widths: tuple[int, ...] = Field(
        (32, 44, 64, 92, 128, 180, 256), description="Widths along the path: 64,128,256 or 32:256:x1.41."
    )
    depths: Sizes = Field((), description="Numbers of blocks along the path: 4,6,8,12 or 2:32:x1.41.")
    batch_sizes: Sizes = Field((), description="Batch sizes along the path: 8:128:x2.")
    seq_lens: Sizes = Field((), description="Lengths of sequences along the path: 32:256:x1.41.")
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
    def _read_sizes(cls, settings: Any) -> Any:
        """Widths grow where nothing else is asked to; those of a range are multiples of the heads."""
        if not isinstance(settings, Mapping):
            return settings
        default = () if any(settings.get(listed) for listed in AXES) else _default_widths(settings.get("model"))
        found = {"widths": default} | dict(settings)
        found["target"] = _as_text(found.get("target", ""))
        for listed in AXES:
            if isinstance(found.get(listed), str):
                try:
                    found[listed] = parse_sizes(found[listed], _unit(listed, found))
                except ValueError as error:
                    raise ValueError(f"{listed} '{found[listed]}': {error}") from None
        return found

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
    def path(self) -> dict[str, tuple[int, ...]]:
        """By setting of a run, its values along the path; the first is the size."""
        return {axis: sizes for listed, axis in AXES.items() if (sizes := getattr(self, listed))}

    @property
    def parametrized(self) -> bool:
        """Whether anything is trained otherwise than as the models are written."""
        return self.parametrization != ("sp",)

    @property
    def grown(self) -> frozenset[str]:
        """The settings that grow along the path."""
        return frozenset(self.path)

    @property
    def axis(self) -> str:
        """The size, by the name that a target, a selector and a report give it."""
        return NAMES[next(iter(self.path))]

    @property
    def places(self) -> list[dict[str, int]]:
        """The settings of each size, the smallest first."""
        path = self.path
        return [dict(zip(path, values, strict=True)) for values in zip(*path.values(), strict=True)]

    @property
    def beyond(self) -> dict[str, int]:
        """The settings of the target."""
        path = self.path
        asked = parse_target(self.target, list(path)) if self.target else {}
        first, sizes = next(iter(path.items()))
        return on_the_path(path, asked or {first: _FARTHEST * sizes[-1]})

    @model_validator(mode="after")
    def _path_grows(self) -> Self:
        path = self.path
        if not path:
            raise ValueError("nothing grows; give widths, depths, batch_sizes, seq_lens or train_steps")
        numbers = {listed: len(getattr(self, listed)) for listed, axis in AXES.items() if axis in path}
        if len(set(numbers.values())) > 1:
            told = ", ".join(f"{listed} has {number}" for listed, number in numbers.items())
            raise ValueError(f"settings grow together along one path, but {told} sizes; give as many of each")
        for listed, axis in AXES.items():
            if axis in path:
                _check_sizes(listed, path[axis])
        assert self.beyond, "one that cannot be read is an error of the settings"
        return self

    @model_validator(mode="after")
    def _sizes_are_given_once(self) -> Self:
        for axis, sizes in self.path.items():
            value, allowed = getattr(self, axis), [sizes[0], kind_of(self.model).defaults.get(axis)]
            allowed += [profile.get(axis) for profile in PROFILES.values()]
            if axis in self.model_fields_set and value not in allowed:
                listed = next(name for name, known in AXES.items() if known == axis)
                raise ValueError(f"the path grows in {axis}, by {listed}; leave out {axis} {value}")
        return self

    @model_validator(mode="after")
    def _every_size_is_one_of_the_model(self) -> Self:
        path = self.path
        lacks = {NAMES.get(name, name) for name in kind_of(self.model).lacks} & {NAMES[axis] for axis in path}
        if lacks:
            raise ValueError(f"model {self.model} has no {min(lacks)} that could grow; give another setting")
        if odd := [w for w in path.get("width", ()) if "heads" not in kind_of(self.model).lacks and w % self.heads]:
            near = max(1, round(odd[0] / self.heads)) * self.heads
            raise ValueError(f"widths: {odd[0]} is not divisible by heads {self.heads}; use {near}")
        if short := [steps for steps in path.get("hold_steps", ()) if steps < _SHORTEST]:
            raise ValueError(f"train_steps: {short[0]} are too few for a hold; give {_SHORTEST} or more")
        if odd := [size for size in path.get("batch_size", ()) if size % self.accumulate]:
            raise ValueError(f"batch_sizes: accumulate {self.accumulate} does not divide {odd[0]}; use multiples of it")
        return self


def _check_sizes(listed: str, sizes: Sequence[int]) -> None:
    if sizes[0] < 1 or any(a >= b for a, b in pairwise(sizes)):
        shown = ",".join(map(str, sizes))
        raise ValueError(f"{listed} {shown}: give sizes from 1 on, each above the last, {EXAMPLES[listed]}")
    if len(sizes) < FEWEST_SIZES:
        some = "one size" if len(sizes) == 1 else f"{len(sizes)} sizes"
        raise ValueError(f"{listed} has {some}; a law takes {FEWEST_SIZES} or more, {EXAMPLES[listed]}")


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


def _unit(listed: str, settings: Mapping[str, Any]) -> int:
    """What the sizes of a range are multiples of: the heads of widths, the stages of a ResNet's depths."""
    model = str(settings.get("model", "decoder"))
    if listed != "widths":
        return STAGES if (listed, model) == ("depths", "resnet") else 1
    if is_user_model(model):
        return _HUGGING_FACE_UNIT if model.startswith("hf:") else _OWN_UNIT
    try:
        return 1 if model in ("mlp", "resnet") else max(1, int(settings.get("heads", 4)))
    except (TypeError, ValueError):
        return 1  # which the field's own check complains about
