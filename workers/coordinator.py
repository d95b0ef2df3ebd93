"""Keeps workers busy with the shards of a data folder, and takes in what they did, in order.

The data folder is the truth: the ledger, the jobs beside it (`workers.jobs`), the results beside
the features (`workers.results`). Redis may be emptied at any moment, and this process killed: what
has neither a result nor a sign of life is sent again.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ingest.errors import WorkersError
from search.collection import Collection
from search.folder import writing
from search.pipeline import IngestSettings
from search.plan import Work
from workers.app import TASK
from workers.board import QUEUE, Beat, Board
from workers.collector import Collector
from workers.jobs import Job, Jobs
from workers.model_copy import pack_model
from workers.order import write_order
from workers.results import (
    Done,
    Failed,
    discard,
    failures,
    mark_ours,
    read_result,
    results,
)
from workers.shard_spec import spec_of

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["Coordinator", "CoordinatorSettings"]

_POLL_S = 0.1
_ASIDE_S = 2.0  # how often what seldom changes is looked at
_NO_WORKER_S = 5.0  # without any worker for so long, the person is told
_REMIND_S = 60.0
_MIN_WINDOW = 8
_PER_WORKER = 3
_AHEAD = 64  # shards that may be done and wait for one before them
_AT_A_TIME = 4  # shards taken in before Redis is looked at again
_RESERVED = 64
_LOSSES_PER_ATTEMPT = 3  # a machine that is lost is seldom the shard's fault


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
class _Flight:
    """What is known, in this process, of a shard that is not in the ledger."""

    job: Job
    result: bool = False
    seen: bool = False
    missed: int = 0
    changed: float = 0.0
    not_before: float = 0.0
    images: int = 0


class Coordinator:
    """One run. Use `run` once.

    Args:
        collection: open, and so ours alone.
        jobs: of its data folder.
        board: connection to Redis.
        app: to send tasks with.
        settings: how workers are dealt with.
        sizes: of the pipeline.
        index: (URL, collection) of the index where it is on a server.
        notice: takes lines for people.
        advance: told of images that are done.

    Attributes:
        collector: has the counts.
        cancelled: whether `attrib cancel` ended it.
    """

    def __init__(
        self,
        collection: Collection,
        jobs: Jobs,
        board: Board,
        app: Celery,
        settings: CoordinatorSettings,
        sizes: IngestSettings,
        index: tuple[str, str] | None,
        notice: Callable[[str], None],
        advance: Callable[[int], None],
    ) -> None:
        self.collector = Collector(collection, on_server=index is not None)
        self.cancelled = False
        self._collection = collection
        self._jobs = jobs
        self._board = board
        self._app = app
        self._settings = settings
        self._sizes = sizes
        self._index = index
        self._notice = notice
        self._advance = advance
        self._flights: dict[int, _Flight] = {}
        self._exhausted = False
        self._marked: set[str] = set()
        self._workers = 0
        self._away = False
        self._aside_at = 0.0
        self._alone_since = time.monotonic()
        self._told: set[str] = set()
        self._packed = pack_model(collection.folder.model(collection.name))
        self._fingerprint = collection.model.full_feature_fingerprint
        self._reserved = 0

    def run(self, works: Iterator[Work], dataset: str, totals: Mapping[str, int | None]) -> None:
        """Have all shards done: those that are left of an earlier run, and `works`.

        `totals`: shards and images that `works` will come to, for people.

        Raises:
            SourceError: a source breaks off.
            DataFolderError: the disk refuses.
            IndexFailedError: the index fails.
        """
        self._load()
        number = max(self._collection.ledger.next_shard(reserved=False), self._jobs.next_number())
        self._said = {"dataset": dataset, **totals, "left": len(self._flights)}
        said_at = 0.0
        while True:
            self._heed_requests()
            if self.cancelled:
                return
            number = self._plan(works, dataset, number)
            moved = self._look()
            moved |= self._collect()
            self._talk()
            if self._exhausted and not self._flights:
                self._say(running=False)
                return
            now = time.monotonic()
            if now - said_at > 1:
                self._say(running=True)
                said_at = now
            if not moved:
                time.sleep(_POLL_S)

    def drop(self) -> None:
        """Give up what is in hand; dead letters stay."""
        gone = self._jobs.clear(dead=False)
        self._settle(gone)
        self._flights.clear()

    # -- planning ------------------------------------------------------------------------------

    def _load(self) -> None:
        """What an earlier run left: sent, planned, or taken in a moment before it was killed."""
        for job in self._jobs.all():
            if self._collection.ledger.has_shard(job.number):
                self._jobs.done(job.number)
                self._settle([job])
            elif job.state != "dead":
                self._flights[job.number] = _Flight(job, changed=time.monotonic())

    @property
    def _window(self) -> int:
        return max(_MIN_WINDOW, _PER_WORKER * self._workers)

    def _plan(self, works: Iterator[Work], dataset: str, number: int) -> int:
        """Plan shards as far as the window goes; returns the next number."""
        while not self._exhausted and len(self._flights) < self._window + _AHEAD:
            waiting = sum(flight.job.state == "planned" for flight in self._flights.values())
            if waiting >= self._window:
                break
            work = next(works, None)
            if work is None:
                self._exhausted = True
                break
            if number >= self._reserved:
                self._reserved = number + _RESERVED
                self._collection.ledger.reserve(self._reserved)
            spec = spec_of(
                number,
                dataset,
                work,
                batch_size=self._sizes.batch_size,
                limits=self._sizes.limits,
            )
            self._flights[number] = _Flight(self._jobs.plan_shard(spec))
            number += 1
        return number

    def _heed_requests(self) -> None:
        request = self._jobs.fact("request")
        if request is None:
            return
        self._jobs.set_fact("request", None)
        if request == "cancel":
            self.cancelled = True
            self.drop()
        elif request == "retry":
            for job in self._jobs.all(state="planned"):
                self._flights.setdefault(job.number, _Flight(job))

    # -- results -------------------------------------------------------------------------------

    def _look(self) -> bool:
        """Take note of results and failures; whether there were any new ones."""
        moved = False
        for dataset in {flight.job.dataset for flight in self._flights.values()}:
            features = self._collection.folder.features(dataset)
            for done in results(features, self._jobs.plan):
                flight = self._flights.get(done.number)
                if flight is not None and not flight.result and flight.job.dataset == dataset:
                    flight.result = moved = True
            for failed in failures(features, self._jobs.plan):
                flight = self._flights.get(failed.number)
                discard(features, failed.plan, failed.number, failed.send)
                if flight is not None and not flight.result and flight.job.send == failed.send:
                    self._failed(flight, failed)
                    moved = True
        return moved

    def _failed(self, flight: _Flight, failed: Failed) -> None:
        job = flight.job
        if job.state != "sent":
            return
        if failed.why != "stopped":
            job.attempts += 1
            job.reason = failed.reason
        self._again(flight, pause_s=min(60.0, self._settings.lease_s / 8 * job.attempts))

    def _lost(self, flight: _Flight) -> None:
        flight.job.losses += 1
        flight.job.reason = flight.job.reason or (
            "its worker gave no sign of life any more, whichever had it"
        )
        self._again(flight)

    def _again(self, flight: _Flight, pause_s: float = 0.0) -> None:
        """Have it sent again, or make it a dead letter."""
        job, most = flight.job, self._settings.max_attempts
        dead = job.attempts >= most or job.losses >= _LOSSES_PER_ATTEMPT * most
        job.state = "dead" if dead else "planned"
        self._jobs.update(job)
        flight.seen, flight.missed = False, 0
        flight.not_before = time.monotonic() + pause_s
        if dead:
            del self._flights[job.number]
            self._settle([job])
            self._notice(
                f"shard {job.number} of {job.source} is a dead letter after "
                f"{job.attempts + job.losses} attempts: {job.reason}"
            )

    def _collect(self) -> bool:
        """Take in what is done and not preceded by what is not; whether there was anything."""
        for count, number in enumerate(sorted(self._flights)):
            flight = self._flights[number]
            if not flight.result or count == _AT_A_TIME:
                return count > 0
            job = flight.job
            features = self._collection.folder.features(job.dataset)
            result = read_result(features, Done(number, self._jobs.plan))
            if (
                result is None
                or result.digest != job.digest
                or result.fingerprint != self._fingerprint
            ):
                discard(features, self._jobs.plan, number)
                flight.result = False
                self._again(flight)
                return True
            self.collector.collect(job, result)
            self._jobs.done(number)
            del self._flights[number]
            self._settle([job])
            self._reach(flight, len(result.outcomes))
        return bool(self._flights) is False

    def _reach(self, flight: _Flight, images: int) -> None:
        if images > flight.images:
            self._advance(images - flight.images)
            flight.images = images

    def _settle(self, jobs: Iterable[Job]) -> None:
        """Remove what workers left of shards, and let those who still have them know."""
        gone = list(jobs)
        for job in gone:
            with writing(self._collection.folder.root):
                features = self._collection.folder.features(job.dataset)
                discard(features, self._jobs.plan, job.number)
        try:
            self._board.forget(self._jobs.plan, [job.number for job in gone])
        except WorkersError as exc:
            self._redis_away(exc)

    # -- Redis ---------------------------------------------------------------------------------

    def _talk(self) -> None:
        try:
            self._look_aside()
            self._watch()
            self._send()
        except WorkersError as exc:
            self._redis_away(exc)
            time.sleep(_POLL_S)
            return
        if self._away:
            self._away = False
            self._notice(f"Redis at {self._board.address} answers again")

    def _redis_away(self, exc: WorkersError) -> None:
        if not self._away:
            self._away = True
            self._notice(f"{exc}; waiting for it, nothing is lost")

    def _look_aside(self) -> None:
        """What seldom changes: the model, the workers that live, those that refuse."""
        now = time.monotonic()
        if now < self._aside_at:
            return
        self._aside_at = now + _ASIDE_S
        self._board.publish(self._fingerprint, self._packed)
        alive = self._board.workers()
        self._workers = len(alive)
        for name, why in self._board.refusals().items():
            if f"{name}: {why}" not in self._told:
                self._told.add(f"{name}: {why}")
                self._notice(f"worker {name} refuses: {why}")
        if alive:
            self._alone_since = now
        elif now - self._alone_since > _NO_WORKER_S:
            self._notice(
                f"waiting: no worker answers at {self._board.address}; start one with "
                "`attrib worker`, on any machine that sees this Redis"
            )
            self._alone_since = now + _REMIND_S - _NO_WORKER_S

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
        self, flight: _Flight, beat: Beat | None, wanted: str | None, waiting: int, now: float
    ) -> None:
        job = flight.job
        if beat is not None and beat.send == job.send:
            flight.seen, flight.missed, flight.changed = True, 0, now
            self._reach(flight, beat.images)
            if wanted is None:  # Redis was emptied, and its worker told of itself since
                self._board.want(self._jobs.plan, job.number, job.send)
        elif flight.seen and wanted is not None:
            # Its beats expired; or it has just ended, and the result is seen next time.
            flight.missed += 1
            if flight.missed > 2:
                self._lost(flight)
        elif flight.seen:
            if now - flight.changed > self._settings.lease_s:
                self._lost(flight)
        elif wanted != job.send or (waiting == 0 and now - flight.changed > self._settings.lease_s):
            # Redis lost it, or a worker that died before it began.
            job.state = "planned"
            self._jobs.update(job)

    def _send(self) -> None:
        """Send what is planned, as far as the window goes."""
        now = time.monotonic()
        under_way = sum(
            flight.job.state == "sent" and not flight.result for flight in self._flights.values()
        )
        for number in sorted(self._flights):
            if under_way >= self._window:
                return
            flight = self._flights[number]
            if flight.job.state == "planned" and not flight.result and now >= flight.not_before:
                self._send_one(flight)
                under_way += 1

    def _send_one(self, flight: _Flight) -> None:
        from kombu.exceptions import OperationalError

        job = flight.job
        features = self._collection.folder.features(job.dataset)
        if not hasattr(features, "fs"):
            features = features.absolute()
        if job.dataset not in self._marked:
            with writing(self._collection.folder.root):
                mark_ours(features, self._jobs.plan)
            self._marked.add(job.dataset)
        job.send = secrets.token_hex(6)
        job.state = "sent"
        self._jobs.update(job)
        flight.changed = time.monotonic()
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

    # -- people --------------------------------------------------------------------------------

    def _say(self, *, running: bool) -> None:
        counts = self.collector.counts
        self._jobs.set_progress(
            {
                **self._said,
                "running": running,
                "redis": self._board.address,
                "shards_done": counts.shards,
                "images_done": counts.images + counts.rejected + counts.buried,
                "rejected": counts.rejected,
                "workers": self._workers,
                "away": self._away,
            }
        )
