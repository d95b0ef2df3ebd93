"""The `Index` protocol: the little that attribution needs of a vector index.

Two things stand behind it: Qdrant Edge in a process of its own (`search.edge`), and a collection on
a Qdrant server or cluster (`search.server`). Both pass the same contract tests
(`tests/search/test_index_contract.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

__all__ = ["INDEXED_FIELDS", "Features", "Hits", "Index", "IndexInfo", "Payload", "Sample", "Where"]

Features: TypeAlias = NDArray[np.float32]
"""L2-normalised features, one a row."""

Payload: TypeAlias = dict[str, Any]
"""key, path, url, caption, creator, licence, width, height, sha256, dataset, ... of one image."""

Where: TypeAlias = Mapping[str, Sequence[str]]
"""A filter: every field named must equal one of its values (AND of ORs). Empty: no restriction."""

INDEXED_FIELDS = ("creator", "licence", "dataset", "sha256", "key")
"""Payload fields with an index of their own: the ones that `Where` may name."""


@dataclass(frozen=True)
class Hits:
    """Search results of one query, best first; ties in ascending order of id.

    Attributes:
        ids: (hits,)
        similarities: (hits,) float32, true cosines of the stored vectors: never those of quantized
            ones.
    """

    ids: Sequence[UUID]
    similarities: NDArray[np.float32]


@dataclass(frozen=True)
class Sample:
    """A fixed uniform sample of the collection, without replacement.

    Attributes:
        ids: (sample,)
        vectors: (sample, dim)
    """

    ids: Sequence[UUID]
    vectors: Features


@dataclass(frozen=True)
class IndexInfo:
    """State and settings of an index, for people and for the record kept with each answer."""

    backend: str
    points: int
    indexed: int
    dim: int
    quantization: str
    ef: int
    details: Mapping[str, Any]


class Index(Protocol):
    """A collection of L2-normalised features with payloads, searched by cosine similarity.

    Every method raises `IndexFailedError` where the engine fails, and `IndexRefusedError`, which is
    one, where a server's strict mode or quota forbids just this.
    """

    @property
    def dim(self) -> int:
        """Length of a feature."""
        ...

    def upsert(self, ids: Sequence[UUID], vectors: Features, payloads: Sequence[Payload]) -> None:
        """Put points in; an id that is there already is replaced, payload and all.

        Everything is validated first (shape, finiteness, norm, lengths), so that a refused call
        changes nothing. `vectors`: (points, dim). Durable after `flush`.
        """
        ...

    def search(
        self,
        queries: Features,
        limit: int,
        *,
        where: Where | None = None,
        without: Where | None = None,
        exact: bool = False,
    ) -> list[Hits]:
        """The `limit` nearest points of each query, fewer only where the collection has fewer.

        `queries`: (queries, dim). `where`, `without`: only points that match the one and not the
        other. `exact`: compare with every point. A filtered search has full recall: it is answered
        exactly where the graph could lose points.
        """
        ...

    def fetch(
        self, ids: Sequence[UUID], *, fields: Sequence[str] | None = None
    ) -> list[Payload | None]:
        """Payloads in the order of `ids`, None for an unknown one; all fields, or some of them."""
        ...

    def vectors(self, ids: Sequence[UUID]) -> Features:
        """(ids, dim) in the order of `ids`; an unknown id raises `IndexFailedError`."""
        ...

    def count(self, where: Where | None = None, *, without: Where | None = None) -> int:
        """How many points match, and do not match `without`, exactly; a server's count of all may
        be some seconds old.
        """
        ...

    def facet(self, field: str, *, limit: int = 1000) -> dict[str, int]:
        """How many points each value of an indexed field has, most frequent first."""
        ...

    def scroll(
        self,
        where: Where | None = None,
        *,
        without: Where | None = None,
        batch: int = 1000,
        start: UUID | None = None,
    ) -> Iterator[list[UUID]]:
        """Ids that match, and do not match `without`, from `start` on, in batches, ascending."""
        ...

    def delete(self, ids: Sequence[UUID]) -> None:
        """Take points out; unknown ids are no error. Durable after `flush`."""
        ...

    def sample(self) -> Sample:
        """The fixed uniform sample: a function of the set of ids alone, whatever the order in which
        they came and went (up to points deleted since, which leave it smaller but still uniform).
        """
        ...

    def build(self) -> None:
        """Bring the search structures up to date with the points (HNSW, quantization, sample)."""
        ...

    def flush(self) -> None:
        """Return once everything so far would survive a power cut."""
        ...

    def info(self) -> IndexInfo:
        """State and settings."""
        ...

    def close(self) -> None:
        """Flush, and let go of the folder or connection. Calling it again does nothing."""
        ...
