"""What the ledger keeps of feature files, whose rows are ingested in parts of one shard each."""

from __future__ import annotations

import sqlite3

from ingest.ledger_rows import PartRow, ShardRow

__all__ = ["end", "record"]

_AFTER_HASH = "$"  # the character after '#': names of a file's parts lie between the two


def record(db: sqlite3.Connection, row: ShardRow, part: PartRow) -> None:
    """Within the transaction that finishes a shard: these rows of this version are in.

    That an older version of the file was there is kept as a mark until `end`, so that a kill in
    between does not forget it.
    """
    prefix = f"{part.signature} "
    older = db.execute(
        "DELETE FROM tars WHERE dataset = ? AND path >= ? AND path < ? "
        "AND substr(signature, 1, ?) <> ?",
        (row.dataset, f"{part.path}#", part.path + _AFTER_HASH, len(prefix), prefix),
    ).rowcount
    if older:
        db.execute("INSERT OR REPLACE INTO marks VALUES (?, '')", (_mark(row.dataset, part.path),))
    db.execute(
        "INSERT OR REPLACE INTO tars VALUES (?, ?, ?, ?)",
        (row.dataset, part.name, part.version, row.number),
    )
    _forget_rejects(db, row.dataset, part.path, part.start, part.stop)


def end(db: sqlite3.Connection, dataset: str, path: str, signature: str, rows: int) -> None:
    """The file is in whole: rows that only an older version of it had become removals."""
    mark = (_mark(dataset, path),)
    if db.execute("SELECT 1 FROM marks WHERE name = ?", mark).fetchone() is None:
        return
    prefix = f"{signature}#"
    stale = (dataset, path, len(prefix), prefix)
    condition = "dataset = ? AND origin = ? AND substr(signature, 1, ?) <> ?"
    db.execute(
        "INSERT OR REPLACE INTO removals SELECT dataset, key, shard, 1 FROM items "
        f"WHERE {condition} AND usable = 1",
        stale,
    )
    db.execute(f"DELETE FROM items WHERE {condition}", stale)
    _forget_rejects(db, dataset, path, rows, None)
    db.execute("DELETE FROM marks WHERE name = ?", mark)


def _forget_rejects(
    db: sqlite3.Connection, dataset: str, path: str, start: int, stop: int | None
) -> None:
    prefix = f"{path}#"
    number = f"CAST(substr(path, {len(prefix) + 1}) AS INTEGER)"
    db.execute(
        f"DELETE FROM rejects WHERE dataset = ? AND substr(path, 1, ?) = ? AND {number} >= ? "
        f"AND (? IS NULL OR {number} < ?)",
        (dataset, len(prefix), prefix, start, stop, stop),
    )


def _mark(dataset: str, path: str) -> str:
    return f"older:{dataset}:{path}"
