"""A gallery's keys, each once: of two images of one key the first counts.

Keys are unique in a folder, but a list may name an image twice, and a tar two members alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ingest.errors import RejectReason
from search.audit.parts import LINES, PartsFolder, Piece
from search.audit.tables import rejects_schema

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["UniqueImages"]


@dataclass(frozen=True)
class _Told:
    """Which images of a batch count: (images,) bool, and the rejects that the others are."""

    keep: list[bool]
    rejects: list[dict[str, Any]]


class UniqueImages:
    """The images of all parts that count, in order.

    Memory: 8 bytes an image while they are looked through, and then the keys that came twice.
    """

    def __init__(self, parts: PartsFolder) -> None:
        self._parts = parts
        found = [_hashes(table) for table in parts.images(["image"])]
        hashes, counts = np.unique(
            np.concatenate(found) if found else np.zeros(0, np.uint64), return_counts=True
        )
        self._twice = frozenset(hashes[counts > 1].tolist())

    def entries(self, columns: list[str]) -> Iterator[tuple[Any, ...]]:
        """Some columns of the table of images, an image at a time."""
        seen: set[str] = set()
        for table in self._parts.images(columns if "path" in columns else [*columns, "path"]):
            told = self._told(table, seen)
            values = zip(*(table.column(name).to_pylist() for name in columns), strict=True)
            for keep, value in zip(told.keep, values, strict=True):
                if keep:
                    yield value

    def pieces(self) -> Iterator[tuple[Piece, pa.Table]]:
        """The batches, and the rejects of each."""
        import pyarrow as pa

        seen: set[str] = set()
        for piece in self._parts.pieces():
            told = self._told(piece.images, seen)
            rejects = pa.Table.from_pylist(told.rejects, schema=rejects_schema())
            if told.rejects:
                lines = np.repeat(told.keep, piece.images.column(LINES).to_numpy())
                piece = Piece(
                    piece.images.filter(pa.array(told.keep)),
                    piece.attributions.filter(pa.array(lines)),
                )
            yield piece, rejects

    def _told(self, images: pa.Table, seen: set[str]) -> _Told:
        keep, rejects = [], []
        if not self._twice:
            return _Told([True] * images.num_rows, [])
        keys, paths = (images.column(name).to_pylist() for name in ("image", "path"))
        for key, path, hashed in zip(keys, paths, _hashes(images).tolist(), strict=True):
            keep.append(key not in seen)
            if key in seen:
                reason = RejectReason.DUPLICATE_KEY.value
                rejects.append({"image": key, "path": path, "reason": reason, "detail": ""})
            elif hashed in self._twice:
                seen.add(key)
        return _Told(keep, rejects)


def _hashes(images: pa.Table) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """(images,) 64 bits of each key's hash."""
    keys = images.column("image").to_pylist()
    hashes = (hashlib.blake2b(key.encode(), digest_size=8).digest() for key in keys)
    return np.frombuffer(b"".join(hashes), "<u8")
