"""What was downloaded, kept as WebDataset tars in the layout of img2dataset.

A shard of a list becomes ``NAME.tar`` (``KEY.jpg``, ``KEY.txt`` with the caption, ``KEY.json``),
``NAME.parquet`` (a row for every URL, those that failed too) and ``NAME_stats.json``, last. NAME is
made of the list's name and of the keys, so that a shard that is done again replaces its own files.
"""

from __future__ import annotations

import hashlib
import json
import mimetypes
import tarfile
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

from ingest.download_fetch import Downloaded
from ingest.errors import DataFolderError, ImageError
from ingest.formats import IMAGE_SUFFIXES, looks_like
from ingest.item import Item
from ingest.storage import Location, file_name

__all__ = ["KeptImages"]

_SUFFIXES = {"JPEG": ".jpg", "TIFF": ".tif", "JPEG2000": ".jp2"}


class KeptImages:
    """The files of one shard. Use as a context manager; left by an error, nothing is kept.

    Args:
        folder: where they go; made where it is missing.
        listing: the list that the items are of.
        items: all items of the shard.

    Raises:
        DataFolderError: they cannot be written.
    """

    def __init__(self, folder: Path, listing: Location, items: Sequence[Item]) -> None:
        digest = hashlib.sha256("\n".join(item.key for item in items).encode()).hexdigest()
        self._folder = folder
        self._name = f"{PurePosixPath(file_name(listing)).stem}-{digest[:16]}"
        self._part = folder / f".{self._name}.tar.part"
        self._tar: tarfile.TarFile | None = None
        self._rows: list[dict[str, Any]] = []
        self._failures: Counter[str] = Counter()

    def __enter__(self) -> KeptImages:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise self._failed(exc) from exc
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        try:
            if self._tar is not None:
                self._tar.close()
            if kind is None:
                self._finish()
        except OSError as error:
            if kind is None:
                raise self._failed(error) from error
        finally:
            with suppress(OSError):
                self._part.unlink()

    def add(self, item: Item, outcome: Downloaded | ImageError) -> None:
        """Keep what came of an item."""
        row = _row(item)
        if isinstance(outcome, ImageError):
            self._failures[outcome.reason.value] += 1
            row |= {"status": "failed_to_download", "error_message": str(outcome)}
            self._rows.append(row)
            return
        row |= {"status": "success", "error_message": None}
        row["sha256"] = hashlib.sha256(outcome.data).hexdigest()
        self._rows.append(row)
        try:
            if self._tar is None:
                self._tar = tarfile.open(self._part, "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115
            self._write(item.key + _suffix_of(outcome), outcome.data)
            if item.metadata.caption:
                self._write(f"{item.key}.txt", item.metadata.caption.encode())
            self._write(f"{item.key}.json", json.dumps(row, ensure_ascii=False).encode())
        except OSError as exc:
            raise self._failed(exc) from exc

    def _write(self, name: str, data: bytes) -> None:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        if self._tar is not None:
            self._tar.addfile(info, BytesIO(data))

    def _finish(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        stats = {
            "count": len(self._rows),
            "successes": len(self._rows) - self._failures.total(),
            "failed_to_download": self._failures.total(),
            "status_dict": dict(self._failures.most_common()),
        }
        table = BytesIO()
        names = list(dict.fromkeys(name for row in self._rows for name in row))
        columns = {name: _column([row.get(name) for row in self._rows]) for name in names}
        pq.write_table(pa.table(columns), table)
        _replace(self._folder / f"{self._name}.parquet", table.getvalue())
        if self._tar is not None:
            self._part.replace(self._folder / f"{self._name}.tar")
        _replace(
            self._folder / f"{self._name}_stats.json", json.dumps(stats, indent=2).encode() + b"\n"
        )

    def _failed(self, exc: OSError) -> DataFolderError:
        return DataFolderError(f"cannot keep images in {self._folder}: {exc.strerror or exc}")


def _row(item: Item) -> dict[str, Any]:
    known = item.metadata
    named = {"url": known.url, "caption": known.caption}
    named |= {"creator": known.creator} if known.creator else {}
    named |= {"license": known.licence} if known.licence else {}
    return {**known.extra, **named, "key": item.key}


def _suffix_of(found: Downloaded) -> str:
    kind = looks_like(found.data)
    if kind is not None:
        return _SUFFIXES.get(kind, f".{kind.lower()}")
    named = mimetypes.guess_extension(found.content_type)
    return named if named in IMAGE_SUFFIXES else ".jpg"


def _column(values: list[Any]) -> Any:  # noqa: ANN401 (an Arrow array)
    """Values of one kind as they are; of several kinds as text."""
    import pyarrow as pa

    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError):
        return pa.array([None if value is None else str(value) for value in values])


def _replace(path: Path, data: bytes) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(data)
    part.replace(path)
