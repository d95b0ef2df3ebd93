"""The tables of the ledger."""

from __future__ import annotations

__all__ = ["FORMAT", "SCHEMA"]

FORMAT = 1

SCHEMA = """
CREATE TABLE IF NOT EXISTS shards (
    number   INTEGER PRIMARY KEY,
    dataset  TEXT NOT NULL,
    source   TEXT NOT NULL,
    images   INTEGER NOT NULL,
    rejected INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS items (
    dataset   TEXT NOT NULL,
    key       TEXT NOT NULL,
    origin    TEXT NOT NULL,
    signature TEXT NOT NULL,
    shard     INTEGER NOT NULL,
    usable    INTEGER NOT NULL,
    PRIMARY KEY (dataset, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS items_by_shard ON items (shard);
CREATE TABLE IF NOT EXISTS tars (
    dataset   TEXT NOT NULL,
    path      TEXT NOT NULL,
    signature TEXT NOT NULL,
    shard     INTEGER NOT NULL,
    PRIMARY KEY (dataset, path)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rejects (
    dataset TEXT NOT NULL,
    key     TEXT NOT NULL,
    path    TEXT NOT NULL,
    reason  TEXT NOT NULL,
    detail  TEXT NOT NULL,
    PRIMARY KEY (dataset, key, path)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tombstones (
    dataset TEXT NOT NULL,
    key     TEXT NOT NULL,
    sha256  TEXT NOT NULL,
    since   TEXT NOT NULL,
    PRIMARY KEY (dataset, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS tombstones_by_sha256 ON tombstones (sha256);
CREATE TABLE IF NOT EXISTS removals (
    dataset    TEXT NOT NULL,
    key        TEXT NOT NULL,
    shard      INTEGER NOT NULL,
    from_index INTEGER NOT NULL,
    PRIMARY KEY (dataset, key, shard)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS marks (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;
"""
