"""The console script: a command line in, an exit code out. What only reads logs waits for no experiment's settings."""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import NoReturn

import rich_click as click

from stresstest.cli.context import CONTEXT
from stresstest.cli.diagnose import diagnose_command
from stresstest.errors import ExitCode, StresstestError

PATIENCE_SECONDS = 20.0  # with what stays at the end: a tracker may still send


def main() -> None:
    """The console script. Of several processes of torchrun the first does what is asked for, and the others follow."""
    if sys.stdout is None:  # it was closed: what is printed goes nowhere, and the exit code still says the verdict
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 (for the whole process)
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        leave(run(sys.argv[1:]))
    from stresstest.runs import ranks

    code = ranks.join()
    if code is None:
        code = run(sys.argv[1:])
        ranks.part(code)
    leave(code)


def leave(code: int) -> NoReturn:
    """End the process, even where threads or processes that the model's code started in it do not end."""
    threading.Thread(target=_end_what_stays, args=[code], daemon=True).start()
    sys.exit(code)


def _end_what_stays(code: int) -> None:
    """After a while; Python waits for them for ever, once everything else is done."""
    time.sleep(PATIENCE_SECONDS)
    if threading.main_thread().is_alive():
        return  # this process goes on with something else
    threads = [one for one in threading.enumerate() if not one.daemon and one is not threading.main_thread()]
    started = sys.modules.get("multiprocessing")
    processes = [one for one in started.active_children() if not one.daemon] if started else []
    if threads or processes:
        names = ", ".join(one.name for one in (*threads, *processes))
        sys.stderr.write(f"stresstest: not waiting for what the model's code left running: {names}\n")
        for process in processes:
            process.kill()
        os._exit(code)


def run(args: list[str]) -> int:
    """Run one command line; returns its exit code. Errors are translated here and nowhere else."""
    try:
        code = int(_group(args).main(args, prog_name="stresstest", standalone_mode=False) or ExitCode.OK)
        sys.stdout.flush()  # what cannot be written is said here, and not after the exit code
        return code
    except click.ClickException as error:
        return _complain(" ".join(error.format_message().split()), ExitCode.USAGE)
    except StresstestError as error:
        return _complain(str(error), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        return _complain("interrupted; completed cells are saved", ExitCode.INTERRUPTED)
    except (BrokenPipeError, SystemExit) as error:
        if isinstance(error, SystemExit) and error.code != 1:
            return int(error.code or ExitCode.OK)  # the help, where no command is given
        # The reader of a pipe has gone; click then exits with 1.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            return _internal()
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left would fail again at the end
        return _complain(f"the output cannot be written ({error.strerror})", ExitCode.USAGE)
    except Exception:
        return _internal()


def _internal() -> int:
    traceback.print_exc()
    return _complain("internal error, see above; please report it", ExitCode.INTERNAL)


def _complain(message: str, code: int) -> int:
    *details, last = message.splitlines() or [""]
    click.echo("\n".join([*details, f"stresstest: {last}"]), err=True)
    return code


def _group(args: list[str]) -> click.Group:
    """All commands, whose settings take longer to import than most logs to read; or the one that needs none."""
    if args[:1] == [diagnose_command.name]:
        return click.RichGroup(name="stresstest", commands=[diagnose_command], context_settings=CONTEXT)
    from stresstest.cli.commands import cli

    return cli


if __name__ == "__main__":
    main()
