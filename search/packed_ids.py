"""Ids as they travel: a search of thousands of hits need not make thousands of objects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload
from uuid import UUID

import numpy as np

__all__ = ["PackedIds", "id_bytes"]

_SIZE = 16


class PackedIds(Sequence[UUID]):
    """Ids laid end to end, each of which becomes a UUID where it is looked at.

    Equal to any other sequence of the same ids.

    Args:
        packed: 16 bytes an id.
    """

    __slots__ = ("packed",)

    def __init__(self, packed: bytes) -> None:
        self.packed = packed

    def __len__(self) -> int:
        return len(self.packed) // _SIZE

    @overload
    def __getitem__(self, place: int) -> UUID: ...

    @overload
    def __getitem__(self, place: slice) -> PackedIds: ...

    def __getitem__(self, place: int | slice) -> UUID | PackedIds:
        if isinstance(place, slice):
            start, stop, step = place.indices(len(self))
            if step == 1:
                return PackedIds(self.packed[start * _SIZE : max(start, stop) * _SIZE])
            return PackedIds(b"".join(id_bytes(self)[place]))
        at = range(len(self))[place] * _SIZE
        return UUID(bytes=self.packed[at : at + _SIZE])

    def __iter__(self) -> Iterator[UUID]:
        return (UUID(bytes=one) for one in id_bytes(self))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, PackedIds):
            return self.packed == other.packed
        if isinstance(other, Sequence) and not isinstance(other, str | bytes):
            return len(self) == len(other) and all(
                one == another for one, another in zip(self, other, strict=True)
            )
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # as a list's: it may equal one

    def __repr__(self) -> str:
        return f"PackedIds of {len(self)}"


def id_bytes(ids: Sequence[UUID]) -> list[bytes]:
    """The 16 bytes of each id."""
    if isinstance(ids, PackedIds):
        found: list[bytes] = np.frombuffer(ids.packed, f"V{_SIZE}").tolist()
        return found
    return [one.bytes for one in ids]
