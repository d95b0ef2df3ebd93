"""What changed between two states of a ledger, streamed: files are compared, not held in memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from ingest.errors import DataFolderError

__all__ = ["LedgerChange"]

_FETCH = 1000

_CAME = (
    "FROM items i WHERE usable = 1 AND NOT EXISTS (SELECT 1 FROM before.items b "
    "WHERE b.dataset = i.dataset AND b.key = i.key AND b.shard = i.shard AND b.usable = 1)"
)
_WENT = (
    "FROM before.items b WHERE usable = 1 AND NOT EXISTS (SELECT 1 FROM main.items i "
    "WHERE i.dataset = b.dataset AND i.key = b.key AND i.usable = 1)"
)


class LedgerChange:
    """From the ledger in `before` (None: an empty one) to the one in `after`.

    Use as a context manager; the files are only read.

    Raises:
        DataFolderError: a file that cannot be read.
    """

    def __init__(self, before: Path | None, after: Path) -> None:
        self._after = after
        try:
            self._db = sqlite3.connect(f"{after.absolute().as_uri()}?mode=rw", uri=True)
            if before is None:
                self._db.execute("ATTACH ':memory:' AS before")
                self._db.execute(
                    "CREATE TABLE before.items (dataset TEXT, key TEXT, shard INTEGER, "
                    "usable INTEGER, PRIMARY KEY (dataset, key))"
                )
            else:
                self._db.execute("ATTACH ? AS before", (f"{before.absolute().as_uri()}?mode=rw",))
        except sqlite3.Error as exc:
            raise self._failed(exc) from exc

    def __enter__(self) -> LedgerChange:
        return self

    def __exit__(self, *exc: object) -> None:
        self._db.close()

    def count(self) -> int:
        """How many images came (or stand in another shard now), and went."""
        return sum(
            int(row[0])
            for condition in (_CAME, _WENT)
            for row in self._rows(f"SELECT COUNT(*) {condition}")
        )

    def came(self, above: int = -1) -> Iterator[tuple[int, str, list[str]]]:
        """(shard, dataset, keys) of usable images that were not there, or not in that shard.

        In ascending order of shards, those above `above` only.
        """
        rows = self._rows(
            f"SELECT shard, dataset, key {_CAME} AND shard > ? ORDER BY shard", (above,)
        )
        for (shard, dataset), some in groupby(rows, key=lambda row: (row[0], row[1])):
            yield int(shard), str(dataset), [str(key) for _, _, key in some]

    def went(self) -> Iterator[tuple[str, str]]:
        """(dataset, key) of images that were usable and are not there any more."""
        for dataset, key in self._rows(f"SELECT dataset, key {_WENT}"):
            yield str(dataset), str(key)

    def _rows(self, sql: str, values: tuple[object, ...] = ()) -> Iterator[tuple[str, ...]]:
        try:
            cursor = self._db.execute(sql, values)
            while rows := cursor.fetchmany(_FETCH):
                yield from rows
        except sqlite3.Error as exc:
            raise self._failed(exc) from exc

    def _failed(self, exc: sqlite3.Error) -> DataFolderError:
        return DataFolderError(f"cannot compare the ledger {self._after}: {exc}")
