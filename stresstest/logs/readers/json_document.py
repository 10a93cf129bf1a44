"""A whole JSON document: rows, lists side by side, rows keyed by step, evaluations of gradient boosting."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from stresstest.logs.curve import RawLog
from stresstest.logs.files import LogFile, NoLossError
from stresstest.logs.names import is_train, is_validation
from stresstest.logs.readers.assembly import Columns
from stresstest.logs.readers.boosting import boosting_facts, catboost_rounds, is_boosting
from stresstest.logs.readers.json_rows import Row, block_of, flat
from stresstest.logs.readers.json_text import loaded
from stresstest.logs.readers.known import recognised
from stresstest.logs.roles import step_key
from stresstest.logs.values import number

_DEPTH = 8
_BEGINNING = re.compile(r'\{\s*["}]|\[\s*[\[{]')
_TAG_IN_NAME = re.compile(r"-tag-(.+)$")
_NAMES_OF_A_VALUE = ("metric", "key", "tag", "name")


class JsonDocument:
    """Whatever a document holds that has rows."""

    name = "JSON"
    reads = (
        "JSON: a list of rows, lists of numbers (Keras' history, evaluations of XGBoost, LightGBM, CatBoost), exports"
    )

    def fits(self, file: LogFile) -> bool:
        """By its suffix, or where it begins and ends as one: a program may print its settings first, then its rows."""
        head = file.head_text.lstrip("\ufeff \t\r\n")
        if file.suffix == ".json":
            return bool(head)
        return _BEGINNING.match(head) is not None and _ends_as_one(file)

    def read(self, file: LogFile) -> Iterator[RawLog]:
        """The runs in it; lists whose names are of training and of validation are one run."""
        tag = _TAG_IN_NAME.search(file.path.stem)
        found = _Found(tag.group(1) if tag else "value")
        document, notes = loaded(file)
        found.search(catboost_rounds(document), "")
        if found.rows:
            for raw in _runs_of_rows(found.rows):
                yield replace(raw, notes=(*notes, *raw.notes))
        elif found.lists:
            yield _run_of_lists(found.lists)
        else:
            raise NoLossError(f"{file.shown}: JSON without rows: a list of objects or lists of numbers were looked for")


def _ends_as_one(file: LogFile) -> bool:
    with file.path.open("rb") as stream:
        stream.seek(max(0, file.path.stat().st_size - 256))
        return stream.read().rstrip().endswith((b"}", b"]"))


@dataclass
class _Found:
    """What a document holds, by the path to it."""

    nameless: str  # name of numbers that have none
    rows: dict[str, list[Row]] = field(default_factory=dict)
    lists: dict[str, Sequence[object]] = field(default_factory=dict)

    def search(self, value: object, path: str, depth: int = 0) -> None:
        """Take up rows and lists in a value; lists of settings, shorter than the longest, stay in."""
        if depth > _DEPTH:
            return
        if isinstance(value, list):
            self._take_list(value, path)
        elif isinstance(value, dict):
            self._take_object(value, path, depth)

    def _take_list(self, value: list[object], path: str) -> None:
        if value and all(isinstance(item, dict) for item in value):
            self.rows[path] = flat([item for item in value if isinstance(item, dict)])
        elif value and all(isinstance(item, list) and len(item) == 3 for item in value):
            names = ("wall time", "step", self.nameless)  # TensorBoard's download of a scalar
            self.rows[path] = [dict(zip(names, item, strict=True)) for item in value if isinstance(item, list)]
        elif any(number(item) is not None for item in value):
            self.lists[path or self.nameless] = value

    def _take_object(self, value: dict[str, object], path: str, depth: int) -> None:
        if _is_split(value):
            self._take_list(_rows_of_split(value), path)
        elif value and all(number(key) is not None for key in value):
            self._take_keyed(value, path)
        else:
            self._take_members(value, path, depth)

    def _take_members(self, value: dict[str, object], path: str, depth: int) -> None:
        for key, item in value.items():
            self.search(item, f"{path}/{key}" if path else key, depth + 1)
        name = next((value[key] for key in _NAMES_OF_A_VALUE if isinstance(value.get(key), str)), None)
        if isinstance(name, str):  # Trackio: {"metric": "loss", "values": [{"step": 1, "value": 2}]}
            for key in value:
                at = f"{path}/{key}" if path else key
                if at in self.rows:
                    self.rows[at] = [{name if k == "value" else k: v for k, v in row.items()} for row in self.rows[at]]

    def _take_keyed(self, value: dict[str, object], path: str) -> None:
        """Rows or numbers under the step they belong to; pandas writes its columns so too."""
        if all(isinstance(item, Mapping) for item in value.values()):
            rows = flat([item for item in value.values() if isinstance(item, Mapping)])
            self.rows[path] = [{"step": key, **row} for key, row in zip(value, rows, strict=True)]
        elif any(number(item) is not None for item in value.values()):
            self.lists[path] = list(value.values())
            parent = path.rpartition("/")[0]
            self.lists.setdefault(f"{parent}/index" if parent else "index", list(value))


def _is_split(value: Mapping[str, object]) -> bool:
    """pandas' orient="split"."""
    return isinstance(value.get("columns"), list) and isinstance(value.get("data"), list)


