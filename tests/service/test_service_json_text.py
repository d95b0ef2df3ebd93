from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.service.json_text import parsed, written

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(VALUES)
def test_what_is_written_is_read_as_the_same_by_both(value: object) -> None:
    text = written(value)
    assert json.loads(text) == value
    assert parsed(json.dumps(value).encode()) == json.loads(json.dumps(value))


def test_what_only_pythons_own_reads_is_left_to_who_looks_at_the_value() -> None:
    (number,) = parsed(b"[NaN]")
    assert math.isnan(number)
    assert parsed(b"[" + b"9" * 400 + b"]") == [int("9" * 400)]
    assert parsed(b'"\\ud800"') == "\ud800"


def test_half_a_surrogate_pair_in_a_caption_is_written_escaped() -> None:
    assert (
        written({"caption": "\ud800", "tuple": (1, 2)})
        == b'{"caption": "\\ud800", "tuple": [1, 2]}'
    )


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b"[1,]", b"[" * 5_000])
def test_what_is_no_json_raises(text: bytes) -> None:
    with pytest.raises((ValueError, RecursionError)):
        parsed(text)
