"""A real PostgreSQL server, started here on a loopback port."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_USER: dict[str, Any] = {"user": "postgres"} if os.getuid() == 0 else {}  # it refuses to run as root
_READY_SECONDS = 60.0


@dataclass
class Postgres:
    """A server whose data are in a folder; `start` and `stop` as often as one likes."""

    programs: Path
    folder: Path
    port: int
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """Of its one database."""
        return f"postgresql://tester:secret@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        serve = [self.programs / "postgres", "-D", self.folder / "data", "-p", str(self.port), "-h", "127.0.0.1"]
        self._process = subprocess.Popen(
            [*serve, "-k", self.folder, "-F"],
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **_USER,
        )
        ready = [self.programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port), "-U", "tester"]
        deadline = time.monotonic() + _READY_SECONDS
        while subprocess.run(ready, check=False).returncode:
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.1)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT ends its connections first, SIGQUIT ends it at once, as after a crash."""
        assert self._process is not None
        self._process.send_signal(how)
        self._process.wait(30)


@contextmanager
def postgres() -> Iterator[Postgres | None]:
    """A server that holds nothing yet and runs; `None` where PostgreSQL is not installed."""
    programs = _binaries()
    if programs is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        if _USER:
            shutil.chown(folder, "postgres")
        make = [programs / "initdb", "-D", folder / "data", "-A", "trust", "-U", "tester", "--no-sync"]
        subprocess.run(make, check=True, capture_output=True, cwd=folder, **_USER)
        server = Postgres(programs, folder, free_port())
        server.start()
        try:
            yield server
        finally:
            server.stop()


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return int(opened.getsockname()[1])


def _binaries() -> Path | None:
    """Where the server's programs are: on the path, or where Debian has them."""
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return places[-1] if places and (places[-1] / "postgres").exists() else None
