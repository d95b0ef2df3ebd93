"""Ready-made base features into a collection, with the guarantees of an ingest of images.

A block of rows of a feature file becomes a shard: features and metadata, without thumbnails. Its
ledger entry is the last of it, so that a run that was killed goes on at the block where it stopped.
A row is told from another of the same key by its file and its number in it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embed.shards import ImageRow, ShardWriter
from ingest.errors import ModelMismatchError, RejectReason
from ingest.feature_files import FeatureBlock, FeatureFile, FeatureRow
from ingest.item import printable
from ingest.ledger import Entry, Known, PartRow, ShardRow
from ingest.record import Reject, point_id
from search.collection import Collection
from search.folder import writing
from search.ingestion import IngestReport, Progress
from search.plan import clash
from search.rejects import write_rejects
from search.removal import carry_out_removals, mend

__all__ = ["SHARD_ROWS", "check_dim", "ingest_features"]

SHARD_ROWS = 8192
"""Rows of a shard, unless given: what is held in memory, and lost at most by a kill."""


def check_dim(files: Sequence[FeatureFile], backbone: str, dim: int) -> None:
    """Refuse features that the backbone cannot have made; their length is all that can be checked.

    Raises:
        ModelMismatchError: features of another length than `dim`.
    """
    for file in files:
        if file.dim != dim:
            raise ModelMismatchError(
                f"{file.name} has features of {file.dim} numbers, those of {backbone} have {dim}; "
                "name the model that they were made with by --model"
            )


def ingest_features(
    collection: Collection,
    files: Sequence[FeatureFile],
    dataset: str,
    *,
    shard_rows: int = SHARD_ROWS,
    force: bool = False,
    progress: Progress | None = None,
) -> IngestReport:
    """Bring feature files into the collection as `dataset`; what is there unchanged is passed over.

    Killed at any moment, the same call goes on, and the end is the same as of an unbroken run.

    Raises:
        ModelMismatchError: features of another length than the backbone's; nothing was written.
        SourceError: a file that cannot be read.
        DataFolderError: the disk is full or the folder read-only.
        IndexFailedError: the index failed.
    """
    backbone = collection.model.backbone
    check_dim(files, backbone.name, backbone.dim)
    ledger = collection.ledger
    mark = f"forced:{dataset}"
    forced_from: int | None = None
    if force:
        begun = ledger.mark(mark)
        forced_from = int(begun) if begun is not None else ledger.next_shard()
        ledger.set_mark(mark, str(forced_from))
    run = _Run(collection, dataset, shard_rows, forced_from, progress)
    if progress is not None:
        progress.start(sum(run.pending(file) for file in files))
    for file in files:
        run.take(file)
    ledger.set_mark(mark, None)
    if progress is not None:
        progress.building()
    carry_out_removals(collection.folder, ledger, collection.name, collection.index)
    collection.index.build()
    mend(collection)
    write_rejects(collection.folder, ledger)
    return IngestReport(
        dataset=dataset,
        ingested=run.ingested,
        unchanged=run.unchanged,
        rejected=dict(run.reasons),
        buried=run.buried,
        broken=[],
        total=collection.index.count(),
        shards=run.shards,
    )


@dataclass
class _Shard:
    """What one block comes to."""

    rows: list[ImageRow] = field(default_factory=list)
    features: list[int] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)


class _Run:
    def __init__(
        self,
        collection: Collection,
        dataset: str,
        shard_rows: int,
        forced_from: int | None,
        progress: Progress | None,
    ) -> None:
        self.ingested = self.unchanged = self.buried = self.shards = 0
        self.reasons: Counter[str] = Counter()
        self._collection = collection
        self._ledger = collection.ledger
        self._dataset = dataset
        self._size = shard_rows
        self._forced_from = forced_from
        self._progress = progress
        self._buried = collection.ledger.buried_bytes()

    def pending(self, file: FeatureFile) -> int:
        """How many rows of the file are to be done."""
        starts = range(0, file.images, self._size)
        parts = [self._part(file, start) for start in starts]
        return sum(p.stop - p.start for p in parts if self._shard_of(p) is None)

    def take(self, file: FeatureFile) -> None:
        """Bring one file in."""

        def wanted(start: int) -> bool:
            shard = self._shard_of(self._part(file, start))
            if shard is None:
                return True
            self.unchanged += self._ledger.images_of(shard)
            return False

        for block in file.blocks(self._size, wanted):
            with writing(self._collection.folder.root):
                self._write(file, block)
            if self._progress is not None:
                self._progress.advance(len(block.rows))
        self._ledger.end_parts(self._dataset, _origin(file), file.signature, file.images)

    def _part(self, file: FeatureFile, start: int) -> PartRow:
        stop = min(start + self._size, file.images)
        return PartRow(_origin(file), file.signature, start, stop)

    def _shard_of(self, part: PartRow) -> int | None:
        """The shard that these very rows stand in; None where they are to be ingested."""
        known = self._ledger.tar(self._dataset, part.name)
        if known is None or known[0] != part.version:
            return None
        if self._forced_from is not None and known[1] < self._forced_from:
            return None
        return known[1]

    def _write(self, file: FeatureFile, block: FeatureBlock) -> None:
        number = self._ledger.next_shard()
        with np.errstate(over="ignore"):  # what float16 cannot hold is rejected below
            half = block.features.astype(np.float16)
        shard = self._sorted(file, block, half)
        kept = half[shard.features]
        folder = self._collection.folder.features(self._dataset)
        files = ShardWriter(folder, number, file.dim)
        try:
            if shard.rows:
                files.append(kept, shard.rows, None)
                self._collection.index.upsert(
                    [point_id(self._dataset, row.key) for row in shard.rows],
                    self._collection.model.mappers.real(kept.astype(np.float32)),
                    [row.payload(number) for row in shard.rows],
                )
            files.finish()
        except BaseException:
            files.abandon()
            raise
        self._collection.index.flush()
        self._ledger.finish(
            ShardRow(number, self._dataset, file.name, len(shard.rows), len(shard.rejects)),
            shard.entries,
            shard.rejects,
            part=self._part(file, block.start),
        )
        self.shards += 1
        self.ingested += len(shard.rows)
        self.reasons.update(reject.reason.value for reject in shard.rejects)

    def _sorted(self, file: FeatureFile, block: FeatureBlock, half: NDArray[np.float16]) -> _Shard:
        """Which rows may stand: sound features, no key twice, nothing that was taken down."""
        keys = [row.key for row in block.rows]
        known = self._ledger.known(self._dataset, keys)
        buried = self._ledger.buried(self._dataset, keys)
        faults = _faults(block.features, half)
        origin = _origin(file)
        shard = _Shard()
        for i, row in enumerate(block.rows):
            entry = known.get(row.key)
            signature = f"{file.signature}#{block.start + i}"
            place = f"{origin}#{block.start + i}"
            if row.key in buried or (entry is None and row.sha256 in self._buried):
                self.buried += 1
                continue
            if row.key in shard.keys:
                shard.rejects.append(clash(row.key, place, origin))
                continue
            if entry is not None and _is_another(entry, origin, signature, file.signature):
                shard.rejects.append(clash(row.key, place, entry.origin))
                continue
            if entry is not None and self._is_in(entry, signature):
                self.unchanged += int(entry.usable)
                continue
            shard.keys.add(row.key)
            usable = not faults[i]
            shard.entries.append(Entry(row.key, origin, signature, usable))
            if usable:
                shard.rows.append(_image_row(row, self._dataset))
                shard.features.append(i)
            else:
                reason = RejectReason.UNUSABLE_FEATURES
                shard.rejects.append(Reject(row.key, place, reason, faults[i]))
        return shard

    def _is_in(self, entry: Known, signature: str) -> bool:
        """The very same row, from a run that cut the file otherwise."""
        if self._forced_from is not None and entry.shard < self._forced_from:
            return False
        return entry.signature == signature


def _origin(file: FeatureFile) -> str:
    return printable(str(file.path))


def _is_another(entry: Known, origin: str, signature: str, version: str) -> bool:
    """Whether another row has the key: of another file that is still there, or of this one."""
    if entry.origin == origin:
        return entry.signature != signature and entry.signature.startswith(f"{version}#")
    with suppress(OSError, ValueError):
        return not Path(entry.origin).samefile(origin)
    return os.path.exists(entry.origin)  # noqa: PTH110 (never raises)


def _faults(features: NDArray[np.float32], half: NDArray[np.float16]) -> list[str]:
    """(rows,) what is wrong with each row of features; '' where nothing is."""
    finite = np.isfinite(features).all(axis=1)
    holds = np.isfinite(half).all(axis=1)
    zero = ~half.any(axis=1)
    faults = np.where(zero, "all numbers are 0", "")
    faults = np.where(holds, faults, "a number is too large for float16")
    return [str(fault) for fault in np.where(finite, faults, "a number is not finite")]


def _image_row(row: FeatureRow, dataset: str) -> ImageRow:
    metadata = row.metadata
    return ImageRow(
        key=row.key,
        dataset=dataset,
        path=row.path,
        url=metadata.url,
        caption=metadata.caption,
        creator=metadata.creator,
        licence=metadata.licence,
        width=row.width,
        height=row.height,
        sha256=row.sha256,
        extra=dict(metadata.extra),
    )
