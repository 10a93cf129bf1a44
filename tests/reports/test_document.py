"""One hand-made document with a block of every kind, in every format."""

from __future__ import annotations

import io
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from stresstest.gate.report import parse_verdict_output
from stresstest.reports import document as blocks
from stresstest.reports.document import (
    PAGE,
    TERMINAL,
    WRITTEN,
    Axis,
    Block,
    Chart,
    Code,
    Column,
    Details,
    Document,
    Fact,
    Heading,
    HeatCell,
    Heatmap,
    Item,
    Items,
    Mark,
    Paragraph,
    Series,
    Table,
    Tile,
    Tiles,
    Value,
)
from stresstest.reports.output import FORMATS, Format, parse_output, render
from stresstest.reports.terminal import print_document

EVIL = '<script>alert("1")</script> & | pipe'
RESULTS = Table(
    (Column("name"), Column("largest_lr"), Column("steps to\ntarget"), Column("only_where_wide", wide=True)),
    (
        (
            Value("pre-ln"),
            Value("0.25", "0.2..0.5"),
            Value("40", note="2 of 3 seeds"),
            Value("spare-1"),
        ),
        (
            Value("post-ln"),
            Value("none", tone="bad", tooltip="seed 0 explodes"),
            Value("-"),
            Value("spare-2"),
        ),
    ),
)
CHART = Chart(
    "Loss against the LR",
    Axis("LR", low=1e-4, high=1.0),
    Axis("loss", log=False, low=2.0, high=6.0),
    (
        Series("pre-ln", ((1e-4, 5.0), (0.1, 2.5), (1.0, 9.0)), (Mark("max_stable_lr", "s", 0.1, "good"),)),
        Series("post-ln", ((1e-4, 5.0), (0.01, 3.0), (1.0, 8.0))),
        Series("a single point", ((0.5, 3.0),)),
    ),
    reference=("constant predictor", 3.2),
)
MAP = Heatmap(
    "a map",
    across="peak LR",
    down="warm-up",
    columns=tuple(f"0.{i:03}" for i in range(12)),
    rows=(("10", tuple(HeatCell(f"2.{i:02}", "<", "bad", f"seed 0 relapsed {i}", i == 3) for i in range(12))),),
    last=("needs", tuple(f"n{i}" for i in range(12))),
)
TILES = Tiles("tiles", Axis("block"), "variant", (("a row", (Tile(1.0, 2.0, 0.5),)),), Axis("norm"))
EVERY: tuple[Block, ...] = (
    Heading("a heading", "and its note"),
    Paragraph("plain words"),
    Paragraph("dim words", "dim"),
    Paragraph("strong words", "strong"),
    Paragraph("a bullet", "bullet"),
    Code("code  keeps\n  its lines"),
    Items((Item("a line that failed", "bad", "what it rests on"), Item("one that passed", "good"))),
    RESULTS,
    CHART,
    MAP,
    TILES,
    Details("folded away", (Paragraph("to look up"),)),
    Paragraph("for the terminal alone", formats=TERMINAL),
    Paragraph("for what is written", formats=WRITTEN),
    Paragraph("for the page alone", formats=PAGE),
)
DOCUMENT = Document("a name", "A title", "a subtitle", EVERY, ("what was found",), (Fact("again", "stresstest x"),))


def terminal(
    document: Document, width: int = 120, encoding: str = "utf-8", color: bool = False, verbose: bool = False
) -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    system: Any = "truecolor" if color else None
    print_document(document, Console(file=file, width=width, color_system=system, force_terminal=color), verbose)
    file.seek(0)
    return file.read()


def of(*some: Block) -> Document:
    return Document("name", "title", blocks=some)


