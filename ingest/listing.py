"""A file that lists images: a path a line (.txt), or a row an image (.parquet, .csv)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ingest.errors import SourceError
from ingest.item import Item, ItemSource, item_at
from ingest.listed import ListedFiles
from ingest.metadata import Metadata
from ingest.storage import file_name
from ingest.table import open_table, require_files_column, text_lines

__all__ = ["LISTING_SUFFIXES", "ListingSource"]

LISTING_SUFFIXES = frozenset({".txt", ".parquet", ".csv"})

_IS_URL = re.compile(r"https?://", re.IGNORECASE)


class ListingSource(ItemSource):
    """The images that a file lists: of this machine, or of a store.

    Paths are absolute or relative to the list's folder. A key is the path below that folder, or
    the absolute path for images elsewhere, so that it does not depend on where one stands. In text
    lists, blank lines and lines that begin with ``#`` are passed over; spaces around a path are not
    part of it. Tables may carry metadata in further columns and are streamed.

    A listed file that is missing is an item all the same, and becomes a reject when it is read.
    """

    def items(self) -> Iterator[Item]:
        """As `ItemSource.items`."""
        files = ListedFiles(self.path)
        name = file_name(self.path)
        found = False
        lines = ((line, None) for line in text_lines(self.path))
        rows = lines if name.lower().endswith(".txt") else self._rows()
        for number, (text, metadata) in enumerate(rows, start=1):
            found = True
            if _IS_URL.match(text):
                raise SourceError(
                    f"{self.name} lists files and URLs: put the URLs into a list of their own"
                )
            path, key = files.place_of(text) if text else (self.path.parent / "", "")
            if not key:
                # An item that cannot be read, so that the row is counted among the rejects.
                yield item_at(path, f"{name}#row{number}", (), metadata)
                continue
            yield item_at(path, key, files.siblings_of(path), metadata)
        if not found:
            raise SourceError(f"no images in {self.name} (it lists no files)")

    def _rows(self) -> Iterator[tuple[str, Metadata | None]]:
        table = open_table(self.path)
        column = require_files_column(table)
        for batch in table.batches:
            if column not in batch.schema.names:
                raise SourceError(
                    f"{self.name}: column {column} holds no file names but other data"
                )
            for row in batch.to_pylist():
                value = row[column]
                text = "" if value is None else str(value).strip()
                yield text, Metadata.from_row(row, without={column})
