"""The processes that torchrun starts, the ranks of one run: the first drives it, the others do what it says.

What is said goes through torchrun's store, apart from the collectives of training: so that ranks can speak when one of
them has left these. Whatever a rank raises, either all raise it, or the cell is lost and the ranks end: those that wait
for it in a collective can go on no other way. torchrun then starts them anew (--max-restarts), or its user does.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stresstest.errors import ConfigError, ExitCode, StoppedError, StresstestError
from stresstest.runs.executor import Answer, Task
from stresstest.runs.stopping import SIGNALS, listen

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

COMMAND = "torchrun --nproc-per-node 2 -m stresstest lr-range --model FILE.py:FACTORY --parallel fsdp"
TIMEOUT = "STRESSTEST_RANK_TIMEOUT"  # seconds after which a rank that does not answer is given up
_TIMEOUT_SECONDS = 600.0
_GRACE_SECONDS = 5.0  # for the others to raise the same
_POLL_SECONDS = 0.5
_LEAVE_SECONDS = 10.0  # after a signal without a word from the first rank
_ENDED = "stresstest/ended"
_SILENCE = ("gloo", "NCCL", "Connection closed", "Connection reset", "c10d")  # of a collective's error

# What a rank says of a task: how it ended, why, and a digest of what it measured.
Said = tuple[str, str, str]
DONE, FAILED, LEFT, STOPPED = "done", "failed", "left", "stopped"


class RanksLostError(StresstestError):
    """A rank died, hangs or went another way than the others, so that no rank can go on."""


class RankLeft(BaseException):  # no error: no handler of errors may go on after it
    """This rank leaves the others, or was left by one; the text says why."""


@dataclass(frozen=True)
class Place:
    """Which of how many ranks a process is, and how often torchrun has started it anew."""

    rank: int
    world: int
    local_rank: int
    restarts: int


def place() -> Place | None:
    """What torchrun says of this process; `None` where it was started otherwise."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_RESTART_COUNT")
    return Place(*(int(os.environ.get(name, default)) for name, default in zip(names, "0100", strict=True)))


