"""What an experiment asks for: a checked plan of cells, every name resolved, before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import product
from types import MappingProxyType
from typing import Any, Literal, TypeVar

import torch

from stresstest.engine.memory import Need, free_bytes, gib, probe_need, training_need
from stresstest.engine.optimizers import OPTIMIZERS
from stresstest.engine.outcomes import Rules
from stresstest.engine.replicas import Kernel
from stresstest.errors import ConfigError, TooLargeError
from stresstest.experiments.kernel import OTHER, choose_kernel
from stresstest.experiments.parametrized import check_parametrization
from stresstest.experiments.training import MeasureCells
from stresstest.measurements.base import CellPlan
from stresstest.models.build import make_model
from stresstest.models.variants import STAGES, VARIANTS
from stresstest.reports.numbers import size_name
from stresstest.results.records import Cell
from stresstest.runs.fingerprint import code_fingerprint
from stresstest.runs.identity import cell_key, environment, key_of, written
from stresstest.runs.ranks import check_ranks
from stresstest.runs.settings import RunSettings
from stresstest.runs.store import RunStore
from stresstest.specs.base import TrainingSpec
from stresstest.specs.kinds import MODELS, is_user_model
from stresstest.specs.parsing import parse_choice
from stresstest.tasks import load_task
from stresstest.tasks.smoothing import constants
from stresstest.user_model.bench import resolve_user_model
from stresstest.user_model.constants.constant import Constant
from stresstest.user_model.parallel.settings import is_parallel, part_of, resolve_parallel
from stresstest.user_model.preflight import Preflight, preflight

T = TypeVar("T", bound=TrainingSpec)

NO_POINT: Mapping[str, Any] = MappingProxyType({})  # the point of an experiment that varies no more
Place = tuple[int, Mapping[str, Any]]  # a depth and a point


def one_size(spec: TrainingSpec, depth: int, point: Mapping[str, Any]) -> TrainingSpec:
    """The settings of a cell, in an experiment that trains one shape of model."""
    return spec


Phase = Literal["train", "probe", "train and probe"]


@dataclass(frozen=True)
class Plan:
    """A checked spec: every name resolved, the data read, the device there, nothing trained yet."""

    command: str
    spec: TrainingSpec
    device: str
    depths: tuple[int, ...]
    cells: list[CellPlan]
    environment: dict[str, Any]
    data: dict[str, Any]
    rules: dict[str, Any]
    measure: MeasureCells
    phases: tuple[Phase, ...]
    refine: Refine
    settings: dict[str, Any]  # all that decides a cell, but variant, depth, seed and point
    search: dict[str, Any]  # what else decides which cells there will be
    own: Preflight | None = None  # what was seen of the user's own model
    sized: Sized = one_size
    ascending: bool = False  # small sizes train first
    said: tuple[str, ...] = ()  # what its user should know before training
    owns: Mapping[TrainingSpec, Preflight] = field(default_factory=dict)  # of its other sizes, by their settings
    together: Callable[[CellPlan], Any] | None = None  # cells of which it says the same branch from one run
    other_kernel: Kernel | None = None  # with which the same run may have begun

    @property
    def identity(self) -> str:
        """The same for two plans that train the same cells."""
        return cell_key({"cells": sorted(cell.key for cell in self.places), "search": self.search})

    @property
    def identities(self) -> tuple[str, ...]:
        """That of the plan, and where nobody asked for a kernel that of the other one's: a run which it may go on."""
        other = self.other_kernel
        return (self.identity, *(() if other is None else (self.of_kernel(other).identity,)))

    def of_kernel(self, kernel: Kernel) -> Plan:
        """The same cells, trained by this kernel; the other one is then the one before."""
        update, other = {"kernel": kernel}, OTHER[kernel] if self.other_kernel else None
        spec, settings = self.spec.model_copy(update=update), {**self.settings, **update}
        made = replace(self, spec=spec, settings=settings, cells=[], other_kernel=other)
        made.cells.extend(made.cell(cell.variant, cell.depth, cell.seed, cell.point) for cell in self.cells)
        return made

    @property
    def places(self) -> list[CellPlan]:
        """Its cells; where all of them are asked for as it goes, one without a point at each place they may have."""
        if self.cells:
            return self.cells
        return [self.cell(*each) for each in product(self.spec.variant, self.depths, self.spec.seeds)]

    def cell(self, variant: str, depth: int, seed: int, point: Mapping[str, Any] = NO_POINT) -> CellPlan:
        """The cell of one point for one seed."""
        own = written({"variant": variant, "depth": depth, "seed": seed, **point})
        return CellPlan(key_of(self._written | own), variant, depth, seed, dict(point))

    @cached_property
    def _written(self) -> dict[str, str]:
        return written(self.settings)

    def spec_of(self, cell: CellPlan) -> TrainingSpec:
        """The settings that a cell is trained with: those of its size."""
        return self.sized(self.spec, cell.depth, cell.point)

    def size_of(self, cell: CellPlan) -> str:
        """In words, what a cell differs in from smaller ones: "width 64, depth 4"."""
        depth = {"depth": cell.depth} if "depth" in self.spec.grown else {}
        sizes = {name: value for name, value in cell.point.items() if isinstance(value, int)} | depth
        return size_name(sizes)

    def own_of(self, cell: CellPlan) -> Preflight | None:
        """What was seen of the user's own model at a cell's size."""
        return self.owns[self.spec_of(cell)] if self.owns else self.own

    def constant_of(self, cell: CellPlan) -> Constant | None:
        """The best constant predictor of the user's model at a cell's place, where the preflight tried it there."""
        batch_size = int(cell.point.get("batch_size", self.spec.batch_size))
        own = self.own_of(cell)
        return None if own is None else own.constants.get((cell.variant, cell.depth, batch_size))

    def in_order(self, cells: Sequence[CellPlan]) -> list[CellPlan]:
        """The order in which cells are trained and dealt out to shards, whatever the order of the settings.

        The deepest come first, so that no long task is left for the end; along growing sizes the smallest.
        """

        def place(cell: CellPlan) -> tuple[Any, ...]:
            if not self.ascending:
                return (-cell.depth,)
            return (cell.depth, *(size for size in cell.point.values() if isinstance(size, int)))

        return sorted(cells, key=lambda cell: (*place(cell), cell.seed, cell.variant))

    def need(self, cell: CellPlan) -> Need:
        """Memory of one replica of a cell, by estimate: of the phase that takes most."""
        own, spec = self.own_of(cell), self.spec_of(cell)
        if own is not None:
            return own.need_at(cell.depth)
        needs = [need_of(phase, spec, cell.variant, cell.depth, cell.optimizer(spec)) for phase in self.phases]
        return max(needs, key=lambda need: need.total)


