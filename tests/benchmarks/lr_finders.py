"""Our ramp and hold beside the learning-rate finders of other tools. Run by hand:

    python tests/benchmarks/lr_finders.py [--seeds 3] [--variants post-ln,pre-ln] [--markdown]

Every tool gets the same initial weights, batches, optimizer (Adam, defaults), range and number of
steps; what else it decides (smoothing, stop rule, suggestion) stays at its defaults. A tool that is
not installed is left out. Seconds are CPU time on one thread (the wall clock of an idle core), from the
settings to the answer: building the model and drawing its weights count, imports and data do not.
An answer is then held for as long as the quick profile holds. "failed-to-train" means not better than
the constant predictor by then: the LR was too low, or training sat on the plateau for longer than that.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import itertools
import logging
import math
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from tables import show
from torch import Tensor, nn
from torch.utils.data import DataLoader

from stresstest.engine.population import Population
from stresstest.experiments.lr_range.measure import plan
from stresstest.experiments.lr_range.spec import LrRangeSpec
from stresstest.experiments.training import Group, make_bench, train_cells
from stresstest.measurements.base import Bench, CellPlan
from stresstest.measurements.boundary import measure_boundary, ramp_lrs
from stresstest.measurements.course import hold, ramp
from stresstest.results.records import TRAINED, count
from stresstest.specs.profiles import make_spec
from stresstest.tasks.task import INITIAL

UNSEEN = 1000  # added to a seed: the seed of a second check, which no tool has seen


@dataclass(frozen=True)
class Answer:
    """What one tool said; an LR is inf where it lies beyond the range and None where there is none."""

    stop_lr: float | None
    answer_lr: float | None
    steps: int


@dataclass(frozen=True)
class Tool:
    """One way to ask; what to install and the module to import are empty for ours."""

    name: str
    answers: str
    ask: Callable[[LrRangeSpec, str, int], Answer]
    requirement: str = ""
    module: str = "stresstest"


@dataclass(frozen=True)
class Outcome:
    """One tool on one variant and seed, and what became of the holds at its answer."""

    answer: Answer
    seconds: float
    held: str = "no answer"
    held_unseen: str = "no answer"
    validation_loss: float = math.inf


class OneReplica(nn.Module):
    """Our transformer of one seed as an ordinary module, one parameter a bank."""

    def __init__(self, bench: Bench, seed: int) -> None:
        super().__init__()
        self.model = bench.model
        population = Population(bench.model, [seed], bench.training)
        population.profile(bench.batches.batch([seed], 0, INITIAL).inputs)
        leaves = bench.model.layout.leaves(population.theta_RP)
        self.banks = nn.ParameterList(nn.Parameter(leaf.detach().clone()) for leaf in leaves.values())

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Logits [N, V]."""
        layout = self.model.layout
        leaves = dict(zip(layout.banks, self.banks, strict=True))
        return self.model.logits(layout.unbind(leaves), tokens_BT[None])[0]


def bench_of(spec: LrRangeSpec, variant: str) -> Bench:
    return make_bench(spec, variant, spec.depth, spec.optimizer, "cpu")


def peer_setup(spec: LrRangeSpec, variant: str, seed: int) -> tuple[OneReplica, DataLoader[Any]]:
    """The model, and a loader of (tokens [B, T], targets [B * T]) in the order of our steps."""
    bench = bench_of(spec, variant)
    drawn = [bench.batches.batch([seed], step) for step in range(spec.num_steps)]
    data: Any = [(batch.inputs[0], batch.targets[0].flatten()) for batch in drawn]
    return OneReplica(bench, seed), DataLoader(data, batch_size=None)


def peer_answer(spec: LrRangeSpec, lrs: Sequence[float], suggest: Callable[[], float | None]) -> Answer:
    """A finder that used all steps was not stopped by its rule; one that cannot suggest raises."""
    try:
        suggestion = suggest()
    except RuntimeError:
        suggestion = None
    return Answer(lrs[-1] if len(lrs) < spec.num_steps else math.inf, suggestion, len(lrs))


def torch_lr_finder(spec: LrRangeSpec, variant: str, seed: int) -> Answer:
    figure = importlib.import_module("matplotlib.figure").Figure()
    module, loader = peer_setup(spec, variant, seed)
    optimizer = torch.optim.Adam(module.parameters(), lr=spec.start_lr)
    finder_class = importlib.import_module("torch_lr_finder").LRFinder
    finder = finder_class(module, optimizer, nn.CrossEntropyLoss(), device="cpu")
    finder.range_test(loader, start_lr=spec.start_lr, end_lr=spec.end_lr, num_iter=spec.num_steps)
    return peer_answer(spec, finder.history["lr"], lambda: float(finder.plot(ax=figure.subplots())[1]))


