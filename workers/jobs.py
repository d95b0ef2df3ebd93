"""`jobs.sqlite` of a data folder: the shards that are planned and not in the ledger yet.

Only so many shards as fit the window, and those that failed for good, are in it: the rest of the
plan is the difference between sources and ledger, which can be taken again at any time. A shard's
row goes when the ledger has it.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from ingest.errors import DataFolderBusyError, DataFolderError
from workers.shard_spec import ShardSpec, dump_spec, load_spec, pack, unpack

__all__ = ["Job", "Jobs", "RunState", "coordinating", "jobs_path"]

FORMAT = 1
_OTHERS_LOOK_S = 0.5  # `attrib status` holds the lock for a moment

_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS shards (
    number   INTEGER PRIMARY KEY,
    dataset  TEXT NOT NULL,
    source   TEXT NOT NULL,
    spec     TEXT NOT NULL,
    state    TEXT NOT NULL,
    send     TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    losses   INTEGER NOT NULL,
    reason   TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS shards_by_state ON shards (state);
"""

State = Literal["planned", "sent", "dead"]
RunState = Literal["running", "finished", "cancelled", "stopped"]


@dataclass
class Job:
    """A shard that is not in the ledger yet.

    Attributes:
        number: of the shard.
        dataset: of its images.
        source: for people.
        packed: its `ShardSpec` as text.
        state: planned (not sent, or to be sent again), sent, or dead (a dead letter).
        send: name of the sending that counts.
        attempts: sendings that failed, or took their process with them.
        losses: sendings that were heard of no more, for whatever reason.
        reason: of the last failure.
    """

    number: int
    dataset: str
    source: str
    packed: str
    state: State = "planned"
    send: str = ""
    attempts: int = 0
    losses: int = 0
    reason: str = ""

    @property
    def digest(self) -> str:
        """Of the spec: a result of another shard under the same number is none of this."""
        return hashlib.sha256(self.packed.encode()).hexdigest()[:16]

    @property
    def spec(self) -> ShardSpec:
        """What there is to do."""
        return load_spec(unpack(self.packed))


