"""Work of different weight that goes on at once as long as all of it is no heavier than a limit."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Turns"]


class Turns:
    """For threads: who asked first goes first, so that what is heavy is not put off for ever.

    Args:
        limit: of the weights together; what is heavier by itself goes alone.

    Attributes:
        held: weight that goes on now.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()
        self.held = 0

    @contextmanager
    def taken(self, weight: int) -> Iterator[None]:
        """Waits for its turn."""
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            while self._waiting[0] is not ticket or not self._fits(weight):
                self._changed.wait()
            self._waiting.popleft()
            self.held += weight
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self.held -= weight
                self._changed.notify_all()

    def _fits(self, weight: int) -> bool:
        return not self.held or self.held + weight <= self._limit
