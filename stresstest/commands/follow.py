"""`stresstest diagnose --follow`: a line whenever the verdict on a growing log changes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from stresstest.commands.diagnose import Shown
from stresstest.diagnosis.diagnose import Choices
from stresstest.diagnosis.follow import look_line, looks, so_far, verdict_so_far
from stresstest.diagnosis.records import Diagnosis
from stresstest.errors import ConfigError, ExitCode
from stresstest.logs.sources import printable

_CODES = {"stable": ExitCode.OK, "broken": ExitCode.GATE_CROSSED, "undecided": ExitCode.NO_VERDICT}


def follow_log(names: Sequence[str], choices: Choices, shown: Shown) -> int:
    """Follow one log until Ctrl-C; the exit code is that of the last verdict."""
    if len(names) != 1 or names[0] == "-" or Path(names[0]).is_dir():
        raise ConfigError("--follow takes one file that grows; give its path")
    if shown.as_json or shown.outputs:
        raise ConfigError("--follow prints lines; leave out --json and --output, and run it again at the end for them")
    last, said = None, ""
    try:
        for look in looks(Path(names[0]), printable(names[0]), choices):
            last = look.run or last
            state = so_far(look.run) if look.run else look.problem
            if state != said:
                said = state
                _say(look_line(look.run) if look.run else look.problem)
    except KeyboardInterrupt:
        return _end(last)
    return ExitCode.OK


def _say(line: str) -> None:
    print(f"{datetime.now():%H:%M:%S} {line}", flush=True)


def _end(last: Diagnosis | None) -> int:
    if last is None:
        print("exit 2: no loss was read", file=sys.stderr)
        return ExitCode.USAGE
    verdict = verdict_so_far(last)
    code = _CODES[verdict]
    print(f"\nexit {int(code)}: {verdict} when it was last read", flush=True)
    return code
