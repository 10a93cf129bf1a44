"""Rows of a W&B history: taken apart together, they are what each of them is alone."""

import pytest

from stresstest.logs.readers.json_rows import block_of
from stresstest.logs.readers.wandb_history import columns_of, row_of


def _field(number: int, content: bytes) -> bytes:
    key = number << 3 | 2
    head = bytes([key]) if key < 128 else bytes([key & 127 | 128, key >> 7])
    length = len(content)
    return head + (bytes([length]) if length < 128 else bytes([length & 127 | 128, length >> 7])) + content


def _history(values: dict[str, str], step: bytes | None) -> bytes:
    items = b"".join(_field(1, _field(2, k.encode()) + _field(16, v.encode())) for k, v in values.items())
    return items if step is None else items + _field(2, step)


def _alone(histories: list[bytes]) -> dict[str, list[object]]:
    return {key: list(tokens) for key, tokens in block_of([row_of(history) for history in histories]).items()}


def test_keys_in_any_order_are_columns():
    """W&B 0.31 writes the keys of each row in another order, and of step 0 an empty message."""
    first = _history({"loss": "2.5", "_step": "0"}, b"")
    second = _history({"_step": "300", "loss": "1.5"}, b"\x08\xac\x02")
    assert columns_of([first, second]) == {"loss": [2.5, 1.5], "_step": [0.0, 300.0]}


def test_keys_of_some_rows_are_missing_in_the_others():
    rows = [_history({"loss": "2.5"}, b""), _history({"eval/loss": "3.5"}, b"\x08\x82\x01")]
    assert columns_of(rows) == {"loss": [2.5, None], "eval/loss": [None, 3.5], "_step": [0.0, 130.0]}


@pytest.mark.parametrize(
    "values",
    [
        {"_step": "1", "loss": "NaN", "note": '"better"', "histogram": '{"bins": [1, 2]}'},
        {"_step": "1", "loss": "1.5", "note": '"' + "x" * 300 + '"'},
        {"_step": "1", "Verlust für val": "1.5"},
        {"loss": "1e-3"},
    ],
)
@pytest.mark.parametrize("step", [None, b"", b"\x08\x01", b"\x08\x8a\x01"])
def test_together_they_are_what_each_is_alone(values: dict[str, str], step: bytes | None):
    rows = [_history(values, step), _history({"_step": "2", "loss": "2.5"}, step)]
    alone, together = _alone(rows), columns_of(rows)
    assert {key: list(map(repr, map(_as_float, tokens))) for key, tokens in together.items()} == {
        key: list(map(repr, map(_as_float, tokens))) for key, tokens in alone.items()
    }


def _as_float(value: object) -> object:
    return float(value) if isinstance(value, int) else value
