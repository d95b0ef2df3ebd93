"""Ready-made base features: clip-retrieval's output folders and single .npy files.

    <folder>/img_emb/img_emb_0.npy             (images, dim) floating-point numbers
    <folder>/metadata/metadata_0.parquet       one row an image, in the same order

A file is read block by block, so that memory does not grow with it. What the metadata say is text:
no path in them is ever opened.
"""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.errors import SourceError
from ingest.item import printable
from ingest.metadata import Metadata, column_named

__all__ = [
    "FeatureBlock",
    "FeatureFile",
    "FeatureRow",
    "NpyFeatures",
    "file_signature",
    "open_feature_folder",
    "row_key",
]

_KEY = ("key",)
_PATH = ("image_path", "path", "file", "file_name")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NUMBER = re.compile(r"(\d+)\.(?:npy|parquet)$")


@dataclass(frozen=True, slots=True)
class FeatureRow:
    """What is known of the image of one row; '' and 0 where it is not."""

    key: str
    path: str = ""
    metadata: Metadata = Metadata()  # noqa: RUF009 (frozen)
    width: int = 0
    height: int = 0
    sha256: str = ""


@dataclass(frozen=True)
class FeatureBlock:
    """Some rows in order: those from `start` on.

    Attributes:
        features: float32 (rows, dim), as they are: perhaps not finite.
        rows: (rows,)
    """

    start: int
    features: NDArray[np.float32]
    rows: Sequence[FeatureRow]


class FeatureFile(ABC):
    """One file of features with what describes its rows.

    Attributes:
        path: of the file, absolute.
        name: for people.
        signature: changes whenever the file or what describes it does.
        images: how many rows it has.
        dim: length of a feature.
    """

    path: Path
    name: str
    signature: str
    images: int
    dim: int

    @abstractmethod
    def blocks(self, size: int, wanted: Callable[[int], bool]) -> Iterator[FeatureBlock]:
        """Blocks of `size` rows (the last one fewer), those whose start is `wanted`.

        Raises:
            SourceError: the file cannot be read.
        """


class NpyFeatures(FeatureFile):
    """An .npy file of (images, dim) floating-point numbers, and perhaps a parquet file of its rows.

    Args:
        path: the .npy file.
        table: the parquet file; None where rows have no names: their numbers are their keys.
        prefix: before such a key.

    Raises:
        SourceError: unreadable, holding objects or other numbers, or of unequal lengths.
    """

    def __init__(self, path: Path, table: Path | None = None, prefix: str = "") -> None:
        self.path = Path(os.path.abspath(path))  # noqa: PTH100 (resolve would follow links)
        self.name = printable(str(path))
        self._array = _open_npy(path)
        self._table = table
        self._prefix = prefix
        self.images, self.dim = self._array.shape
        self.signature = file_signature(path)
        if table is not None:
            self.signature += "." + file_signature(table)
            rows = _count_rows(table)
            if rows != self.images:
                raise SourceError(
                    f"{self.name} has {self.images} rows, but {printable(str(table))} has {rows}; "
                    "they must describe the same images"
                )

    def blocks(self, size: int, wanted: Callable[[int], bool]) -> Iterator[FeatureBlock]:
        """See `FeatureFile.blocks`."""
        starts = [start for start in range(0, self.images, size) if wanted(start)]
        if not starts:
            return
        described = None if self._table is None else _described(self._table, size)
        for start in range(0, starts[-1] + 1, size):
            rows = None if described is None else next(described, [])
            if start != starts[0]:
                continue
            starts.pop(0)
            part = self._array[start : start + size]
            if rows is not None and len(rows) != len(part):
                raise SourceError(f"{self.name} or its metadata changed while it was read")
            yield FeatureBlock(
                start,
                _single(part),
                [
                    _row({} if rows is None else rows[i], row_key(self._prefix, start + i))
                    for i in range(len(part))
                ],
            )
            if not starts:
                return


