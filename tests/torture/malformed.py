"""Files and options that are not what they should be: a line and an exit code, and never a traceback.

    python -m tests.torture.malformed [--count 100000] [--seed 0]

Each try takes a good file, or a good line of options, and spoils it: bytes change, go, or come twice; in JSON and YAML
a value becomes another one, of another kind, or goes. Then a command reads it. It ends with exit code 0, 2, 3 or 99,
without a traceback, and what it says is short; no try trains. One dry run in twenty times some steps, as all do.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import click
import yaml

from stresstest.cli.main import run
from stresstest.experiments import following
from tests.torture.good_files import SIZES, Kind, good_files
from tests.torture.stored import Tally, arguments

_ENDS = (0, 2, 3, 99)
_SLOWEST = 30.0  # seconds
_HANGS = 60  # seconds
_TIMED = 0.05  # of the dry runs: steps take most of the time of those that have nothing to say
_LONGEST = 5000  # characters of what is said of one file that is wrong: two names of 2,000, and why
ODD: Sequence[Any] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    10**30,
    999_999_999_989,
    1e308,
    -0.0,
    float("inf"),
    float("nan"),
    "",
    " ",
    "x",
    "é\u202e",
    "0" * 500,
    [],
    {},
    [[]],
    {"a": None},
    [1, "a"],
    "2026-01-01",
    "1e-3",
    "null",
    "../../etc",
    "a\nb",
)
TEXTS: Sequence[str] = (
    "",
    " ",
    "0",
    "-1",
    "1",
    "nan",
    "inf",
    "-inf",
    "1e400",
    "1e-400",
    "0x10",
    "1_0",
    "٣",
    "x",
    "a,b",
    ",",
    "=",
    "a=b",
    ":",
    "pre-ln:",
    "pre-ln:x=1",
    "adam:beta2=2",
    "../..",
    "/dev/null",
    "x" * 2000,
    "é",
    "\u202e",
    "a\nb",
    "%s",
    "{}",
    "$HOME",
    "--",
    "1/0",
    "0/0",
    "9999999999999999999999",
    "999999999989",
    "true",
    "None",
    "[]",
    "file.py:f",
)


def malformed(count: int, seed: int) -> Tally:
    """So many tries, a third of them with options."""
    draw, tally = random.Random(seed), Tally("malformed files and options: tracebacks, long or slow answers")
    ends: Counter[int] = Counter()
    timed, often = following._may_be_timed, random.Random(seed)
    with (
        tempfile.TemporaryDirectory() as temporary,
        contextlib.chdir(temporary),
        mock.patch.object(following, "_may_be_timed", lambda plan: often.random() < _TIMED and timed(plan)),
    ):
        folder = Path(temporary)
        kinds, lines = good_files(folder), _lines()
        for _ in range(count):
            tally.tries += 1
            spoiled = None
            if draw.random() < 0.33:
                words = _spoiled_line(draw.choice(lines), draw)
                what = " ".join(words)[:300]
            else:
                kind = draw.choice(kinds)
                spoiled, bad = folder / kind.name, _spoiled(kind, draw)
                spoiled.write_bytes(bad)
                words, what = kind.read(folder, spoiled), f"{kind.name} {bad[:200]!r}"
            started = time.perf_counter()
            code, said = _answer(words)
            seconds = time.perf_counter() - started
            ends[code] += 1
            if code not in _ENDS or "Traceback" in said:
                tally.wrong.append(f"{what}: exit code {code}: {said.splitlines()[-2:]}")
            elif code == 2 and len(said) > _LONGEST + 200 * what.count("\n"):
                tally.wrong.append(f"{what}: says {len(said)} characters")
            elif seconds > _SLOWEST:
                tally.wrong.append(f"{what}: takes {seconds:.0f} s")
            if spoiled is not None:
                spoiled.write_bytes(kind.content)
    for code, number in sorted(ends.items()):
        tally.note(f"ended with {code}", number)
    return tally


def _answer(words: Sequence[str]) -> tuple[int, str]:
    """The exit code of a command line in this process, and what it says on stderr; one that hangs is ended."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        signal.signal(signal.SIGALRM, _hangs)
        signal.alarm(_HANGS)
        try:
            code = run(list(words))
        except BaseException as error:
            return -1, f"Traceback: {type(error).__name__}: {error}"
        finally:
            signal.alarm(0)
    return int(code), err.getvalue()


def _hangs(number: int, frame: object) -> None:
    raise TimeoutError(f"no answer after {_HANGS} s")