class Jobs:
    """The file of one data folder. Safe to use from several threads and processes.

    Attributes:
        plan: a name that no other data folder's jobs have.

    Raises:
        DataFolderError: the file cannot be opened or written, or is of a newer format.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._mutex = threading.RLock()
        with self._failing():
            self._db = sqlite3.connect(
                path, check_same_thread=False, isolation_level=None, timeout=30
            )
            self._db.execute("PRAGMA journal_mode=WAL")
            # What a power cut takes is planned again: the ledger is what has to be durable.
            self._db.execute("PRAGMA synchronous=NORMAL")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version > FORMAT:
                raise DataFolderError(
                    f"{path} was written by a newer attrib (format {version}; this one reads "
                    f"{FORMAT}); upgrade attrib"
                )
            self._db.executescript(_SCHEMA)
            self._db.execute(f"PRAGMA user_version={FORMAT}")
            self._db.execute(
                "INSERT OR IGNORE INTO facts VALUES ('plan', ?)", (secrets.token_hex(6),)
            )
        self.plan = str(self.fact("plan"))

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def __enter__(self) -> Jobs:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- shards --------------------------------------------------------------------------------

    def plan_shard(self, spec: ShardSpec) -> Job:
        """Take a shard into the plan."""
        job = Job(spec.number, spec.dataset, spec.name, pack(dump_spec(spec)))
        self._write(job)
        return job

    def update(self, job: Job) -> None:
        """Keep what changed of a shard."""
        with self._failing():
            self._db.execute(
                "UPDATE shards SET state = ?, send = ?, attempts = ?, losses = ?, reason = ? "
                "WHERE number = ?",
                (job.state, job.send, job.attempts, job.losses, job.reason, job.number),
            )

    def done(self, number: int) -> None:
        """The ledger has the shard."""
        with self._failing():
            self._db.execute("DELETE FROM shards WHERE number = ?", (number,))

    def all(self, *, state: State | None = None) -> list[Job]:
        """The shards, in order of their numbers."""
        where, values = ("", ()) if state is None else (" WHERE state = ?", (state,))
        return [
            Job(*row)
            for row in self._rows(
                "SELECT number, dataset, source, spec, state, send, attempts, losses, reason "
                f"FROM shards{where} ORDER BY number",
                values,
            )
        ]

    def counts(self) -> dict[str, int]:
        """How many shards there are of each state."""
        found = {"planned": 0, "sent": 0, "dead": 0}
        found.update(self._rows("SELECT state, COUNT(*) FROM shards GROUP BY state"))
        return found

    def dead(self) -> list[tuple[int, str, str, int, str]]:
        """(number, dataset, source, attempts, reason) of the dead letters."""
        return self._rows(
            "SELECT number, dataset, source, attempts + losses, reason FROM shards "
            "WHERE state = 'dead' ORDER BY number"
        )

    def next_number(self) -> int:
        """The first number above all that are planned."""
        return int(self._rows("SELECT COALESCE(MAX(number) + 1, 0) FROM shards")[0][0])

    def revive(self) -> int:
        """Plan dead letters again, as if they had never been tried; returns how many."""
        with self._failing():
            return self._db.execute(
                "UPDATE shards SET state = 'planned', send = '', attempts = 0, losses = 0 "
                "WHERE state = 'dead'"
            ).rowcount

    def clear(self, *, dead: bool = True) -> list[Job]:
        """Drop the plan, or with `dead` False all but the dead letters; returns what there was."""
        gone = [job for job in self.all() if dead or job.state != "dead"]
        with self._failing():
            self._db.executemany(
                "DELETE FROM shards WHERE number = ?", [(job.number,) for job in gone]
            )
        return gone

    # -- facts ---------------------------------------------------------------------------------

    def fact(self, name: str) -> str | None:
        """A small fact; None where it is not set."""
        rows = self._rows("SELECT value FROM facts WHERE name = ?", (name,))
        return str(rows[0][0]) if rows else None

    def set_fact(self, name: str, value: str | None) -> None:
        """Set a fact, or with None remove it."""
        with self._failing():
            if value is None:
                self._db.execute("DELETE FROM facts WHERE name = ?", (name,))
            else:
                self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def progress(self) -> dict[str, Any]:
        """What the coordinator last said of itself; {} where it said nothing."""
        with suppress(ValueError):
            return dict(json.loads(self.fact("progress") or "{}"))
        return {}

    def set_progress(self, values: dict[str, Any]) -> None:
        """Say how far it is."""
        self.set_fact("progress", json.dumps(values))

    def _write(self, job: Job) -> None:
        with self._failing():
            self._db.execute(
                "INSERT OR REPLACE INTO shards VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    job.number,
                    job.dataset,
                    job.source,
                    job.packed,
                    job.state,
                    job.send,
                    job.attempts,
                    job.losses,
                    job.reason,
                ),
            )

    def _rows(self, sql: str, values: Sequence[object] = ()) -> list[Any]:
        with self._failing():
            return self._db.execute(sql, values).fetchall()

    @contextmanager
    def _failing(self) -> Iterator[None]:
        with self._mutex:
            try:
                yield
            except sqlite3.Error as exc:
                raise DataFolderError(f"cannot use {self._path}: {exc}") from exc


def jobs_path(root: Path) -> Path:
    """Where a data folder's jobs are."""
    return root / "jobs.sqlite"


@contextmanager
def coordinating(root: Path) -> Iterator[None]:
    """Held by the one process that coordinates a data folder's workers.

    Raises:
        DataFolderBusyError: another one does.
    """
    lock = FileLock(root / "jobs.lock", timeout=_OTHERS_LOOK_S)
    try:
        lock.acquire(poll_interval=0.05)
    except Timeout as exc:
        raise DataFolderBusyError(
            f"an ingest with workers is running on {root}; `attrib status --data {root}` shows it"
        ) from exc
    except OSError as exc:
        raise DataFolderError(f"cannot write to {root}: {exc.strerror}") from exc
    try:
        yield
    finally:
        lock.release()
