"""Taking images out: takedowns, replaced rows, and what a broken run left behind."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import numpy as np

from embed.shards import drop_rows, read_shard
from ingest.errors import DataFolderBusyError
from ingest.ledger import Ledger
from ingest.record import point_id
from search.folder import DataFolder, reindex_lock, writing
from search.index import Index, Where
from search.index_place import open_index, remove_index
from search.rejects import write_rejects

if TYPE_CHECKING:
    from search.collection import Collection

__all__ = ["carry_out_removals", "mend", "remove_buildings", "take_down"]

_BATCH = 1000


def carry_out_removals(folder: DataFolder, ledger: Ledger, name: str, index: Index) -> int:
    """Take out of indexes and feature shards what the ledger says must go; returns how many rows.

    `index`: the one that is open, of the collection `name`.

    The ledger forgets a removal only after it is done, so that a kill in between loses none.
    """
    removals = ledger.removals()
    gone = [point_id(r.dataset, r.key) for r in removals if r.from_index]
    for start in range(0, len(gone), _BATCH):
        index.delete(gone[start : start + _BATCH])
    if gone:
        index.flush()
        _remove_elsewhere(folder, name, gone)
    for (shard, dataset), some in groupby(removals, key=lambda r: (r.shard, r.dataset)):
        rows = list(some)
        with writing(folder.root):
            drop_rows(folder.features(dataset), shard, [row.key for row in rows])
        ledger.removed(rows)
    return len(removals)


def _remove_elsewhere(folder: DataFolder, opened: str, gone: Sequence[UUID]) -> None:
    """What was taken down must not live on in a collection that is kept, or was half built."""
    for name in folder.collections():
        if name != opened:
            with open_index(folder.collection(name)) as kept:
                for start in range(0, len(gone), _BATCH):
                    kept.delete(gone[start : start + _BATCH])
                kept.build()
    # One that is being built right now takes note of removals before it is switched to.
    with suppress(DataFolderBusyError), reindex_lock(folder.root):
        remove_buildings(folder)


def remove_buildings(folder: DataFolder, *, but: Path | None = None) -> None:
    """Remove what a broken `attrib reindex` left behind; its lock must be held."""
    for path in folder.root.glob("collections/.building-*"):
        if path != but:
            remove_index(path)
            shutil.rmtree(path, ignore_errors=True)


def take_down(
    collection: Collection, *, keys: Sequence[str] = (), where: Where | None = None
) -> int:
    """Remove training images for good: from index, feature shards and thumbnails.

    A tombstone keeps each from being ingested again, by its key and by its bytes. `keys`: of any
    dataset; `where`: a filter. Returns how many images went.

    Raises:
        DataFolderError: the disk refuses.
        IndexFailedError: the index fails.
    """
    chosen: list[Where] = []
    if keys:
        chosen.append({"key": list(keys)})
    if where:
        chosen.append(where)
    victims: dict[UUID, tuple[str, str, str]] = {}
    for condition in chosen:
        for ids in collection.index.scroll(condition):
            payloads = collection.index.fetch(ids, fields=["dataset", "key", "sha256"])
            for point, payload in zip(ids, payloads, strict=True):
                if payload is not None:
                    victims[point] = (payload["dataset"], payload["key"], payload["sha256"])
    since = datetime.now(UTC).isoformat(timespec="seconds")
    collection.ledger.bury(victims.values(), since)
    carry_out_removals(collection.folder, collection.ledger, collection.name, collection.index)
    collection.index.build()
    write_rejects(collection.folder, collection.ledger)
    return len(victims)


def mend(collection: Collection) -> None:
    """Make the index hold exactly what the ledger says.

    They differ only where a source changed between a kill and the next run, or where the index was
    damaged: points that no finished shard has are deleted, missing ones are put back from the
    feature shards. The counts tell, so that the usual case costs nothing.
    """
    ledger, index = collection.ledger, collection.index
    if index.count() == ledger.images():
        return
    wanted: dict[UUID, tuple[str, str, int]] = {}
    for shard in ledger.shards():
        for dataset, key in ledger.usable_in(shard.number):
            wanted[point_id(dataset, key)] = (dataset, key, shard.number)
    present: set[UUID] = set()
    for ids in index.scroll():
        strays = [point for point in ids if point not in wanted]
        present.update(ids)
        if strays:
            index.delete(strays)
    missing: dict[tuple[str, int], set[str]] = {}
    for point, (dataset, key, shard_number) in wanted.items():
        if point not in present:
            missing.setdefault((dataset, shard_number), set()).add(key)
    for (dataset, number), names in missing.items():
        features, rows = read_shard(collection.folder.features(dataset), number)
        some = [i for i, row in enumerate(rows) if row.key in names]
        for start in range(0, len(some), _BATCH):
            part = some[start : start + _BATCH]
            index.upsert(
                [point_id(dataset, rows[i].key) for i in part],
                collection.model.mappers.real(np.asarray(features[part], np.float32)),
                [rows[i].payload(number) for i in part],
            )
    index.flush()
    index.build()