def open_feature_folder(folder: Path) -> list[FeatureFile]:
    """The feature files of a folder that clip-retrieval wrote, by their numbers.

    Raises:
        SourceError: no such folder in it, a file without its counterpart, or as `NpyFeatures`.
    """
    name = printable(str(folder))
    features = _numbered(folder / "img_emb", ".npy")
    if not features:
        raise SourceError(f"{name} is no output folder of clip-retrieval: it has no img_emb/*.npy")
    tables = _numbered(folder / "metadata", ".parquet")
    if tables:
        for number in sorted(features.keys() ^ tables.keys()):
            found = printable(str(features.get(number) or tables[number]))
            lacks = "metadata/*.parquet" if number in features else "img_emb/*.npy"
            raise SourceError(f"{found} has no counterpart of its number in {name}/{lacks}")
    return [
        NpyFeatures(features[number], tables.get(number), f"{number:05d}/")
        for number in sorted(features)
    ]


def row_key(prefix: str, row: int) -> str:
    """The key of a row without a name; of one width, so that a file may grow."""
    return f"{prefix}{row:09d}"


def file_signature(path: Path) -> str:
    """Changes whenever the file does.

    Raises:
        SourceError: there is none.
    """
    try:
        found = path.stat()
    except OSError as exc:
        raise SourceError(f"cannot read {printable(str(path))}: {exc.strerror}") from exc
    return f"{found.st_size:x}.{found.st_mtime_ns:x}"


def _single(part: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # beyond float32 is not finite, and said to be so
        return part.astype(np.float32)


def _open_npy(path: Path) -> NDArray[np.floating[Any]]:
    name = printable(str(path))
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, OverflowError, MemoryError) as exc:
        why = " ".join(str(exc).split())[:160] or type(exc).__name__
        if "pickle" in why.lower() or "python objects" in why.lower():
            raise SourceError(
                f"{name} is refused: it holds Python objects (a pickle), not numbers alone"
            ) from exc
        raise SourceError(f"{name} cannot be read as an .npy file: {why}") from exc
    if not isinstance(array, np.ndarray):
        array.close()
        raise SourceError(f"{name} is an archive of arrays, expected one array (.npy)")
    if array.ndim != 2 or array.dtype.kind != "f" or 0 in array.shape:
        shape = " x ".join(map(str, array.shape)) or "a single number"
        raise SourceError(
            f"{name} holds {array.dtype} numbers ({shape}); floating-point numbers, a row an "
            "image, are needed"
        )
    return array


def _numbered(folder: Path, suffix: str) -> dict[int, Path]:
    found: dict[int, Path] = {}
    try:
        paths = sorted(folder.iterdir()) if folder.is_dir() else []
    except OSError as exc:
        raise SourceError(f"cannot read {printable(str(folder))}: {exc.strerror}") from exc
    for path in paths:
        match = _NUMBER.search(path.name)
        if path.name.startswith(".") or path.suffix != suffix or match is None:
            continue
        number = int(match[1])
        if number in found:
            raise SourceError(
                f"{printable(str(found[number]))} and {printable(str(path))} have the same number"
            )
        found[number] = path
    return found


def _count_rows(table: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return int(pq.read_metadata(table).num_rows)
    except (pa.ArrowException, OSError, ValueError) as exc:
        why = " ".join(printable(str(exc)).split())
        raise SourceError(f"cannot read {printable(str(table))} as a table: {why}") from exc


def _described(table: Path, size: int) -> Iterator[list[dict[str, object]]]:
    """The rows of a parquet file in lists of `size`."""
    from ingest.table import open_table

    pending: list[dict[str, object]] = []
    for batch in open_table(table).batches:
        pending += batch.to_pylist()
        while len(pending) >= size:
            yield pending[:size]
            pending = pending[size:]
    if pending:
        yield pending


def _row(values: dict[str, object], fallback: str) -> FeatureRow:
    key_column = column_named(_KEY, values)
    path_column = column_named(_PATH, values)
    path = _text(values, path_column)
    used = {name for name in (key_column, path_column) if name is not None}
    used |= {"width", "height", "sha256"} & values.keys()
    sha256 = _text(values, "sha256").lower()
    return FeatureRow(
        key=_text(values, key_column) or path or fallback,
        path=path,
        metadata=Metadata.from_row(values, without=used),
        width=_size(values.get("width")),
        height=_size(values.get("height")),
        sha256=sha256 if _SHA256.fullmatch(sha256) else "",
    )


def _text(values: dict[str, object], column: str | None) -> str:
    value = None if column is None else values.get(column)
    return "" if value is None else printable(str(value))


def _size(value: object) -> int:
    return value if isinstance(value, int) and 0 < value < 1 << 31 else 0