class Page(HTMLParser):
    """Tags, attributes and text of a page, which must close what it opens."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.classes: list[str] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        self.classes += (dict(attrs).get("class") or "").split()
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_document_here_has_a_block_of_every_kind() -> None:
    kinds = {each for each in vars(blocks).values() if isinstance(each, type) and issubclass(each, Block)}
    assert {type(block) for block in EVERY} == kinds - {Block}


@pytest.mark.parametrize("kind", ["terminal", *FORMATS])
def test_every_format_shows_every_block_and_only_those_that_are_for_it(kind: str) -> None:
    text = terminal(DOCUMENT) if kind == "terminal" else render(DOCUMENT, kind)
    flat = " ".join(text.split())
    for words in ("A title", "a subtitle", "a heading", "and its note", "plain words", "dim words", "strong words"):
        assert words in flat
    for words in ("a bullet", "code ", "a line that failed", "what it rests on", "what was found", "stresstest x"):
        assert words in flat
    for words in ("0.25", "0.2..0.5", "2 of 3 seeds", "spare-1", "a map", "2.11&lt;" if kind == "html" else "2.11<"):
        assert words in flat
    assert ("for the terminal alone" in flat) == (kind == "terminal")
    assert ("for what is written" in flat) == (kind != "terminal")
    assert ("for the page alone" in flat) == (kind == "html")
    assert ("to look up" in flat) == (kind == "html")
    assert ("Loss against the LR" in flat) == (kind != "md")


@pytest.mark.parametrize("kind", FORMATS)
def test_text_of_a_user_is_text_wherever_it_stands(kind: str) -> None:
    everywhere = Document(
        EVIL,
        EVIL,
        EVIL,
        (
            Heading(EVIL, EVIL),
            Paragraph(EVIL),
            Items((Item(EVIL, "bad", EVIL),)),
            Table((Column(EVIL), Column("b")), ((Value(EVIL), Value(EVIL, EVIL, EVIL, tooltip=EVIL)),)),
            Chart(EVIL, Axis(EVIL), Axis(EVIL), (Series(EVIL, ((1.0, 1.0), (2.0, 2.0)), (Mark(EVIL, "s", 1.5),)),)),
            Heatmap(EVIL, EVIL, EVIL, (EVIL,), ((EVIL, (HeatCell(EVIL, tooltip=EVIL),)),), (EVIL, (EVIL,))),
            Tiles(EVIL, Axis(EVIL), EVIL, ((EVIL, (Tile(1.0, 2.0, 0.5, EVIL),)),), Axis(EVIL), EVIL),
            Details(EVIL, (Code(EVIL),)),
        ),
        (EVIL,),
    )
    text = render(everywhere, kind)
    assert EVIL not in text
    assert "&lt;script" in text
    if kind == "html":
        assert Page(text).tags.count("script") == text.count("<script") == 5, "those of the page alone"
        assert "</script" in EVIL, "which would end the data's element"
    else:
        rows = [line for line in text.splitlines() if line.startswith("|")]
        assert [len(re.findall(r"(?<!\\)\|", row)) for row in rows] == [3] * len(rows), "a pipe ends no cell"


def test_the_page_is_well_formed_needs_no_network_and_is_light_and_dark() -> None:
    text = render(DOCUMENT, "html")
    page = Page(text)
    assert not {"link", "img", "iframe"} & set(page.tags)
    assert "src=" not in re.sub(r"<script.*?</script>", "", text, flags=re.S)
    text = re.sub(r"<script.*?</script>", "", text, flags=re.S)
    assert "://" not in text
    assert "url(" not in text
    assert "prefers-color-scheme: dark" in text
    light, dark = (set(re.findall(r"(--[\w-]+):", rule)) for rule in re.findall(r":root {(.*?)}", text))
    assert light == dark
    assert set(re.findall(r"var\((--[\w-]+)\)", text)) <= light
    assert {"good", "bad", "strong", "best"} <= set(page.classes)


def test_no_two_tables_of_a_page_have_the_same_name_for_a_screen_reader() -> None:
    one, two, three, four = (Table((Column("lr"),), ((Value(str(number)),),)) for number in range(4))
    folded = (Details("held: a", (three,)), Details("held: b", (four,)))
    page = render(Document("n", "A page", blocks=(one, two, *folded)), "html")
    labels = re.findall(r'role="group" tabindex="0" aria-label="([^"]*)"', page)
    assert labels == ["lr", "lr (2)", "held: a: lr", "held: b: lr"]


def test_a_page_begins_with_the_findings_and_a_terminal_ends_with_them() -> None:
    page, shown = render(DOCUMENT, "html"), terminal(DOCUMENT)
    assert page.index("what was found") < page.index("a heading")
    assert shown.index("- what was found") > shown.index("a map")
    assert shown.rstrip().endswith("again: stresstest x")


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_no_line_is_wider_than_the_terminal_and_no_word_is_broken(width: int) -> None:
    out = terminal(DOCUMENT, width)
    assert [line for line in out.splitlines() if cell_len(line) > width] == []
    assert "\u2026" not in out
    words = set(out.split())
    for row in RESULTS.rows:
        assert {cell.text for cell in row[:-1]} <= words
    assert "0.2..0.5" in out


def test_a_terminal_of_a_few_columns_gets_something() -> None:
    for width in (10, 20, 30):
        assert "max_stable_lr" in "".join(terminal(DOCUMENT, width).split())


def test_wide_columns_are_the_first_to_go() -> None:
    assert "spare-1" in terminal(of(RESULTS), 80)
    assert "spare-1" not in terminal(of(RESULTS), 45)
    assert "0.25 (0.2..0.5)" in terminal(of(RESULTS), 45), "intervals stay beside their values while they can"
    assert "0.25 (0.2..0.5)" not in terminal(of(RESULTS), 36)


def test_a_value_is_short_where_there_is_little_room() -> None:
    table = of(Table((Column("name"), Column("bars")), ((Value("a"), Value("▅" * 50, short="many")),)))
    assert "▅" * 50 in terminal(table, 80)
    assert "many" in terminal(table, 40)
    assert "▅" not in terminal(table, 40)


MANY_COLUMNS = Table(
    tuple(Column(f"column_{i:02}") for i in range(12)),
    tuple((Value(name), *(Value(f"{name}-{i:05}") for i in range(1, 12))) for name in ("one", "two")),
)


@pytest.mark.parametrize(("width", "verbose"), [(59, False), (60, True), (80, True)])
def test_a_table_that_is_asked_for_in_full_is_printed_in_pieces_with_the_names_of_its_rows(
    width: int, verbose: bool
) -> None:
    out = terminal(of(MANY_COLUMNS), width, verbose=verbose)
    assert {cell.text for row in MANY_COLUMNS.rows for cell in row} <= set(out.split())
    assert out.count("column_00") == len(re.findall(r"^one ", out, re.MULTILINE)) > 1


@pytest.mark.parametrize("width", range(60, 130))
def test_a_column_that_does_not_fit_is_left_out_whole_and_said_to_be(width: int) -> None:
    out = terminal(of(MANY_COLUMNS), width)
    shown = [column.header for column in MANY_COLUMNS.columns if column.header in out.split()]
    assert shown == [column.header for column in MANY_COLUMNS.columns[: len(shown)]]
    assert out.count("column_") == len(shown), "no part of a header stands alone"
    left = len(MANY_COLUMNS.columns) - len(shown)
    assert (f"{left} more column{'s' * (left > 1)}: widen the terminal or see the report" in out) == (left > 0)
    assert max(map(cell_len, out.splitlines())) <= width


def test_a_name_that_is_repeated_is_left_out_in_the_terminal_alone() -> None:
    rows = tuple((Value("pre-ln"), Value(str(depth))) for depth in (2, 4))
    grouped = of(Table((Column("variant"), Column("depth")), rows, grouped=True))
    assert terminal(grouped).count("pre-ln") == 1
    assert render(grouped, "md").count("pre-ln") == render(grouped, "html").count("pre-ln") == 2


def test_columns_that_share_the_width_line_up_over_tables() -> None:
    columns = (Column("claim", "left", share=2), Column("verdict", "left", at_least=9), Column("figure", share=1))
    tables = [Table(columns, ((Value(claim), Value("seen"), Value("1")),)) for claim in ("short", "a long claim " * 9)]
    for width in (60, 120):
        lines = terminal(of(*tables), width).splitlines()
        assert len({line.index("seen") for line in lines if "seen" in line}) == 1


def test_a_map_that_is_too_wide_is_printed_in_pieces_and_loses_nothing() -> None:
    out = terminal(of(MAP), 60)
    assert out.count("peak LR") == out.count("needs") == 2
    assert all(f"2.{i:02}<" in out and f"n{i}" in out for i in range(12))


def test_tones_are_colours_on_a_terminal_and_marks_in_a_pipe() -> None:
    plain, colored = terminal(DOCUMENT), terminal(DOCUMENT, color=True)
    assert "x a line that failed" in plain
    assert "+ one that passed" in plain
    assert "\x1b[" not in plain
    assert "\x1b[31m" in colored


def test_a_terminal_without_unicode_gets_ascii() -> None:
    bars = Table((Column("name"), Column("bars")), ((Value("a"), Value("▁▅█")),))
    out = terminal(of(bars, CHART), encoding="ascii")
    assert out.isascii()
    assert ".=#" in out or ".+#" in out
    assert "*" in out


def test_a_chart_without_a_line_is_not_there() -> None:
    empty = of(Chart("nothing to see", Axis("x"), Axis("y"), (Series("a", ((1.0, 2.0),)),)))
    assert all("nothing to see" not in text for text in (terminal(empty), *(render(empty, kind) for kind in FORMATS)))


def test_a_chart_has_one_static_picture_with_a_key() -> None:
    page = render(of(CHART), "html")
    assert page.count('role="img"') == 1
    assert 'class="legend"' in page
    assert ">constant predictor 3.2</text>" in page


def test_another_format_is_a_module_and_an_entry_in_the_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = ModuleType("shouting")
    module.render = lambda document: document.title.upper()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "shouting", module)
    monkeypatch.setitem(FORMATS, "shout", Format((".loud",), "shouting"))  # type: ignore[arg-type]
    for parse in (parse_output, parse_verdict_output):
        assert parse(str(tmp_path / "a.loud")) == ("shout", tmp_path / "a.loud")
    assert render(DOCUMENT, "shout") == "A TITLE"


def test_facts_are_added_above_those_of_the_document() -> None:
    assert [fact.name for fact in DOCUMENT.with_facts([Fact("run", "here")]).footer] == ["run", "again"]
