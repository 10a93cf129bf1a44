"""What is checked of the user's own model before any long work: a line each, with a remedy."""

from __future__ import annotations

import gc
import itertools
import math
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stresstest.engine.memory import Need, is_out_of_memory, training_need
from stresstest.engine.outcomes import Rules
from stresstest.engine.probes import look_at
from stresstest.errors import ConfigError, ModelError, TooLargeError
from stresstest.process_state import kept_process
from stresstest.specs.base import TrainingSpec
from stresstest.specs.kinds import AS_BUILT
from stresstest.tasks import load_task
from stresstest.tasks.task import INITIAL, TRAINING
from stresstest.user_code import UserCodeError, heard_once
from stresstest.user_model.arguments import too_few_positions
from stresstest.user_model.batches import FRESH, UserBatch, image_shape, tensors
from stresstest.user_model.bench import UserBench, user_bench
from stresstest.user_model.causality import sees_the_future
from stresstest.user_model.constants.constant import Constant
from stresstest.user_model.contract import shape_words
from stresstest.user_model.dtypes import dtype_words
from stresstest.user_model.factory import factory_of, seeded
from stresstest.user_model.fresh import oddness
from stresstest.user_model.lr_response import optimizer_notes, optimizer_words
from stresstest.user_model.micro_batches import MicroBatches, differentiated, no_mean
from stresstest.user_model.objective import not_an_objective
from stresstest.user_model.population import USER_OPTIMIZER, UserModel
from stresstest.user_model.step.checks import check_step
from stresstest.user_model.wrapped import lacks_compiler, num_graphs, uncompiled, unwrapped

TRACEBACK = Path(".stresstest") / "traceback.txt"
_FAR = 1.5  # times chance: a loss at initialisation that is worth a warning
_STEPS = 5  # in which a leak shows
_FAR_UP = 0.5  # of the loss at initialisation
_TRIAL_LR = 1e-6
_FRESH_BATCHES = 24
_ROUNDED = 1e-6  # of a tensor's largest entry: what the order of sums changes in float32
_ROUNDED_LOSS = 1e-4
_RAGGED = 0.1  # how far from proportion the sizes of batches may be
_FIRST_STEPS = 64  # among which a batch is looked for that comes again


@dataclass(frozen=True)
class Preflight:
    """What was seen: lines to print, what a result stores of the data, memory of one replica, hash of the code."""

    notes: tuple[str, ...]
    data: dict[str, Any]
    need: Need
    depth: int  # of which that is
    fingerprint: str
    constants: Mapping[tuple[str, int, int], Constant]  # by variant, depth and batch size

    def need_at(self, depth: int) -> Need:
        """Memory of a replica at another depth, in proportion."""
        factor = depth / self.depth
        return Need(*(int(factor * part) for part in vars(self.need).values()))


def preflight(spec: TrainingSpec, depths: Sequence[int], device: str) -> Preflight:
    """Build and try the model at its smallest depth, in every variant.

    Raises `ConfigError` where results would mean nothing.
    """
    with heard_once():
        return _preflight(spec, depths, device)


