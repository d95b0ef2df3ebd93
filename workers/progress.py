"""How far an ingest with workers is: from the data folder's jobs, and from Redis if it answers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ingest.errors import DataFolderError, WorkersError
from workers.board import Board, WorkerState
from workers.jobs import Jobs, RunState, jobs_path
from workers.requests import has_jobs, is_coordinated

__all__ = ["DeadLetter", "Status", "status_of"]


@dataclass(frozen=True)
class DeadLetter:
    """A shard that failed for good.

    Attributes:
        number: of the shard.
        dataset: of its images.
        source: that it is of.
        attempts: made.
        reason: of the last failure.
    """

    number: int
    dataset: str
    source: str
    attempts: int
    reason: str


@dataclass(frozen=True)
class Status:
    """The state of things now.

    Attributes:
        running: whether a coordinator is at work.
        state: running, or how it ended: finished, with dead letters or without; cancelled; or
            stopped, and the same command goes on.
        dataset: that it ingests.
        done: shards that are in, of this run.
        at_work: shards that workers have.
        waiting: shards that are planned or queued.
        total: shards of this run; None where there is none.
        images: that are done, of this run.
        images_total: of this run; None where it is not known beforehand.
        rejected: images of this run that could not be used.
        rate: images per second, of the last minute while it runs, and then of the whole run; what
            comes before the first images does not count.
        remaining_s: until the end, at that rate; None where it cannot be told.
        workers: that live.
        refusals: why workers do no work, by worker.
        dead: the dead letters.
        redis: why it cannot be asked; '' where it answers.
    """

    running: bool
    state: RunState
    dataset: str
    done: int
    at_work: int
    waiting: int
    total: int | None
    images: int
    images_total: int | None
    rejected: int
    rate: float
    remaining_s: float | None
    workers: list[WorkerState]
    refusals: dict[str, str]
    dead: list[DeadLetter] = field(default_factory=list)
    redis: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def status_of(root: Path, board: Board) -> Status:
    """The state of a data folder's ingest. Nothing is changed or waited for.

    Raises:
        DataFolderError: no data folder, or one that workers never worked for.
    """
    has_jobs(root)
    with Jobs(jobs_path(root)) as jobs:
        said = jobs.progress()
        counts = jobs.counts()
        dead = [DeadLetter(*row) for row in jobs.dead()]
        sent = [job.number for job in jobs.all(state="sent")]
        plan = jobs.plan
    workers: list[WorkerState] = []
    refusals: dict[str, str] = {}
    at_work, why = 0, ""
    try:
        workers = board.workers()
        refusals = board.refusals()
        at_work = sum(beat is not None for beat in board.beats(plan, sent))
    except WorkersError as exc:
        why = str(exc)
    rate = float(said.get("rate", 0.0))
    total = said.get("shards_total")
    total = None if total is None else total + said.get("left", 0)
    done, images = said.get("shards_done", 0), said.get("images_done", 0)
    state = _state(root, said)
    running = state == "running"
    return Status(
        running=running,
        state=state,
        dataset=said.get("dataset", ""),
        done=done,
        at_work=at_work,
        waiting=counts["planned"] + counts["sent"] - at_work,
        total=total,
        images=images,
        images_total=said.get("images_total"),
        rejected=said.get("rejected", 0),
        rate=round(rate, 2),
        remaining_s=_remaining(said, total, len(dead), rate) if running else None,
        workers=workers,
        refusals=refusals,
        dead=dead,
        redis=why,
    )


def _state(root: Path, said: dict[str, Any]) -> RunState:
    """What the coordinator last said, unless it was killed since."""
    if not said.get("running"):
        state: RunState = said.get("state", "stopped")
        return state
    try:
        return "running" if is_coordinated(root) else "stopped"
    except DataFolderError:  # this process may not write there: nothing else is known
        return "running"


def _remaining(said: dict[str, Any], total: int | None, dead: int, rate: float) -> float | None:
    """In seconds: by images where they are counted, else by shards as large as those so far."""
    if rate <= 0 or total is None:
        return None
    done, images = int(said.get("shards_done", 0)), int(said.get("images_done", 0))
    reached = max(images, int(said.get("images_reached", 0)))
    if said.get("images_total") is not None and not said.get("left"):
        return max(0.0, (int(said["images_total"]) - reached) / rate)
    if not done:
        return None
    return max(0.0, (total - dead - done) * (images / done) / rate)
