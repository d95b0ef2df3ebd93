from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.service.admission import Admission
from search.service.kept import Kept
from search.service.problems import Problem


def test_what_was_not_asked_for_longest_is_forgotten_first() -> None:
    kept: Kept[str] = Kept(10)
    kept.put("a", "A", 4)
    kept.put("b", "B", 4)
    assert kept.get("a") == "A"
    kept.put("c", "C", 4)
    assert (kept.get("a"), kept.get("b"), kept.get("c"), kept.bytes) == ("A", None, "C", 8)
    kept.put("a", "new", 1)
    assert (kept.get("a"), kept.bytes, len(kept)) == ("new", 5, 2)
    kept.put("large", "L", 11)
    assert (kept.get("large"), len(kept)) == (None, 2)
    kept.clear()
    assert (kept.get("a"), kept.bytes, len(kept)) == (None, 0, 0)


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 12))))
def test_it_never_holds_more_than_allowed(puts: list[tuple[str, int]]) -> None:
    kept: Kept[int] = Kept(10)
    for name, size in puts:
        kept.put(name, size, size)
        assert kept.get(name) == (size if size <= 10 else None)
        held = [found for name in "abcdef" if (found := kept.get(name)) is not None]
        assert kept.bytes == sum(held) <= 10


def test_more_than_the_limit_are_told_to_come_again() -> None:
    admission = Admission(1)
    with admission:
        with pytest.raises(Problem) as refused, admission:
            pass
        with admission.counted():
            assert admission.in_flight == 2
    assert (refused.value.status, refused.value.headers) == (429, {"Retry-After": "1"})
    assert admission.in_flight == 0
    with admission:
        assert admission.in_flight == 1
