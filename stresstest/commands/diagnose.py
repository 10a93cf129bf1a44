"""`stresstest diagnose`: logs in, verdicts out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from stresstest.diagnosis.diagnose import Choices, diagnose_file
from stresstest.diagnosis.document import document_of
from stresstest.errors import ConfigError, ExitCode
from stresstest.logs.files import LogFile
from stresstest.reports.output import console
from stresstest.reports.terminal import print_document


def diagnose_logs(names: Sequence[str], choices: Choices) -> int:
    """Print a diagnosis of each; the exit code is that of the worst."""
    code = ExitCode.OK
    for name in names:
        try:
            for diagnosis in diagnose_file(LogFile(Path(name), name), choices):
                print_document(document_of(diagnosis), console())
                if diagnosis.verdict == "broken":
                    code = ExitCode.GATE_CROSSED
        except ConfigError as error:
            print(f"stresstest: {error}", file=sys.stderr)
            code = ExitCode.USAGE
    return code
