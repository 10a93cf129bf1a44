"""Pictures of how signals and gradients come through the blocks: over the blocks, over steps, singular values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from stresstest.reports.document import PAGE, VERBOSE, Axis, Block, Chart, Details, Point, Series, Tile, Tiles
from stresstest.reports.numbers import number
from stresstest.results.records import Cell, Result

_MOST_ROWS = 30  # of a map
_MOST_LINES = 8  # of a chart, over which their colours repeat
_DECADE = 1.0  # at least so much to both sides of no change
_MANY_DEPTHS = 4  # about as many have a chart of their own
_IN_FULL = (
    ("activation_rms", "Stream plus branch, before a post-norm", "RMS", True),
    ("branch_rms", "What the last sublayer of a block adds", "RMS", True),
    ("similarity", "Inputs after a block", "mean cosine, 1 where all are alike", False),
)  # of the details: name, title, what its numbers are, on a logarithmic scale

Curves = Mapping[str, Any]


def signal_pictures(result: Result) -> Iterator[Block]:
    """Of the first seed: maps over the blocks, lines of the deepest, over steps, and the Jacobian's singular values."""
    seed = result.spec["seeds"][0]
    cells = [cell for cell in result.cells if cell.seed == seed and cell.signal]
    depths = sorted({cell.depth for cell in cells})
    if not cells:
        return
    shown = _depths_of_maps(cells, depths)
    when = f"at initialisation, seed {seed}"
    yield _over_blocks(shown, "grad_norm", f"Gradient norm over the blocks, {when}", _GRADIENT, "gradient norm")
    yield _over_blocks(shown, "stream_rms", f"Stream after each block, {when}", _STREAM, "stream RMS")
    yield from _over_steps([cell for cell in cells if cell.signals], depths, seed)
    lines = [*_lines(result, cells, depths, seed)]
    yield from lines[:1]
    histograms = [found for depth in reversed(depths) if (found := _histogram(cells, depth, when))]
    histograms.sort(key=lambda chart: -len(chart.series))  # the deepest of those that show most variants first
    yield from histograms[:1]
    more = [_over_blocks(shown, name, f"{title}, {when}", "", unit, log) for name, title, unit, log in _IN_FULL]
    yield Details("More over the blocks, and other depths", (*more, *lines[1:], *histograms[1:]))


_GRADIENT = (
    "Prefer a variant whose row keeps its colour at every depth: the gradient reaches all blocks alike. Left is the "
    "first block, right the last. Low on the left: the gradient vanishes on its way back; high on the left: it grows."
)
_STREAM = (
    "Prefer a variant whose row keeps its colour: the blocks keep the signal's size. A row that changes to the right "
    "shrinks or grows from block to block; where it overflows, it says so."
)
_STEPS = (
    "Look for rows that turn to the low end with the steps: there the gradient dies out while it trains. Left is the "
    "first block, right the last."
)
_SPECTRUM = (
    "Best is a narrow peak near 0, where all blocks together keep the size of every direction (ReZero, Fig. 5): what "
    "lies left is lost on its way through them, what lies right is blown up."
)


