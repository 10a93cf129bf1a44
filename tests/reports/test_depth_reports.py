"""Renderings and findings of small hand-made depth sweeps."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console
from syrupy.assertion import SnapshotAssertion

from stresstest.commands.show_result import print_result, result_text
from stresstest.experiments.depth_sweep.findings import depth_sweep_findings, why_failed
from stresstest.experiments.depth_sweep.spec import DepthSweepSpec
from stresstest.reports.output import FORMATS, JSON
from stresstest.results.records import RESULT_SCHEMA, Bracket, Cell, Result, Status
from stresstest.results.summary import depth_rows, trend_rows
from stresstest.specs.profiles import make_spec

EVERY_FORMAT = (*FORMATS, *JSON)
HEALTHY = {"grad_ratio": 1.0, "grad_last": 0.2, "stream_growth": 2.0, "activation_rms": 2.0, "similarity": 0.4}
EXACT = Bracket.exactly


def signal_of(depth: int, values: dict[str, float | None], **more: Any) -> dict[str, Any]:
    return {
        "blocks": list(range(1, depth + 1)),
        "grad_norm": [0.1 * block for block in range(1, depth + 1)],
        "metrics": {name: EXACT(value).model_dump() for name, value in values.items() if value is not None},
        "stream_law": {"law": "power", "rate": 0.5},
        "jacobian": {
            "size": 16,
            "method": "exact",
            "mean_square": 2.5,
            "largest": 10.0,
            "smallest": 0.1,
            "zero_share": 0.25,
            "log10_edges": [-1.0, 0.0, 1.0],
            "shares": [0.25, 0.5],
        },
        **more,
    }


def cell(
    variant: str,
    depth: int,
    seed: int = 0,
    outcome: str = "",
    stable: float | None = None,
    status: Status = "done",
    signals: dict[int, dict[str, Any]] | None = None,
    **signal: float | None,
) -> Cell:
    """A cell of the fixed recipe (`outcome`), of a hold (`stable`) or of initialisation alone."""
    key = f"{variant}{depth}{seed}"
    if status != "done":
        return Cell(key=key, variant=variant, depth=depth, seed=seed, status=status, error="Traceback\nboom")
    values = HEALTHY | signal
    metrics = {name: EXACT(value) for name, value in values.items() if value is not None}
    records: dict[str, Any] = {"signal": signal_of(depth, values), "signals": signals or {}}
    if outcome:
        trains = outcome in ("stable", "spiked")
        metrics |= {"steps_to_target": EXACT(40 + seed) if trains else Bracket(low=200, high=None)}
        metrics |= {"seconds_per_step": EXACT(0.0125), "peak_bytes": EXACT(3 * 2.0**20)}
        metrics |= {"recipe_loss": EXACT(1.5)} if trains else {}
        records["recipe"] = {"outcome": outcome, "target_loss": 2.07}
    if stable is not None:
        metrics |= {"max_stable_lr": Bracket(low=stable or None, high=2 * stable or None)}
        metrics |= {"explosion_lr": EXACT(0.9), "onset_lr": EXACT(0.3)}
        records["ramp"] = {"outcome": "exploded", "hold_monotone": True, "curve": [[1e-4, 5.0], [1.0, 6.0]]}
        records["hold"] = [{"lr": stable, "outcome": "stable"}]
    return Cell(key=key, variant=variant, depth=depth, seed=seed, status="done", metrics=metrics, **records)


def result_of(cells: Sequence[Cell], **settings: Any) -> Result:
    asked = {
        "seeds": ",".join(str(seed) for seed in sorted({c.seed for c in cells})) + ",",
        "variant": ",".join(dict.fromkeys(c.variant for c in cells)),
        "depths": ",".join(str(depth) for depth in sorted({c.depth for c in cells})),
        "measure": "outcome" if any(c.recipe for c in cells) else "hold",
    }
    spec = make_spec(DepthSweepSpec, "quick", asked | settings).model_dump(mode="json")
    rows, trends = depth_rows(cells, "adam"), trend_rows(cells, "adam")
    return Result(
        schema_=RESULT_SCHEMA,
        command="depth-sweep",
        reproduce="stresstest depth-sweep",
        spec=spec,
        rules={},
        environment={"key": "torch/cpu", "device_name": "some CPU", "stresstest": "0.1.0"},
        data={"name": "synthetic", "bytes": 1, "hash": "abc", "baseline_loss": 3.18, "chance_loss": 5.55},
        cells=list(cells),
        summary=rows,
        trends=trends,
        findings=depth_sweep_findings(rows, trends, cells, spec),
    )


def terminal(result: Result, width: int = 120, encoding: str = "utf-8") -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    print_result(result, Console(file=file, width=width, highlight=False, color_system=None), "runs/one", verbose=True)
    file.seek(0)
    return file.read()


def text_of(result: Result, subject: str) -> str:
    return " ".join(finding.text for finding in result.findings if finding.subject == subject)


OUTCOMES = [
    *(
        cell("rezero", depth, seed, "stable", grad_ratio=None, stream_growth=1.0)
        for depth in (10, 100)
        for seed in (0, 1)
    ),
    *(cell("plain", 10, seed, "stable") for seed in (0, 1)),
    *(cell("plain", 100, seed, "failed-to-train", stream_growth=1e-14) for seed in (0, 1)),
]
HOLDS = [
    cell(variant, depth, seed, stable=lr / depth**slope)
    for variant, lr, slope in (("post-ln", 0.5, 1.5), ("pre-ln", 0.25, 0.0))
    for depth in (2, 4, 8, 16)
    for seed in (0, 1, 2)
]
INIT = [
    cell(v, d, s, **more)
    for v, more in (("post-ln", {"grad_ratio": 1e-4}), ("pre-ln", {}))
    for d in (4, 64)
    for s in (0, 1)
]
PROBED = [
    cell("post-ln", 4, seed, "failed-to-train", signals={20: signal_of(4, HEALTHY | {"grad_ratio": 5e-4})})
    for seed in (0, 1)
]
EVERY = {
    "outcomes": (OUTCOMES, {}),
    "holds": (HOLDS, {}),
    "init": (INIT, {"init_only": True}),
    "probed": (PROBED, {"probe_steps": "20", "warmup_steps": 10}),
}


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("width", [80, 120])
def test_no_line_is_wider_than_the_terminal_and_no_number_is_cut(kind: str, width: int) -> None:
    cells, settings = EVERY[kind]
    out = terminal(result_of(cells, **settings), width)
    assert [line for line in out.splitlines() if cell_len(line) > width] == []
    assert "\u2026" not in out


@pytest.mark.parametrize("kind", EVERY)
def test_every_format_renders_every_kind_of_sweep(kind: str) -> None:
    cells, settings = EVERY[kind]
    result = result_of(cells, **settings)
    for text in (
        terminal(result),
        terminal(result, 80, "ascii"),
        *(result_text(result, name) for name in EVERY_FORMAT),
    ):
        assert all(each.variant in text for each in cells)
        assert result.reproduce in text
    assert terminal(result, 80, "ascii").isascii()


@pytest.mark.parametrize("status", ["oom", "crashed", "timeout"])
def test_a_sweep_in_which_nothing_came_out_renders_too(status: Status) -> None:
    result = result_of([cell("pre-ln", 4, status=status)])
    assert f"{status}: pre-ln depth 4 seed 0 has no result" in " ".join(terminal(result).split())
    assert all(result_text(result, name) for name in EVERY_FORMAT)


def test_the_terminal_report_of_a_fixed_recipe_looks_like_this(snapshot: SnapshotAssertion) -> None:
    assert terminal(result_of(OUTCOMES), 100) == snapshot


def test_the_terminal_report_of_a_hold_looks_like_this(snapshot: SnapshotAssertion) -> None:
    assert terminal(result_of(HOLDS), 100) == snapshot


def test_the_markdown_report_looks_like_this(snapshot: SnapshotAssertion) -> None:
    assert result_text(result_of(PROBED, probe_steps="20"), "md") == snapshot


def test_a_row_says_how_many_seeds_train_or_how_most_of_the_others_fail() -> None:
    out = terminal(result_of([*OUTCOMES, cell("rezero", 1000, 0, "stable"), cell("rezero", 1000, 1, "nonfinite")]))
    assert len(re.findall(r"trains 2/2", out)) == 3
    assert "failed-to-train 2/2" in out
    assert "nonfinite 1/2" in out


@pytest.mark.parametrize(
    ("outcome", "signal", "evidence"),
    [
        ("failed-to-train", {"stream_growth": 5e8}, "the stream grows 5e08 times"),
        ("nonfinite", {"stream_growth": None}, "the stream overflows"),
        ("nonfinite", {}, "it becomes NaN or infinite"),
        ("exploded", {}, "it ends above its initial loss"),
        ("failed-to-train", {"stream_growth": 1e-9}, "the stream vanishes to 1e-09 of its size"),
        ("failed-to-train", {"similarity": 0.99999}, "all images look alike after the last block (cosine 1.0000)"),
        ("relapsed", {"grad_ratio": 1e-5}, "the gradient vanishes: the first block's is 1e-05 of the last block's"),
        ("failed-to-train", {"grad_ratio": 3e8}, "the gradient grows 3e08 times on its way back"),
        ("failed-to-train", {}, "it never beats the best constant predictor"),
        ("relapsed", {}, "it loses what it had learned"),
    ],
)
def test_a_failure_is_named_by_its_outcome_with_the_evidence(
    outcome: str, signal: dict[str, float | None], evidence: str
) -> None:
    found = why_failed(cell("plain", 10, 0, outcome, **signal), {"task": "images"})
    assert found[0] == outcome
    assert evidence in found[1]


def test_a_signal_taken_while_training_explains_what_initialisation_does_not() -> None:
    assert why_failed(PROBED[0], {"task": "language"})[0] == "failed-to-train"
    text = text_of(result_of(PROBED, probe_steps="20"), "post-ln")
    assert "the gradient vanishes: before step 20 the first block's is 0.0005 of the last block's" in text


def test_findings_of_a_recipe_name_depth_seeds_cause_and_recipe() -> None:
    result = result_of(OUTCOMES, train_steps=300)
    assert text_of(result, "rezero") == "rezero trains with adam at 0.001 at every depth up to 100 (2 of 2 seeds)."
    assert text_of(result, "plain") == (
        "plain trains with adam at 0.001 to depth 10; it fails at depth 100 (2 of 2 seeds; failed-to-train): "
        "the stream vanishes to 1e-14 of its size after the last block."
    )


def test_a_variant_that_trains_again_above_a_failure_is_said_to() -> None:
    cells = [cell("plain", depth, 0, outcome) for depth, outcome in ((2, "stable"), (4, "exploded"), (8, "stable"))]
    found = [finding for finding in result_of(cells).findings if finding.kind == "not-monotone"]
    assert len(found) == 1
    assert "trains again at depth 8" in found[0].text


def test_findings_of_a_hold_say_how_the_lr_goes_with_depth_and_how_sure_that_is() -> None:
    result = result_of(HOLDS)
    assert "post-ln: max_stable_lr falls as depth^-1.5 (-1.9..-1.1), from 0.18 at depth 2 to 0.0078" in text_of(
        result, "post-ln"
    )
    text = text_of(result, "pre-ln")
    assert "goes as depth^0 (" in text
    assert "indistinguishable from no change" in text


def test_a_depth_at_which_no_lr_trains_is_said_to_be_left_out() -> None:
    cells = [*HOLDS, *(cell("post-ln", 32, seed, stable=0.0) for seed in (0, 1, 2))]
    assert "post-ln did not train at any held LR at depth 32" in text_of(result_of(cells), "post-ln")


@pytest.mark.parametrize(
    ("signal", "words"),
    [
        ({"grad_ratio": 1e-4}, "the gradient grows towards the output, 10000 times from the first block to the last"),
        ({"grad_ratio": 12.0}, "the gradient grows towards the input, 12 times from the last block to the first"),
        ({"grad_ratio": 0.8}, "the gradient is flat (first over last block: 0.8)"),
        ({"similarity": 0.9999}, "all tokens look alike"),
        ({"stream_growth": 9.0}, "the stream grows 9 times"),
        ({"stream_growth": None}, "the stream overflows"),
        ({"branch_share": 0.0}, "is the identity at initialisation, at every depth"),
    ],
)
def test_findings_at_initialisation_put_the_signal_in_words(signal: dict[str, float | None], words: str) -> None:
    cells = [cell("pre-ln", depth, seed, **signal) for depth in (4, 64) for seed in (0, 1)]
    assert words in text_of(result_of(cells, init_only=True), "pre-ln")


class Tags(HTMLParser):
    """The tags of a page, which must close what they open."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.append(tag)
        if tag not in ("meta", "br", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("kind", EVERY)
def test_the_page_is_well_formed_and_needs_no_network(kind: str) -> None:
    cells, settings = EVERY[kind]
    page = result_text(result_of(cells, **settings), "html")
    tags = Tags(page).seen
    assert "svg" in tags
    assert not {"link", "img", "iframe"} & set(tags)
    assert "://" not in re.sub(r"<script.*?</script>", "", page, flags=re.S)
    shown = re.sub(r"<script.*?</script>", "", page, flags=re.S).lower()
    assert "nan" not in shown.replace("finance", "").replace("becomes nan", "")


def test_the_chart_of_learning_rates_has_a_dot_for_each_depth() -> None:
    page = result_text(result_of(HOLDS), "html")
    chart = page.split("<h2>max_stable_lr against depth, both logarithmic, medians (0.0078 to 0.25)</h2>")[1].split(
        'class="legend"'
    )[0]
    assert chart.count("<circle") == 8
    assert len(re.findall(r'<polyline [^>]*class="line ', chart)) == 2
    assert len(re.findall(r'<line [^>]*class="line ', chart)) == 8, "an interval of each"
    assert chart.count('class="seed ') == 6
    assert chart.count('class="guide ') == 2


def test_an_mlps_variants_that_no_paper_has_are_called_analogues() -> None:
    cells = [cell(variant, 4, outcome="stable") for variant in ("plain", "rezero:alpha=1", "pre-ln", "lns")]
    said = " ".join(result_text(result_of(cells, model="mlp"), "html").split())
    assert "analogues of a transformer&#39;s variants: pre-ln, lns;" in said
    decoder = [cell(variant, 4, stable=1e-3) for variant in ("pre-ln", "lns")]
    assert "analogues" not in result_text(result_of(decoder), "html")
