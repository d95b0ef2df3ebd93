"""Whether a list names files of this machine, or URLs to be downloaded."""

from __future__ import annotations

import re

from ingest.download_settings import DownloadSettings
from ingest.errors import SourceError
from ingest.item import DEFAULT_MAX_BYTES
from ingest.listing import ListingSource
from ingest.metadata import column_named
from ingest.storage import Location, file_name
from ingest.table import OpenTable, files_column, open_table, text_lines
from ingest.url_source import UrlListSource

__all__ = ["open_list"]

_URL_COLUMNS = ("url", "image_url", "img_url", "image_link")
_NAMES_NO_FILE = "key"
"""Names files in a table of files; in one with URLs it is only what img2dataset calls a row."""

_IS_URL = re.compile(r"https?://", re.IGNORECASE)


def open_list(
    path: Location, max_bytes: int = DEFAULT_MAX_BYTES, download: DownloadSettings | None = None
) -> ListingSource | UrlListSource:
    """The source that a .txt, .parquet or .csv is.

    A text list is of URLs when its first line is one. A table is of URLs when its column of files
    begins with one, or when it has a column of URLs and none of files. A list that cannot be read
    is of files, and says so when its items are asked for.
    """
    try:
        is_of_urls, column = _find_urls(path)
    except SourceError:
        is_of_urls, column = False, None
    if is_of_urls:
        return UrlListSource(path, max_bytes, column, download)
    return ListingSource(path, max_bytes)


def _find_urls(path: Location) -> tuple[bool, str | None]:
    """Whether a list is of URLs, and the column that they stand in (None for a text list)."""
    if file_name(path).lower().endswith(".txt"):
        return bool(_IS_URL.match(next(text_lines(path), ""))), None
    table = open_table(path)
    urls = column_named(_URL_COLUMNS, table.columns)
    files = files_column(table.columns)
    if files is not None and not (urls and files.casefold() == _NAMES_NO_FILE):
        return bool(_IS_URL.match(_first_value(table, files))), files
    return urls is not None, urls


def _first_value(table: OpenTable, column: str) -> str:
    """The first text in a column; '' where its first rows have none."""
    for batch in table.batches:
        if column not in batch.schema.names:
            return ""
        for value in batch.column(column).to_pylist():
            if value:
                return str(value).strip()
        return ""
    return ""
