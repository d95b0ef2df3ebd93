"""An index by the shortest code, a collection for it, and attribution over the full matrix."""

from __future__ import annotations

import math
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embed.calibrator import Calibrator
from search.answer import Attribution
from search.attribution import Attributor
from search.index import Hits, Index, IndexInfo, Payload, Sample, Where

DIM = 8
SEED = 8
SAMPLE = 256
CUT = Calibrator(0.15, -0.05, fitted_on="pairs")
ZERO = Calibrator(0.15, 0.0)
RAISED = Calibrator(0.15, 0.02)
CALIBRATORS = [CUT, ZERO, RAISED]


class BruteIndex:
    """Every index's behaviour by the shortest code; counts its searches."""

    def __init__(self, dim: int = DIM, sample_size: int = SAMPLE) -> None:
        self.dim = dim
        self.points: dict[uuid.UUID, tuple[NDArray[np.float32], Payload]] = {}
        self.sample_size = sample_size
        self.limits: list[int] = []

    def upsert(
        self, ids: Sequence[uuid.UUID], vectors: NDArray[np.float32], payloads: Sequence[Payload]
    ) -> None:
        self.points |= dict(zip(ids, zip(vectors, payloads, strict=True), strict=True))
        self.points = dict(sorted(self.points.items()))

    def search(
        self,
        queries: NDArray[np.float32],
        limit: int,
        *,
        where: Where | None = None,
        without: Where | None = None,
        exact: bool = False,
    ) -> list[Hits]:
        self.limits.append(limit)
        ids = self._matching(where, without)
        if not ids:
            return [Hits([], np.empty(0, np.float32)) for _ in queries]
        # One by one: products of other shapes round differently.
        scores = np.stack([self.vectors(ids) @ query for query in queries])
        orders = np.argsort(-scores, axis=1, kind="stable")[:, :limit]
        return [
            Hits([ids[i] for i in order], row[order])
            for order, row in zip(orders, scores, strict=True)
        ]

    def fetch(
        self, ids: Sequence[uuid.UUID], *, fields: Sequence[str] | None = None
    ) -> list[Payload | None]:
        return [
            {name: v for name, v in self.points[i][1].items() if fields is None or name in fields}
            if i in self.points
            else None
            for i in ids
        ]

    def vectors(self, ids: Sequence[uuid.UUID]) -> NDArray[np.float32]:
        return np.stack([self.points[i][0] for i in ids])

    def count(self, where: Where | None = None, *, without: Where | None = None) -> int:
        return len(self._matching(where, without))

    def facet(self, field: str, *, limit: int = 1000) -> dict[str, int]:
        values = (payload[field] for _, payload in self.points.values() if payload.get(field))
        return dict(Counter(values).most_common(limit))

    def scroll(
        self,
        where: Where | None = None,
        *,
        without: Where | None = None,
        batch: int = 1000,
        start: uuid.UUID | None = None,
    ) -> Iterator[list[uuid.UUID]]:
        ids = [i for i in self._matching(where, without) if start is None or i >= start]
        for start in range(0, len(ids), batch):
            yield ids[start : start + batch]

    def delete(self, ids: Sequence[uuid.UUID]) -> None:
        for i in ids:
            self.points.pop(i, None)

    def sample(self) -> Sample:
        ids = sorted(self.points, key=lambda i: uuid.uuid5(i, "sample"))[: self.sample_size]
        return Sample(ids, self.vectors(ids))

    def build(self) -> None: ...

    def flush(self) -> None: ...

    def info(self) -> IndexInfo:
        points = len(self.points)
        return IndexInfo("brute", points, points, self.dim, "none", 0, {"disk_bytes": 1, "m": 0})

    def close(self) -> None: ...

    def _matching(self, where: Where | None, without: Where | None) -> list[uuid.UUID]:
        def fits(payload: Payload, condition: Where) -> bool:
            return all(payload.get(name) in values for name, values in condition.items())

        return [
            i
            for i, (_, payload) in self.points.items()
            if fits(payload, where or {}) and not (without and fits(payload, without))
        ]


def unit(rows: NDArray[Any]) -> NDArray[np.float32]:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def collection(count: int = 300) -> tuple[list[uuid.UUID], NDArray[np.float32], list[Payload]]:
    """Every fifth is a copy of the one before (same vector, same hash); every seventh has none."""
    random = np.random.default_rng(SEED)
    vectors = unit(random.normal(size=(count, DIM)))
    ids = [uuid.uuid5(uuid.NAMESPACE_URL, f"image {i}") for i in range(count)]
    payloads: list[Payload] = []
    for i in range(count):
        image = i - 1 if i % 5 == 4 else i
        vectors[i] = vectors[image]
        payloads.append(
            {
                "key": f"{i:03d}",
                "sha256": "" if image % 7 == 0 else f"hash {image}",
                "creator": ["", "Ann", "Bob", "Cy"][i % 4],
                "licence": ["cc0", "cc-by"][i % 3 == 0],
                "width": 10 + i,
            }
        )
    return ids, vectors, payloads


def fill(index: Index, count: int = 300) -> tuple[NDArray[np.float32], list[Payload]]:
    ids, vectors, payloads = collection(count)
    index.upsert(ids, vectors, payloads)
    index.flush()
    return vectors, payloads


def ask(count: int = 3) -> NDArray[np.float32]:
    return unit(np.random.default_rng(SEED + 1).normal(size=(count, DIM)))


def attributor(index: Index, calibrator: Calibrator, **options: Any) -> Attributor:
    return Attributor(index, "model", "f00d", calibrator, **options)


def reference(
    shares: NDArray[np.float64], payloads: list[Payload], where: Where
) -> list[tuple[float, frozenset[str]]]:
    """(influence, keys of the owners) of every image with influence, most influential first."""
    images: dict[str, list[int]] = {}
    for i, payload in enumerate(payloads):
        if shares[i] > 0 and all(payload[name] in values for name, values in where.items()):
            images.setdefault(payload["sha256"] or payload["key"], []).append(i)
    rows = [
        (math.fsum(shares[copies]), frozenset(payloads[i]["key"] for i in copies))
        for copies in images.values()
    ]
    return sorted(rows, key=lambda row: -row[0])


def check_sums(answer: Attribution) -> None:
    shares = [row.influence for row in answer.rows]
    assert all(0 < share <= 1 for share in shares)
    assert shares == sorted(shares, reverse=True)
    assert abs(math.fsum([*shares, answer.remaining]) - 1) < 1e-9
    assert [row.rank for row in answer.rows] == list(range(1, len(shares) + 1))
    ids = [owner.id for row in answer.rows for owner in row.owners]
    assert len(set(ids)) == len(ids)
    if answer.group_by:
        total = math.fsum(group.influence for group in answer.groups)
        assert abs(total + answer.groups_remaining - 1) < 1e-9
