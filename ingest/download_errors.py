"""Failures of a download that are more than a reason: those that may pass, and hosts left alone."""

from __future__ import annotations

from ingest.errors import ImageError, RejectReason

__all__ = ["NO_ANSWER", "LeftAloneError", "TransientError"]

NO_ANSWER = frozenset({RejectReason.NO_CONNECTION, RejectReason.TIMED_OUT})
"""The reasons that say more of the host, or of our network, than of the address."""


class TransientError(ImageError):
    """A failure that may pass.

    Attributes:
        after_s: the server asked not to be asked again before that.
    """

    def __init__(self, reason: RejectReason, detail: str = "", *, after_s: float = 0) -> None:
        super().__init__(reason, detail)
        self.after_s = after_s


class LeftAloneError(ImageError):
    """Not asked at all: the host gave no answer many times, or wants to be asked much later."""
