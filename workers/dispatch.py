"""What the coordinator sends through Redis, and what it concludes from the signs of life there."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ingest.errors import WorkersError
from ingest.storage import is_remote
from search.collection import Collection
from search.folder import writing
from workers.app import TASK
from workers.board import QUEUE, Beat, Board
from workers.jobs import Job, Jobs
from workers.lease import Lease
from workers.model_copy import pack_model
from workers.order import write_order
from workers.results import mark_ours

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["CoordinatorSettings", "Dispatcher", "Flight"]

_ASIDE_S = 2.0  # how often what seldom changes is looked at
_NO_WORKER_S = 5.0  # without any worker for so long, the person is told
_REMIND_S = 60.0
_MIN_WINDOW = 8
_PER_WORKER = 3
_AWAY_S = 0.1


@dataclass(frozen=True)
class CoordinatorSettings:
    """How workers are dealt with.

    Attributes:
        lease_s: without a sign of life for so long, a shard is given to another worker.
        max_attempts: failures after which a shard is a dead letter.
    """

    lease_s: float = 60.0
    max_attempts: int = 3


@dataclass
class Flight:
    """What is known, in this process, of a shard that is not in the ledger.

    Attributes:
        job: as it is kept.
        result: its result is there.
        lease: of its last sending.
        not_before: when it may be sent again.
        images: of it that are known to be done.
    """

    job: Job
    result: bool = False
    lease: Lease = field(default_factory=Lease)
    not_before: float = 0.0
    images: int = 0


class Dispatcher:
    """Sends flights, as many as keep all workers busy, and watches them.

    Args:
        flights: all of them, by number; owned by the coordinator.
        lost: called with one that gave no sign of life any more.
        reach: called with one, and how many of its images are done.
        others: as of `workers.coordinator.Coordinator`.

    Attributes:
        workers: how many live.
        away: whether Redis does not answer.
    """

    def __init__(
        self,
        collection: Collection,
        jobs: Jobs,
        board: Board,
        app: Celery,
        settings: CoordinatorSettings,
        index: tuple[str, str] | None,
        notice: Callable[[str], None],
        flights: dict[int, Flight],
        lost: Callable[[Flight], None],
        reach: Callable[[Flight, int], None],
    ) -> None:
        self.workers = 0
        self.away = False
        self._collection = collection
        self._jobs = jobs
        self._board = board
        self._app = app
        self._settings = settings
        self._index = index
        self._notice = notice
        self._flights = flights
        self._lost = lost
        self._reach = reach
        self._marked: set[str] = set()
        self._aside_at = 0.0
        self._alone_since = time.monotonic()
        self._told: set[str] = set()
        self._packed = pack_model(collection.folder.model(collection.name))
        self._fingerprint = collection.model.full_feature_fingerprint

    @property
    def window(self) -> int:
        """How many shards may be sent and not done."""
        return max(_MIN_WINDOW, _PER_WORKER * self.workers)

    def talk(self) -> None:
        """Look and send once. Where Redis does not answer, say so and leave it at that."""
        try:
            self._look_aside()
            self._watch()
            self._send()
        except WorkersError as exc:
            self._redis_away(exc)
            time.sleep(_AWAY_S)
            return
        if self.away:
            self.away = False
            self._notice(f"Redis at {self._board.address} answers again")

    def forget(self, jobs: Iterable[Job]) -> None:
        """Let those who still have these shards know that they need not."""
        try:
            self._board.forget(self._jobs.plan, [job.number for job in jobs])
        except WorkersError as exc:
            self._redis_away(exc)

    def last_words(self) -> None:
        """Tell of refusals since the last look, where others were quick to do the work."""
        with suppress(WorkersError):  # all is done: whether Redis answers matters no more
            self._tell_refusals()

    def _redis_away(self, exc: WorkersError) -> None:
        if not self.away:
            self.away = True
            self._notice(f"{exc}; waiting for it, nothing is lost")

    def _look_aside(self) -> None:
        """What seldom changes: the model, the workers that live, those that refuse."""
        now = time.monotonic()
        if now < self._aside_at:
            return
        self._aside_at = now + _ASIDE_S
        self._board.publish(self._fingerprint, self._packed)
        alive = self._board.workers()
        self.workers = len(alive)
        self._tell_refusals()
        if alive:
            self._alone_since = now
        elif now - self._alone_since > _NO_WORKER_S:
            self._notice(
                f"waiting: no worker answers at {self._board.address}; start one with "
                "`attrib worker`, on any machine that sees this Redis"
            )
            self._alone_since = now + _REMIND_S - _NO_WORKER_S

    def _tell_refusals(self) -> None:
        for name, why in self._board.refusals().items():
            if f"{name}: {why}" not in self._told:
                self._told.add(f"{name}: {why}")
                self._notice(f"worker {name} refuses: {why}")

    def _watch(self) -> None:
        """Signs of life of what was sent, and what to do without."""
        sent = [
            flight
            for flight in self._flights.values()
            if flight.job.state == "sent" and not flight.result
        ]
        if not sent:
            return
        plan, numbers = self._jobs.plan, [flight.job.number for flight in sent]
        beats = self._board.beats(plan, numbers)
        wanted = self._board.wanted(plan, numbers)
        waiting = self._board.queued()
        now = time.monotonic()
        for flight, beat, send in zip(sent, beats, wanted, strict=True):
            self._judge(flight, beat, send, waiting, now)

    def _judge(
        self, flight: Flight, beat: Beat | None, wanted: str | None, waiting: int, now: float
    ) -> None:
        job = flight.job
        state = flight.lease.judge(job.send, beat, wanted, waiting, now, self._settings.lease_s)
        if beat is not None and state == "alive":
            self._reach(flight, beat.images)
            if wanted is None:  # Redis was emptied, and its worker told of itself since
                self._board.want(self._jobs.plan, job.number, job.send)
        elif state == "lost":
            self._lost(flight)
        elif state == "unsent":
            job.state = "planned"
            self._jobs.update(job)

    def _send(self) -> None:
        """Send what is planned, as far as the window goes."""
        now = time.monotonic()
        under_way = sum(
            flight.job.state == "sent" and not flight.result for flight in self._flights.values()
        )
        for number in sorted(self._flights):
            if under_way >= self.window:
                return
            flight = self._flights[number]
            if flight.job.state == "planned" and not flight.result and now >= flight.not_before:
                self._send_one(flight)
                under_way += 1

    def _send_one(self, flight: Flight) -> None:
        from kombu.exceptions import OperationalError

        job = flight.job
        features = self._collection.folder.features(job.dataset)
        if not is_remote(features):
            features = features.absolute()
        if job.dataset not in self._marked:
            with writing(self._collection.folder.root):
                mark_ours(features, self._jobs.plan)
            self._marked.add(job.dataset)
        job.send = secrets.token_hex(6)
        job.state = "sent"
        self._jobs.update(job)
        flight.lease.begin(time.monotonic())
        self._board.want(self._jobs.plan, job.number, job.send)
        order = write_order(
            job.packed,
            plan=self._jobs.plan,
            send=job.send,
            attempt=job.attempts + 1,
            last=job.attempts + 1 >= self._settings.max_attempts,
            digest=job.digest,
            features=features,
            model=self._collection.model.name,
            fingerprint=self._fingerprint,
            index=self._index,
            lease_s=self._settings.lease_s,
        )
        try:
            self._app.send_task(TASK, args=[order], queue=QUEUE, retry=False)
        except (OperationalError, OSError) as exc:
            # Not known whether it arrived: it is sent again under another name.
            job.state = "planned"
            self._jobs.update(job)
            raise WorkersError(f"Redis at {self._board.address} does not answer") from exc