def _rows_of_split(value: Mapping[str, object]) -> list[object]:
    columns, data = value["columns"], value["data"]
    assert isinstance(columns, list)
    assert isinstance(data, list)
    return [dict(zip(map(str, columns), row, strict=False)) for row in data if isinstance(row, list)]


def _runs_of_rows(found: Mapping[str, list[Row]]) -> Iterator[RawLog]:
    """Lists of rows as runs: those named as training or validation belong together."""
    parts = {path: rows for path, rows in found.items() if is_train(path) or is_validation(path)}
    if len(parts) > 1:
        joined: list[Row] = [
            {_under(path, key): value for key, value in row.items()} for path, rows in parts.items() for row in rows
        ]
        found = {"": joined, **{path: rows for path, rows in found.items() if path not in parts}}
    logs = {path: raw for path, rows in found.items() if (raw := _log_of(rows)).curves}
    for path, raw in logs.items():
        yield replace(raw, name=path if len(logs) > 1 else "")


def _log_of(rows: list[Row]) -> RawLog:
    block = block_of(rows)
    known = recognised(list(block), of_csv=False)
    columns = Columns(list(block), None if known is None else known.step)
    columns.add(block)
    return columns.log("JSON", known)


def _under(path: str, key: str) -> str:
    return key if key == step_key([key]) or key.lower() == "epoch" else f"{path}/{key}"


def _run_of_lists(found: Mapping[str, Sequence[object]]) -> RawLog:
    """Lists of numbers side by side, each number at its place in its list."""
    lists = _without_shared_folder(found)
    longest = max(map(len, lists.values()))
    step = step_key(lists)
    if step is None or len(lists[step]) != longest:
        counter = next(
            (key for key in lists if key.lower() in ("epoch", "epochs") and len(lists[key]) == longest), "index"
        )
        lists.setdefault(counter, range(longest))
        step = counter
    columns = Columns(list(lists), step)
    columns.add({key: [*tokens, *[None] * (longest - len(tokens))] for key, tokens in lists.items()})
    raw = columns.log("JSON")
    if not is_boosting(lists):
        return raw
    facts, note = boosting_facts(raw.curves)
    return replace(raw, format="evaluations of gradient boosting", facts=facts, notes=(*raw.notes, *note))


def _without_shared_folder(lists: Mapping[str, Sequence[object]]) -> dict[str, Sequence[object]]:
    """The lists under the folder that holds the longest ones ({"history": {"loss": [...]}}); others are settings."""
    longest = max(map(len, lists.values()))
    folders = [key.split("/")[:-1] for key, tokens in lists.items() if len(tokens) == longest]
    shared = folders[0]
    for folder in folders:
        shared = [a for a, b in zip(shared, folder, strict=False) if a == b]
    if not shared or is_train("/".join(shared)) or is_validation("/".join(shared)):
        return dict(lists)
    prefix = "/".join(shared) + "/"
    return {key[len(prefix) :]: tokens for key, tokens in lists.items() if key.startswith(prefix)}
