"""A file that lists images: a path a line (.txt), or a row an image (.parquet, .csv)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from ingest.errors import SourceError
from ingest.item import Item, ItemSource, item_at
from ingest.metadata import Metadata
from ingest.table import open_table, require_files_column, text_lines

__all__ = ["LISTING_SUFFIXES", "ListingSource"]

LISTING_SUFFIXES = frozenset({".txt", ".parquet", ".csv"})

_IS_URL = re.compile(r"https?://", re.IGNORECASE)


class ListingSource(ItemSource):
    """The local images that a file lists.

    Paths are absolute or relative to the list's folder. A key is the path below that folder, or
    the absolute path for images elsewhere, so that it does not depend on where one stands. In text
    lists, blank lines and lines that begin with ``#`` are passed over; spaces around a path are not
    part of it. Tables may carry metadata in further columns and are streamed.

    A listed file that is missing is an item all the same, and becomes a reject when it is read.
    """

    def items(self) -> Iterator[Item]:
        """As `ItemSource.items`."""
        folder = Path(os.path.abspath(self.path.parent))  # noqa: PTH100 (resolve follows links)
        is_text = self.path.suffix.lower() == ".txt"
        found = False
        for number, (text, metadata) in enumerate(
            ((line, None) for line in text_lines(self.path)) if is_text else self._rows(), start=1
        ):
            found = True
            if not text:
                # An item that cannot be read, so that the row is counted among the rejects.
                yield item_at(folder / "", f"{self.path.name}#row{number}", metadata=metadata)
                continue
            if _IS_URL.match(text):
                raise SourceError(
                    f"{self.name} lists files and URLs: put the URLs into a list of their own"
                )
            path = Path(os.path.normpath(folder / text))
            key = path.relative_to(folder) if path.is_relative_to(folder) else path
            yield item_at(path, key.as_posix(), metadata=metadata)
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
