"""A file that is one JSON document, loaded with a line for what can go wrong."""

from __future__ import annotations

import json

from stresstest.errors import ConfigError
from stresstest.logs.files import LogFile

MAX_BYTES = 200_000_000


def loaded(file: LogFile) -> object:
    """The document; a `ConfigError` where it is too large, nested too deeply, cut short or no JSON."""
    size = file.path.stat().st_size
    if size > MAX_BYTES:
        raise ConfigError(
            f"{file.shown}: {size / 1e6:.0f} MB of JSON in one piece, at most {MAX_BYTES / 1e6:.0f} are read;"
            " write its rows as JSON lines (jq -c '.[]')"
        )
    try:
        return json.loads(file.path.read_bytes().decode("utf-8-sig", "replace"))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{file.shown}: no whole JSON: {error.msg} in line {error.lineno}") from error
    except RecursionError as error:
        raise ConfigError(f"{file.shown}: its JSON is nested too deeply for a log") from error
    except ValueError as error:
        raise ConfigError(f"{file.shown}: a number in it has too many digits") from error
