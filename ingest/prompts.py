"""``prompts.json`` beside generated images: what each was made from, as generators write it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ingest.metadata import FILE_COLUMNS, Scalar
from ingest.storage import Location, is_remote

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["PROMPTS_NAME", "read_prompts"]

PROMPTS_NAME = "prompts.json"
_MAX_BYTES = 256 * 1024 * 1024
_ROWS = 4096


def read_prompts(path: Location) -> tuple[tuple[str, ...], Iterator[pa.RecordBatch]]:
    """The columns and the rows of such a file, every value as text.

    It is an object ``{file: prompt}`` or ``{file: {"prompt": ..., ...}}``, or a list of objects
    that name their file. A file of that name and another shape is somebody else's: it has no rows.

    Raises:
        ValueError: it is no JSON, or too large.
        OSError: it cannot be read.
        StorageError: its store refuses, or cannot be reached.
    """
    rows = _rows(json.loads(_text_of(path)))
    columns = tuple(dict.fromkeys(name for row in rows for name in row)) or FILE_COLUMNS[:1]
    return columns, _batches(columns, rows)


def _rows(value: object) -> list[Mapping[str, Scalar]]:
    if isinstance(value, dict):
        column = FILE_COLUMNS[0]
        return [
            {column: name, **(told if isinstance(told, dict) else {"prompt": told})}
            for name, told in value.items()
        ]
    if isinstance(value, list) and all(isinstance(row, dict) for row in value):
        named = {name for row in value for name in row}
        return value if named.intersection(FILE_COLUMNS) else []
    return []


def _batches(
    columns: tuple[str, ...], rows: list[Mapping[str, Scalar]]
) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    schema = pa.schema([(name, pa.string()) for name in columns])
    for start in range(0, len(rows), _ROWS):
        part = rows[start : start + _ROWS]
        yield pa.RecordBatch.from_pydict(
            {name: [_text(row.get(name)) for row in part] for name in columns}, schema=schema
        )


def _text(value: Any) -> str | None:  # noqa: ANN401 (JSON)
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")  # no lone surrogates
    return str(value) if isinstance(value, int | float) else None


def _text_of(path: Location) -> bytes:
    if is_remote(path):
        from ingest.stored import read_bytes

        data = read_bytes(path, _MAX_BYTES)
    else:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise ValueError(f"it is larger than {_MAX_BYTES} bytes")
    return data
