"""What a person asks of an ingest with workers from another terminal: to stop it, to try again."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

from ingest.errors import DataFolderBusyError, DataFolderError, WorkersError
from ingest.ledger import Ledger
from search.folder import DataFolder, writing
from workers.board import Board
from workers.jobs import Jobs, coordinating, jobs_path
from workers.results import discard

__all__ = ["cancel", "has_jobs", "is_coordinated", "revive"]

_ANSWER_S = 30.0


def has_jobs(root: Path) -> None:
    """Return where workers were ever asked to work for this data folder.

    Raises:
        DataFolderError: they were not, or there is no data folder.
    """
    if not (root / "attrib.json").is_file():
        raise DataFolderError(
            f"{root} is no attrib data folder; make one with `attrib ingest SOURCE --data {root}`"
        )
    if not jobs_path(root).is_file():
        raise DataFolderError(
            f"no workers were asked to ingest into {root}; `attrib ingest SOURCE --workers "
            f"--data {root}` does"
        )


def is_coordinated(root: Path) -> bool:
    """Whether a process coordinates the data folder's workers right now."""
    try:
        with coordinating(root):
            return False
    except DataFolderBusyError:
        return True


def revive(root: Path) -> tuple[int, bool]:
    """Have dead letters sent again; how many, and whether a running ingest does it.

    Where none runs, they are planned for the next one.

    Raises:
        DataFolderError: nothing was ever sent to workers from here, or the disk refuses.
    """
    has_jobs(root)
    with Jobs(jobs_path(root)) as jobs:
        count = jobs.revive()
        running = is_coordinated(root)
        if count and running:
            jobs.set_fact("request", "retry")
        return count, running


def cancel(root: Path, board: Board) -> int:
    """Give up what is planned and sent; what is in the ledger stays, and so do dead letters.

    Returns how many shards were given up.

    Raises:
        DataFolderError: nothing was ever sent to workers from here, or the disk refuses.
        WorkersError: the ingest that runs does not listen.
    """
    has_jobs(root)
    with Jobs(jobs_path(root)) as jobs:
        counts = jobs.counts()
        count = counts["planned"] + counts["sent"]
        if is_coordinated(root):
            jobs.set_fact("request", "cancel")
            until = time.monotonic() + _ANSWER_S
            while jobs.fact("request") is not None and is_coordinated(root):
                if time.monotonic() > until:
                    raise WorkersError(
                        f"the ingest on {root} does not answer; stop it with Ctrl-C, then cancel"
                    )
                time.sleep(0.1)
            return count
        with DataFolder.open(root) as folder:
            gone = jobs.clear(dead=False)
            with writing(root):
                for job in gone:
                    discard(folder.features(job.dataset), jobs.plan, job.number)
            with closing(Ledger(folder.ledger)) as ledger:
                ledger.reserve(jobs.next_number() or None)
        if gone:
            jobs.set_progress({**jobs.progress(), "running": False, "state": "cancelled"})
        board.forget(jobs.plan, [job.number for job in gone])
        return len(gone)
