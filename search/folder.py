"""The data folder: where things lie in it, who is using it, and what it was built with.

attrib.json                    version of this layout
lock, lock.json                held by the one process that uses the folder; what only reads, and
                               has its index on a server, needs none of it
ledger.sqlite                  what was ingested
rejects.parquet                images that could not be used
features/<dataset>/            base-feature shards (see `embed.shards`), unless `attrib.json` says
                               that they are elsewhere (see `search.feature_place`)
collections/<name>/model/      the attribution model that the collection was built with
collections/<name>/index/      the index
collections/.building-<name>/  one that `attrib reindex` is building
current                        name of the collection that is asked
jobs.sqlite, jobs.lock         shards that workers have in hand (see `workers.jobs`)
reindex.lock                   held by the one process that re-maps the folder, beside others
"""

from __future__ import annotations

import errno
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ingest.errors import DataFolderBusyError, DataFolderError, UsageError
from ingest.storage import Location, location

__all__ = ["FORMAT", "DataFolder", "check_dataset_name", "reindex_lock", "writing"]

FORMAT = 1

# What a run that was killed as it made the folder may have left.
_FIRST = frozenset(["lock", "lock.json", ".lock.json.part", ".attrib.json.part"])
_DATASET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def check_dataset_name(name: str) -> str:
    """The name, where it is one that a folder can bear.

    Raises:
        UsageError: it is not.
    """
    if not _DATASET.fullmatch(name):
        raise UsageError(
            f"dataset name {name!r} will not do: up to 100 letters, digits, '.', '_' and '-', "
            "starting with a letter or digit; choose one with --dataset"
        )
    return name


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what the disk refuses into one line.

    Raises:
        DataFolderError: the disk is full, the folder read-only, or the like.
    """
    try:
        yield
    except OSError as exc:
        reason = os.strerror(exc.errno) if exc.errno else str(exc)
        advice = "check its permissions"
        if exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            advice = "free some space and run the same command again: what is finished is kept"
        raise DataFolderError(f"cannot write to {folder}: {reason}; {advice}") from exc


class DataFolder:
    """A data folder in use by this process, from `open`, `read` or `create` until `close`.

    Attributes:
        root: the folder.
    """

    def __init__(self, root: Path, lock: FileLock | None) -> None:
        self.root = root
        self._lock = lock

    @classmethod
    def open(cls, root: Path, *, wait_s: float = 2.0) -> DataFolder:
        """Take an existing data folder into use.

        Raises:
            DataFolderError: there is none, it is damaged, or of a newer format.
            DataFolderBusyError: another process still used it after `wait_s` seconds.
        """
        _check_there(root)
        folder = cls(root, _take(root, wait_s))
        try:
            folder.facts()
        except BaseException:
            folder.close()
            raise
        return folder

    @classmethod
    def read(cls, root: Path) -> DataFolder:
        """Read an existing data folder beside whoever uses it; nothing may be written.

        All of its files are replaced whole. What may not be shared is an embedded index.

        Raises:
            DataFolderError: as `open`.
        """
        _check_there(root)
        folder = cls(root, None)
        folder.facts()
        return folder

    @classmethod
    def create(cls, root: Path, *, wait_s: float = 2.0) -> DataFolder:
        """Take a data folder into use, making it where there is none.

        Raises:
            DataFolderError: as `open`; or a folder of something else is there already.
            DataFolderBusyError: as `open`.
        """
        if (root / "attrib.json").is_file():
            return cls.open(root, wait_s=wait_s)
        if root.exists() and not root.is_dir():
            raise DataFolderError(f"{root} is a file, not a folder; choose another with --data")
        with writing(root):
            if root.is_dir() and any(entry.name not in _FIRST for entry in root.iterdir()):
                raise DataFolderError(
                    f"{root} holds other things than attrib's; choose an empty or new folder "
                    "with --data"
                )
            root.mkdir(parents=True, exist_ok=True)
        folder = cls(root, _take(root, wait_s))
        try:
            with writing(root):
                folder.set_facts({})
        except BaseException:
            folder.close()
            raise
        return folder

    @property
    def shared(self) -> bool:
        """Whether another process may be writing to it."""
        return self._lock is None

    def close(self) -> None:
        """Let go of the folder. Calling it again does nothing."""
        if self._lock is not None and self._lock.is_locked:
            with suppress(OSError):
                (self.root / "lock.json").unlink(missing_ok=True)
            self._lock.release()

    def __enter__(self) -> DataFolder:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def facts(self) -> dict[str, Any]:
        """What `attrib.json` says.

        Raises:
            DataFolderError: it is damaged or of a newer format.
        """
        path = self.root / "attrib.json"
        try:
            facts = json.loads(path.read_text("utf-8"))
            version = int(facts["format"])
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise DataFolderError(f"{path} is damaged ({exc}); restore it or ingest anew") from exc
        if version > FORMAT:
            raise DataFolderError(
                f"{self.root} was written by a newer attrib (data format {version}; this one "
                f"reads {FORMAT}); upgrade attrib"
            )
        return dict(facts)

    def set_facts(self, facts: dict[str, Any]) -> None:
        """Write `attrib.json` anew, atomically."""
        _write_atomically(
            self.root / "attrib.json",
            json.dumps({**facts, "format": FORMAT}, indent=2, sort_keys=True) + "\n",
        )

    @property
    def current(self) -> str | None:
        """Name of the collection that is asked, None before the first ingest."""
        path = self.root / "current"
        return path.read_text("utf-8").strip() if path.is_file() else None

    def set_current(self, name: str) -> None:
        """Switch to a collection: one rename, so that there is always a whole one."""
        _write_atomically(self.root / "current", name + "\n")

    @property
    def ledger(self) -> Path:
        """The ledger's file."""
        return self.root / "ledger.sqlite"

    @property
    def rejects(self) -> Path:
        """Images that could not be used."""
        return self.root / "rejects.parquet"

    def features(self, dataset: str) -> Location:
        """Folder of a dataset's shards: in the data folder, or where `attrib.json` says.

        Raises:
            DataFolderError: `attrib.json` is damaged.
            UsageError: the store's package is not installed here.
        """
        place = self.facts().get("features")
        return (location(str(place)) if place else self.root / "features") / dataset

    def collections(self) -> list[str]:
        """Names of the whole collections; the current one is among them."""
        found = sorted(self.root.glob("collections/*/model/model.json"))
        names = [path.parents[1].name for path in found]
        return [name for name in names if not name.startswith(".")]

    def collection(self, name: str) -> Path:
        """Folder of a collection."""
        return self.root / "collections" / name

    def model(self, collection: str) -> Path:
        """Folder of the model that a collection was built with."""
        return self.collection(collection) / "model"

    def index(self, collection: str) -> Path:
        """Folder of a collection's index."""
        return self.collection(collection) / "index"