def program() -> list[str]:
    """How the command line is called: the words before a command."""
    here = place()
    if here is None:
        return ["stresstest"]
    each = int(os.environ.get("LOCAL_WORLD_SIZE", here.world))
    nodes = ["--nnodes", str(here.world // each)] if here.world > each else []
    return ["torchrun", *nodes, "--nproc-per-node", str(each), "-m", "stresstest"]


def timeout_seconds() -> float:
    """How long a rank may take to answer."""
    text = os.environ.get(TIMEOUT, "")
    try:
        seconds = float(text or _TIMEOUT_SECONDS)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds < 1e6:
        raise ConfigError(f"{TIMEOUT}={text} is not a number of seconds; write e.g. {TIMEOUT}=600")
    return seconds


class Ranks:
    """The ranks of a run, as one of them sees them; `started` once they share a process group."""

    def __init__(self, here: Place) -> None:
        from torch._C._distributed_c10d import PrefixStore, TCPStore  # as torch.distributed has them

        self.here = here
        of_agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        self._outer = TCPStore(
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_master=here.rank == 0 and not of_agent,
            timeout=timedelta(seconds=timeout_seconds()),
            multi_tenant=not of_agent,
        )
        # torchrun's store outlives a restart: without a prefix the ranks find the addresses of those that died
        self._store: Store = PrefixStore(f"stresstest/{here.restarts}", self._outer)
        self.started = False
        self._lost = False
        self._next = 0  # message
        self._task = 0
        self._agreed = 0  # failures of all ranks alike

    @property
    def ended(self) -> int | None:
        """The exit code of a run that ended before torchrun started its ranks anew, as it does where that is not 0."""
        return int(self._outer.get(_ENDED)) if self._outer.check([_ENDED]) else None

    def end(self, code: int) -> None:
        """Let the other ranks end; a run that lost a rank, or was told to stop, may go on in new ones."""
        if not (self._lost or code in (ExitCode.INTERRUPTED, ExitCode.TERMINATED)):
            self._outer.set(_ENDED, str(code))
        self._say(("end", code))

    def start(self, device: str) -> None:
        """Open the process group on this kind of device, here and on all other ranks."""
        kind = device.partition(":")[0]
        if not self.started:
            self._say(("start", kind))
            self._start(kind)

    def follow(self) -> int:
        """Do what the first rank says until it ends; returns its exit code."""
        for number in SIGNALS:
            signal.signal(number, listen)  # the first rank decides what a signal means
        while True:
            match self._hear():
                case ("start", device):
                    self._start(device)
                case ("task", work, task):
                    self._task += 1
                    _, said = _tried(work, task)
                    said, _ = self._settled(said)
                    if said[0] == LEFT:
                        return ExitCode.INTERNAL
                case ("end", code):
                    return int(code)

    def train(self, work: Callable[[Task], Answer], task: Task) -> tuple[Answer | None, Said]:
        """Do a task on every rank: this one's answer, and how it ended for all of them."""
        self._say(("task", work, task))
        self._task += 1
        answer, mine = _tried(work, task)
        said, alike = self._settled(mine)
        if said[0] == DONE and not alike:
            said = (FAILED, "the ranks found different results, which is a fault of stresstest; please report it", "")
        return (answer if said[0] == mine[0] else None), said

    @contextlib.contextmanager
    def alike(self) -> Iterator[None]:
        """What is raised here is raised by all ranks, or this one leaves."""
        try:
            yield
        except Exception as error:
            text = str(error) or type(error).__name__
            if left := self._left():
                self._leave(text)
                raise RankLeft(left) from error
            key = f"failed/{self._task}/{self._agreed}"
            if absent := self._missing(key, text, _GRACE_SECONDS):
                self._leave(text)
                raise RankLeft(_lost_words(absent, text)) from error
            self._agreed += 1
            raise

    def _settled(self, mine: Said) -> tuple[Said, bool]:
        """How a task ended for all ranks, from how it ended for this one; and whether all measured the same."""
        if mine[0] == LEFT:
            self._leave(mine[1])
        elif mine[0] == FAILED and (left := self._left()):
            mine = (LEFT, left, "")
            self._leave(left)
        patience = timeout_seconds() if mine[0] in (DONE, STOPPED) else _GRACE_SECONDS
        if mine[0] == LEFT:
            self._store.set(self._key("ended", self.here.rank), pickle.dumps(mine))  # type: ignore[arg-type]  # takes bytes
            return mine, True
        absent = self._missing(f"ended/{self._task}", pickle.dumps(mine), patience)
        if absent:
            text = _lost_words(absent, mine[1])
            self._leave(text)
            return (LEFT, text, ""), True
        everyone = [pickle.loads(self._store.get(self._key("ended", r))) for r in range(self.here.world)]
        for kind in (LEFT, FAILED, STOPPED):
            for rank, said in enumerate(everyone):
                if said[0] == kind:
                    all_alike = all(other[0] == kind for other in everyone)
                    return (kind, said[1] if all_alike else f"{said[1]}\n(on rank {rank})", ""), True
        return mine, all(said[2] == mine[2] for said in everyone)

    def _missing(self, key: str, value: str | bytes, seconds: float) -> list[int]:
        """Say something under a key and wait for the others to do so; the ranks that do not."""
        self._store.set(f"{key}/{self.here.rank}", value)  # type: ignore[arg-type]  # takes bytes
        others = {rank: f"{key}/{rank}" for rank in range(self.here.world)}
        until = time.monotonic() + seconds
        while True:
            missing = [rank for rank, name in others.items() if not self._store.check([name])]
            if not missing or time.monotonic() > until or (seconds <= _GRACE_SECONDS and self._left()):
                return missing
            time.sleep(_POLL_SECONDS / 10)

    def _leave(self, text: str) -> None:
        self._lost = True
        if not self._left():
            self._store.set(f"left/{self._task}", f"rank {self.here.rank}: {text}")

    def _left(self) -> str:
        """What the first rank that left this task says of it."""
        key = f"left/{self._task}"
        return self._store.get(key).decode() if self._store.check([key]) else ""

    def _key(self, name: str, rank: int) -> str:
        return f"{name}/{self._task}/{rank}"

    def _say(self, message: tuple[Any, ...]) -> None:
        self._store.set(f"message/{self._next}", pickle.dumps(message))  # type: ignore[arg-type]  # takes bytes
        self._next += 1

    def _hear(self) -> tuple[Any, ...]:
        key, told = f"message/{self._next}", [0.0]

        while not self._store.check([key]):
            time.sleep(_POLL_SECONDS / 10)
            if _asked_to_stop():
                told[0] = told[0] or time.monotonic()
                if time.monotonic() - told[0] > _LEAVE_SECONDS:
                    return ("end", ExitCode.TERMINATED)
        self._next += 1
        message: tuple[Any, ...] = pickle.loads(self._store.get(key))
        return message

    def _start(self, device: str) -> None:
        import torch
        from torch._C._distributed_c10d import PrefixStore
        from torch.distributed import init_process_group

        torch.set_num_threads(1)
        if device == "cuda":
            torch.cuda.set_device(self.here.local_rank)
        init_process_group(
            "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl",
            store=PrefixStore("group", self._store),
            rank=self.here.rank,
            world_size=self.here.world,
            timeout=timedelta(seconds=timeout_seconds()),
        )
        self.started = True


_ranks: Ranks | None = None


def ranks() -> Ranks:
    """Those of this process, which runs under them."""
    assert _ranks is not None, "the command line has joined them"
    return _ranks


def join() -> int | None:
    """Join the other ranks where torchrun has started several: an exit code where that is all this one has to do."""
    global _ranks
    here = place()
    if here is None:
        return None
    _ranks = Ranks(here)
    if (ended := _ranks.ended) is not None:
        return ended
    if here.rank == 0:
        return None
    with (
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        code = _ranks.follow()
    _end_now(code)
    return code


def part(code: int) -> None:
    """The run ends: so do the other ranks."""
    if _ranks is not None:
        _ranks.end(code)
        if _ranks.started:
            _end_now(code)


def start_ranks(device: str) -> Ranks:
    """The ranks of a run with `--parallel fsdp`, in one process group."""
    ranks().start(device)
    return ranks()


def check_ranks(parallel: bool) -> int:
    """How many ranks a replica spans; a `ConfigError` where torchrun has started none, or some that are not asked for.

    Several ranks without `--parallel` would all do the same.
    """
    here = place()
    if parallel and here is None:
        raise ConfigError(f"parallel fsdp needs several processes; start them with torchrun: {COMMAND}")
    if parallel and _ranks is None:
        raise ConfigError(f"parallel fsdp works from the command line alone: {COMMAND}")
    if not parallel and here is not None and here.world > 1:
        raise ConfigError(
            f"torchrun started {here.world} processes, which all would train the same; add --parallel fsdp "
            "(lr-range and depth-sweep, your own model), or start stresstest without torchrun"
        )
    return here.world if parallel and here is not None else 1


def _tried(work: Callable[[Task], Answer], task: Task) -> tuple[Answer | None, Said]:
    import traceback

    from stresstest.runs.executor import tail

    try:
        answer = work(task)
    except RankLeft as left:
        return None, (LEFT, str(left), "")
    except StoppedError:
        return None, (STOPPED, "", "")
    except Exception:
        return None, (FAILED, tail(traceback.format_exc()), "")
    failure, digest = _of_answer(answer)
    return answer, (FAILED if failure else DONE, failure, digest)


def _of_answer(answer: Any) -> tuple[str, str]:
    """Why the first cell of an answer has failed, or nothing; and a digest of the verdicts."""
    cells = [one.cell for one in answer if hasattr(one, "cell")] if isinstance(answer, list) else []
    failure = next((cell.error or cell.status for cell in cells if cell.status != "done"), "")
    verdicts = [{name: each.model_dump() for name, each in cell.metrics.items()} for cell in cells]
    return failure, json.dumps(verdicts, sort_keys=True, default=str)


def _lost_words(missing: Sequence[int], text: str) -> str:
    """The reason last: the others' silence where this rank has met nothing else, or what it alone has met."""
    who = f"rank {missing[0]}" if len(missing) == 1 else f"ranks {', '.join(map(str, missing))}"
    if not text or any(words in text for words in _SILENCE):
        return f"{text}\n{who} died or did not answer within {timeout_seconds():g} s".strip()
    return f"{who} did not raise this\n{text}"


def _asked_to_stop() -> bool:
    from stresstest.runs.stopping import stop_if_requested

    try:
        stop_if_requested()
    except StoppedError:
        return True
    return False


def _end_now(code: int) -> None:
    """End without the destructors of a process group whose other ends may be gone."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
