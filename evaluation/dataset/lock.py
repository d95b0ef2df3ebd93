"""One writer at a time in a dataset's folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from evaluation.dataset.files import LOCK
from ingest.errors import DataFolderBusyError, DataFolderError

__all__ = ["taken"]


@contextmanager
def taken(out: Path) -> Iterator[None]:
    """While this process writes into a dataset's folder, which must be there.

    The lock goes with the process, however that ends; its file stays, since another process may
    have it open already.

    Raises:
        DataFolderBusyError: another process does: a build, a check or a card.
        DataFolderError: the folder cannot be written to.
    """
    if (out / LOCK).is_symlink():
        # It would be opened, and emptied, wherever it leads.
        raise DataFolderError(f"{out / LOCK} is a link, which no `attrib dataset` command makes")
    lock = FileLock(out / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as exc:
        raise DataFolderBusyError(
            f"{out} is in use by another `attrib dataset` command; wait until it ends, or stop it"
        ) from exc
    except OSError as exc:
        raise DataFolderError(f"cannot write {out}: {exc.strerror or exc}") from exc
    try:
        yield
    finally:
        lock.release()
