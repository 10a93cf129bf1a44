"""PostgreSQL that is restarted in mid-search: two drivers share a search, and none of it is lost or done twice over.

    python -m tests.torture.restarts [--count 50] [--seed 0]

At moments that are drawn the server is stopped, kindly or as by a crash, stays away for up to two seconds and comes
back. A driver ends with its result, or with a line that says how to go on; its command then goes on, until both have
ended well. Every trial is then finished once, no two have the same settings, and both drivers report the same.
"""

from __future__ import annotations

import json
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.experiments.postgres import Postgres, postgres
from tests.experiments.test_shared_search import complete, driver, points, study_of
from tests.torture.stored import Tally, arguments

_TRIALS = 10
_LOST_SECONDS = 3.0  # after which a driver takes the other for lost
_TIMES = 3  # restarts of one search, at most
_TIMEOUT = 200.0  # seconds of a driver


def restarts(server: Postgres, count: int, seed: int) -> Tally:
    """So many searches."""
    draw, tally = random.Random(seed), Tally("searches whose server is restarted: trials lost, doubled or left open")
    for number in range(count):
        tally.tries += 1
        with tempfile.TemporaryDirectory() as folder:
            for fault in _one_search(server, f"study {number}", Path(folder), draw, tally):
                tally.wrong.append(f"try {tally.tries}: {fault}")
    return tally


def _one_search(server: Postgres, study: str, folder: Path, draw: random.Random, tally: Tally) -> list[str]:
    runs = [folder / name for name in ("a", "b")]
    going = {run: driver(server.url, study, run, _LOST_SECONDS) for run in runs}
    for _ in range(draw.randint(1, _TIMES)):
        time.sleep(draw.uniform(1.0, 8.0))
        if any(process.poll() is None for process in going.values()):
            server.stop(draw.choice([signal.SIGINT, signal.SIGQUIT]))
            time.sleep(draw.uniform(0.0, 2.0))
            server.start()
            tally.note("restarts")
    results, wrong = dict[Path, str](), list[str]()
    while going:
        ended = {run: process.communicate(timeout=_TIMEOUT) for run, process in going.items()}
        codes = {run: process.returncode for run, process in going.items()}
        going = {}
        for run, (out, err) in ended.items():
            if codes[run] == 0:
                results[run] = out
            elif codes[run] not in (1, 2) or err.count("\n") != 1 or "Traceback" in err:
                wrong.append(f"a driver ended with {codes[run]}: {err[-1000:]}")
            else:
                tally.note("drivers that ended with a line")
                going[run] = driver(server.url, study, run, _LOST_SECONDS)
    return wrong or _faults(server, study, [json.loads(results[run]) for run in runs])


def _faults(server: Postgres, study: str, results: list[dict[str, list[dict[str, object]]]]) -> list[str]:
    trials = study_of(server.url, study).trials
    done = complete(trials)
    settings = {json.dumps(trial.params, sort_keys=True) for trial in done}
    wrong = [] if len(done) == len(settings) == _TRIALS else [f"{len(done)} trials of {len(settings)} settings"]
    wrong += [f"trial {trial.number} is {trial.state.name}" for trial in trials if not trial.state.is_finished()]
    wrong += [] if points(results[0]) == points(results[1]) else ["the drivers report other trials"]
    return wrong + [f"{len(each['cells'])} cells" for each in results if len(each["cells"]) != 2 * _TRIALS]


def main(count: int, seed: int) -> int:
    """A line of result; 2 where there is no PostgreSQL."""
    with postgres() as server:
        if server is None:
            print("PostgreSQL is not installed here; on Debian: apt install postgresql", file=sys.stderr)
            return 2
        return restarts(server, count, seed).end()


if __name__ == "__main__":
    given = arguments(__doc__, 50)
    sys.exit(main(given.count, given.seed))