def _preflight(spec: TrainingSpec, depths: Sequence[int], device: str) -> Preflight:
    found: list[tuple[UserBench, float, int]] = []
    notes: list[str] = []
    for variant in spec.variant:
        name = spec.model if variant == AS_BUILT else f"{spec.model}, {variant}"
        try:
            with kept_process():
                bench = user_bench(spec, variant, depths[0], spec.optimizers[0], device)
                with uncompiled():
                    _batches_have_their_sizes(spec, bench)
                    loss, activations = _checked(bench, name, notes)
                    notes += optimizer_notes(bench, spec, name)
                    if spec.kernel == "graph" and bench.training.kernel != "graph":
                        notes.append(not_captured(bench, name))
                notes += _wrappers(bench, variant, depths[0], spec.width, name)
        except UserCodeError as error:
            raise ModelError(_kept(f"{name}: {error.line}{_of_our_data(spec, error.line)}", error.text)) from None
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            text = traceback.format_exc()
            line = f"{name}: one replica runs out of memory; use a smaller --batch-size, --width or --depth"
            raise TooLargeError(_kept(line, text), "one replica runs out of memory") from None
        found.append((bench, loss, activations))
    bench, loss, _ = found[0]
    factory = factory_of(spec)
    parameters = max(b.model.layout.num_parameters for b, _, _ in found)
    slots = len(bench.training.optimizer.slots) if bench.training.optimizer is not USER_OPTIMIZER else 2
    activation_bytes = max(activations for _, _, activations in found)
    known = bench.constant.known
    first = bench.batches.batch([0], 0)[0].data
    return Preflight(
        notes=(*_contract(spec, bench, parameters, loss), *dict.fromkeys(notes)),
        data={
            "name": "own batches" if factory.draws else spec.data,
            **bench.batches.description(),
            "takes": [name for name in ("depth", "width", "variant") if name in factory.takes],
            "baseline_loss": bench.batches.baseline_loss if known else loss,
            "chance_loss": bench.batches.chance_loss if known else loss,
            "constant_predictor_known": known,
            "constant": bench.constant.text,
            "loss_unit": bench.unit,
            **({"starts_from": factory.start} if factory.start else {}),
            **({"dtype": words} if (words := dtype_words(bench.module())) else {}),
            **({"examples": examples} if (examples := examples_in(first)) is not None else {}),
        },
        need=training_need(parameters * bench.model.layout.dtype.itemsize // 4, slots, activation_bytes),
        depth=depths[0],
        fingerprint=factory.fingerprint,
        constants={
            (variant, depths[0], spec.batch_size): b.constant
            for variant, (b, _, _) in zip(spec.variant, found, strict=True)
        },
    )


def not_captured(bench: UserBench, name: str) -> str:
    """Why a run that asked for CUDA graphs has none."""
    why = "they do something else in a CUDA graph, or cannot be captured"
    if not bench.stacked:
        why = "its replicas do not train as one computation"
    return f"  warning: {name}: its steps are launched one by one, without kernel graph: {why}"


def _of_our_data(spec: TrainingSpec, line: str) -> str:
    """What may be to blame where a model fails on the built-in data: their sizes are not the model's."""
    factory = factory_of(spec)
    if factory.draws or not line.startswith("model("):
        return ""
    short = too_few_positions(factory.takes, factory.args, spec.seq_len)
    if short and spec.task != "images":
        return f"; it has {short}, and --seq-len is {spec.seq_len}: give --seq-len {short.rpartition('=')[2]}"
    if spec.task == "images":
        [pixels, *_] = load_task(spec.task, spec.data, 1, spec.seq_len).arrays(TRAINING)
        shape = " x ".join(map(str, image_shape(pixels[0].size)))
        return (
            f"; images of --data {spec.data} are {shape} (--data digits has 1 x 8 x 8): set the model's sizes to theirs"
        )
    return ""


def _contract(spec: TrainingSpec, bench: UserBench, parameters: int, loss: float) -> Iterator[str]:
    """What was inferred, in three lines."""
    model = bench.model
    batches = bench.batches
    known_as = model.factory.known_as
    takes = [
        f"{name} ({known_as[name]})" if name in known_as else name
        for name in ("depth", "width", "variant")
        if name in model.factory.takes
    ]
    taken = ", ".join(takes) or "none of depth, width, variant"
    runs = "" if spec.model.startswith("hf:") else " (its code runs here)"
    yield f"{spec.model}{runs}: {parameters:,} trainable parameters; factory arguments: {taken}"
    shown = shape_words(batches.batch([0], 0)[0].data)
    drawn, held_out = f"the built-in task {spec.task}, {spec.data}", ""
    if model.factory.stream is not None:
        drawn, held_out = model.factory.stream.words(), "" if batches.splits else "; no held-out data"
    elif model.factory.batch is not None:
        drawn, held_out = "batch() in its file", "" if batches.splits else "; no held-out data (no argument split)"
    yield f"  batch {shown} from {drawn}{held_out}"
    yield f"  loss: {model.contract.text}; {loss:.4g} at initialisation, {_baseline(bench)}"
    yield f"  optimizer: {optimizer_words(bench, spec)}"
    if model.factory.start:
        judged = "the boundary is that of fine-tuning"
        if bench.constant.known and not bench.starts(bench.populate([0], [_TRIAL_LR]), [0])[0].reference.brought:
            judged = (
                "they do not beat the constant predictor on this data: a run trains if it comes below it, as from "
                "scratch, and gains short of that do not count"
            )
        yield f"  starts from {model.factory.start}: seeds differ in their batches and dropout alone, and {judged}"
    yield from (f"  {note}" for note in model.factory.notes)


def _baseline(bench: UserBench) -> str:
    """What the best constant predictor loses, how sure that is and how it was found; or what stands in for it."""
    found = bench.constant
    if not found.known:
        seen = "is found by swapped inputs" if found.swappable else "goes unseen"
        return (
            f"and the best constant predictor is unknown ({found.text}): a collapse to it {seen}; "
            "set baseline_loss = NUMBER in the model's file"
        )
    floor = Rules().progress_share * abs(found.baseline_loss)
    rough = f", accurate to {2 * found.error:.2g}: too few targets per batch" if 2 * found.error > floor else ""
    return f"{found.baseline_loss:.4g} for the best constant predictor ({found.text}{rough})"


def _checked(bench: UserBench, name: str, notes: list[str]) -> tuple[float, int]:
    """The loss at initialisation and the bytes that a forward pass keeps; complains, and adds warnings to `notes`."""
    model = bench.model
    batches = bench.batches
    to_the_bit = _same_seed_same_model(model, name, notes)
    one = batches.batch([0], 0, INITIAL)[0]
    checked = check_step(bench, one, name, notes) if model.factory.plain_loop else (0.0, 0)
    if model.contract.stepped:
        _data_is_finite(bench, name)
        _nothing_piles_up(bench, name, notes)
        return checked
    losses, activations, unused = zip(*(_backward(model, one, bench.training.device) for _ in range(2)), strict=True)
    if not math.isfinite(losses[0]):
        raise ConfigError(
            f"{name}: the loss at initialisation is {losses[0]}{_first_not_finite(model, one, bench.training.device)}; "
            "check the initialisation and the data"
        )
    if losses[0] != losses[1] and (to_the_bit or not math.isclose(*losses, rel_tol=_ROUNDED_LOSS)):
        raise ConfigError(
            f"{name}: the loss of one batch is {losses[0]:.9g}, then {losses[1]:.9g}; draw random numbers only "
            "from the global generators of torch, numpy or Python, which are seeded"
        )
    _data_is_finite(bench, name)
    if leak := sees_the_future(bench.model, one, bench.constant.outlet, bench.training.device):
        raise ConfigError(f"{name}: {leak}")
    if why := not_an_objective(bench.model, one, bench.training):
        raise ConfigError(f"{name}: {why}")
    if unused[0]:
        more = f" and {len(unused[0]) - 1} more" if len(unused[0]) > 1 else ""
        if len(unused[0]) == len(model.layout.parameters):
            raise ConfigError(f"{name}: the loss gives no parameter a gradient; is it detached?")
        notes.append(f"  warning: {name}: {unused[0][0]}{more} never gets a gradient; use it in the loss, or freeze it")
    chance = batches.chance_loss
    if bench.unit and losses[0] > _FAR * chance:  # of a likelihood of classes
        notes.append(
            f"  warning: {name}: the loss at initialisation, {losses[0]:.4g}, is far above a uniform guess's, "
            f"{chance:.4g}; make the output layer's initialisation smaller"
        )
    if len(one.parts) > 1:
        _parts_make_the_whole(bench, one, name, notes)
    if batches.none_left(_FIRST_STEPS):
        source = "batch() depends only on the step and repeats" if model.factory.stream is None else "the data repeat"
        notes.append(
            f"  note: {name}: {source}, so no batch is unused: the constant predictor is fitted to training batches"
        )
    if model.factory.stream is not None and batches.by_step:
        notes.append(f"  note: {name}: every seed trains on the same batches, since nothing shuffles them")
    if model.contract.in_training:
        notes.append(f"  note: {name}: the loss fails in evaluation mode, so validation too is in training mode")
    _nothing_piles_up(bench, name, notes)
    return losses[0], max(activations)


def _batches_have_their_sizes(spec: TrainingSpec, bench: UserBench) -> None:
    """In a batch sweep a batch of twice the size has twice the examples."""
    sizes: tuple[int, ...] = getattr(spec, "batch_sizes", ())
    if len(sizes) < 2 or bench.model.factory.batch is None:
        return
    tasks = [load_task(spec.task, "synthetic", size, spec.seq_len) for size in sizes]
    drawn = {
        size: examples_in(bench.batches.of(task, size).batch([0], 0)[0].data)
        for size, task in zip(sizes, tasks, strict=True)
    }
    first = drawn[sizes[0]]
    for size, found in drawn.items():
        if first and found and not math.isclose(found / first, size / sizes[0], rel_tol=_RAGGED):
            raise ConfigError(
                f"batch_sizes: batch() of {spec.model} gives {first} examples for batch_size {sizes[0]} and {found} "
                f"for batch_size {size}; let it draw batch_size examples"
            )


def _parts_make_the_whole(bench: UserBench, one: UserBatch, name: str, notes: list[str]) -> None:
    """The loss is a mean over examples, by which micro-batches may be judged; where statistics differ, a warning."""
    module, loss = bench.model.make(0).to(bench.training.device), bench.model.contract.loss
    with suppress(UserCodeError):  # of a model that has a loss in training mode alone
        if differs := no_mean(loss, module.eval(), one.data, one.parts, seeded):
            raise ConfigError(
                f"{name}: {differs}: it is no mean over examples (a sum, a contrast within the batch?), so "
                "micro-batches would train something else; leave out --accumulate, or return a mean over examples"
            )
    if differs := no_mean(loss, module.train(), one.data, one.parts, seeded):
        notes.append(
            f"  warning: {name}: {differs}: the statistics of BatchNorm are those of each micro-batch, as in any loop "
            "that accumulates"
        )


def _wrappers(bench: UserBench, variant: str, depth: int, width: int, name: str) -> Iterator[str]:
    """What is said of torch.compile and of wrappers for several devices; a missing compiler is a `ConfigError`."""
    returned = bench.model.factory.as_written(0, variant, depth, width)
    if unwrapped(returned) is not returned:
        yield f"  note: {name}: {type(returned).__name__} is taken off: each replica trains on one device"
    before, seconds = num_graphs(), []
    if "torch._dynamo" not in sys.modules:
        return
    population = bench.populate([0], [_TRIAL_LR])
    lr_R = torch.full((1,), _TRIAL_LR, device=bench.training.device)
    for step in range(2):
        started = time.perf_counter()
        try:
            population.step(bench.batches.batch([0], step), lr_R)
        except UserCodeError as error:
            if not lacks_compiler(error.line):
                raise
            said = error.line.partition(" Set TORCH")[0]
            raise ConfigError(
                f"{name}: torch.compile finds no compiler that works ({said}); install one (g++, or set CXX), or train "
                "it uncompiled: TORCHDYNAMO_DISABLE=1"
            ) from None
        seconds.append(time.perf_counter() - started)
    if num_graphs() == before:
        return
    compiling = seconds[0] - seconds[1]
    cost = f", which takes {compiling:.0f} s in each worker" if compiling >= 1.0 else ""
    yield f"  note: {name}: its training step runs compiled{cost}; evaluations, probes and theory run uncompiled"


def _data_is_finite(bench: UserBench, name: str) -> None:
    """Fresh batches have a finite loss at the initial weights."""
    module = bench.model.make(0).to(bench.training.device)
    for step, one in enumerate(bench.batches.fresh(_FRESH_BATCHES)):
        with seeded(one.seed), torch.no_grad():
            loss = float(bench.model.contract.loss(module, one.data))
        if not math.isfinite(loss):
            raise ConfigError(
                f"{name}: the loss on {bench.batches.named(step, FRESH)} is {loss} at the initial weights"
                f"{oddness(one.data)}; fix such batches or remove them"
            )


def _same_seed_same_model(model: UserModel, name: str, notes: list[str]) -> bool:
    """Whether a seed builds one model to the bit; linear algebra may round otherwise where memory lies otherwise."""
    first, second, other = (dict(model.make(seed).state_dict()) for seed in (0, 0, 1))
    differs = [key for key, value in first.items() if isinstance(value, Tensor) and not _same(value, second.get(key))]
    apart = [key for key in differs if not _same(first[key], second.get(key), _ROUNDED)]
    if apart:
        raise ConfigError(
            f"{name}: the same seed built two different models ({apart[0]} differs); draw random numbers "
            "only from the global generators of torch, numpy or Python, which are seeded"
        )
    if differs:
        notes.append(
            f"  warning: {name}: a seed builds {differs[0]} anew with other rounding, so runs may differ in last digits"
        )
    within = _ROUNDED if differs else 0.0
    alike = all(_same(value, other.get(key), within) for key, value in first.items() if isinstance(value, Tensor))
    if alike and not model.factory.start:
        notes.append(f"  warning: {name}: every seed builds the same model, so seeds differ only in their batches")
    return not differs


def _same(a: Tensor, b: Any, within: float = 0.0) -> bool:
    """Whether two tensors are equal, or apart by no more than this share of their largest entry."""
    if not isinstance(b, Tensor) or a.shape != b.shape or a.dtype != b.dtype:
        return False
    a, b = a.nan_to_num(), b.nan_to_num()
    if torch.equal(a, b) or not within or not a.is_floating_point():
        return torch.equal(a, b)
    return bool((a - b).abs().max() <= within * a.abs().max())


def _backward(model: UserModel, one: UserBatch, device: torch.device) -> tuple[float, int, list[str]]:
    """(loss, bytes kept for the backward pass, trainable parameters without a gradient) of a fresh model."""
    module = model.make(0).to(device)
    names = [name for name, _ in module.named_parameters()]
    kept: dict[int, int] = {}
    most = 0
    weights = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    @contextmanager
    def of_a_micro_batch() -> Iterator[None]:
        nonlocal most
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            yield
        most = max(most, sum(kept.values()))
        if [name for name, _ in module.named_parameters()] != names:
            new = next((name for name, _ in module.named_parameters() if name not in names), "a parameter")
            raise UserCodeError(
                f"the forward pass creates {new}, which no optimizer would hold; create all parameters in __init__, or "
                "run the model once before you return it"
            )

    with seeded(one.seed):
        loss = differentiated(model.contract.loss, module, one.parts, forward=of_a_micro_batch)
    unused = [key for key, p in module.named_parameters() if p.requires_grad and p.grad is None]
    return float(loss), most, unused


def _first_not_finite(model: UserModel, one: UserBatch, device: torch.device) -> str:
    """Which module's output is the first that is not finite, in words."""
    module = model.make(0).to(device)
    with seeded(one.seed):
        look = look_at(module, partial(model.contract.loss, module, one.data))
    places = [
        place for (signal, place), rms in look.values.items() if signal == "activation_rms" and not rms.isfinite()
    ]
    return f"; the first output that is not finite is that of {places[0]}" if places else ""


def _nothing_piles_up(bench: UserBench, name: str, notes: list[str]) -> None:
    """A few steps at an LR that moves nothing: neither the loss nor the number of tensors alive may rise throughout."""
    population = bench.populate([0], [_TRIAL_LR])
    start = bench.starts(population, [0])[0].reference
    losses = []
    lr_R = torch.full((1,), _TRIAL_LR, device=bench.training.device)
    alive = []
    drawn = [bench.batches.batch([0], step) for step in range(_STEPS)]  # first, as a stream keeps what it has drawn
    gc.freeze()  # what is there already, a library's hundred thousands of objects, need not be looked through
    try:
        for step in range(_STEPS):
            losses.append(float(population.step(drawn[step], lr_R).loss_R[0]))
            gc.collect()
            theirs = population.num_kept  # LBFGS keeps its last hundred moves
            alive.append(sum(issubclass(type(thing), Tensor) for thing in gc.get_objects()) - theirs)
    finally:
        gc.unfreeze()
    high = start.initial_loss + max(_FAR_UP * abs(start.initial_loss), 5.0 * start.initial_std)
    if min(losses[2:]) > high and bench.training.optimizer is not USER_OPTIMIZER:
        raise ConfigError(
            f"{name}: the loss rises from {start.initial_loss:.4g} to {losses[-1]:.4g} within {_STEPS} steps at LR "
            f"{_TRIAL_LR:g}, which changes almost nothing: it depends on earlier batches (a queue, a memory), so "
            "its start cannot be used as a reference; fill it in the factory"
        )
    grown = [after - before for before, after in itertools.pairwise(alive[1:])]
    if min(grown) > 0:
        notes.append(
            f"  warning: {name}: {min(grown)} more tensors stay alive after every step, so memory will run out; "
            f"store numbers "
            "(.item()), or .detach() what you store (a list of outputs or losses?)"
        )


def examples_in(data: Any) -> int | None:
    """How many examples a batch holds: the length that its tensors have in common; `None` where they have none.

    Of batches that are accumulated, all together.
    """
    accumulated = isinstance(data, list | tuple) and data and all(isinstance(part, Mapping) for part in data)
    if isinstance(data, MicroBatches) or accumulated:
        each = [examples_in(part) for part in (data.parts if isinstance(data, MicroBatches) else data)]
        return sum(one for one in each if one is not None) or None
    lengths = {part.shape[0] for part in tensors(data) if part.ndim}
    return lengths.pop() if len(lengths) == 1 else None


def _kept(line: str, text: str) -> str:
    """The line, with its traceback in a file."""
    if not text:
        return line
    try:
        TRACEBACK.parent.mkdir(exist_ok=True)
        TRACEBACK.write_text(text)
    except OSError:
        return line
    return f"{line}; the traceback is in {TRACEBACK}"
