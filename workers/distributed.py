"""The ingest over any number of machines: what `search.ingestion.ingest` does on one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass

from ingest.source import Source
from search.collection import Collection
from search.folder import writing
from search.index_place import server_place
from search.ingestion import IngestReport, IngestSettings, Progress, conclude, forced_from
from search.plan import InHand, Plan
from workers.app import make_app
from workers.board import Board
from workers.coordinator import Coordinator, CoordinatorSettings
from workers.jobs import Jobs, coordinating, jobs_path
from workers.results import tidy

__all__ = ["WorkersReport", "ingest_with_workers"]


@dataclass(frozen=True)
class WorkersReport:
    """What an ingest with workers did.

    Attributes:
        ingest: as on one machine.
        dead: shards that failed for good, one line each.
        cancelled: whether it was cancelled.
    """

    ingest: IngestReport
    dead: list[str]
    cancelled: bool


def ingest_with_workers(
    collection: Collection,
    sources: Sequence[Source],
    dataset: str,
    *,
    redis: str,
    settings: IngestSettings,
    workers: CoordinatorSettings | None = None,
    force: bool = False,
    retry_failed: bool = False,
    progress: Progress | None = None,
    notice: Callable[[str], None] = lambda line: None,
) -> WorkersReport:
    """Have `sources` ingested by the workers that listen at `redis`, and wait for it.

    Killed at any moment, the same call goes on, and the end is the same as of
    `search.ingestion.ingest`. Shards that an earlier call left are done first, whatever their
    sources; dead letters of earlier ones stay what they are.

    Raises:
        WorkersError: Redis does not answer at the start. Later it is waited for.
        DataFolderBusyError: the data folder's workers are coordinated by another process.
        SourceError: a source has no images, or breaks off.
        DataFolderError: the disk is full or the folder read-only.
        IndexFailedError: the index failed.
    """
    root = collection.folder.root
    ledger = collection.ledger
    with ExitStack() as opened:
        board = opened.enter_context(closing(Board(redis)))
        board.tidy()
        opened.enter_context(coordinating(root))
        jobs = opened.enter_context(Jobs(jobs_path(root)))
        jobs.set_fact("request", None)
        plan = Plan(
            ledger,
            dataset,
            settings.shard_size,
            forced_from(
                collection,
                dataset,
                force,
                first=max(ledger.next_shard(reserved=False), jobs.next_number()),
            ),
            retry_failed,
            in_hand=_in_hand(collection, jobs, dataset),
        )
        _tidy(collection, jobs, dataset)
        shards, images = _totals(plan, sources)
        if progress is not None:
            progress.start(images)
        coordinator = Coordinator(
            collection,
            jobs,
            board,
            opened.enter_context(closing(make_app(redis))),
            workers or CoordinatorSettings(),
            settings,
            _server_of(collection),
            notice,
            progress.advance if progress is not None else lambda done: None,
        )
        with _ending(collection, jobs, dataset):
            coordinator.run(
                plan.works(sources), dataset, {"shards_total": shards, "images_total": images}
            )
        plan.broken.extend(coordinator.collector.broken)
        report = conclude(collection, dataset, plan, coordinator.collector.counts, progress)
        dead = [f"{source}: {reason}" for _, _, source, _, reason in jobs.dead()]
        return WorkersReport(report, dead, coordinator.cancelled)


@contextmanager
def _ending(collection: Collection, jobs: Jobs, dataset: str) -> Iterator[None]:
    """Say in the end that nobody coordinates any more; free the numbers that were kept."""
    try:
        yield
    finally:
        said = jobs.progress()
        state = "stopped" if said.get("running") else said.get("state", "stopped")
        jobs.set_progress({**said, "running": False, "state": state})
    collection.ledger.reserve(jobs.next_number() or None)
    _tidy(collection, jobs, dataset)


def _tidy(collection: Collection, jobs: Jobs, dataset: str) -> None:
    numbers: dict[str, set[int]] = {dataset: set()}
    for job in jobs.all():
        numbers.setdefault(job.dataset, set()).add(job.number)
    with writing(collection.folder.root):
        for name, keep in numbers.items():
            tidy(collection.folder.features(name), keep=keep)


def _totals(plan: Plan, sources: Sequence[Source]) -> tuple[int, int | None]:
    """(shards, images) to be done; no images where a tar would have to be read to know."""
    shards, images = 0, 0
    has_tars = False
    for work in plan.again().works(sources):
        shards += 1
        images += len(work.items or ())
        has_tars |= work.items is None
    return shards, None if has_tars else images


def _in_hand(collection: Collection, jobs: Jobs, dataset: str) -> InHand:
    """What must not be planned again; it is bounded, as the jobs are."""
    keys: set[str] = set()
    tars: set[str] = set()
    for job in jobs.all():
        if job.dataset == dataset and not collection.ledger.has_shard(job.number):
            spec = job.spec
            if spec.items is None:
                tars.add(spec.origin)
            else:
                keys.update(item.key for item in spec.items)
    return InHand(frozenset(keys), frozenset(tars))


def _server_of(collection: Collection) -> tuple[str, str] | None:
    place = server_place(collection.folder.collection(collection.name))
    return None if place is None else (place.url.server, place.collection)
