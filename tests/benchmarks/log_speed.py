"""Speed and memory of `stresstest diagnose`, beside other readers of logs: CPU seconds and peak resident memory.

    python tests/benchmarks/log_speed.py [--bin DIR] [--rows 1000000] [--rounds 3] [--only FAMILY] [--markdown]
    python tests/benchmarks/log_speed.py --small 1000

A log of so many rows (step, loss, lr, grad_norm) of each family is written into a temporary folder, and read in turn,
round by round, by `stresstest diagnose` and by what of `losslint check`, `trainspotter analyze` and `runmedic diagnose`
is in DIR. CPU seconds are those of user and system together, median and range; peak memory is that of the whole
process, of ours also what it takes beyond a log of 100 rows. What needs more than --limit seconds is stopped, and not
run again. `--small` reads so many CSV logs of 200 rows in one call instead.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from log_families import FAMILIES, csv_table
from log_peers import PEERS, ask
from tables import show

COMMANDS = {
    "losslint": ("losslint", "check"),
    "trainspotter": ("trainspotter", "analyze"),
    "runmedic": ("runmedic", "diagnose"),
}
OURS = "stresstest"
_TINY = 100


@dataclass(frozen=True)
class Cost:
    """CPU seconds and peak memory in MB of a process; exit_code as it gave it, None where it was stopped."""

    seconds: float
    peak_mb: float
    exit_code: int | None


def measured(command: Sequence[str], limit: int) -> Cost:
    """Run a command to its end, or to so many CPU seconds."""

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))

    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "PYTHONDONTWRITEBYTECODE": ""}
    with subprocess.Popen(  # wait4 alone gives the memory of this one process
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=limited, env=environment
    ) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    stopped = process.returncode < 0
    return Cost(used.ru_utime + used.ru_stime, used.ru_maxrss / 1000, None if stopped else process.returncode)


def commands(folder: Path | None) -> dict[str, list[str]]:
    """What is run before the name of a log."""
    found = {OURS: [sys.executable, "-m", "stresstest", "diagnose"]}
    for name, (program, *rest) in COMMANDS.items():
        path = shutil.which(program, path=str(folder)) if folder is not None else None
        if path is not None:
            found[name] = [path, *rest]
    return found


def unread_by(tools: dict[str, list[str]], log: Path, family: str) -> dict[str, str]:
    """The other tools that find no loss in a small log of this family, and what is said of them."""
    others = {peer.name: peer for peer in PEERS if peer.name in tools and peer.name != OURS}
    words = {None: "does not read it", "no loss": "reads it and finds no loss"}
    answers = {name: ask(peer, tools[name][0], log) for name, peer in others.items()}
    if family == "printed text" and "losslint" in answers:
        answers["losslint"] = "no loss"  # its first line is taken for the header, and no number below it for a loss
    return {name: words[answer] for name, answer in answers.items() if answer in words}


def turns(tools: dict[str, list[str]], log: Path, rounds: int, limit: int) -> dict[str, list[Cost]]:
    """Each tool on a log, round by round; one that refuses it or is stopped has one turn."""
    costs: dict[str, list[Cost]] = {name: [] for name in tools}
    for _ in range(rounds):
        for name, command in tools.items():
            if not costs[name] or costs[name][-1].exit_code in _codes(name):
                costs[name].append(measured([*command, str(log)], limit))
    return costs


def _codes(name: str) -> tuple[int, ...]:
    """Exit codes of a log that was read."""
    return (0, 3, 99) if name == OURS else (0, 1)


def row_of(name: str, costs: list[Cost], limit: int, tiny_mb: float) -> list[str]:
    """Tool, CPU seconds and memory, as they are printed."""
    if costs[-1].exit_code is None:
        return [name, f"> {limit}", ""]
    if costs[-1].exit_code not in _codes(name):
        return [name, "fails", ""]
    seconds = [cost.seconds for cost in costs]
    peak = max(cost.peak_mb for cost in costs)
    beyond = f" ({peak - tiny_mb:+.0f})" if tiny_mb else ""
    return [name, f"{statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})", f"{peak:.0f}{beyond}"]


def ratio_of(costs: dict[str, list[Cost]]) -> str:
    """Our median over that of the fastest peer that read the log."""
    medians = {
        name: statistics.median(cost.seconds for cost in each)
        for name, each in costs.items()
        if each[-1].exit_code in _codes(name)
    }
    peers = {name: seconds for name, seconds in medians.items() if name != OURS}
    if OURS not in medians or not peers:
        return ""
    fastest = min(peers, key=lambda name: peers[name])
    return f"{medians[OURS] / peers[fastest]:.2f} of {fastest}"


def of_family(family: str, tools: dict[str, list[str]], asked: argparse.Namespace) -> list[list[str]]:
    """The lines of a family."""
    name, write = FAMILIES[family]
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        small, large = Path(folder, "tiny", name), Path(folder, "log", name)
        for path, rows in ((small, _TINY), (large, asked.rows)):
            path.parent.mkdir(parents=True)
            write(path, rows)
        tiny_mb = measured([*tools[OURS], str(small)], asked.limit).peak_mb
        unread = unread_by(tools, small, family)
        reading = {tool: command for tool, command in tools.items() if tool not in unread}
        costs = turns(reading, large, asked.rounds, asked.limit)
        size = f"{large.stat().st_size / 1e6:.0f} MB"
    tiny = {OURS: tiny_mb}
    lines = [["", "", *row_of(tool, cost, asked.limit, tiny.get(tool, 0)), ""] for tool, cost in costs.items()]
    lines += [["", "", tool, why, "", ""] for tool, why in unread.items()]
    lines[0][:2], lines[0][-1] = [family, size], ratio_of(costs)
    return lines


def of_small_logs(count: int, asked: argparse.Namespace) -> list[list[str]]:
    """One log, and many in one call."""
    command = commands(None)[OURS]
    lines = []
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        for number in (1, count):
            logs = Path(folder, str(number))
            logs.mkdir()
            for i in range(number):
                csv_table(logs / f"{i:05}.csv", 200)
            costs = [measured([*command, str(logs)], asked.limit) for _ in range(asked.rounds)]
            lines.append([str(number), *row_of(OURS, costs, asked.limit, 0)[1:]])
            lines[-1].append(f"{1000 * statistics.median(cost.seconds for cost in costs) / number:.1f}")
    return lines


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--bin", type=Path, help="folder of the other tools' commands")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=int, default=120, help="CPU seconds of one run")
    parser.add_argument("--only", action="append", choices=list(FAMILIES), help="this family (default: all)")
    parser.add_argument("--folder", type=Path, help="where the logs are written for a while")
    parser.add_argument("--small", type=int, metavar="COUNT", help="so many small logs in one call instead")
    parser.add_argument("--markdown", action="store_true")
    asked = parser.parse_args()
    if asked.small:
        headings = ["logs", "CPU s", "peak MB", "CPU ms a log"]
        show(headings, of_small_logs(asked.small, asked), asked.markdown)
        return
    tools = commands(asked.bin)
    rows = [line for family in asked.only or FAMILIES for line in of_family(family, tools, asked)]
    headings = ["format", "size", "tool", "CPU s", "peak MB (beyond a tiny log)", "ours / fastest peer"]
    show(headings, rows, asked.markdown)


if __name__ == "__main__":
    main()