def _depths_of_maps(cells: Sequence[Cell], depths: Sequence[int]) -> list[Cell]:
    """Cells of every depth, or of so many of them that a map has room; the deepest among them."""
    variants = len({cell.variant for cell in cells})
    every = -(-len(depths) * variants // _MOST_ROWS)
    kept = set(depths[::-1][::every])
    return [cell for cell in cells if cell.depth in kept]


def _over_blocks(cells: Sequence[Cell], name: str, title: str, caption: str, label: str, log: bool = True) -> Tiles:
    """A row a variant and depth, each over its whole width."""
    one_depth = len({cell.depth for cell in cells}) == 1
    rows = tuple(
        (f"{cell.variant} {cell.depth}", _tiles(cell.signal, name, not one_depth))
        for cell in cells
        if name in cell.signal
    )
    x = Axis("block" if one_depth else "place in the stack, % of the depth", log=False)
    values = Axis(label, log=log)
    return Tiles(title, x, "variant and depth", rows, values, caption, f"{name.replace('_', '-')}-over-blocks")


def _tiles(signal: Curves, name: str, as_share: bool) -> tuple[Tile, ...]:
    """The blocks that were stored, each up to half-way to its neighbours."""
    blocks: Sequence[int] = signal["blocks"]
    last = blocks[-1]
    ends = [0.5, *((a + b) / 2 for a, b in pairwise(blocks)), last + 0.5]
    if as_share:
        ends = [100.0 * (end - 0.5) / last for end in ends]
    return tuple(
        Tile(start, end, value, f"block {block} of {last}")
        for (start, end), block, value in zip(pairwise(ends), blocks, signal[name], strict=True)
    )


def _over_steps(cells: Sequence[Cell], depths: Sequence[int], seed: int) -> Iterator[Block]:
    """The gradient before steps of the fixed recipe: a map of the deepest that were looked at, others in details."""
    maps = []
    for depth in reversed(depths):
        rows = tuple(
            (f"{cell.variant}, {f'step {step}' if step else 'init'}", _tiles(signal, "grad_norm", as_share=False))
            for cell in cells
            if cell.depth == depth
            for step, signal in ((0, cell.signal), *cell.signals.items())
        )
        title = f"Gradient norm while training at depth {depth}, seed {seed}"
        values = Axis("gradient norm")
        name = f"grad-norm-over-steps-{depth}"
        if rows:
            maps.append(Tiles(title, Axis("block", log=False), "variant and step", rows, values, _STEPS, name))
    yield from maps[:1]
    if maps[1:]:
        yield Details("Gradient norm while training at other depths", tuple(maps[1:]))


def _lines(result: Result, cells: Sequence[Cell], depths: Sequence[int], seed: int) -> Iterator[Chart]:
    """Gradient norms as lines, the deepest first."""
    deepest = True
    for depth in depths[:: -max(1, len(depths) // _MANY_DEPTHS)]:
        series = [Series(c.variant, tuple(_gradient_points(c.signal))) for c in cells if c.depth == depth]
        in_terminal = result.spec["init_only"] and deepest
        if not any(len(each.points) > 1 for each in series) or not (in_terminal or len(series) <= _MOST_LINES):
            continue
        deepest = False
        yield Chart(
            f"Gradient norm over the blocks at depth {depth}, at initialisation, seed {seed}"
            + (_ends(series) if in_terminal else ""),  # which has no axis
            Axis("block", log=False),
            Axis("gradient norm"),
            tuple(series),
            name=f"grad-norm-at-depth-{depth}",
            caption=_zeros(series),
            formats=(*VERBOSE, *PAGE) if in_terminal else PAGE,
        )


def _gradient_points(signal: Curves) -> list[Point]:
    """(block, gradient norm) where that is a positive number."""
    pairs = zip(signal["blocks"], signal["grad_norm"], strict=True)
    return [(float(block), norm) for block, norm in pairs if norm]


def _zeros(series: Sequence[Series]) -> str:
    names = [each.name for each in series if len(each.points) < 2]
    return f"Not drawn, for it is zero or not finite: {', '.join(names)}." if names else ""


def _ends(lines: Sequence[Series]) -> str:
    """The lowest and highest value of a chart."""
    values = [y for series in lines if len(series.points) > 1 for _, y in series.points]
    return f" (logarithmic, {number(min(values))} to {number(max(values))})" if values else ""


def _histogram(cells: Sequence[Cell], depth: int, when: str) -> Chart | None:
    """The singular values above zero of each variant's Jacobian, in bins of log10."""
    series, notes = [], []
    for cell in (cell for cell in cells if cell.depth == depth):
        jacobian = cell.signal["jacobian"]
        if jacobian is None:
            notes.append(f"{cell.variant} is not finite")
            continue
        if jacobian["zero_share"]:
            notes.append(f"{jacobian['zero_share']:.0%} of {cell.variant} are zero")
        if jacobian["shares"]:
            series.append(Series(cell.variant, tuple(_steps(jacobian)), kind="steps"))
    if not series:
        return None
    left_out = f" Not drawn: {', '.join(notes)}." if notes else ""
    whose = f"{series[0].name}'s" if len(series) == 1 else "the"
    ends = [x for each in series for x, _ in each.points]
    x = Axis("log10 of the singular value", log=False, low=min(-_DECADE, *ends), high=max(_DECADE, *ends))
    return Chart(
        f"Singular values of {whose} Jacobian at depth {depth}, {when}",
        x,
        Axis("share of the singular values", log=False, low=0.0),
        tuple(series),
        caption=_SPECTRUM + left_out,
        name=f"singular-values-at-depth-{depth}",
        formats=PAGE,
    )


def _steps(jacobian: Curves) -> Iterator[Point]:
    """From the floor up, along the bins, and back to it."""
    edges, shares = jacobian["log10_edges"], jacobian["shares"]
    yield edges[0], 0.0
    yield from zip(edges, shares, strict=False)
    yield edges[-1], 0.0
