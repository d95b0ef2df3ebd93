"""Shards that workers did, taken into a data folder: one after another, in order of their numbers.

What stands is decided here, by the ledger, as on one machine: a key that two shards have, an image
that was taken down meanwhile. So the outcome does not depend on who was first.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from embed.shards import drop_rows, read_shard
from ingest.ledger import ShardRow
from ingest.record import Reject, point_id
from search.admission import Admission, Counts
from search.collection import Collection
from search.folder import writing
from workers.jobs import Job
from workers.results import Image, Outcome, Result, adopt, staged
from workers.staged_rows import is_whole, keep_rows

__all__ = ["Collector"]

_BATCH = 512


class Collector:
    """Takes results in.

    Args:
        collection: that they are for.
        on_server: the workers put points in themselves.

    Attributes:
        counts: of all shards so far.
        broken: tars that ended too early, one line each.
    """

    def __init__(self, collection: Collection, *, on_server: bool) -> None:
        self.counts = Counts()
        self.broken: list[str] = []
        self._collection = collection
        self._on_server = on_server
        self._buried = collection.ledger.buried_bytes()

    def collect(self, job: Job, result: Result) -> None:
        """Take a shard in, the ledger last. Broken off anywhere, it can be done again.

        Raises:
            DataFolderError: the disk refuses.
            IndexFailedError: the index fails.
        """
        collection = self._collection
        features = collection.folder.features(job.dataset)
        admission = Admission(collection.ledger, job.dataset, job.source, self.counts, self._buried)
        keep, gone = _decide(admission, result)
        if (cut_off := result.finished.cut_off) is not None:
            admission.reject(cut_off, claimed_by=None)
            self.broken.append(result.broken)
        folder = staged(features, result.plan, result.number, result.send)
        with writing(collection.folder.root):
            if gone and is_whole(folder, result.number):
                keep_rows(folder, features, result.number, keep)
            else:
                adopt(features, result, rows=int(keep.sum()))
                if gone:  # taken down after an attempt at this that was broken off
                    drop_rows(features, result.number, gone)
        if not self._on_server:
            self._upsert(job.dataset, result.number)
        elif gone:
            self._repair(job.dataset, result.number, gone)
        collection.index.flush()
        images = int(keep.sum())
        collection.ledger.finish(
            ShardRow(result.number, job.dataset, job.source, images, len(admission.rejects)),
            admission.entries,
            admission.rejects,
            tar=result.tar,
        )
        self.counts.shards += 1

    def _upsert(self, dataset: str, number: int, keys: set[str] | None = None) -> None:
        """Put the points of a shard, or some of them, into the index."""
        collection = self._collection
        features, rows = read_shard(collection.folder.features(dataset), number)
        chosen = [i for i, row in enumerate(rows) if keys is None or row.key in keys]
        for start in range(0, len(chosen), _BATCH):
            part = chosen[start : start + _BATCH]
            collection.index.upsert(
                [point_id(dataset, rows[i].key) for i in part],
                collection.model.mappers.real(np.asarray(features[part], np.float32)),
                [rows[i].payload(number) for i in part],
            )

    def _repair(self, dataset: str, number: int, keys: set[str]) -> None:
        """A worker put in points that do not stand: put back what does, or take them out."""
        collection = self._collection
        known = collection.ledger.known(dataset, sorted(keys))
        _, rows = read_shard(collection.folder.features(dataset), number)
        of_shard: dict[int, set[str]] = {number: {row.key for row in rows} & keys}
        strays = []
        for key in keys - of_shard[number]:
            entry = known.get(key)
            if entry is not None and entry.usable:
                of_shard.setdefault(entry.shard, set()).add(key)
            else:
                strays.append(point_id(dataset, key))
        if strays:
            collection.index.delete(strays)
        for shard, some in of_shard.items():
            if some:
                self._upsert(dataset, shard, some)


def _decide(admission: Admission, result: Result) -> tuple[NDArray[np.bool_], set[str]]:
    """(images,) which rows of the feature shard stand, and the keys of those that do not."""
    kept: list[bool] = []
    gone: set[str] = set()
    for run in _runs(result):
        first = run[0]
        if isinstance(first.what, Reject):
            admission.fail(first.what, first.origin)
            continue
        images = [outcome.what for outcome in run if isinstance(outcome.what, Image)]
        admitted = set(admission.admit(images, [outcome.origin for outcome in run]))
        kept.extend(i in admitted for i in range(len(images)))
        gone.update(image.key for i, image in enumerate(images) if i not in admitted)
    return np.array(kept, bool), gone


def _runs(result: Result) -> Iterator[list[Outcome]]:
    """The outcomes in order: rejects alone, images that follow each other together."""
    for is_image, some in groupby(result.outcomes, lambda o: isinstance(o.what, Image)):
        run = list(some)
        size = _BATCH if is_image else 1
        for start in range(0, len(run), size):
            yield run[start : start + size]