@contextmanager
def reindex_lock(root: Path) -> Iterator[None]:
    """Held while a data folder is re-mapped, which goes on beside queries and ingests.

    Raises:
        DataFolderBusyError: another process re-maps it.
    """
    lock = FileLock(root / "reindex.lock", timeout=0)
    with writing(root):
        try:
            lock.acquire()
        except Timeout as exc:
            raise DataFolderBusyError(
                f"{root} is being re-mapped by another process; wait until it ends, or stop it"
            ) from exc
    try:
        yield
    finally:
        lock.release()


def _check_there(root: Path) -> None:
    if not (root / "attrib.json").is_file():
        raise DataFolderError(
            f"{root} is no attrib data folder; make one with `attrib ingest SOURCE --data {root}`"
        )


def _take(root: Path, wait_s: float) -> FileLock:
    # Whichever thread opened the folder, any may close it: a service loads in one of its own.
    lock = FileLock(root / "lock", timeout=wait_s, thread_local=False)
    with writing(root):
        try:
            lock.acquire(poll_interval=0.05)
        except Timeout as exc:
            raise DataFolderBusyError(f"{root} is in use by {_holder(root)}; {_advice()}") from exc
        command = " ".join(["attrib", *sys.argv[1:3]]) if sys.argv[1:] else Path(sys.argv[0]).name
        _write_atomically(
            root / "lock.json",
            json.dumps({"pid": os.getpid(), "command": command, "since": time.time()}),
        )
    return lock


def _holder(root: Path) -> str:
    try:
        holder = json.loads((root / "lock.json").read_text("utf-8"))
        return f"process {int(holder['pid'])} ({str(holder['command'])[:100]})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _advice() -> str:
    return "one process at a time can use a data folder: wait until it ends, or stop it"


def _write_atomically(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.part")
    with temporary.open("w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(path)
