"""Settings of `stresstest shock`."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from stresstest.engine.schedules import DECAYS, schedule
from stresstest.errors import ConfigError
from stresstest.experiments.shock.guards import parse_guard
from stresstest.experiments.shock.table import ChosenShock, parse_shock
from stresstest.experiments.sizes.path import named
from stresstest.experiments.sizes.spec import SizedSpec
from stresstest.specs.base import OF_NO_MODEL, OneDepthSpec
from stresstest.specs.boundary import BoundarySpec
from stresstest.specs.kinds import is_user_model
from stresstest.specs.parsing import MOST_STEPS, parse_choice, split_choices

FEWEST_AFTER = 25  # steps after a shock, to tell what is left of it
_LEAST_AFTER = 25
_HORIZON = 150  # steps from the shock on, where nothing else is asked for


class ShockSpec(SizedSpec, BoundarySpec):
    """Everything that decides the result of `stresstest shock`."""

    depth: int = Field(4, ge=1, description=str(OneDepthSpec.model_fields["depth"].description))
    width: int = Field(32, ge=2, description=str(OneDepthSpec.model_fields["width"].description))
    shock: tuple[str, ...] = Field(
        ("lr-pulse", "bad-batch", "lost-moments", "bit-flip"),
        min_length=1,
        description="Shocks, NAME[:key=value,...]; with its dose, e.g. lr-pulse:factor=8, that dose alone is tried.",
    )
    guard: tuple[str, ...] = Field(
        (), description="What might save the run, NAME[:key=value,...], each compared with none."
    )
    after: int = Field(100, ge=_LEAST_AFTER, le=MOST_STEPS, description="Steps of training before the shock.")
    train_steps: int | None = Field(
        None,
        ge=50,
        le=MOST_STEPS,
        description=f"Steps of training, with those after the shock (off: {_HORIZON} after it).",
    )
    peak_lr: Annotated[float | None, OF_NO_MODEL] = Field(
        None, gt=0, description="Learning rate of the run (off: lr_share of the max_stable_lr that its first seed has)."
    )
    lr_share: float = Field(0.25, gt=0, le=1, description="Share of max_stable_lr at which the run trains.")
    warmup_steps: int = Field(0, ge=0, description="Steps of linear warm-up.")
    decay: str = Field(
        "constant", description="After the warm-up: constant, inverse-sqrt, linear, cosine, polynomial[:key=value,...]."
    )
    nulls: int = Field(
        4, ge=4, le=64, description="Null twins: undisturbed runs but for the last place of their weights."
    )
    theory: bool = Field(False, description=str(BoundarySpec.model_fields["theory"].description))

    @property
    def total(self) -> int:
        """Steps of the whole run."""
        return self.after + _HORIZON if self.train_steps is None else self.train_steps

    @property
    def horizon(self) -> int:
        """Steps from the shock on."""
        return self.total - self.after

    @property
    def shocks(self) -> list[ChosenShock]:
        """The shocks, each once."""
        return [parse_shock(text) for text in self.shock]

    @property
    def guards(self) -> tuple[str, ...]:
        """What is compared: no guard first."""
        return ("", *self.guard)

    @property
    def sizes(self) -> list[tuple[int, dict[str, int]]]:
        """(depth, the rest of a size as a selector has it) along the path; of one model its one."""
        found = [named(size) for size in self.places] or [{}]
        return [(size.pop("depth", self.depth), size) for size in found]

    def share_of_peak(self, steps: int) -> float:
        """The largest share of the peak learning rate that the schedule has in so many steps from the shock on."""
        lr_N = schedule("linear", self.warmup_steps, self.decay, self.total)
        return float(lr_N[self.after : self.after + max(1, steps)].max())

    @property
    def after_of_peak(self) -> int:
        """The first step after which the learning rate is at its peak, and that `after` allows."""
        return max(_LEAST_AFTER, self.warmup_steps)

    def doses(self, shock: ChosenShock) -> tuple[float, ...]:
        """Those of a shock that leave enough steps after it."""
        return shock.doses(self.after, self.horizon - FEWEST_AFTER)

    @field_validator("shock", "guard", mode="before")
    @classmethod
    def _split_choices(cls, value: Any) -> Any:
        return split_choices(value) if isinstance(value, str) else value

    @field_validator("shock")
    @classmethod
    def _shocks_are_known(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        return _spelt(texts, lambda text: parse_shock(text).label)

    @field_validator("guard")
    @classmethod
    def _guards_are_known(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        return _spelt(texts, lambda text: parse_guard(text).label)

    @field_validator("decay")
    @classmethod
    def _decay_is_known(cls, text: str) -> str:
        return _spelt((text,), lambda one: parse_choice(one, DECAYS).label)[0]

    @model_validator(mode="after")
    def _the_run_is_long_enough(self) -> Self:
        if self.after >= self.total:
            raise ValueError(
                f"after {self.after} lies beyond the run, which ends at step {self.total}; use a smaller after or "
                f"train_steps {self.after + _HORIZON}"
            )
        if self.warmup_steps >= self.total:
            raise ValueError(f"warmup_steps {self.warmup_steps} leave no other steps of {self.total}; use fewer")
        for shock in self.shocks:
            doses = self.doses(shock)
            most = max(map(shock.lasts, doses), default=shock.lasts(shock.shock.dose.standard))
            if not doses or self.horizon - most < FEWEST_AFTER:
                raise ValueError(
                    f"shock {shock.label} leaves {max(0, self.horizon - most)} steps after it, and {FEWEST_AFTER} are "
                    f"needed to tell what is left of it; use train_steps {self.after + most + _HORIZON}"
                )
        return self

    @model_validator(mode="after")
    def _the_run_can_take_the_shocks(self) -> Self:
        for shock in self.shocks:
            name, options = shock.shock.name, shock.options
            if name == "data-order" and shock.only is not None and shock.only > self.after:
                raise ValueError(f"shock {shock.label}: only {self.after} steps lie before it; use steps={self.after}")
            if name == "schedule-restart" and not self.warmup_steps and self.decay == "constant":
                raise ValueError(
                    "shock schedule-restart changes nothing of a constant learning rate; give decay or warmup_steps"
                )
            if name == "shift" and not is_user_model(self.model) and options["data"] == self.data:
                raise ValueError(f"shock shift: the run trains on {self.data} as it is; give shift:data=SOURCE")
        if self.parallel != "off":
            raise ValueError("parallel: a shock branches one replica into many; leave it out")
        return self


def _spelt(texts: tuple[str, ...], label: Any) -> tuple[str, ...]:
    try:
        return tuple(dict.fromkeys(label(text) for text in texts))
    except ConfigError as error:
        raise ValueError(str(error)) from None
