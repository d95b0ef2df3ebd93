"""Parts of an audit on disk: each is built beside its place, and counts once it is whole.

    parts/00000/images.parquet        as in the audit, and `FINGERPRINT` and `LINES`
    parts/00000/attributions.parquet  as in the audit, its texts as dictionaries
    parts/00000/rejects.parquet       as in the audit
    parts/00000/thumbnails.parquet    key and a small picture, in order of the images

A row group of the first, the second and the last is one batch: the batches of a part can be read
one after the other, whatever its size.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.audit.lines import lines_schema
from search.audit.payload_fields import NO_FIELDS
from search.audit.tables import (
    ATTRIBUTIONS,
    IMAGES,
    REJECTS,
    images_schema,
    rejects_schema,
)

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["FINGERPRINT", "LINES", "PartWriter", "PartsFolder", "Piece"]

FINGERPRINT, LINES = "fingerprint", "lines"
"""Columns that the table of images has in a part only: the image's looks, and how many lines of the
table of attributions are its own."""

THUMBNAILS = "thumbnails.parquet"


@dataclass(frozen=True)
class Piece:
    """A batch of a part that was read back.

    Attributes:
        images: by the schema of the part.
        attributions: their lines, by `lines_schema`.
    """

    images: pa.Table
    attributions: pa.Table


class PartsFolder:
    """The folder that parts are in.

    Args:
        root: made when the first part is written.

    Attributes:
        fields: what is told of training images beyond the usual columns; set before anything is
            written or read.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.fields = NO_FIELDS

    def finished(self) -> set[int]:
        """Numbers of the parts that are whole; what is left of others is taken away."""
        numbers = set()
        for path in self.root.iterdir() if self.root.is_dir() else ():
            if path.name.isdecimal():
                numbers.add(int(path.name))
            else:
                shutil.rmtree(path, ignore_errors=True)
        return numbers

    def at(self, number: int) -> Path:
        """The folder of a part."""
        return self.root / f"{number:05d}"

    def images(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The images of all parts in order, a batch at a time."""
        import pyarrow.parquet as pq

        for number in sorted(self.finished()):
            with pq.ParquetFile(self.at(number) / IMAGES) as file:
                for group in range(file.num_row_groups):
                    yield file.read_row_group(group, columns=columns, use_threads=False)

    def pieces(self) -> Iterator[Piece]:
        """Images and attributions of all parts in order, a batch at a time."""
        import pyarrow.parquet as pq

        for number in sorted(self.finished()):
            folder = self.at(number)
            with (
                pq.ParquetFile(folder / IMAGES) as images,
                pq.ParquetFile(folder / ATTRIBUTIONS) as attributions,
            ):
                for group in range(images.num_row_groups):
                    # Of one batch: sharing it out to threads takes longer than reading it.
                    lines = attributions.read_row_group(group, use_threads=False)
                    schema = lines_schema(self.fields.names)
                    if lines.schema != schema:  # an older version began this audit
                        lines = lines.cast(schema)
                    yield Piece(images.read_row_group(group, use_threads=False), lines)

    def rejects(self) -> Iterator[pa.Table]:
        """The rejects of all parts in order."""
        import pyarrow.parquet as pq

        for number in sorted(self.finished()):
            yield pq.read_table(self.at(number) / REJECTS)

    def thumbnails(self, number: int, group: int) -> dict[str, bytes]:
        """The thumbnails of one batch of a part, by the images' keys."""
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.at(number) / THUMBNAILS) as file:
            table = file.read_row_group(group, use_threads=False)
        keys, pictures = table.column("image").to_pylist(), table.column("thumbnail").to_pylist()
        return dict(zip(keys, pictures, strict=True))

    def thumbnail_groups(self) -> Iterator[tuple[int, int, list[str]]]:
        """(part, batch, keys) of every batch in order."""
        import pyarrow.parquet as pq

        for number in sorted(self.finished()):
            with pq.ParquetFile(self.at(number) / IMAGES) as file:
                for group in range(file.num_row_groups):
                    table = file.read_row_group(group, columns=["image"], use_threads=False)
                    yield number, group, table.column("image").to_pylist()


class PartWriter:
    """Writes one part. Use `add` and `reject` any number of times, then `finish` or `abandon`.

    Raises:
        OSError: where the disk does.
    """

    def __init__(self, parts: PartsFolder, number: int) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._fields = parts.fields
        self._place = parts.at(number)
        self._folder = self._place.with_name(f".{self._place.name}.part")
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        self._rejects: list[Mapping[str, Any]] = []
        self._schemas = {
            IMAGES: images_schema()
            .append(pa.field(FINGERPRINT, pa.binary()))
            .append(pa.field(LINES, pa.int32())),
            ATTRIBUTIONS: lines_schema(parts.fields.names),
            THUMBNAILS: pa.schema([("image", pa.string()), ("thumbnail", pa.binary())]),
        }
        self._opened = ExitStack()
        self._writers = {
            name: self._opened.enter_context(
                pq.ParquetWriter(
                    self._folder / name,
                    schema,
                    compression="snappy" if name == IMAGES else "none",
                    use_dictionary=_texts(schema) if name == ATTRIBUTIONS else False,
                    write_statistics=False,
                )
            )
            for name, schema in self._schemas.items()
        }

    def add(
        self,
        images: Sequence[Mapping[str, Any]],
        lines: pa.Table,
        thumbnails: Sequence[bytes],
    ) -> None:
        """Write a batch: its lines of the table of images, and those of `lines_table`.

        Raises:
            IndexFailedError: what else is to be told of the training images cannot be read.
        """
        import pyarrow as pa

        lines = self._fields.added(lines)
        keys = [image["image"] for image in images]
        columns = {name: [row[name] for row in images] for name in self._schemas[IMAGES].names}
        pictures = {"image": keys, "thumbnail": list(thumbnails)}
        for name, table in (
            (IMAGES, pa.Table.from_pydict(columns, schema=self._schemas[IMAGES])),
            (ATTRIBUTIONS, lines),
            (THUMBNAILS, pa.Table.from_pydict(pictures, schema=self._schemas[THUMBNAILS])),
        ):
            self._writers[name].write_table(table, row_group_size=max(1, table.num_rows))

    def reject(self, row: Mapping[str, Any]) -> None:
        """Note an image that cannot be used."""
        self._rejects.append(row)

    def finish(self) -> None:
        """Make the part whole and durable."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._opened.close()
        rejects = pa.Table.from_pylist(self._rejects, schema=rejects_schema())
        pq.write_table(rejects, self._folder / REJECTS, compression="none")
        for path in sorted(self._folder.iterdir()):
            _sync(path)
        _sync(self._folder)
        self._folder.replace(self._place)
        _sync(self._place.parent)

    def abandon(self) -> None:
        """Leave nothing behind."""
        with suppress(OSError):
            self._opened.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _texts(schema: pa.Schema) -> list[str]:
    import pyarrow as pa

    return [field.name for field in schema if pa.types.is_dictionary(field.type)]


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
