"""The finished tables and the summary of an audit, made from its parts, a batch at a time."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.audit.duplicates import find_duplicates
from search.audit.flags import image_flags
from search.audit.parts import FINGERPRINT, PartsFolder
from search.audit.resampling import SEED
from search.audit.settings import AuditSettings
from search.audit.shares import Shares
from search.audit.summary import Totals, write_summary
from search.audit.tables import (
    ATTRIBUTIONS,
    CREATORS,
    IMAGES,
    REJECTS,
    attributions_schema,
    creators_schema,
    images_schema,
    rejects_schema,
)
from search.audit.unique import UniqueImages

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["assemble"]

_GROUP_ROWS = 1 << 16


def assemble(
    parts: PartsFolder,
    whole: Path,
    gallery: str,
    facts: Mapping[str, Any],
    settings: AuditSettings,
) -> Totals:
    """Write all tables and the summary into `whole`, a new folder; what they come to.

    Raises:
        OSError: the disk refuses.
    """
    shutil.rmtree(whole, ignore_errors=True)
    whole.mkdir(parents=True)
    unique = UniqueImages(parts)
    entries = unique.entries(["image", "sha256", FINGERPRINT])
    alike = iter(find_duplicates(entries, settings.thresholds.duplicate))
    shares = Shares(settings.by, SEED)
    totals = Totals()
    lines = attributions_schema(parts.fields.names)
    with (
        _Table(whole / IMAGES, images_schema()) as images,
        _Table(whole / ATTRIBUTIONS, lines) as attributions,
        _Table(whole / REJECTS, rejects_schema()) as rejects,
        _Table(whole / CREATORS, creators_schema()) as creators,
    ):
        for table in parts.rejects():
            rejects.write(table)
            totals.reject(table)
        for piece, clashes in unique.pieces():
            rejects.write(clashes)
            totals.reject(clashes)
            finished = _finished(piece.images, alike, settings)
            images.write(finished)
            attributions.write(piece.attributions.cast(lines))
            totals.add(piece.attributions, finished)
            shares.add(piece.attributions, finished)
        summed = shares.table()
        creators.write(summed)
    if totals.images:
        write_summary(whole, gallery, facts, settings, totals, summed)
    return totals


def _finished(images: pa.Table, alike: Iterator[str], settings: AuditSettings) -> pa.Table:
    """The lines with what is known once all images are: duplicates and flags."""
    import pyarrow as pa

    lines = images.select(images_schema().names).to_pylist()
    for line, first in zip(lines, islice(alike, len(lines)), strict=True):
        line["duplicate_of"] = first
        line["flags"] = sorted(image_flags(line, settings.thresholds))
    return pa.Table.from_pylist(lines, schema=images_schema())


class _Table:
    """A Parquet file that is written in row groups of one size, whatever comes at a time."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path = path
        self._schema = schema
        self._waiting: list[pa.Table] = []
        self._rows = 0

    def __enter__(self) -> _Table:
        import pyarrow.parquet as pq

        self._writer = pq.ParquetWriter(self._path, self._schema, compression="zstd")
        return self

    def __exit__(self, kind: object, *exc: object) -> None:
        if kind is None and self._waiting:
            self._flush(self._rows)
        self._writer.close()

    def write(self, table: pa.Table) -> None:
        """Add rows."""
        if table.num_rows:
            self._waiting.append(table)
            self._rows += table.num_rows
        while self._rows >= _GROUP_ROWS:
            self._flush(_GROUP_ROWS)

    def _flush(self, rows: int) -> None:
        import pyarrow as pa

        together = pa.concat_tables(self._waiting)
        self._writer.write_table(together.slice(0, rows), row_group_size=rows)
        rest = together.slice(rows)
        self._waiting = [rest] if rest.num_rows else []
        self._rows = rest.num_rows
