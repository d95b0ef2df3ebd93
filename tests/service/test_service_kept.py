from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.service.admission import Admission
from search.service.kept import Kept
from search.service.problems import Problem
from search.service.turns import Turns


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


def test_what_was_begun_before_everything_was_forgotten_is_not_kept() -> None:
    kept: Kept[str] = Kept(10)
    since = kept.generation
    kept.put("a", "A", 1, since=since)
    kept.clear()
    kept.put("b", "B", 1, since=since)
    assert (kept.get("a"), kept.get("b"), kept.bytes) == (None, None, 0)
    kept.put("c", "C", 1, since=kept.generation)
    assert kept.get("c") == "C"


def test_more_than_the_limit_are_told_to_come_again() -> None:
    admission = Admission(1, 100)
    with admission.take(1):
        with pytest.raises(Problem) as refused:
            admission.take(1)
        assert admission.in_flight == 1
    assert (refused.value.status, refused.value.headers) == (429, {"Retry-After": "1"})
    assert (admission.in_flight, admission.bytes) == (0, 0)
    with admission.take(1):
        assert admission.in_flight == 1


def test_more_bytes_than_the_limit_are_told_to_come_again() -> None:
    admission = Admission(10, 100)
    with admission.take(60) as first, admission.take(40):
        assert (admission.in_flight, admission.bytes) == (2, 100)
        with pytest.raises(Problem, match="requests of 100 bytes are being answered") as refused:
            admission.take(1)
        assert (refused.value.status, refused.value.kind) == (429, "busy")
        first.release()
        first.release()
        assert (admission.in_flight, admission.bytes) == (1, 40)
        with admission.take(60):
            pass
    with admission.take(1000) as large:  # alone it may go
        large.add(1)
        with pytest.raises(Problem):
            admission.take(1)
    with admission.take(10), admission.take(10) as grows:
        with pytest.raises(Problem):
            grows.add(81)
        grows.add(80)
        assert admission.bytes == 100
    assert (admission.in_flight, admission.bytes) == (0, 0)


def test_turns_go_in_order_and_weigh_no_more_than_the_limit() -> None:
    turns = Turns(10)
    order: list[int] = []
    most = 0
    mutex = threading.Lock()

    def work(weight: int) -> None:
        nonlocal most
        with turns.taken(weight):
            with mutex:
                order.append(weight)
                most = max(most, turns.held)
            time.sleep(0.01)

    with turns.taken(1):
        threads = []
        for weight in (25, 9, 1, 4, 4):  # the first of them is too heavy beside any other
            threads.append(threading.Thread(target=work, args=(weight,)))
            threads[-1].start()
            while len(turns._waiting) < len(threads):
                time.sleep(0.001)
        assert order == []
    for thread in threads:
        thread.join(10)
    assert order[0] == 25
    assert sorted(order) == [1, 4, 4, 9, 25]
    assert most == 25
    assert turns.held == 0


@given(st.lists(st.integers(1, 12), max_size=12))
def test_turns_never_weigh_more_than_the_limit(weights: list[int]) -> None:
    turns = Turns(10)
    held: list[int] = []

    def work(weight: int) -> None:
        with turns.taken(weight):
            held.append(turns.held)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, weights))
    assert all(1 <= weight <= max(10, *weights) for weight in held)
    assert turns.held == 0
