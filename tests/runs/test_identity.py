"""The key of a cell against the JSON of its settings and hashlib."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from stresstest.runs.identity import cell_key, key_of, written

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
SETTINGS = st.dictionaries(st.text(), VALUES)


def hashed(settings: dict[str, Any]) -> str:
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


@given(SETTINGS, SETTINGS)
def test_a_key_is_the_hash_of_its_settings_whether_or_not_some_were_written_before(
    common: dict[str, Any], own: dict[str, Any]
) -> None:
    assert cell_key(common) == hashed(common)
    assert key_of(written(common) | written(own)) == hashed(common | own)
