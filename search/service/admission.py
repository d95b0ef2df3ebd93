"""How many requests are worked on at once, and of how many bytes; the others come again."""

from __future__ import annotations

from types import TracebackType

from search.service.problems import Problem

__all__ = ["Admission", "Ticket"]

_RETRY_AFTER_S = 1


class Admission:
    """A bound on requests in flight, uploads included, and on their bytes: so memory is bounded.

    Used in one event loop: ``with admission.take(size): ...``.

    Args:
        limit: requests.
        max_bytes: of all their bodies; a request of more goes alone.

    Attributes:
        in_flight: requests that are worked on.
        bytes: that their bodies may have.
    """

    def __init__(self, limit: int, max_bytes: int) -> None:
        self._limit = limit
        self._max_bytes = max_bytes
        self.in_flight = 0
        self.bytes = 0

    def take(self, size: int) -> Ticket:
        """Admit a request whose body may have that many bytes.

        Raises:
            Problem: there are enough of them already (429).
        """
        if self.in_flight >= self._limit:
            raise _busy(f"{self.in_flight} requests are being answered already")
        return Ticket(self, size)

    def check(self, size: int, held: int = 0) -> None:
        """Whether `size` more bytes may come for a request that holds `held` of them.

        Raises:
            Problem: not now (429).
        """
        others = self.bytes - held
        if others and self.bytes + size > self._max_bytes:
            raise _busy(f"requests of {others:,} bytes are being answered already")


class Ticket:
    """A request that was admitted, until `release` or the end of ``with``."""

    def __init__(self, admission: Admission, size: int) -> None:
        admission.check(size)
        self._admission = admission
        self._bytes = size
        self._released = False
        admission.in_flight += 1
        admission.bytes += size

    def add(self, size: int) -> None:
        """More bytes than were known of at first: those at an address, say.

        Raises:
            Problem: there is no room for them now (429).
        """
        self._admission.check(size, self._bytes)
        self._bytes += size
        self._admission.bytes += size

    def release(self) -> None:
        """Make room for others. Calling it again does nothing."""
        if not self._released:
            self._released = True
            self._admission.in_flight -= 1
            self._admission.bytes -= self._bytes

    def __enter__(self) -> Ticket:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def _busy(what: str) -> Problem:
    headers = {"Retry-After": str(_RETRY_AFTER_S)}
    return Problem(429, "busy", f"{what}; ask again in a moment", headers=headers)