Sized = Callable[[Any, int, Mapping[str, Any]], TrainingSpec]  # the settings of a cell, of an experiment's

# Cells that the finished ones ask for; in their run directory, as it is run.
Refine = Callable[[Plan, Sequence[Cell], RunStore, RunSettings], list[CellPlan]]


def no_more(plan: Plan, cells: Sequence[Cell], store: RunStore, settings: RunSettings) -> list[CellPlan]:
    """The `refine` of an experiment whose cells are all known beforehand."""
    return []


def make_plan(
    command: str,
    spec: TrainingSpec,
    depths: Sequence[int],
    not_in_key: frozenset[str],
    measure: MeasureCells,
    phases: Sequence[Phase] = ("train",),
    refine: Refine = no_more,
    points: Sequence[Mapping[str, Any]] = (NO_POINT,),
    search: Mapping[str, Any] = NO_POINT,
    sized: Sized = one_size,
    places: Sequence[Place] = (),
) -> Plan:
    """Resolve and check everything; raises `ConfigError` before any training.

    `not_in_key` names settings that do not decide a cell; `phases` what is done to a replica; `points` what
    is varied beside variant, depth and seed, or `places` where not every depth has every point; `sized` gives the
    settings of a cell where its point changes the shape of the model.
    """
    device = resolve_device(spec.device)
    own = _preflight(spec, depths, device) if is_user_model(spec.model) else None
    places = places or list(product(depths, points))
    _check_stages(spec, [depth for depth, _ in places])
    shapes = dict.fromkeys((sized(spec, depth, point), depth) for depth, point in places)
    for (shape, depth), variant in product(shapes, spec.variant):
        check_memory(shape, variant, depth, phases, device, own)
    chosen = choose_kernel(spec, shapes, device, trains=set(phases) != {"probe"})
    spec = spec.model_copy(update={"kernel": chosen.kernel})
    data = _built_in_data(spec) if own is None else own.data
    env, rules = environment(device, spec.dtype), asdict(Rules())
    decided = {
        "experiment": command,
        "micro_batch": spec.micro_batch,  # all that accumulate decides
        "code": code_fingerprint(),
        "data": data["hash"],
        "environment": env["key"],
        "rules": rules,
        **({} if own is None else {"own": own.fingerprint}),
        **({"ranks": check_ranks(parallel=True)} if is_parallel(spec) else {}),  # which sum a batch in another order
    }
    settings = spec.model_dump(exclude={"variant", "seeds", "device", "accumulate"} | not_in_key) | decided
    how = (measure, tuple(phases), refine, settings, dict(search), own, sized)
    plan = Plan(command, spec, device, tuple(depths), [], env, data, rules, *how, other_kernel=chosen.other)
    for seed, variant in product(spec.seeds, spec.variant):
        plan.cells.extend(plan.cell(variant, depth, seed, point) for depth, point in places)
    return plan


