"""SQLite files of MLflow and Trackio, opened so that nothing is written beside them."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from stresstest.errors import ConfigError
from stresstest.logs.curve import RawLog
from stresstest.logs.files import LogFile
from stresstest.logs.readers import mlflow, trackio

_MAGIC = b"SQLite format 3\0"


class Database:
    """Every run of a tracker's database."""

    name = "SQLite"
    reads = "the SQLite databases of MLflow and Trackio"

    def fits(self, file: LogFile) -> bool:
        """It starts as every SQLite file does."""
        return file.head.startswith(_MAGIC)

    def read(self, file: LogFile) -> Iterator[RawLog]:
        """The runs in the order in which they began."""
        try:
            with _opened(file.path) as database:
                yield from _runs(database, file)
        except ConfigError:
            raise
        except (sqlite3.Error, ValueError) as error:
            raise ConfigError(f"{file.shown}: a damaged SQLite database ({error})") from None


def _runs(database: sqlite3.Connection, file: LogFile) -> Iterator[RawLog]:
    tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    described = database.execute("PRAGMA table_info(metrics)") if "metrics" in tables else ()
    columns = {column for _, column, *_ in described}  # of a table alone: a view may compute for ever
    if columns >= mlflow.COLUMNS:
        yield from mlflow.runs_in(database, "runs" in tables)
    elif columns >= trackio.COLUMNS:
        yield from trackio.runs_in(database, "run_id" in columns)
    else:
        found = ", ".join(sorted(tables)[:10]) or "none"
        raise ConfigError(f"{file.shown}: a SQLite database of neither MLflow nor Trackio; its tables: {found}")


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Read-only. What a writer has not moved from its write-ahead log into the file yet is read from a copy of both."""
    log = path.with_name(f"{path.name}-wal")
    with tempfile.TemporaryDirectory(prefix="stresstest-") as folder:
        flags = "mode=ro&immutable=1"
        if log.exists() and log.stat().st_size:
            copy = Path(folder, "copy.db")
            shutil.copyfile(path, copy)
            shutil.copyfile(log, copy.with_name("copy.db-wal"))
            path, flags = copy, "mode=rw"
        with closing(sqlite3.connect(f"file:{quote(str(path.absolute()))}?{flags}", uri=True)) as database:
            yield database
