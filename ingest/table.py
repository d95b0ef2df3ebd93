"""Tables that describe images, a row an image: parquet and CSV, read in batches by pyarrow.

A generator's ``prompts.json`` is one, too (`ingest.prompts`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader, TextIOWrapper
from itertools import chain
from pathlib import PurePosixPath
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from ingest.errors import SourceError
from ingest.item import printable
from ingest.metadata import FILE_COLUMNS, Metadata, column_named
from ingest.prompts import PROMPTS_NAME, read_prompts
from ingest.storage import Location, file_name, is_remote, shown

__all__ = [
    "TABLE_NAMES",
    "MetadataTable",
    "OpenTable",
    "files_column",
    "open_table",
    "require_files_column",
    "text_lines",
]

TABLE_NAMES = ("metadata.parquet", "metadata.csv", PROMPTS_NAME)
"""What a table beside images is called; the first one present is used."""

_PARQUET_BATCH_ROWS = 1024
_CSV_BLOCK_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class OpenTable:
    """A table whose columns are known and whose rows are still to be read.

    Attributes:
        path: its file.
        columns: all columns that the file has.
        batches: its rows, with the columns that hold scalars only; reading may raise SourceError.
    """

    path: Location
    columns: tuple[str, ...]
    batches: Iterator[pa.RecordBatch]


def open_table(path: Location) -> OpenTable:
    """Open a parquet or CSV file, or a ``prompts.json``.

    Raises:
        SourceError: when it cannot be read as what its name says.
        StorageError: its store refuses, or cannot be reached.
    """
    try:
        if file_name(path) == PROMPTS_NAME:
            return OpenTable(path, *read_prompts(path))
        if file_name(path).lower().endswith(".csv"):
            return OpenTable(path, *_open_csv(path))
        return OpenTable(path, *_open_parquet(path))
    except (pa.ArrowException, OSError, ValueError, RecursionError) as exc:
        raise _unreadable(path, exc) from exc


def files_column(columns: Iterable[str]) -> str | None:
    """The column that names the image files; None where there is none."""
    return column_named(FILE_COLUMNS, columns)


def require_files_column(table: OpenTable) -> str:
    """The column that names the image files.

    Raises:
        SourceError: when there is none; it names the columns found and those needed.
    """
    column = files_column(table.columns)
    if column is not None:
        return column
    name = printable(shown(table.path))
    raise SourceError(
        f"{name} has no column that names the image files: it has {', '.join(table.columns)}"
        f" and needs one of {', '.join(FILE_COLUMNS)}"
    )


def text_lines(path: Location) -> Iterator[str]:
    """The lines of a text list without spaces around them; blank ones and ``#`` are passed over.

    Raises:
        SourceError: when it cannot be read.
    """
    try:
        with _open_text(path) as lines:
            for line in lines:
                text = line.strip()
                if text and not text.startswith("#"):
                    yield text
    except OSError as exc:
        name = printable(shown(path))
        raise SourceError(f"cannot read {name}: {printable(str(exc.strerror))}") from exc


@contextmanager
def _open_text(path: Location) -> Iterator[TextIO]:
    if not is_remote(path):
        with path.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
            yield lines
        return
    from ingest.stored_file import StoredFile

    with TextIOWrapper(
        BufferedReader(StoredFile(path)), encoding="utf-8-sig", errors="surrogateescape"
    ) as lines:
        yield lines


def _arrow(path: Location) -> Any:  # noqa: ANN401 (what pyarrow opens: a path or a file)
    if not is_remote(path):
        return path
    from ingest.stored_file import StoredFile

    return StoredFile(path, scattered=True)


class MetadataTable:
    """The rows of a table, found by the path of an image.

    The rows stay in Arrow's memory, about as large as the file unpacked; beside them stands one
    dictionary entry a row.
    """

    def __init__(self, rows: pa.Table, column: str) -> None:
        self._rows = rows
        self._column = column
        self._by_name: dict[str, int | list[int]] = {}
        for index, value in enumerate(rows.column(column)):
            text = value.as_py()
            if text is None:
                continue
            name = _parts(str(text))[-1]
            earlier = self._by_name.get(name)
            if earlier is None:
                self._by_name[name] = index
            elif isinstance(earlier, list):
                earlier.append(index)
            else:
                self._by_name[name] = [earlier, index]

    @classmethod
    def load(cls, path: Location) -> MetadataTable:
        """Read the whole table.

        Raises:
            SourceError: when it is unreadable or has no column that names the image files.
        """
        table = open_table(path)
        column = require_files_column(table)
        batches = list(table.batches)
        if not batches:
            return cls(pa.table({column: pa.array([], pa.string())}), column)
        rows = pa.Table.from_batches(batches)
        if column not in rows.column_names:
            raise SourceError(
                f"{printable(shown(path))}: column {column} holds no file names but other data"
            )
        return cls(rows.combine_chunks(), column)

    def find(self, path: str) -> Metadata | None:
        """The metadata of the image at a posix path below the table's folder; None where unknown.

        A row names an image by its path, by the end of its path (``b/1.jpg`` for ``a/b/1.jpg``),
        by its bare file name, or by any of these without the suffix. The longest match counts; two
        different rows that match equally long say nothing.
        """
        wanted = _parts(path)
        for name in (wanted[-1], PurePosixPath(wanted[-1]).stem):
            rows = self._by_name.get(name)
            if rows is None:
                continue
            best: tuple[tuple[bool, int], int, list[str]] | None = None
            tied = False
            for row in rows if isinstance(rows, list) else [rows]:
                folders = _parts(str(self._rows.column(self._column)[row].as_py()))[:-1]
                common = min(len(folders), len(wanted) - 1)
                if common and folders[-common:] != wanted[:-1][-common:]:
                    continue
                rank = (folders == wanted[:-1], common)
                if best is None or rank > best[0]:
                    best, tied = (rank, row, folders), False
                elif rank == best[0] and folders != best[2]:
                    tied = True
            if best is not None and not tied:
                return self._metadata(best[1])
        return None

    def _metadata(self, row: int) -> Metadata:
        values = {
            name: self._rows.column(name)[row].as_py()
            for name in dict.fromkeys(self._rows.column_names)
        }
        return Metadata.from_row(values, without={self._column})


def _open_parquet(path: Location) -> tuple[tuple[str, ...], Iterator[pa.RecordBatch]]:
    file = pyarrow.parquet.ParquetFile(_arrow(path))
    schema = file.schema_arrow
    scalars = [column.name for column in schema if _is_scalar(column.type)]

    def batches() -> Iterator[pa.RecordBatch]:
        with file:
            try:
                yield from file.iter_batches(batch_size=_PARQUET_BATCH_ROWS, columns=scalars)
            except (pa.ArrowException, OSError) as exc:
                raise _unreadable(path, exc) from exc

    return tuple(schema.names), batches()


def _open_csv(path: Location) -> tuple[tuple[str, ...], Iterator[pa.RecordBatch]]:
    read = pyarrow.csv.ReadOptions(block_size=_CSV_BLOCK_BYTES)
    parse = pyarrow.csv.ParseOptions(newlines_in_values=True)
    with pyarrow.csv.open_csv(_arrow(path), read_options=read, parse_options=parse) as probe:
        names = list(probe.schema.names)
    # All columns as text: a caption of digits is a caption, and types guessed from the first block
    # would make a later block fail.
    reader = pyarrow.csv.open_csv(
        _arrow(path),
        read_options=read,
        parse_options=parse,
        convert_options=pyarrow.csv.ConvertOptions(
            column_types={name: pa.string() for name in names}
        ),
    )

    def batches() -> Iterator[pa.RecordBatch]:
        with reader:
            try:
                yield from reader
            except (pa.ArrowException, OSError) as exc:
                raise _unreadable(path, exc) from exc

    # Read one batch now: errors in the first rows belong to the opening.
    rows = batches()
    first = next(rows, None)
    return tuple(names), rows if first is None else chain([first], rows)


def _is_scalar(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
    )


def _parts(path: str) -> list[str]:
    """The parts of a path as tables write it, also with ``./`` before it or with backslashes."""
    if "/" not in path:
        path = path.replace("\\", "/")
    return [part for part in path.split("/") if part not in ("", ".")] or [""]


def _unreadable(path: Location, exc: Exception) -> SourceError:
    why = " ".join(printable(str(exc)).split())
    return SourceError(f"cannot read {printable(shown(path))} as a table: {why}")
