"""Keeps workers busy with the shards of a data folder, and takes in what they did, in order.

The data folder is the truth: the ledger, the jobs beside it (`workers.jobs`), the results beside
the features (`workers.results`). Redis may be emptied at any moment, and this process killed: what
has neither a result nor a sign of life is sent again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from ingest.storage import is_remote
from search.collection import Collection
from search.folder import writing
from search.pipeline import IngestSettings
from search.plan import Work
from workers.board import Board
from workers.collector import Collector
from workers.dispatch import CoordinatorSettings, Dispatcher, Flight
from workers.jobs import Job, Jobs, RunState
from workers.lease import Lease
from workers.rate import Rate
from workers.results import (
    Done,
    Failed,
    discard,
    failures,
    read_result,
    results,
)
from workers.shard_spec import spec_of

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["Coordinator", "CoordinatorSettings"]

_POLL_S = 0.1
_STORE_POLL_S = 1.0
_AHEAD = 64  # shards that may be done and wait for one before them
_AT_A_TIME = 4  # shards taken in before Redis is looked at again
_RESERVED = 64
_LOSSES_PER_ATTEMPT = 3  # a machine that is lost is seldom the shard's fault


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
        self._settings = settings
        self._sizes = sizes
        self._notice = notice
        self._advance = advance
        self._flights: dict[int, Flight] = {}
        self._rate = Rate()
        self._exhausted = False
        self._looked_at = 0.0
        self._dispatcher = Dispatcher(
            collection,
            jobs,
            board,
            app,
            settings,
            index,
            notice,
            self._flights,
            self._lost,
            self._reach,
        )
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
        self._say("running")
        said_at = 0.0
        while True:
            self._heed_requests()
            if self.cancelled:
                self._say("cancelled")
                return
            number = self._plan(works, dataset, number)
            moved = self._look()
            moved |= self._collect()
            self._dispatcher.talk()
            if self._exhausted and not self._flights:
                self._dispatcher.last_words()
                self._say("finished")
                return
            now = time.monotonic()
            if now - said_at > 1:
                self._say("running")
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
                self._flights[job.number] = Flight(job, lease=Lease(changed=time.monotonic()))

    def _plan(self, works: Iterator[Work], dataset: str, number: int) -> int:
        """Plan shards as far as the window goes; returns the next number."""
        while not self._exhausted and len(self._flights) < self._dispatcher.window + _AHEAD:
            waiting = sum(flight.job.state == "planned" for flight in self._flights.values())
            if waiting >= self._dispatcher.window:
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
            self._flights[number] = Flight(self._jobs.plan_shard(spec))
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
                self._flights.setdefault(job.number, Flight(job))

    # -- results -------------------------------------------------------------------------------

    def _look(self) -> bool:
        """Take note of results and failures; whether there were any new ones."""
        moved = False
        now = time.monotonic()
        for dataset in {flight.job.dataset for flight in self._flights.values()}:
            features = self._collection.folder.features(dataset)
            if is_remote(features):  # every look is paid for
                if now < self._looked_at + _STORE_POLL_S:
                    continue
                self._looked_at = now
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

    def _failed(self, flight: Flight, failed: Failed) -> None:
        job = flight.job
        if job.state != "sent":
            return
        if failed.why != "stopped":
            job.attempts += 1
            job.reason = failed.reason
        self._again(flight, pause_s=min(60.0, self._settings.lease_s / 8 * job.attempts))

    def _lost(self, flight: Flight) -> None:
        flight.job.losses += 1
        flight.job.reason = flight.job.reason or (
            "its worker gave no sign of life any more, whichever had it"
        )
        self._again(flight)

    def _again(self, flight: Flight, pause_s: float = 0.0) -> None:
        """Have it sent again, or make it a dead letter."""
        job, most = flight.job, self._settings.max_attempts
        dead = job.attempts >= most or job.losses >= _LOSSES_PER_ATTEMPT * most
        job.state = "dead" if dead else "planned"
        self._jobs.update(job)
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
        return False

    def _reach(self, flight: Flight, images: int) -> None:
        if images > flight.images:
            self._advance(images - flight.images)
            self._rate.advance(images - flight.images)
            flight.images = images

    def _settle(self, jobs: Iterable[Job]) -> None:
        """Remove what workers left of shards, and let those who still have them know."""
        gone = list(jobs)
        for job in gone:
            with writing(self._collection.folder.root):
                features = self._collection.folder.features(job.dataset)
                discard(features, self._jobs.plan, job.number)
        self._dispatcher.forget(gone)

    # -- people --------------------------------------------------------------------------------

    def _say(self, state: RunState) -> None:
        counts, running = self.collector.counts, state == "running"
        self._jobs.set_progress(
            {
                **self._said,
                "running": running,
                "state": state,
                "redis": self._board.address,
                "shards_done": counts.shards,
                "images_done": counts.images + counts.rejected + counts.buried,
                "rejected": counts.rejected,
                "images_reached": self._rate.total,
                "rate": self._rate.recent if running else self._rate.average,
                "workers": self._dispatcher.workers,
                "away": self._dispatcher.away,
            }
        )
