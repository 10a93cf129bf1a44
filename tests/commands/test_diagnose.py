"""`stresstest diagnose` from its command line: what is printed, written, and the exit code."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jsonschema
import junitparser
import pandas as pd
import pytest

from stresstest.cli.main import run
from stresstest.diagnosis.charts import page_charts
from stresstest.diagnosis.records import DrawnCurve, SegmentDiagnosis, Spike, diagnosis_schema

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def decay(rows: int = 200) -> list[float]:
    """A loss that falls from 3 towards 1, with some noise."""
    return [1.0 + 2.0 * math.exp(-5.0 * i / rows) + 0.01 * ((i * 7919) % 13 - 6) / 6 for i in range(rows)]


def write(path: str, losses: Iterable[float]) -> str:
    lines = [f"{step},{loss}" for step, loss in enumerate(losses)]
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("\n".join(["step,loss", *lines]) + "\n")
    return path


def broken() -> list[float]:
    return [*decay()[:120], *[math.nan] * 20]


def said(capsys: Capture, *args: str) -> tuple[int, str, str]:
    code = run(["diagnose", *args])
    out, err = capsys.readouterr()
    return code, out, err


def document(capsys: Capture, *args: str) -> dict[str, Any]:
    _, out, _ = said(capsys, "--json", *args)
    found: dict[str, Any] = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is not strict JSON"))
    return found


def test_a_stable_log_is_exit_0_and_says_what_was_read(capsys: Capture) -> None:
    code, out, err = said(capsys, write("good.csv", decay()))
    assert (code, err) == (0, "")
    assert "CSV; steps 0 to 199; 200 rows of 'loss' by 'step'" in out
    assert out.splitlines()[-1] == "exit 0: the run is stable"


def test_a_broken_log_is_exit_99_and_names_the_steps(capsys: Capture) -> None:
    code, out, _ = said(capsys, write("bad.csv", broken()))
    assert code == 99
    assert "NONFINITE at step 120" in out
    assert out.splitlines()[-1] == "exit 99: the run is broken (nonfinite)"


def test_a_report_fits_on_a_screen_of_every_width(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    write("bad.csv", broken())
    for width, most in ((60, 28), (80, 25), (120, 25)):
        monkeypatch.setenv("COLUMNS", str(width))
        _, out, _ = said(capsys, "bad.csv")
        assert len(out.splitlines()) <= most
        assert "\x1b" not in out
        assert max(map(len, out.splitlines())) <= width


def test_many_logs_are_a_table_with_the_broken_ones_first(capsys: Capture) -> None:
    names = [write(f"runs/{i}.csv", decay()) for i in range(3)] + [write("runs/z.csv", broken())]
    code, out, _ = said(capsys, *names)
    lines = [line for line in out.splitlines() if ".csv " in line]
    assert code == 99
    assert "4 runs in runs/" in out
    assert lines[0].split()[:2] == ["z.csv", "nonfinite"]
    assert "4 runs: 1 nonfinite, 3 stable" in out
    assert out.splitlines()[-1] == "exit 99: 1 run broke (runs/z.csv)"


def test_stable_runs_beyond_thirty_are_counted_and_with_v_listed(capsys: Capture) -> None:
    for i in range(40):
        write(f"runs/{i:02}.csv", decay(40))
    write("runs/bad.csv", broken())
    _, out, _ = said(capsys, "runs")
    assert "and 11 more, stable (-v lists them)" in out
    _, out, _ = said(capsys, "runs", "-v")
    assert all(f"runs/{i:02}.csv" in out for i in range(40))


def test_one_bad_file_hides_no_other_and_is_exit_2(capsys: Capture) -> None:
    write("good.csv", decay())
    Path("note.txt").write_text("nothing here\n")
    code, out, err = said(capsys, "note.txt", "good.csv", "absent.csv")
    assert code == 2
    assert "STABLE" in out
    assert {line.split(": ")[1] for line in err.splitlines()} == {"note.txt", "absent.csv"}
    assert out.splitlines()[-1] == "exit 2: 2 logs could not be read"


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("empty.csv", b"", "empty"),
        ("binary.dat", bytes(range(256)) * 40, "binary"),
        ("text.txt", b"hello\x1b[31m world\n", "no loss"),
        ("accuracy.csv", b"step,accuracy\n1,0.5\n2,0.6\n", "accuracy"),
        ("bomb.json", b'{"log_history": ' + b"[" * 200_000, ""),
        ("header.csv", b"step,loss\n", "no row below"),
        ("loss", b"1700000000000 2.5 0\n" + b"9" * 40 + b" 2.5 1\n", "damaged"),
    ],
)
def test_what_is_no_log_is_one_line_and_exit_2(capsys: Capture, name: str, content: bytes, told: str) -> None:
    Path(name).write_bytes(content)
    code, out, err = said(capsys, name)
    assert code == 2
    assert "stable" not in out.lower()
    assert len(err.splitlines()) == 1
    assert err.startswith(f"stresstest: {name}: ")
    assert told in err
    assert "\x1b" not in err
    assert len(err) < 1200


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16-le", "utf-16-be"])
def test_marks_of_an_encoding_are_no_part_of_a_log(capsys: Capture, encoding: str) -> None:
    text = "step,loss\n" + "".join(f"{i},{x}\n" for i, x in enumerate(decay()))
    Path("out.csv").write_bytes(("" if encoding == "utf-8-sig" else "\ufeff").encode(encoding) + text.encode(encoding))
    code, out, _ = said(capsys, "out.csv")
    assert code == 0
    assert "200 rows of 'loss' by 'step'" in out


def test_no_loss_names_the_columns_and_the_option(capsys: Capture) -> None:
    Path("odd.csv").write_text("step,score\n1,2.0\n2,1.5\n")
    code, _, err = said(capsys, "odd.csv")
    assert code == 2
    assert "score" in err
    assert "--metric" in err


def test_metric_names_the_loss_and_a_wrong_one_the_nearest(capsys: Capture) -> None:
    Path("odd.csv").write_text("step,objective\n" + "".join(f"{i},{x}\n" for i, x in enumerate(decay())))
    assert said(capsys, "odd.csv", "--metric", "objective")[0] == 0
    code, _, err = said(capsys, "odd.csv", "--metric", "objectiv")
    assert code == 2
    assert "did you mean 'objective'?" in err


def test_files_of_a_folder_that_hold_no_loss_are_passed_over_and_counted(capsys: Capture) -> None:
    write("runs/good.csv", decay())
    Path("runs/requirements.txt").write_text("numpy\n")
    code, out, err = said(capsys, "runs")
    assert (code, err) == (0, "")
    assert "1 file that holds no loss was passed over" in out
    assert "runs/requirements.txt" in said(capsys, "runs", "-v")[1]


def test_a_folder_in_which_no_file_holds_a_loss_is_exit_2(capsys: Capture) -> None:
    Path("runs").mkdir()
    Path("runs/requirements.txt").write_text("numpy\n")
    code, out, err = said(capsys, "runs")
    assert (code, out) == (2, "")
    assert "runs/requirements.txt" in err


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--baseline", "1", "--vocab", "10"], "give one"),
        (["--baseline", "nan"], "not a loss"),
        (["--vocab", "1"], "2 or more"),
        (["--segment", "7"], "--segment"),
        (["-o", "docx:x.docx"], "unknown format"),
        (["--follow", "--json"], "leave out --json"),
    ],
)
def test_a_wrong_option_is_one_line(capsys: Capture, args: list[str], told: str) -> None:
    code, _, err = said(capsys, write("good.csv", decay()), *args)
    assert code == 2
    assert len(err.splitlines()) == 1
    assert told in err


def test_what_is_not_to_be_judged_is_exit_3(capsys: Capture) -> None:
    rows = [f"{i},{1.0 + 0.1 * (i % 3)},{0.7 + 0.1 * (i % 2)}" for i in range(100)]
    Path("gan.csv").write_text("\n".join(["step,g_loss,d_loss", *rows]) + "\n")
    code, out, _ = said(capsys, "gan.csv")
    assert code == 3
    assert "cannot be judged" in out
    assert out.splitlines()[-1] == "exit 3: the run cannot be judged"
    assert document(capsys, "gan.csv")["runs"][0]["verdict"] == "undecided"


def test_vocab_is_a_baseline_in_the_unit_of_the_log(capsys: Capture) -> None:
    """A loss that hangs at 5.3: worse than a guess among 100 in nats, better than one among 100 in bits."""
    rows = [f"{i},{5.3 + 0.01 * ((i * 7919) % 13 - 6)}" for i in range(400)]
    Path("nats.csv").write_text("\n".join(["step,loss", *rows]) + "\n")
    assert said(capsys, "nats.csv", "--vocab", "100")[0] == 99
    Path("bits.csv").write_text("\n".join(["step,train_bpc", *rows]) + "\n")
    assert document(capsys, "bits.csv")["runs"][0]["loss_unit"] == "bits"
    assert said(capsys, "bits.csv", "--vocab", "100")[0] != 99


def restarted() -> str:
    """Three runs in one file, the second of which breaks."""
    losses = [decay(), [*decay()[:100], *[math.nan] * 10], decay()]
    return "step,loss\n" + "".join(f"{i},{x}\n" for one in losses for i, x in enumerate(one))


def test_each_stretch_is_judged_and_one_can_be_asked_for(capsys: Capture) -> None:
    Path("three.csv").write_text(restarted())
    code, out, _ = said(capsys, "three.csv")
    assert code == 99
    assert "segment 1 of 3: NONFINITE at step 100" in out
    assert said(capsys, "three.csv", "--segment", "0")[0] == 0
    code, _, err = said(capsys, "three.csv", "--segment", "3")
    assert code == 2
    assert "segments 0 to 2" in err


def test_json_is_strict_and_fits_its_schema(capsys: Capture) -> None:
    write("bad.csv", broken())
    Path("note.txt").write_text("nothing\n")
    found = document(capsys, "bad.csv", "note.txt")
    jsonschema.validate(found, diagnosis_schema())
    assert (found["schema"], found["exit_code"]) == ("stresstest.diagnosis/1", 2)
    (one,) = found["runs"]
    assert one["verdict"] == "broken"
    assert one["segments"][0]["last_loss"] is None
    assert one["segments"][0]["broke_between"] == [119.0, 120.0]
    assert found["unread"][0]["path"] == "note.txt"


def test_the_schema_is_printed(capsys: Capture) -> None:
    assert run(["schema", "diagnosis"]) == 0
    schema = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["properties"]["schema"]["const"] == "stresstest.diagnosis/1"


def test_every_format_is_written(capsys: Capture) -> None:
    write("bad.csv", broken())
    write("good.csv", decay())
    outputs = ["-o", "page.html", "-o", "note.md", "-o", "all.json", "-o", "junit:cases.xml"]
    assert said(capsys, "bad.csv", "good.csv", "absent.csv", *outputs)[0] == 2
    page = Path("page.html").read_text()
    assert "<polyline" in page
    assert "NONFINITE at step 120" in page
    assert "absent.csv" in page
    assert "| bad.csv | nonfinite |" in Path("note.md").read_text()
    assert json.loads(Path("all.json").read_text())["exit_code"] == 2
    (suite,) = junitparser.JUnitXml.fromfile("cases.xml")
    assert (suite.tests, suite.failures, suite.errors, suite.skipped) == (3, 1, 1, 0)
    assert {case.name for case in suite} == {"bad.csv", "good.csv", "absent.csv"}


def test_the_page_of_one_run_begins_with_its_verdict_and_what_to_try(capsys: Capture) -> None:
    said(capsys, write("bad.csv", broken()), "-o", "one.html", "-o", "one.md")
    page = Path("one.html").read_text()
    assert "<h1>bad.csv: nonfinite</h1>" in page
    assert '<li class="bad">NONFINITE at step 120' in page
    assert page.index("NONFINITE at step 120") < page.index("stresstest lr-range --model FILE.py:FACTORY</code>")
    note = Path("one.md").read_text()
    assert note.startswith("### bad.csv: nonfinite")
    assert "next: measure how high the LR may be: `stresstest lr-range --model FILE.py:FACTORY`" in note


def test_the_answer_and_the_next_command_stand_below_the_chart(capsys: Capture) -> None:
    _, out, _ = said(capsys, write("bad.csv", broken()))
    *_, verdict, advice, _, why, command, _, last = out.splitlines()
    assert verdict.startswith("x NONFINITE at step 120: the loss becomes NaN or infinite")
    assert advice.startswith("- Resume from the last checkpoint before step 120")
    assert (why, command) == (
        "next: measure how high the LR may be",
        "  stresstest lr-range --model FILE.py:FACTORY",
    )
    assert last == "exit 99: the run is broken (nonfinite)"


def test_the_page_shows_where_a_log_spikes_breaks_and_resumes() -> None:
    spike = Spike(
        first_step=20, last_step=21, rows=2, steps=2, level_before=1.0, peak_loss=5.0, recovered=True, before=()
    )
    curve = DrawnCurve(role="loss", steps=(0, 20, 40, 60), values=(2.0, 5.0, 1.0, math.nan))
    segment = SegmentDiagnosis(
        index=0, start="resume", first_step=0, last_step=60, rows=4, steps_per_row=20, outcome="nonfinite",
        broke_between=(40, 60), spikes=(spike,), curves=(curve,),
    )  # fmt: skip
    (chart,) = page_charts([segment])
    found = {each.name: each for each in chart.series}
    assert found["spikes"].points == ((20, 5.0),)
    assert found["spikes"].notes == ("spike from 1 to 5",)
    assert found["breaks at step 60"].points == ((60, 1.0), (60, 5.0)), "an upright line over the losses"
    assert found["resumes"].points == ((0, 1.0),)
    assert chart.x.high == 60, "rows without a finite loss are on the axis"


def test_what_a_log_says_is_text_on_a_page_and_in_a_terminal(capsys: Capture) -> None:
    Path("x.csv").write_text("step,<script>loss\x1b[2J\n" + "".join(f"{i},{x}\n" for i, x in enumerate(decay())))
    run(["diagnose", "x.csv", "--metric", "<script>loss\x1b[2J", "-o", "x.html"])
    out, _ = capsys.readouterr()
    assert "\x1b" not in out
    assert "<script>loss" not in Path("x.html").read_text()


def test_quiet_prints_the_verdict_alone(capsys: Capture) -> None:
    _, out, _ = said(capsys, "-q", write("bad.csv", broken()))
    assert len(out.splitlines()) == 2
    assert "bad.csv: NONFINITE at step 120" in out


def test_a_pipe_is_read_and_no_torch_is_imported() -> None:
    text = "".join(f'{{"step": {i}, "loss": {x}}}\n' for i, x in enumerate(decay()))
    line = (
        "import sys; from stresstest.cli.main import run; code = run(['diagnose', '-']); "
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", line], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1] == "stdin"


def test_a_project_s_other_files_are_no_logs(capsys: Capture) -> None:
    write("p/good.csv", decay())
    Path("p/package.json").write_text('{"name": "x", "dependencies": {"a": "1"}}')
    Path("p/config.json").write_text('{"hidden_size": 768}')
    Path("p/people.csv").write_text("name,age\nbob,3\nal,4\n")
    code, out, err = said(capsys, "p")
    assert (code, err) == (0, "")
    assert "3 files that hold no loss were passed over" in out


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_table_is_a_line_a_run_at_every_width(capsys: Capture, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    deep = "a/folder/whose/name/goes/on/and/on/for/long"
    for i in range(5):
        write(f"r/{deep}/{i}/metrics.csv", decay())
    write("r/top.csv", broken())
    _, out, _ = said(capsys, "r")
    rows = [line for line in out.splitlines() if ".csv " in line]
    assert len(rows) == 6
    assert max(map(len, out.splitlines())) <= width


def test_a_line_without_an_end_is_answered_in_one_line(capsys: Capture) -> None:
    Path("long.txt").write_text("loss 1.0 " * 2_000_000)
    code, _, err = said(capsys, "long.txt")
    assert (code, len(err.splitlines())) == (2, 1)


def test_links_that_lead_up_do_not_hold_a_pattern(capsys: Capture) -> None:
    write("runs/good.csv", decay())
    for name in ("up", "again"):
        Path("runs", name).symlink_to("..")
    code, _, err = said(capsys, "**")
    assert code == 2
    assert "more than 20000 files fit this pattern" in err


def test_runs_segments_spikes_and_findings_are_tables(capsys: Capture) -> None:
    spiked = [*decay()[:100], *[9.0] * 8, *decay()[108:]]
    write("good.csv", spiked)
    write("bad.csv", broken())
    said(capsys, "*.csv", "-o", "csv:tables", "-o", "parquet:tables")
    told = document(capsys, "*.csv")["runs"]
    found = {name: pd.read_csv(f"tables/{name}.csv") for name in ("runs", "segments", "spikes", "findings")}
    assert list(found["runs"].outcome) == [run["outcome"] for run in told] == ["nonfinite", "spiked"]
    assert list(found["segments"].first_bad_step.dropna()) == [120]
    assert list(found["spikes"].peak_loss) == [9.0]
    assert len(found["findings"]) == sum(len(s["findings"]) for run in told for s in (run, *run["segments"])) > 0
    assert list(pd.read_parquet("tables/runs.parquet").verdict) == ["broken", "stable"]


def test_an_empty_name_is_not_this_folder(capsys: Capture) -> None:
    write("good.csv", decay())
    assert said(capsys, "")[:2] == (2, "")


@pytest.mark.parametrize(
    ("ending", "code", "told"),
    [
        ("good.csv > /dev/full", 2, "the output cannot be written"),
        ("good.csv --json > /dev/full", 2, "the output cannot be written"),
        ("bad.csv >&-", 99, ""),
        ("- <&-", 2, "stdin: closed"),
    ],
)
def test_streams_that_are_full_or_closed_are_a_line(ending: str, code: int, told: str) -> None:
    write("good.csv", decay())
    write("bad.csv", broken())
    done = subprocess.run(
        f"{sys.executable} -m stresstest diagnose {ending}", shell=True, capture_output=True, text=True
    )
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == bool(told)
