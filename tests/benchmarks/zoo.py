"""Models and scripts of other people, as they are: what lr-range says of each. Run by hand:

    python tests/benchmarks/zoo.py --sources FOLDER [--only WORD] [--kept FILE] [--markdown]

FOLDER has OWNER/NAME of each repository, at the commit that `zoo_entries.py` names; packages are those that are
installed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import shlex
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tables import show
from zoo_entries import COMMITS, ENTRIES, Entry

from stresstest.cli.main import run
from stresstest.experiments.lr_range import measure  # noqa: F401  # imported once, and so is torch

SMALL = "--seeds 1 --seq-len 32 --num-steps 100 --hold-steps 100 --no-theory --probes off --jobs 1 --quiet --json"
_LONGEST = 300  # seconds


@dataclass(frozen=True)
class Told:
    """What the tool said of an entry: the verdict, its exit code, other lines worth a look, and how long it took."""

    name: str
    source: str
    model: str
    lines: int
    verdict: str
    code: int
    said: str
    seconds: float


def ask(entry: Entry, sources: Path) -> Told:
    """Run lr-range on an entry, in a folder and a process of its own."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        beside = prepare(entry, sources, Path(folder))
        words = ["lr-range", *shlex.split(SMALL), *arguments(entry, sources)]
        code = in_a_process(Path(folder), beside, lambda: run(words))
        out, said = (Path(folder, name).read_text() for name in ("out.txt", "said.txt"))
    if code < 0:
        said = f"longer than {_LONGEST} s"
    shown = entry.arguments.replace("SOURCE", Path(entry.source.rpartition(":")[2]).name)
    return Told(
        entry.name,
        origin(entry),
        shown,
        lines_of(entry),
        verdict(code, out, said),
        code,
        said.strip(),
        time.monotonic() - started,
    )


def in_a_process(folder: Path, beside: Sequence[str], work: Callable[[], int]) -> int:
    """What `work` returns in a copy of this process, which has imported torch already; negative if it was ended.

    What it prints goes to out.txt and said.txt in its folder.
    """
    child = os.fork()
    if child == 0:
        signal.alarm(_LONGEST)
        os.chdir(folder)
        sys.path[:0] = [str(folder), *beside]
        for name, stream in (("out.txt", 1), ("said.txt", 2)):
            os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT), stream)
        code = 1
        try:
            code = work()
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def prepare(entry: Entry, sources: Path, folder: Path) -> list[str]:
    """Write what the user wrote, and has; the folders beside it on the path."""
    for name, text in (("mine.py", entry.wrote), ("data.py", entry.has)):
        if text:
            (folder / name).write_text(text + "\n")
    if importlib.util.find_spec("torchvision") is None:
        stand_in(folder / "torchvision")
    return [str(file_of(entry, sources).parent)] if "/" in entry.source else []


def stand_in(folder: Path) -> None:
    """A torchvision for scripts that import it: of its data sets MNIST alone, with made images."""
    folder.mkdir()
    (folder / "__init__.py").write_text("from torchvision import datasets, models, transforms, utils\n")
    for name in ("models", "transforms", "utils"):
        (folder / f"{name}.py").write_text("def __getattr__(name): return lambda *args, **kwargs: None\n")
    (folder / "datasets.py").write_text(
        "import torch\n\n\ndef MNIST(*args, **kwargs):\n"
        "    made = torch.Generator().manual_seed(0)\n"
        "    y = torch.arange(2048) % 10\n"
        "    x = torch.rand(10, 1, 28, 28, generator=made).round()[y] * torch.rand(2048, 1, 28, 28, generator=made)\n"
        "    return torch.utils.data.TensorDataset(x, y)\n\n\ndef __getattr__(name): return None\n"
    )


def arguments(entry: Entry, sources: Path) -> list[str]:
    """What follows `lr-range`."""
    words = shlex.split(entry.arguments.replace("SOURCE", str(file_of(entry, sources))))
    first = next(place for place, word in enumerate(words) if ":" in word)
    return [*words[:first], "--model", *words[first:]]


def file_of(entry: Entry, sources: Path) -> Path:
    """The file that an entry names: in a checkout, or in an installed package, which need not be importable whole."""
    where, _, path = entry.source.partition(":")
    if "/" in where:
        return sources / where / path
    if not path:
        return Path(where)
    return Path(importlib.metadata.distribution(where).locate_file(where.replace("-", "_"))) / path  # type: ignore[arg-type]


def origin(entry: Entry) -> str:
    """Package and version, or repository, commit and path."""
    where, _, path = entry.source.partition(":")
    if "/" in where:
        return f"{where}@{COMMITS[where][:7]}:{path}"
    return f"{where}=={importlib.metadata.version(where)}" + (f":{path}" if path else "")


def verdict(code: int, out: str, said: str) -> str:
    """max_stable_lr, or the last line that was said."""
    if code == 0:
        result = json.loads(out)
        [cell] = result["cells"]
        found = cell["metrics"]["max_stable_lr"]
        if found["low"] is None:
            return f"none; {result['findings'][0]['text']}" if result["findings"] else "none"
        return f"{found['low']:.2g}" + (f"..{found['high']:.2g}" if found["high"] is not None else " or more")
    return said.splitlines()[-1] if said else f"exit code {code}"


def lines_of(entry: Entry) -> int:
    """Lines of 120 characters that the user had to write."""
    return sum(-(-len(line) // 120) for line in entry.wrote.splitlines())


def rows(kept: Sequence[Told]) -> list[list[str]]:
    """The table, in the order of the entries."""
    by_name = {(told.source, told.name): told for told in kept}
    there = [(entry, by_name[origin(entry), entry.name]) for entry in ENTRIES if (origin(entry), entry.name) in by_name]
    return [
        [str(place), told.name, told.source, f"`{_with_model(told.model)}`", str(lines_of(entry)), _shown(told)]
        for place, (entry, told) in enumerate(there, 1)
    ]


def _with_model(words: str) -> str:
    """The arguments with --model before the model."""
    first = next(word for word in words.split() if ":" in word)
    return words.replace(first, f"--model {first}", 1)


def _shown(told: Told) -> str:
    """A verdict, or what was said without the place of the file."""
    if told.code == 0:
        return told.verdict.partition(". ")[0]
    line = told.verdict.removeprefix("stresstest: ").partition("; the traceback is in")[0]
    return f"refused: {line.partition(': ')[2] if ':' in line.partition(': ')[0] else line}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sources", type=Path, required=True, help="folder of the repositories")
    parser.add_argument("--only", default="", help="entries whose name or source contains this")
    parser.add_argument("--kept", type=Path, help="JSON lines: what is there is not run again")
    parser.add_argument("--markdown", action="store_true", help="print the table of what is kept, and run nothing")
    args = parser.parse_args()
    torch.set_num_threads(1)
    text = args.kept.read_text() if args.kept and args.kept.exists() else ""
    kept = [Told(**json.loads(line)) for line in text.splitlines()]
    if args.markdown:
        show(["", "model", "from", "`lr-range --model ...`", "lines", "max_stable_lr"], rows(kept), markdown=True)
        return
    there = {(told.name, told.source) for told in kept}
    for entry in ENTRIES:
        if args.only.lower() not in f"{entry.name} {entry.source}".lower() or (entry.name, origin(entry)) in there:
            continue
        told = ask(entry, args.sources)
        print(f"{told.source} {told.name}: {told.verdict} ({told.code}, {told.seconds:.0f} s)", flush=True)
        if args.kept:
            with args.kept.open("a") as file:
                file.write(json.dumps(asdict(told)) + "\n")


if __name__ == "__main__":
    main()
