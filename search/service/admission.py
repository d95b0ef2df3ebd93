"""How many requests are worked on at once; the others are told to come again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from search.service.problems import Problem

__all__ = ["Admission"]

_RETRY_AFTER_S = 1


class Admission:
    """A bound on requests in flight, uploads included, so that memory is bounded, too.

    Used in one event loop: ``with admission: ...``.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.in_flight = 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Counts further work of a request that was admitted already; never refuses."""
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1

    def __enter__(self) -> None:
        if self.in_flight >= self._limit:
            raise Problem(
                429,
                "busy",
                f"{self.in_flight} requests are being answered already; ask again in a moment",
                headers={"Retry-After": str(_RETRY_AFTER_S)},
            )
        self.in_flight += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.in_flight -= 1
