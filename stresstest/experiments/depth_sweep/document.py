"""The report of a depth sweep: a table over variants and depths, what depth does, charts, Jacobians."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from stresstest.experiments.depth_sweep.boundary_pictures import trained_pictures
from stresstest.experiments.depth_sweep.columns import (
    RowColumn,
    main_columns,
    median_cell,
    over_depths,
    signal_columns,
    trend_columns,
)
from stresstest.experiments.depth_sweep.signal_pictures import signal_pictures
from stresstest.experiments.depth_sweep.verdicts import answer
from stresstest.experiments.document_parts import (
    data_words,
    loss_format,
    machine_words,
    model_words,
    probes_words,
    report_of,
    seeds_words,
)
from stresstest.reports.document import (
    AT_LENGTH,
    PAGE,
    VERBOSE,
    Block,
    Column,
    Details,
    Document,
    Formats,
    Heading,
    Paragraph,
    Table,
    Value,
)
from stresstest.reports.numbers import HOW_IT_BROKE
from stresstest.results.records import Bracket, Cell, Result, SummaryRow, interval_rank, summarise

_BARS = "▁▂▃▄▅▆▇█"
_UNFOLDED = (*VERBOSE, "md")  # formats that show what a page folds away
_NO_BAR = "\u2800"  # a blank at which no line is broken
_FEW_BARS, _MANY_BARS = 20, {PAGE: 400, VERBOSE: 60}  # more do not fit


def document(result: Result) -> Document:
    """The whole report."""
    what = "Signal propagation at initialisation" if result.spec["init_only"] else "Depth sweep"
    title = f"{what}: {model_words(result.spec, result.data)}, {seeds_words(result)}"
    trained = [*trained_pictures(result), *_tables(result)]
    blocks = [*trained, *signal_pictures(result), *_jacobians(result)] if result.summary else []
    return report_of(result, title, _setting(result), blocks, answer(result))


def _setting(result: Result) -> str:
    """What a depth sweep trained, or looked at, and on which machine."""
    spec = result.spec
    parts = [data_words(spec, result.data)]
    if not spec["init_only"] and "outcome" in spec["measure"]:
        warmup = f" after {spec['warmup_steps']} warm-up steps" if spec["warmup_steps"] else ""
        parts.append(f"fixed recipe: {spec['optimizer']} at {spec['peak_lr']:g}{warmup}, {spec['train_steps']} steps")
    if not spec["init_only"] and {"ramp", "hold"} & set(spec["measure"]):
        ramp = f"{spec['ramp']} ramp {spec['start_lr']:g} to {spec['end_lr']:g} in {spec['num_steps']} steps"
        parts.append(f"{spec['optimizer']}, {ramp}")
        if "hold" in spec["measure"]:
            parts[-1] += f", holds of {spec['hold_steps']} steps"
    return f"{'; '.join(parts)}; {machine_words(result, 'float64' if spec['init_only'] else None)}"


def _tables(result: Result) -> Iterator[Block]:
    yield from over_depths(result)
    yield Heading("Variants and depths", formats=PAGE)
    yield _over_rows(result, main_columns(result), formats=AT_LENGTH)
    yield Paragraph(_legend(result) + probes_words(result), "dim", formats=AT_LENGTH)
    if not result.spec["init_only"]:
        numbers = _over_rows(result, signal_columns(), formats=PAGE)
        yield Details("Signal propagation at initialisation, in numbers", (numbers,))
    if len(result.spec["depths"]) > 1 and any(row.metrics for row in result.trends):
        columns = trend_columns(result)
        rows = [(Value(row.variant), *(cell(row) for _, cell in columns)) for row in result.trends]
        headers = (Column("over depth"), *(Column(header) for header, _ in columns))
        yield Table(headers, tuple(rows), formats=AT_LENGTH)
        yield Paragraph(_trend_legend(result), "dim", formats=AT_LENGTH)
    if taken := _training_rows(result):
        what = "Signal propagation before steps of the fixed recipe"
        yield Heading(what, formats=_UNFOLDED)
        signal = signal_columns()
        keys = [
            (Value(row.variant), Value(str(row.depth)), Value(str(step) if step else "init")) for step, row in taken
        ]
        table = Table(
            (*map(Column, ("variant", "depth", "step")), *(column.head for column in signal)),
            tuple((*key, *(c.cell(row) for c in signal)) for key, (_, row) in zip(keys, taken, strict=True)),
            grouped=True,
            formats=_UNFOLDED,
        )
        yield table
        yield Details(f"{what}, in numbers", (replace(table, formats=PAGE),))


def _over_rows(result: Result, columns: Sequence[RowColumn], formats: Formats = ()) -> Table:
    return Table(
        (Column("variant"), Column("depth"), *(column.head for column in columns)),
        tuple(
            (Value(row.variant), _depth(row, result), *(column.cell(row) for column in columns))
            for row in result.summary
        ),
        grouped=True,
        formats=formats,
    )


def _depth(row: SummaryRow, result: Result) -> Value:
    """The depth, and how many seeds it has if not all."""
    count = max((metric.n for metric in row.metrics.values()), default=0)
    total = len(result.spec["seeds"])
    return Value(str(row.depth), note="" if count == total else f"{count} of {total} seeds")


def _legend(result: Result) -> str:
    """What the columns mean."""
    spec = result.spec
    sentences = [f"Medians over {len(spec['seeds'])} seeds." if len(spec["seeds"]) > 1 else "One seed."]
    metrics = {name for row in result.summary for name in row.metrics}
    if "steps_to_target" in metrics:
        target = next(cell.recipe["target_loss"] for cell in result.cells if cell.recipe)
        sentences.append(
            f"Fixed recipe: seeds that train, or the commonest outcome of those that do not{_outcomes_words(result)}; "
            f"target: a loss of {loss_format(result)(target)}; recipe loss: on held-out data, of runs that "
            f"reached the end."
        )
    if "max_stable_lr" in metrics:
        sentences.append(
            f"max_stable_lr: the last constant LR that trained; the first that did not is one "
            f"{spec['hold_resolution']} higher, and with it the interval ends; in brackets: {_interval_words(result)}."
        )
    if "grad_ratio" in metrics:
        sentences.append(
            "Gradient: Frobenius norm of the mean gradient of a block's last matrix at initialisation, first block "
            "over last. Stream growth: RMS of the stream after the last block over the one before the first."
        )
    if "encoder_grad_ratio" in metrics:
        sentences.append(
            f"The columns describe the decoder. Curves count the blocks of both stacks, the encoder's first: depth "
            f"{spec['depths'][-1]} has {2 * spec['depths'][-1]} blocks there."
        )
    if spec["init_only"]:
        sentences.append(
            "Similarity: mean cosine between "
            f"{'images' if spec['task'] == 'images' else 'tokens'} after the last block. Jacobian: mean squared "
            "singular value of the Jacobian of the stream after the last block by the one before the first."
        )
    return " ".join(sentences)


def _outcomes_words(result: Result) -> str:
    """What the outcomes of the runs that did not train mean."""
    found = {cell.recipe["outcome"] for cell in result.cells if cell.recipe}
    words = [f"{outcome}: {meaning}" for outcome, meaning in HOW_IT_BROKE.items() if outcome in found]
    return f" ({', '.join(words)})" if words else ""


def _trend_legend(result: Result) -> str:
    """What the trends mean, and how sure they are."""
    metrics = {name for row in result.trends for name in row.metrics}
    sentences = []
    if "max_trainable_depth" in metrics:
        sentences.append("max trainable depth: the last depth that trains and the first that does not.")
    if any(name.endswith(("_exponent", "_rate")) for name in metrics):
        sentences.append(
            "depth^b: least squares in log-log, seed by seed; b^depth where that fits better. Gradient of the last "
            "block and activations (stream plus branch there) are measured at initialisation."
        )
    sentences.append(f"Medians, in brackets: {_interval_words(result)}.")
    if "max_stable_lr_exponent" in metrics:
        sentences.append("For max_stable_lr a seed counts with every slope that its brackets allow.")
    return " ".join(sentences)


def _interval_words(result: Result) -> str:
    count = len(result.spec["seeds"])
    if count == 1:
        return "the bracket of the one seed"
    rank, coverage = interval_rank(count)
    what = "the range over seeds" if rank == 1 else "an interval over seeds"
    return f"{what} that covers the median {coverage:.0%} of the time"


def _training_rows(result: Result) -> list[tuple[int, SummaryRow]]:
    """(step, row) of the signals taken while training, over the seeds that got as far; step 0 is initialisation."""
    rows: list[tuple[int, SummaryRow]] = []
    for at in result.summary:
        mine = [c for c in result.cells if (c.variant, c.depth) == (at.variant, at.depth) and c.signals]
        steps = sorted({step for cell in mine for step in cell.signals})
        for step in (0, *steps) if steps else ():
            signals = {c.seed: c.signals.get(step, {}) if step else c.signal for c in mine}
            values: dict[str, dict[int, Bracket]] = {}
            for seed, signal in signals.items():
                for name, value in signal.get("metrics", {}).items():
                    values.setdefault(name, {})[seed] = Bracket(**value)
            metrics = {name: summarise(name, by_seed) for name, by_seed in values.items()}
            rows.append((step, at.model_copy(update={"metrics": metrics})))
    return rows


def _first_seed_cells(result: Result, depth: int) -> list[Cell]:
    """The cells of the first seed at a depth that have a signal, in the order of the variants."""
    first = result.spec["seeds"][0]
    return [cell for cell in result.cells if (cell.depth, cell.seed) == (depth, first) and cell.signal]


def _jacobians(result: Result) -> Iterator[Block]:
    """Stream and singular values: of every depth on a page, of the deepest in a terminal that looks at nothing else."""
    depths = list(dict.fromkeys(row.depth for row in result.summary))
    if any(_first_seed_cells(result, depth) for depth in depths):
        seed = result.spec["seeds"][0]
        text = f"Seed {seed}; the Jacobian of the stream after the last block by the stream before the first."
        table = _jacobian_table(result, depths, PAGE)
        yield Details("Jacobian and stream, in numbers", (table, Paragraph(text, "dim")))
    if result.spec["init_only"]:
        deepest = max(depths)
        title = f"Stream over the blocks and log10 singular values of the Jacobian, at depth {deepest}"
        yield Heading(title, formats=VERBOSE)
        yield _jacobian_table(result, [deepest], VERBOSE)


def _jacobian_table(result: Result, depths: Sequence[int], formats: Formats) -> Table:
    rows = [
        (
            Value(row.variant),
            Value(str(row.depth)),
            Value(_law_words(cell)),
            _spectrum(cell, _MANY_BARS[formats]),
            median_cell("jacobian_mean_square", row),
        )
        for row in result.summary
        if row.depth in depths
        for cell in _first_seed_cells(result, row.depth)
        if cell.variant == row.variant
    ]
    columns = (
        Column("variant"),
        Column("depth"),
        Column("stream over the blocks"),
        Column("singular values, log10", "left"),
        Column("mean square, median", wide=True),
    )
    return Table(columns, tuple(rows), formats=formats)


def _spectrum(cell: Cell, most_bars: int) -> Value:
    """The singular values above zero as bars over log10, and the share of zeros."""
    jacobian = cell.signal["jacobian"]
    if jacobian is None:
        return Value("not finite")
    shares, edges = jacobian["shares"], jacobian["log10_edges"]
    if not shares:
        return Value("all zero")
    most = max(shares)
    bars = "".join(_NO_BAR if not share else _BARS[round(share / most * (len(_BARS) - 1))] for share in shares)
    zeros = f", {jacobian['zero_share']:.0%} zero" if jacobian["zero_share"] else ""
    full, short = (f"{edges[0]:.3g} {between} {edges[-1]:.3g}{zeros}" for between in (bars, "to"))
    return Value(full if len(bars) <= most_bars else short, short=short if len(bars) > _FEW_BARS else "")


def _law_words(cell: Cell) -> str:
    """How the stream grows over the blocks of one cell."""
    law = cell.signal.get("stream_law")
    if law is None:
        return "-"
    if law["law"] == "flat":
        return "flat"
    return f"block^{law['rate']:.2g}" if law["law"] == "power" else f"{law['rate']:.4g}^block"
