"""Images per second of late."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

__all__ = ["Rate"]


class Rate:
    """Counts what is done, from the first images on: what comes before is the start-up.

    Not safe to use from several threads.

    Attributes:
        total: images so far.
    """

    def __init__(self, over_s: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        """`over_s`: how far back `recent` looks."""
        self.total = 0
        self._over_s = over_s
        self._clock = clock
        self._history: deque[tuple[float, int]] = deque()
        self._first: tuple[float, int] | None = None
        self._last = 0.0

    def advance(self, images: int) -> None:
        """So many more are done."""
        self.total += images
        self._last = self._clock()
        self._history.append((self._last, self.total))
        self._first = self._first or self._history[0]

    def rest(self) -> None:
        """Nothing is to be done for now: `recent` begins anew with the next images."""
        self._history.clear()

    @property
    def recent(self) -> float:
        """Per second, of the last `over_s`; 0 where nothing came after the first images."""
        now = self._clock()
        while len(self._history) > 1 and self._history[0][0] < now - self._over_s:
            self._history.popleft()
        return self._per_s(self._history[0], now) if self._history else 0.0

    @property
    def average(self) -> float:
        """Per second, from the first images to the last."""
        return self._per_s(self._first, self._last) if self._first else 0.0

    def _per_s(self, since: tuple[float, int], until: float) -> float:
        then, before = since
        return (self.total - before) / (until - then) if until > then else 0.0
