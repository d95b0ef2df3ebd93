"""An ingest that workers do, in place of this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from ingest.errors import WorkersError
from ingest.source import Source
from search.collection import Collection
from search.ingestion import Embeds, IngestReport, IngestSettings, Progress
from workers.board import Board
from workers.coordinator import CoordinatorSettings
from workers.distributed import WorkersReport, ingest_with_workers

__all__ = ["ThroughWorkers"]


class ThroughWorkers:
    """Called as `search.ingestion.ingest` is.

    Args:
        redis: address of Redis.
        settings: how workers are dealt with.
        notice: takes lines for people, while it goes on.

    Attributes:
        report: of the workers, after the call.
    """

    def __init__(
        self, redis: str, settings: CoordinatorSettings, notice: Callable[[str], None]
    ) -> None:
        """Look whether Redis answers, before anything is made.

        Raises:
            UsageError: that is no address of Redis.
            WorkersError: it does not.
        """
        with closing(Board(redis)) as board:
            board.ping()
        self.report: WorkersReport | None = None
        self._redis = redis
        self._settings = settings
        self._notice = notice

    def __call__(
        self,
        collection: Collection,
        backbone: Callable[[], Embeds],
        sources: Sequence[Source],
        dataset: str,
        *,
        settings: IngestSettings,
        force: bool = False,
        retry_failed: bool = False,
        progress: Progress | None = None,
    ) -> IngestReport:
        """As `ingest_with_workers`; `backbone` stays unused."""
        self.report = ingest_with_workers(
            collection,
            sources,
            dataset,
            redis=self._redis,
            settings=settings,
            workers=self._settings,
            force=force,
            retry_failed=retry_failed,
            progress=progress,
            notice=self._notice,
        )
        return self.report.ingest

    def check(self, data: Path) -> None:
        """Fail where not all went well.

        Raises:
            WorkersError: it was cancelled, or shards are dead letters.
        """
        if self.report is not None:
            check_report(self.report, data)


def check_report(report: WorkersReport, data: Path) -> None:
    """Fail where not all went well.

    Raises:
        WorkersError: it was cancelled, or shards are dead letters.
    """
    if report.cancelled:
        raise WorkersError("cancelled; the same command goes on with what is not in yet")
    if report.dead:
        count = len(report.dead)
        which = "a shard is a dead letter" if count == 1 else f"{count} shards are dead letters"
        raise WorkersError(
            f"{which} ({report.dead[0]}{', ...' if count > 1 else ''}); `attrib status --data "
            f"{data}` lists them, `attrib retry --data {data}` sends them again"
        )
