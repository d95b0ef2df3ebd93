"""Which point has which score, where all points of a small shard are compared.

Edge takes longer to name a point (1 us, for an object) than to compare it. So the points are put in
order by products of our own, which agree with Edge's scores but for rounding, and only those that
rounding could have put in another place are asked for their names. The scores stay Edge's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Named", "Scan", "fits"]

_BYTES = 32 << 20
"""Of the vectors that are held a second time: 6,500 points of 1,280 numbers."""

_QUERIES = 8
"""At least so many at once are worth reading all vectors for."""

_ROUNDING = 4e-6
"""More than Edge's and numpy's cosine of one pair ever differ by; measured: 2e-7."""


class Named(Protocol):
    """A scored point of Edge."""

    @property
    def score(self) -> float:
        """Its similarity."""
        ...

    @property
    def id(self) -> object:
        """Its UUID."""
        ...


def fits(points: int, dim: int, queries: int) -> bool:
    """Whether a scan of so many points by so many queries is worth it, and has room."""
    return queries >= _QUERIES and 4 * points * dim <= _BYTES


class Scan:
    """All points of a shard, until the next change.

    Args:
        ids: 16 bytes each, laid end to end.
        vectors: (points, dim), float32.
    """

    def __init__(self, ids: bytes, vectors: NDArray[np.float32]) -> None:
        self._ids = np.frombuffer(ids, "V16")
        self._vectors = vectors

    def hits(
        self, rows: NDArray[np.float32], found: Sequence[Sequence[Named]]
    ) -> list[list[tuple[float, bytes]] | None]:
        """Per query, (-score, id) of all points, ascending.

        None where the products are not those of Edge: its points must be asked for their names.

        Args:
            rows: (queries, dim).
            found: Edge's answer to each query, all points in descending order.
        """
        products = rows @ self._vectors.T  # (queries, points)
        return [self._named(row, points) for row, points in zip(products, found, strict=True)]

    def _named(
        self, products: NDArray[np.float32], points: Sequence[Named]
    ) -> list[tuple[float, bytes]] | None:
        negative = [-point.score for point in points]
        if len(negative) != len(products):
            return None
        order = np.argsort(-products, kind="stable")
        rising = -products[order].astype(np.float64)
        if (np.abs(rising - np.array(negative)) > _ROUNDING).any():
            return None
        close = np.flatnonzero(rising[1:] - rising[:-1] <= 2 * _ROUNDING).tolist()
        names: list[bytes] = self._ids[order].tolist()
        for place in {*close, *(place + 1 for place in close)}:
            names[place] = points[place].id.bytes  # type: ignore[attr-defined]
        hits = list(zip(negative, names, strict=True))
        hits.sort()  # equal scores by id; the others stand already
        return hits
