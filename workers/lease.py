"""Whether a worker still has what was sent to it, by its signs of life."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from workers.board import Beat

__all__ = ["Lease", "State"]

_MISSES = 3  # looks in a row; beats expire later than they are due

State: TypeAlias = Literal["alive", "quiet", "lost", "unsent"]


@dataclass
class Lease:
    """What is known of one sending.

    Attributes:
        seen: its worker gave a sign of life since it was sent.
        missed: how often none was found where one was due.
        changed: when it was sent, or last gave one; of a monotonic clock, in seconds.
    """

    seen: bool = False
    missed: int = 0
    changed: float = 0.0

    def begin(self, now: float) -> None:
        """It is sent (again)."""
        self.seen, self.missed, self.changed = False, 0, now

    def judge(
        self,
        send: str,
        beat: Beat | None,
        wanted: str | None,
        waiting: int,
        now: float,
        limit_s: float,
    ) -> State:
        """Take in what Redis says, and conclude.

        Args:
            send: name of the sending.
            beat: the latest sign of life of what was sent, of whichever sending.
            wanted: the sending that counts by Redis, None where it knows of none: it was emptied.
            waiting: tasks in the queue.
            now: of the clock of `changed`.
            limit_s: without a sign of life for so long, a worker is given up.

        Returns:
            ``alive``: its worker gave a sign of life; ``quiet``: nothing to be concluded yet;
            ``lost``: its worker had it, and is gone; ``unsent``: no worker ever had it, and none
            will: Redis lost it, or a worker that died before it began.
        """
        if beat is not None and beat.send == send:
            self.seen, self.missed, self.changed = True, 0, now
            return "alive"
        expired = now - self.changed > limit_s
        if self.seen and wanted is not None:
            # Its beats expired; or it has just ended, and the result is seen next time.
            self.missed += 1
            return "lost" if self.missed >= _MISSES else "quiet"
        if self.seen:
            return "lost" if expired else "quiet"
        return "unsent" if wanted != send or (waiting == 0 and expired) else "quiet"
