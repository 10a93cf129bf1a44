"""Settings of the experiments that train several sizes of one model, along a path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from stresstest.experiments.sizes.path import AXES, EXAMPLES, NAMES, parse_sizes
from stresstest.models.variants import STAGES
from stresstest.specs.base import OF_NO_MODEL, OneDepthSpec, TrainingSpec
from stresstest.specs.kinds import is_user_model, kind_of
from stresstest.specs.profiles import PROFILES

_OWN_UNIT = 8  # of a range of widths of the user's own model, whose heads are not known
_HUGGING_FACE_UNIT = 16  # of the narrowest heads that a config is given there

Sizes = Annotated[tuple[int, ...], OF_NO_MODEL]


class SizedSpec(TrainingSpec, OneDepthSpec):
    """What grows along the path: settings of a run by their lists, place by place."""

    fewest_sizes: ClassVar[tuple[int, str]] = 2, "a path takes {} or more"

    widths: Sizes = Field((), description="Widths along the path: 64,128,256 or 32:256:x1.41.")
    depths: Sizes = Field((), description="Numbers of blocks along the path: 4,6,8,12 or 2:32:x1.41.")
    batch_sizes: Sizes = Field((), description="Batch sizes along the path: 8:128:x2.")
    seq_lens: Sizes = Field((), description="Lengths of sequences along the path: 32:256:x1.41.")

    @model_validator(mode="before")
    @classmethod
    def _read_sizes(cls, settings: Any) -> Any:
        """Those of a range of widths are multiples of the heads."""
        if not isinstance(settings, Mapping):
            return settings
        found = dict(settings)
        for listed in (each for each in AXES if each in cls.model_fields):
            if isinstance(found.get(listed), str) and _is_listed(cls, listed):
                try:
                    found[listed] = parse_sizes(found[listed], _unit(listed, found))
                except ValueError as error:
                    raise ValueError(f"{listed} '{found[listed]}': {error}") from None
        return found

    @property
    def path(self) -> dict[str, tuple[int, ...]]:
        """By setting of a run, its values along the path; the first is the size."""
        return {axis: sizes for listed, axis in AXES.items() if (sizes := self._listed(listed))}

    @property
    def grown(self) -> frozenset[str]:
        """The settings that grow along the path."""
        return frozenset(self.path)

    @property
    def places(self) -> list[dict[str, int]]:
        """The settings of each size, the smallest first."""
        path = self.path
        return [dict(zip(path, values, strict=True)) for values in zip(*path.values(), strict=True)]

    def _listed(self, listed: str) -> tuple[int, ...]:
        """The sizes of a setting that lists them; of `train_steps`, which may be one number elsewhere, none then."""
        found = getattr(self, listed, ())
        return found if isinstance(found, tuple) else ()

    @model_validator(mode="after")
    def _path_grows(self) -> Self:
        path = self.path
        numbers = {listed: len(self._listed(listed)) for listed, axis in AXES.items() if axis in path}
        if len(set(numbers.values())) > 1:
            told = ", ".join(f"{listed} has {number}" for listed, number in numbers.items())
            raise ValueError(f"settings grow together along one path, but {told} sizes; give as many of each")
        for listed, axis in AXES.items():
            if axis in path:
                _check_sizes(listed, path[axis], *self.fewest_sizes)
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
        if odd := [size for size in path.get("batch_size", ()) if size % self.accumulate]:
            raise ValueError(f"batch_sizes: accumulate {self.accumulate} does not divide {odd[0]}; use multiples of it")
        return self


def _is_listed(kind: type[TrainingSpec], listed: str) -> bool:
    """Whether a setting is a list of sizes there, and no one number: `train_steps` may be either."""
    return "tuple" in str(kind.model_fields[listed].annotation)


def _check_sizes(listed: str, sizes: Sequence[int], fewest: int, why: str) -> None:
    if sizes[0] < 1 or any(a >= b for a, b in pairwise(sizes)):
        shown = ",".join(map(str, sizes))
        raise ValueError(f"{listed} {shown}: give sizes from 1 on, each above the last, {EXAMPLES[listed]}")
    if len(sizes) < fewest:
        some = "one size" if len(sizes) == 1 else f"{len(sizes)} sizes"
        raise ValueError(f"{listed} has {some}; {why.format(fewest)}, {EXAMPLES[listed]}")


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
