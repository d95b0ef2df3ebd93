"""An index that notes how long it was at work, to tell searching from calibrating."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast

from search.index import Index

__all__ = ["Clock", "clocked"]


class Clock:
    """Seconds in the index so far. Used by one thread."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def taken(self) -> float:
        """Seconds since this was last asked."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds


def clocked(index: Index, clock: Clock) -> Index:
    """The same index, its calls counted by the clock."""
    return cast("Index", _Clocked(index, clock))


class _Clocked:
    def __init__(self, index: Index, clock: Clock) -> None:
        self._index = index
        self._clock = clock

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 (as the index has it)
        value = getattr(self._index, name)
        return self._timed(value) if callable(value) else value

    def _timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 (as the index has it)
            began = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                self._clock.seconds += time.perf_counter() - began

        return timed
