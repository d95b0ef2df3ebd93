from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest

from search.service.batching import Batcher


class Doubler:
    """Doubles numbers; refuses batches with a negative one; the first batch waits for `go`."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.threads: set[str] = set()
        self.go = threading.Event()

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.threads.add(threading.current_thread().name)
        self.batches.append(list(items))
        self.go.wait(10)
        if min(items) < 0:
            raise ValueError("negative")
        return [2 * item for item in items]


def held(work: Doubler, batcher: Batcher[int, int]) -> None:
    """Let the first item be taken alone, and hold it there."""
    batcher.submit(0)
    while not work.batches:
        time.sleep(0.001)


def test_what_waits_is_done_in_batches_of_the_largest_size_in_order_by_one_thread() -> None:
    work = Doubler()
    batcher = Batcher("one", work, largest=4, wait_s=0)
    held(work, batcher)
    futures = [batcher.submit(item) for item in range(1, 10)]
    assert batcher.depth == 9
    work.go.set()
    assert [future.result(10) for future in futures] == [2, 4, 6, 8, 10, 12, 14, 16, 18]
    assert work.batches == [[0], [1, 2, 3, 4], [5, 6, 7, 8], [9]]
    assert work.threads == {"one"}
    batcher.close()


def test_a_batch_waits_for_more_no_longer_than_told() -> None:
    work = Doubler()
    work.go.set()
    batcher = Batcher("waits", work, largest=2, wait_s=30)
    first = batcher.submit(1)
    assert not first.done()
    assert (batcher.submit(2).result(10), first.result(10)) == (4, 2)  # full: no need to wait
    batcher.close()
    assert work.batches == [[1, 2]]


def test_who_is_alone_does_not_wait() -> None:
    work = Doubler()
    work.go.set()
    batcher = Batcher("alone", work, largest=2, wait_s=30, coming=lambda: False)
    assert batcher.submit(1).result(10) == 2
    batcher.close()
    assert work.batches == [[1]]


def test_an_error_is_told_to_the_one_who_caused_it() -> None:
    work = Doubler()
    batcher = Batcher("errs", work, largest=8, wait_s=0)
    held(work, batcher)
    futures = [batcher.submit(item) for item in (1, -1, 3)]
    work.go.set()
    assert futures[0].result(10) == 2
    assert futures[2].result(10) == 6
    with pytest.raises(ValueError, match="negative"):
        futures[1].result(10)
    batcher.close()


def test_who_gave_up_costs_nothing() -> None:
    work = Doubler()
    batcher = Batcher("cancels", work, largest=8, wait_s=0)
    held(work, batcher)

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await batcher.result(5)

    asyncio.run(give_up())
    last = batcher.submit(6)
    work.go.set()
    assert last.result(10) == 12
    assert work.batches == [[0], [6]]
    batcher.close()


def test_closing_finishes_what_was_accepted_and_accepts_no_more() -> None:
    work = Doubler()
    batcher = Batcher("closes", work, largest=2, wait_s=0)
    held(work, batcher)
    futures = [batcher.submit(item) for item in range(1, 6)]
    threading.Timer(0.05, work.go.set).start()
    batcher.close()
    assert [future.result(0) for future in futures] == [2, 4, 6, 8, 10]
    with pytest.raises(RuntimeError, match="closed"):
        batcher.submit(7)
    batcher.close()