def _check_stages(spec: TrainingSpec, depths: Sequence[int]) -> None:
    """Whether a ResNet's blocks can be dealt out to its stages."""
    uneven = [depth for depth in depths if spec.model == "resnet" and depth % STAGES]
    if uneven:
        raise ConfigError(
            f"depth {uneven[0]} of a resnet is not a multiple of its {STAGES} stages; use {uneven[0] * STAGES}"
        )


def _built_in_data(spec: TrainingSpec) -> dict[str, Any]:
    """What a result stores of a built-in task, with the losses that its runs are judged by."""
    task = load_task(spec.task, spec.data, spec.batch_size, spec.seq_len)
    data = {"name": spec.data, **task.description}
    if spec.label_smoothing:
        judged = constants(task, spec.label_smoothing, spec.vocab_size)
        data |= {"baseline_loss": judged.baseline_loss, "chance_loss": judged.chance_loss}
    return data


def _preflight(spec: TrainingSpec, depths: Sequence[int], device: str) -> Preflight:
    """That of the user's model; where it spans ranks, of the whole on the host, and then of its parts."""
    if not is_parallel(spec):
        return preflight(spec, depths, device)
    from stresstest.user_model.parallel.bench import try_parallel  # takes a second to import

    world = check_ranks(parallel=True)
    own = preflight(spec, depths, "cpu")
    notes: list[str] = []
    for variant in spec.variant:
        constant = own.constants[variant, depths[0], spec.batch_size]
        notes += try_parallel(spec, variant, depths[0], device, constant)
    return replace(own, notes=(*own.notes, *dict.fromkeys(notes)), need=part_of(own.need, world))


def canonical(spec: T, sweeps_depth: bool = False) -> T:
    """The spec with variants and optimizers in their canonical spelling; an unknown one is a `ConfigError`.

    Of the user's own model it also has what the factory says where the user says nothing.
    """
    if is_user_model(spec.model):
        resolved = resolve_user_model(spec, sweeps_depth)
        return resolve_parallel(resolved) if is_parallel(resolved) else resolved
    optimizers = tuple(dict.fromkeys(parse_choice(text, OPTIMIZERS).label for text in spec.optimizers))
    variants = tuple(_variants(spec))
    check_parametrization(spec, variants, optimizers)
    return spec.with_names(variants, optimizers)