def ignite(spec: LrRangeSpec, variant: str, seed: int) -> Answer:
    module, loader = peer_setup(spec, variant, seed)
    optimizer = torch.optim.Adam(module.parameters(), lr=spec.start_lr)  # its first step ignores start_lr
    create_trainer = importlib.import_module("ignite.engine").create_supervised_trainer
    trainer = create_trainer(module, optimizer, nn.CrossEntropyLoss())
    finder = importlib.import_module("ignite.handlers").FastaiLRFinder()
    ends = {"num_iter": spec.num_steps, "start_lr": spec.start_lr, "end_lr": spec.end_lr}
    with finder.attach(trainer, to_save={"model": module, "optimizer": optimizer}, **ends) as attached:
        attached.run(loader, max_epochs=1)
    return peer_answer(spec, finder.get_results()["lr"], finder.lr_suggestion)


def lightning(spec: LrRangeSpec, variant: str, seed: int) -> Answer:
    pl = importlib.import_module("pytorch_lightning")
    replica, loader = peer_setup(spec, variant, seed)

    class Module(pl.LightningModule):  # type: ignore[misc,name-defined]  # imported by name
        def __init__(self) -> None:
            super().__init__()
            self.lr, self.replica = spec.start_lr, replica

        def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
            return nn.functional.cross_entropy(self.replica(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=self.lr)

    loud = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    quiet = dict.fromkeys(loud, False)
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(accelerator="cpu", max_epochs=1, default_root_dir=folder, **quiet)
        tuner = importlib.import_module("pytorch_lightning.tuner").Tuner(trainer)
        ends = {"min_lr": spec.start_lr, "max_lr": spec.end_lr, "num_training": spec.num_steps}
        finder = tuner.lr_find(Module(), train_dataloaders=loader, **ends)
    return peer_answer(spec, finder.results["lr"], finder.suggestion)


def our_ramp(spec: LrRangeSpec, variant: str, seed: int) -> Answer:
    record = ramp(bench_of(spec, variant), [seed], ramp_lrs(spec))[0].record()
    never = math.inf if record["learned"] else None  # nothing learned, nothing to lose
    return Answer(record["explosion_lr"] or math.inf, record["onset_lr"] or never, record["steps"])


def our_hold(spec: LrRangeSpec, variant: str, seed: int) -> Answer:
    cell = train_cells(measure_boundary, Group(spec, "cpu", (CellPlan("", variant, spec.depth, seed),)))[0].cell
    steps = cell.ramp["steps"] + sum(trial["steps"] for trial in cell.hold)
    return Answer(None, cell.metrics["max_stable_lr"].low, steps)


TOOLS = (
    Tool("torch-lr-finder", "suggestion", torch_lr_finder, "torch-lr-finder==0.2.2", "torch_lr_finder"),
    Tool("ignite", "suggestion", ignite, "pytorch-ignite==0.5.5", "ignite.handlers"),
    Tool("Lightning", "suggestion", lightning, "pytorch-lightning==2.6.6", "pytorch_lightning.tuner"),
    Tool("stresstest, ramp", "onset_lr", our_ramp),
    Tool("stresstest, ramp + hold", "max_stable_lr", our_hold),
)


def installed() -> list[Tool]:
    """The tools that can be imported; the command that installs each of the others goes to stderr."""
    found = []
    for tool in TOOLS:
        try:
            importlib.import_module(tool.module)
            found.append(tool)
        except ImportError as error:
            print(f"{tool.name} is left out ({error}): pip install {tool.requirement}", file=sys.stderr)
    return found


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Without the peers' progress bars, prints and warnings."""
    logging.disable(logging.CRITICAL)
    sink = io.StringIO()
    with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def measure(tool: Tool, spec: LrRangeSpec, variant: str, seed: int) -> Outcome:
    """Ask the tool, then hold its answer on the same seed and on one that it has not seen."""
    started = time.process_time()
    with silence():
        answer = tool.ask(spec, variant, seed)
    seconds, lr = time.process_time() - started, answer.answer_lr
    if lr is None or lr == math.inf:
        return Outcome(answer, seconds)
    runs = hold(bench_of(spec, variant), [(seed, lr), (seed + UNSEEN, lr)], spec.hold_steps)
    held, unseen = (run.detector.judgement().outcome for run in runs)
    return Outcome(answer, seconds, held, unseen, runs[0].validation_loss if held in TRAINED else math.inf)


def spell(values: Sequence[float | None]) -> str:
    """The median of the seeds that have a value, and how many they are if not all."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    median = statistics.median(known)
    text = "> end" if median == math.inf else f"{median:.2g}"
    return text if len(known) == len(values) else f"{text} ({len(known)} of {len(values)} seeds)"


def ranking(lrs: Mapping[str, Sequence[float | None]]) -> str:
    """The variants by their medians, smallest first; equal medians are joined by '='."""
    known = {variant: [lr for lr in values if lr is not None] for variant, values in lrs.items()}
    medians = sorted((statistics.median(values), variant) for variant, values in known.items() if values)
    text = medians[0][1] if medians else "-"
    for (before, _), (median, variant) in itertools.pairwise(medians):
        text += f" {'=' if median == before else '<'} {variant}"
    return text


def detail_row(variant: str, tool: Tool, outcomes: Sequence[Outcome]) -> list[str]:
    losses = [outcome.validation_loss for outcome in outcomes]
    return [
        variant,
        tool.name,
        spell([outcome.answer.stop_lr for outcome in outcomes]),
        f"{tool.answers} {spell([outcome.answer.answer_lr for outcome in outcomes])}",
        f"{statistics.median(outcome.answer.steps for outcome in outcomes):g}",
        f"{statistics.median(outcome.seconds for outcome in outcomes):.1f}",
        *trains_columns(outcomes),
        f"{median:.2f}" if (median := statistics.median(losses)) < math.inf else "-",
    ]


def ranking_row(tool: Tool, by_variant: Mapping[str, Sequence[Outcome]]) -> list[str]:
    stops = {variant: [o.answer.stop_lr for o in outcomes] for variant, outcomes in by_variant.items()}
    answers = {variant: [o.answer.answer_lr for o in outcomes] for variant, outcomes in by_variant.items()}
    all_outcomes = [outcome for outcomes in by_variant.values() for outcome in outcomes]
    return [tool.name, ranking(stops), f"{tool.answers}: {ranking(answers)}", *trains_columns(all_outcomes)]


def trains_columns(outcomes: Sequence[Outcome]) -> list[str]:
    return [trains([o.held for o in outcomes]), trains([o.held_unseen for o in outcomes])]


def trains(held: Sequence[str]) -> str:
    """How many trained, and what became of the others."""
    others = count(outcome for outcome in held if outcome not in TRAINED)
    text = f"{len(held) - sum(others.values())} of {len(held)}"
    return text + (f" ({', '.join(f'{n} {outcome}' for outcome, n in others.items())})" if others else "")


def show_facts(facts: Mapping[str, str], tools: Sequence[Tool]) -> None:
    """What the figures were taken with."""
    names = [tool.requirement.partition("==")[0] for tool in tools if tool.requirement]
    versions = [f"{name} {version(name)}" for name in names]
    print(", ".join([facts["device_name"], f"torch {facts['torch']}", *versions]))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", default="3", help="a number of seeds, or a list: 3 or 0,4")
    parser.add_argument("--variants", default="post-ln,pre-ln,normformer,rezero,deepnorm")
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables")
    args = parser.parse_args()
    torch.set_num_threads(1)
    given = {"variant": args.variants, "seeds": args.seeds, "device": "cpu"}
    resolved = plan(make_spec(LrRangeSpec, "quick", given))
    spec, tools = resolved.spec, installed()
    outcomes: dict[str, dict[str, list[Outcome]]] = {tool.name: {} for tool in tools}
    for variant, seed, tool in itertools.product(spec.variant, spec.seeds, tools):
        outcome = measure(tool, spec, variant, seed)
        print(f"{variant}, seed {seed}, {tool.name}: {outcome}", file=sys.stderr)
        outcomes[tool.name].setdefault(variant, []).append(outcome)
    show_facts(resolved.environment, tools)
    trained = [f"{spec.hold_steps} steps at it train", "on an unseen seed"]
    details = ["variant", "tool", "stops at", "answers", "steps", "seconds", *trained, "loss then"]
    pairs = itertools.product(spec.variant, tools)
    show(details, [detail_row(v, tool, outcomes[tool.name][v]) for v, tool in pairs], args.markdown)
    ranks = ["tool", "ranking by the stop", "ranking by the answer", *trained]
    show(ranks, [ranking_row(tool, outcomes[tool.name]) for tool in tools], args.markdown)


if __name__ == "__main__":
    main()
