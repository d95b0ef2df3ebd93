"""The ledger: which images a data folder holds, in which shard, and which must never come back.

One SQLite file. A shard's row is written in one transaction as the last act of its ingestion, so
what the ledger says is done is done, and whatever else lies in the folder is left over from a
broken run and is written again under the same number.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from ingest import ledger_parts
from ingest.errors import DataFolderError, RejectReason
from ingest.ledger_rows import Entry, Known, PartRow, Removal, ShardRow, TarRow
from ingest.ledger_schema import FORMAT, SCHEMA
from ingest.record import Reject

__all__ = ["Entry", "Known", "Ledger", "PartRow", "Removal", "ShardRow", "TarRow"]

_RESERVED = "reserved-shards"


class Ledger:
    """The ledger of one data folder.

    Safe to use from several threads: one call at a time is served. `read_only`: beside a process
    that writes; it is never waited for.

    Raises:
        DataFolderError: the file cannot be opened or written, or is of a newer format (or, to read
            only, of an older one: whoever writes it next brings it up to date).
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self._path = path
        self._mutex = threading.RLock()
        try:
            if read_only:
                self._db = sqlite3.connect(
                    f"{path.absolute().as_uri()}?mode=ro",
                    uri=True,
                    check_same_thread=False,
                    isolation_level=None,
                )
                self._check_format(older=False)
                return
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            # FULL: a shard that the ledger calls done stays done after a power cut.
            self._db.execute("PRAGMA synchronous=FULL")
            self._check_format(older=True)
            self._db.executescript(SCHEMA)
            self._db.execute(f"PRAGMA user_version={FORMAT}")
        except sqlite3.Error as exc:
            raise self._failed(exc) from exc

    def _check_format(self, *, older: bool) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > FORMAT:
            raise DataFolderError(
                f"{self._path} was written by a newer attrib (ledger format {version}; "
                f"this one reads {FORMAT}); upgrade attrib"
            )
        if version < FORMAT and not older:
            raise DataFolderError(
                f"{self._path} is of an older attrib (ledger format {version}; this one reads "
                f"{FORMAT}); run `attrib info --data {self._path.parent}` once, which updates it"
            )

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def _failed(self, exc: sqlite3.Error) -> DataFolderError:
        return DataFolderError(f"cannot use the ledger {self._path}: {exc}")

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._mutex:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield self._db
                except BaseException:
                    self._db.execute("ROLLBACK")
                    raise
                self._db.execute("COMMIT")
            except sqlite3.Error as exc:
                raise self._failed(exc) from exc

    def _rows(self, sql: str, values: Sequence[object] = ()) -> list[tuple[object, ...]]:
        with self._mutex:
            try:
                return self._db.execute(sql, values).fetchall()
            except sqlite3.Error as exc:
                raise self._failed(exc) from exc

    # -- what is known -------------------------------------------------------------------------

    def known(self, dataset: str, keys: Sequence[str]) -> dict[str, Known]:
        """What is known of those keys (any number of them)."""
        found: dict[str, Known] = {}
        for start in range(0, len(keys), 500):  # below SQLite's limit on variables
            part = keys[start : start + 500]
            marks = ",".join("?" * len(part))
            for key, origin, signature, shard, usable in self._rows(
                f"SELECT key, origin, signature, shard, usable FROM items "
                f"WHERE dataset = ? AND key IN ({marks})",
                (dataset, *part),
            ):
                found[str(key)] = Known(str(origin), str(signature), int(str(shard)), bool(usable))
        return found

    def tar(self, dataset: str, path: str) -> tuple[str, int] | None:
        """(signature, shard) of a tar that was ingested, None where it was not."""
        rows = self._rows(
            "SELECT signature, shard FROM tars WHERE dataset = ? AND path = ?", (dataset, path)
        )
        return (str(rows[0][0]), int(str(rows[0][1]))) if rows else None

    def shards(self) -> list[ShardRow]:
        """All finished shards in order of their numbers."""
        return [
            ShardRow(int(str(n)), str(d), str(s), int(str(i)), int(str(r)))
            for n, d, s, i, r in self._rows(
                "SELECT number, dataset, source, images, rejected FROM shards ORDER BY number"
            )
        ]

    def next_shard(self, *, reserved: bool = True) -> int:
        """The number of the next shard. A broken run's number is given again, and overwritten.

        `reserved`: numbers that workers have in hand are passed over.
        """
        number = int(str(self._rows("SELECT COALESCE(MAX(number) + 1, 0) FROM shards")[0][0]))
        return max(number, int(self.mark(_RESERVED) or 0)) if reserved else number

    def reserve(self, stop: int | None) -> None:
        """Numbers below `stop` belong to shards that workers have in hand; None: none do."""
        self.set_mark(_RESERVED, None if stop is None else str(stop))

    def has_shard(self, number: int) -> bool:
        """Whether that shard is finished."""
        return bool(self._rows("SELECT 1 FROM shards WHERE number = ?", (number,)))

    def images(self, dataset: str | None = None) -> int:
        """How many usable images there are."""
        if dataset is None:
            rows = self._rows("SELECT COUNT(*) FROM items WHERE usable = 1")
        else:
            rows = self._rows(
                "SELECT COUNT(*) FROM items WHERE usable = 1 AND dataset = ?", (dataset,)
            )
        return int(str(rows[0][0]))

    def images_of(self, number: int) -> int:
        """How many usable images the ledger places in that shard."""
        return int(
            str(
                self._rows("SELECT COUNT(*) FROM items WHERE shard = ? AND usable = 1", (number,))[
                    0
                ][0]
            )
        )

    def datasets(self) -> dict[str, int]:
        """Usable images of each dataset."""
        return {
            str(name): int(str(count))
            for name, count in self._rows(
                "SELECT dataset, SUM(usable) FROM items GROUP BY dataset ORDER BY dataset"
            )
        }

    def usable_in(self, number: int) -> list[tuple[str, str]]:
        """(dataset, key) of the usable images that the ledger places in that shard, in order."""
        return [
            (str(dataset), str(key))
            for dataset, key in self._rows(
                "SELECT dataset, key FROM items WHERE shard = ? AND usable = 1 "
                "ORDER BY dataset, key",
                (number,),
            )
        ]

    # -- finishing a shard ---------------------------------------------------------------------

    def finish(
        self,
        row: ShardRow,
        entries: Iterable[Entry],
        rejects: Iterable[Reject],
        *,
        tar: TarRow | None = None,
        part: PartRow | None = None,
    ) -> None:
        """Mark a shard as done: the last act of its ingestion, in one transaction.

        Rows of the same keys in older shards become removals, and so do keys that `tar` held when
        it was ingested before and does not hold now (for a `part`, see `end_parts`).
        """
        with self._transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO shards VALUES (?, ?, ?, ?, ?)",
                (row.number, row.dataset, row.source, row.images, row.rejected),
            )
            for entry in entries:
                db.execute(
                    "INSERT OR REPLACE INTO removals "
                    "SELECT dataset, key, shard, ? FROM items "
                    "WHERE dataset = ? AND key = ? AND shard <> ? AND usable = 1",
                    (int(not entry.usable), row.dataset, entry.key, row.number),
                )
                db.execute(
                    "INSERT OR REPLACE INTO items VALUES (?, ?, ?, ?, ?, ?)",
                    (
                        row.dataset,
                        entry.key,
                        entry.origin,
                        entry.signature,
                        row.number,
                        int(entry.usable),
                    ),
                )
                if entry.usable:  # what it was rejected for before is mended
                    db.execute(
                        "DELETE FROM rejects WHERE dataset = ? AND key = ? "
                        "AND (reason <> ? OR path = ?)",
                        (row.dataset, entry.key, RejectReason.DUPLICATE_KEY.value, entry.origin),
                    )
            if tar is not None:
                self._replace_tar(db, row, tar)
            if part is not None:
                ledger_parts.record(db, row, part)
            self._insert_rejects(db, row.dataset, rejects)

    @staticmethod
    def _replace_tar(db: sqlite3.Connection, row: ShardRow, tar: TarRow) -> None:
        # All its keys begin with its stem: a range of the primary key, however large the ledger.
        keys = (f"{tar.stem}/", f"{tar.stem}0")  # '0' follows '/'
        gone = (row.dataset, *keys, tar.path, row.number)
        db.execute(
            "INSERT OR REPLACE INTO removals SELECT dataset, key, shard, 1 FROM items "
            "WHERE dataset = ? AND key >= ? AND key < ? AND origin = ? AND shard <> ? "
            "AND usable = 1",
            gone,
        )
        db.execute(
            "DELETE FROM items WHERE dataset = ? AND key >= ? AND key < ? AND origin = ? "
            "AND shard <> ?",
            gone,
        )
        db.execute("DELETE FROM rejects WHERE dataset = ? AND key = ?", (row.dataset, tar.stem))
        db.execute(
            "DELETE FROM rejects WHERE dataset = ? AND key >= ? AND key < ?", (row.dataset, *keys)
        )
        db.execute(
            "INSERT OR REPLACE INTO tars VALUES (?, ?, ?, ?)",
            (row.dataset, tar.path, tar.signature, row.number),
        )

    @staticmethod
    def _insert_rejects(db: sqlite3.Connection, dataset: str, rejects: Iterable[Reject]) -> None:
        db.executemany(
            "INSERT OR REPLACE INTO rejects VALUES (?, ?, ?, ?, ?)",
            (
                (dataset, reject.key, reject.path, reject.reason.value, reject.detail)
                for reject in rejects
            ),
        )

    def end_parts(self, dataset: str, path: str, signature: str, rows: int) -> None:
        """All `rows` rows of a feature file are in: what only an older version of it had goes."""
        with self._transaction() as db:
            ledger_parts.end(db, dataset, path, signature, rows)

    def add_rejects(self, dataset: str, rejects: Iterable[Reject]) -> None:
        """Keep rejects that belong to no shard."""
        with self._transaction() as db:
            self._insert_rejects(db, dataset, rejects)

    def rejects(self) -> list[tuple[str, Reject]]:
        """(dataset, reject) of every image that could not be used, ordered."""
        return [
            (str(d), Reject(str(k), str(p), RejectReason(str(r)), str(t)))
            for d, k, p, r, t in self._rows(
                "SELECT dataset, key, path, reason, detail FROM rejects ORDER BY dataset, key, path"
            )
        ]

    # -- takedowns -----------------------------------------------------------------------------

    def bury(self, images: Iterable[tuple[str, str, str]], since: str) -> int:
        """Take images down: (dataset, key, sha256) each. They are not ingested again.

        Their rows become removals in the same transaction. Returns how many were new.
        """
        count = 0
        with self._transaction() as db:
            for dataset, key, sha256 in images:
                count += db.execute(
                    "INSERT OR IGNORE INTO tombstones VALUES (?, ?, ?, ?)",
                    (dataset, key, sha256, since),
                ).rowcount
                db.execute(
                    "INSERT OR REPLACE INTO removals SELECT dataset, key, shard, 1 FROM items "
                    "WHERE dataset = ? AND key = ? AND usable = 1",
                    (dataset, key),
                )
                db.execute("DELETE FROM items WHERE dataset = ? AND key = ?", (dataset, key))
        return count

    def buried(self, dataset: str, keys: Sequence[str]) -> set[str]:
        """Which of those keys were taken down."""
        found: set[str] = set()
        for start in range(0, len(keys), 500):
            part = keys[start : start + 500]
            marks = ",".join("?" * len(part))
            found.update(
                str(row[0])
                for row in self._rows(
                    f"SELECT key FROM tombstones WHERE dataset = ? AND key IN ({marks})",
                    (dataset, *part),
                )
            )
        return found

    def tombstones(self) -> int:
        """How many images were taken down."""
        return int(str(self._rows("SELECT COUNT(*) FROM tombstones")[0][0]))

    def buried_bytes(self) -> frozenset[str]:
        """SHA-256 of every file that was taken down: the same bytes under a new name stay out."""
        return frozenset(
            str(row[0])
            for row in self._rows("SELECT DISTINCT sha256 FROM tombstones WHERE sha256 <> ''")
        )

    # -- removals still to be carried out ------------------------------------------------------

    def removals(self) -> list[Removal]:
        """What must still leave feature shards or the index, by shard.

        A point whose key came back since, from another shard, stays in the index.
        """
        return [
            Removal(str(d), str(k), int(str(s)), bool(f))
            for d, k, s, f in self._rows(
                "SELECT dataset, key, shard, from_index AND NOT EXISTS (SELECT 1 FROM items i "
                "WHERE i.dataset = r.dataset AND i.key = r.key AND i.usable = 1) "
                "FROM removals r ORDER BY shard, dataset, key"
            )
        ]

    def removed(self, removals: Iterable[Removal]) -> None:
        """Those removals have been carried out."""
        with self._transaction() as db:
            db.executemany(
                "DELETE FROM removals WHERE dataset = ? AND key = ? AND shard = ?",
                ((r.dataset, r.key, r.shard) for r in removals),
            )

    # -- copies --------------------------------------------------------------------------------

    def copy_to(self, path: Path) -> None:
        """Copy the ledger as it is now; an older copy there is replaced, at once.

        Raises:
            DataFolderError: the copy cannot be written.
        """
        part = path.with_name(f".{path.name}.part")
        with self._mutex:
            try:
                part.unlink(missing_ok=True)
                with closing(sqlite3.connect(part)) as copy:
                    self._db.backup(copy)
                part.replace(path)
            except (sqlite3.Error, OSError) as exc:
                raise DataFolderError(f"cannot copy the ledger {self._path}: {exc}") from exc

    # -- marks ---------------------------------------------------------------------------------

    def mark(self, name: str) -> str | None:
        """The value of a mark (a small fact that must survive a kill), None where it is not set."""
        rows = self._rows("SELECT value FROM marks WHERE name = ?", (name,))
        return str(rows[0][0]) if rows else None

    def set_mark(self, name: str, value: str | None) -> None:
        """Set a mark, or with None remove it."""
        with self._transaction() as db:
            if value is None:
                db.execute("DELETE FROM marks WHERE name = ?", (name,))
            else:
                db.execute("INSERT OR REPLACE INTO marks VALUES (?, ?)", (name, value))