def resolve_device(name: str) -> str:
    """`auto`, `cpu`, `cuda` or `cuda:N` as a device that is there."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"unknown device '{name}'; use auto, cpu, cuda or cuda:N") from None
    if device.type == "cpu":
        return "cpu"
    if device.type != "cuda":
        raise ConfigError(f"device '{name}' is not supported; use auto, cpu, cuda or cuda:N")
    if not torch.cuda.is_available():
        raise ConfigError(f"device '{name}' not found: torch {torch.__version__} sees no CUDA GPU; use --device cpu")
    if device.index is not None and device.index >= torch.cuda.device_count():
        last = torch.cuda.device_count() - 1
        raise ConfigError(f"device '{name}' not found; the last one is cuda:{last}")
    return name


def _variants(spec: TrainingSpec) -> list[str]:
    """The variants asked for, in their canonical spelling; one that the model lacks is a `ConfigError`."""
    has = MODELS[spec.model].has or VARIANTS.keys()
    there = [name for name, variant in VARIANTS.items() if name in has and spec.model not in variant.not_in]
    choices = [parse_choice(text, VARIANTS) for text in (there if spec.variant == ("all",) else spec.variant)]
    for choice in choices:
        if choice.name not in there:
            raise ConfigError(f"variant {choice.name} does not exist for model {spec.model}; it has {', '.join(there)}")
    return list(dict.fromkeys(choice.label for choice in choices))


def need_of(phase: Phase, spec: TrainingSpec, variant: str, depth: int, optimizer: str) -> Need:
    """Memory of one replica: linear in depth, so that two shallow models tell without building the deep one.

    A ResNet's stages grow together: three blocks and six tell of it.
    """
    task = load_task(spec.task, spec.data, spec.batch_size, spec.seq_len)
    few = STAGES if spec.model == "resnet" else 1
    one, two = (make_model(spec, variant, blocks, task) for blocks in (few, 2 * few))

    def extrapolated(first: int, second: int) -> int:
        return first + (depth // few - 1) * (second - first)

    parameters = extrapolated(one.layout.num_parameters, two.layout.num_parameters)
    batch, autocast = spec.batch_size, spec.dtype != "float32"
    probe = probe_need(parameters, extrapolated(one.activation_bytes(batch), two.activation_bytes(batch)))
    if phase == "probe":
        return probe
    micro = spec.micro_batch or batch
    activations = extrapolated(one.activation_bytes(micro, autocast), two.activation_bytes(micro, autocast))
    slots = len(OPTIMIZERS[parse_choice(optimizer, OPTIMIZERS).name].slots)
    training = training_need(parameters, slots, activations, micro < batch)
    return training if phase == "train" else training + probe


def _needs(
    spec: TrainingSpec, variant: str, depth: int, phases: Sequence[Phase], own: Preflight | None
) -> Iterator[tuple[Phase, Need]]:
    if own is not None:
        yield "train", own.need_at(depth)
        return
    for phase, optimizer in product(phases, spec.optimizers):
        yield phase, need_of(phase, spec, variant, depth, optimizer)


def check_memory(
    spec: TrainingSpec, variant: str, depth: int, phases: Sequence[Phase], device: str, own: Preflight | None = None
) -> None:
    """Raise `TooLargeError` where one replica does not fit the free memory, by estimate."""
    free = free_bytes(torch.device(device))
    less = "" if spec.accumulate > 1 else " (or --accumulate: the same training in less memory)"
    for phase, need in _needs(spec, variant, depth, phases, own):
        if need.total > free:
            raise TooLargeError(
                f"depth {depth} of {variant} needs about {need} to {phase} one replica, but only {gib(free)} are free; "
                f"use fewer blocks, a smaller --width or a smaller --batch-size{less}",
                f"{variant} needs about {gib(need.total)} there, and {gib(free)} are free",
            )
