"""When a worker counts as gone: every way in which signs of life end, worked by hand."""

from __future__ import annotations

import pytest

from workers.board import NOT_WANTED, Beat
from workers.lease import Lease

LIMIT = 60.0
OURS = Beat("worker", "send")
OTHERS = Beat("worker", "an earlier one")


def sent(seen: bool = False, missed: int = 0) -> Lease:
    """Of a sending of 100 s, on a clock that began at 0."""
    return Lease(seen=seen, missed=missed, changed=100.0)


@pytest.mark.parametrize(
    ("lease", "beat", "wanted", "waiting", "now", "state"),
    [
        (sent(), OURS, "send", 0, 101.0, "alive"),
        (sent(), OURS, None, 0, 900.0, "alive"),  # Redis was emptied since
        (sent(), None, "send", 5, 900.0, "quiet"),  # it stands in a long queue
        (sent(), None, "send", 0, 160.0, "quiet"),  # taken, and its worker is about to begin
        (sent(), None, "send", 0, 160.1, "unsent"),  # taken by one that died before it began
        (sent(), None, None, 5, 100.1, "unsent"),  # Redis was emptied, the queue with it
        (sent(), None, NOT_WANTED, 5, 100.1, "unsent"),
        (sent(), OTHERS, "send", 0, 160.1, "unsent"),  # what was sent before tells nothing
        (sent(seen=True), None, "send", 0, 900.0, "quiet"),  # a beat may be late
        (sent(seen=True, missed=1), None, "send", 0, 100.1, "quiet"),
        (sent(seen=True, missed=2), None, "send", 0, 100.1, "lost"),
        (sent(seen=True, missed=2), OTHERS, "send", 9, 100.1, "lost"),
        (sent(seen=True), None, None, 0, 160.0, "quiet"),  # beats went with what Redis had
        (sent(seen=True), None, None, 0, 160.1, "lost"),
    ],
)
def test_states(
    lease: Lease, beat: Beat | None, wanted: str | None, waiting: int, now: float, state: str
) -> None:
    assert lease.judge("send", beat, wanted, waiting, now, LIMIT) == state


def test_a_sign_of_life_begins_the_waiting_anew() -> None:
    lease = Lease()
    lease.begin(100.0)
    states = [
        lease.judge("send", beat, wanted, 0, now, LIMIT)
        for beat, wanted, now in [
            (OURS, "send", 110.0),
            (None, "send", 111.0),
            (None, "send", 112.0),
            (OURS, "send", 113.0),
            (None, "send", 114.0),
            (None, None, 173.0),
            (None, None, 173.1),
        ]
    ]
    assert states == ["alive", "quiet", "quiet", "alive", "quiet", "quiet", "lost"]
    assert (lease.seen, lease.missed, lease.changed) == (True, 1, 113.0)
    lease.begin(200.0)
    assert lease == Lease(seen=False, missed=0, changed=200.0)
