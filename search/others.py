"""A collection as if some of its training images were not there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol
from uuid import UUID

from search.chosen import matches
from search.index import Features, Hits, Index, Sample, Where

__all__ = ["Others", "Searched"]


class Searched(Protocol):
    """What a support is found in: an `Index`, or a part of one."""

    def search(
        self, queries: Features, limit: int, *, where: Where | None = None, exact: bool = False
    ) -> list[Hits]:
        """See `Index.search`."""
        ...

    def scroll(self, *, batch: int = 1000) -> Iterator[list[UUID]]:
        """See `Index.scroll`."""
        ...

    def vectors(self, ids: Sequence[UUID]) -> Features:
        """See `Index.vectors`."""
        ...

    def sample(self) -> Sample:
        """See `Index.sample`."""
        ...


class Others:
    """The training images of an index that do not match a filter; implements `Searched`.

    Nothing is changed. Searches have full recall, as filtered ones have. The members of a uniform
    sample that lie in a part of the collection are a uniform sample of that part.

    Args:
        index: the whole collection.
        without: which training images are not there.
    """

    def __init__(self, index: Index, without: Where) -> None:
        self._index = index
        self._without = without

    def search(
        self, queries: Features, limit: int, *, where: Where | None = None, exact: bool = False
    ) -> list[Hits]:
        """The `limit` nearest of the others."""
        return self._index.search(queries, limit, where=where, without=self._without, exact=exact)

    def scroll(self, *, batch: int = 1000) -> Iterator[list[UUID]]:
        """The others' ids in batches, ascending."""
        return self._index.scroll(without=self._without, batch=batch)

    def vectors(self, ids: Sequence[UUID]) -> Features:
        """(ids, dim) in the order of `ids`."""
        return self._index.vectors(ids)

    def sample(self) -> Sample:
        """What is left of the index's sample; a payload of each member is read."""
        sample = self._index.sample()
        payloads = self._index.fetch(sample.ids, fields=list(self._without))
        kept = [
            place
            for place, payload in enumerate(payloads)
            if not matches(payload or {}, self._without)
        ]
        return Sample([sample.ids[place] for place in kept], sample.vectors[kept])