def _spoiled(kind: Kind, draw: random.Random) -> bytes:
    """The content, spoiled by its structure or by its bytes."""
    if kind.structured and draw.random() < 0.6:
        with contextlib.suppress(ValueError, RecursionError, yaml.YAMLError):
            return _spoiled_structure(kind, draw)
    content = bytearray(kind.content)
    for _ in range(draw.choice((1, 1, 1, 2, 8))):
        at = draw.randrange(len(content) + 1)
        length = draw.choice((1, 1, 4, 64, len(content)))
        how = draw.randrange(5)
        if how == 0 and at < len(content):
            content[at] ^= draw.randrange(1, 256)
        elif how == 1:
            del content[at : at + length]
        elif how == 2:
            content[at:at] = content[at : at + length]
        elif how == 3:
            content[at:at] = draw.randbytes(min(length, 64))
        else:
            content[at:at] = draw.choice(
                (b"\0", b"\xff\xfe", b"[" * 3000, b"{", b"\r", b"1e999", b"NaN", b"-", b"\n\n", b": ")
            )
    return bytes(content)


def _spoiled_structure(kind: Kind, draw: random.Random) -> bytes:
    if kind.structured == "yaml":
        tree = yaml.safe_load(kind.content)
        return yaml.safe_dump(changed(tree, draw), sort_keys=False).encode()
    if kind.structured == "json":
        return json.dumps(changed(json.loads(kind.content), draw), indent=1).encode()
    lines = kind.content.splitlines()
    at = draw.randrange(len(lines))
    lines[at] = json.dumps(changed(json.loads(lines[at]), draw)).encode()
    return b"\n".join(lines) + b"\n"


def changed(tree: Any, draw: random.Random) -> Any:
    """The same with one value changed, gone, named otherwise, or there twice."""
    tree = copy.deepcopy(tree)
    places = list(_places(tree))
    if not places:
        return draw.choice(ODD)
    parent, key = draw.choice(places)
    how = draw.randrange(6)
    if how <= 2:
        parent[key] = draw.choice(ODD)
    elif how == 3:
        del parent[key]
    elif how == 4 and isinstance(parent, dict):
        parent[f"{key}{draw.choice('x s_')}"] = parent.pop(key)
    elif isinstance(parent, list):
        parent.append(copy.deepcopy(parent[key]))
    else:
        parent[key] = [copy.deepcopy(parent[key])]
    return tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in list(items):
        yield tree, key
        yield from _places(value)


_TRAIN = ("depth-sweep", "warmup", "race", "batch-sweep", "scale", "shock")
_DRY = ("--dry-run", "-q")
# What stands before and after the options of a line that is to train nothing.
_WORDS: Mapping[str, tuple[Sequence[str], Sequence[str]]] = {
    **{name: ((name,), _DRY) for name in _TRAIN},
    "lr-range": (("lr-range", *SIZES), _DRY),
    "run": (("run", "smoke"), _DRY),
    "papers": (("papers", "rezero-jacobian"), _DRY),
    "check": (("check", "smoke"), ("-q", "--baseline", "no-such.json")),
    "report": (("report", "run"), ()),
    "compare": (("compare", "run", "other"), ()),
    "diagnose": (("diagnose", "log.csv"), ()),
    "merge": (("merge", "run"), ()),
    "validate": (("validate", "scenario.yaml"), ()),
    "init": (("init", "begun"), ()),
}


def _lines() -> list[tuple[str, Sequence[str]]]:
    """Of each command, its name and its options that take a value."""
    from stresstest.cli.commands import cli

    context = click.Context(cli)
    found = []
    for name in _WORDS:
        command = cli.get_command(context, name)
        assert command is not None
        options = [one for one in command.params if isinstance(one, click.Option) and not one.is_flag]
        found.append((name, [max(one.opts, key=len) for one in options if "--run-dir" not in one.opts]))
    return [(name, options) for name, options in found if options]


def _spoiled_line(line: tuple[str, Sequence[str]], draw: random.Random) -> list[str]:
    """One or two options with a value that they were not made for; nothing is trained."""
    name, options = line
    before, after = _WORDS[name]
    drawn = draw.sample(list(options), min(len(options), draw.choice((1, 1, 2))))
    return [*before, *(word for option in drawn for word in (option, draw.choice(TEXTS))), *after]


if __name__ == "__main__":
    given = arguments(__doc__, 100_000)
    os.environ["PYTHONWARNINGS"] = "ignore"
    sys.exit(malformed(given.count, given.seed).end())
