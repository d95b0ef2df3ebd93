"""An index that remembers payloads: the images of a gallery share many of their training images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast
from uuid import UUID

from search.index import Index, Payload

__all__ = ["remembered"]

_KEPT = 20_000
"""Payloads; of about 2 KB each."""


def remembered(index: Index, most: int = _KEPT) -> Index:
    """The same index, whose payloads are asked for once while nothing is put in or taken out.

    Those asked for first go first. For one thread.
    """
    return cast("Index", _Remembered(index, most))


class _Remembered:
    def __init__(self, index: Index, most: int) -> None:
        self._index = index
        self._most = most
        self._known: dict[int, Payload] = {}  # by the id's number: a UUID is slow to hash

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 (as the index has it)
        return getattr(self._index, name)

    def fetch(
        self, ids: Sequence[UUID], *, fields: Sequence[str] | None = None
    ) -> list[Payload | None]:
        """As `Index.fetch`; of all fields, where only some are asked for."""
        known = self._known
        found: list[Payload | None] = [known.get(id.int) for id in ids]
        missing = [place for place, payload in enumerate(found) if payload is None]
        if not missing:
            return found
        asked = [ids[place] for place in missing]
        for place, id, payload in zip(missing, asked, self._index.fetch(asked), strict=True):
            found[place] = payload
            if payload is not None:
                known[id.int] = payload
        while len(known) > self._most:
            del known[next(iter(known))]
        return found
