"""The operations of the index on a Qdrant Edge shard, as its own process carries them out.

Ids travel as bytes, 16 each, laid end to end; vectors as raw float32; payloads as JSON. Imports
stay light (numpy and Edge): they are the start-up time of every command that opens an index.

What shapes this file: Edge never releases the interpreter lock, so it has a process of its own; its
lock is the one on the write-ahead log, which therefore stays on; a failed upsert may be half done,
so everything is validated by the caller.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import qdrant_edge as edge
from numpy.typing import NDArray

from search.chosen import EVERYTHING, Chosen
from search.edge_config import shard_config
from search.edge_sample import SampleKeeper
from search.edge_settings import EdgeSettings
from search.edge_system import disk_bytes, memory_bytes, read_ahead
from search.edge_tuning import NEIGHBOURS, QUERIES, read_tuning, tune, write_tuning
from search.index import INDEXED_FIELDS

__all__ = ["ShardBusyError", "ShardOperations"]

_UPSERT_POINTS = 100  # points a call to Edge: the fastest of 10..1000
_FLUSH_POINTS = 50_000  # replaying the log of so many points takes about three seconds
_QUERY_BATCH = 64  # bounds the hits that Edge holds as objects at once
# Candidates per hit in the graph: where clusters were smaller than the limit (500 of 100,000), one
# gave a recall of 0.92, two 0.97, four 0.99.
_CANDIDATES_PER_HIT = 4
_FIRST_HITS = 32  # hits that `ef` alone provides for; at limit 50 it measured 0.997 and more
_EXACT_SHARE = 0.01  # comparing every point is faster than so many candidates, and loses nothing
_TIE_POINTS = 4096  # how far beyond the limit a run of equal similarities is followed
_RETRIEVE_POINTS = 1000
_ID_BYTES = 16


class ShardBusyError(Exception):
    """Another process holds the shard's lock."""


def _uuids(ids: bytes) -> list[UUID]:
    return [UUID(bytes=ids[at : at + _ID_BYTES]) for at in range(0, len(ids), _ID_BYTES)]


def _filter(chosen: Chosen) -> edge.Filter | None:
    if not chosen:
        return None
    # What is left out is a filter of its own: a point goes only if it matches in every field.
    left_out: Any = [edge.Filter(must=_conditions(chosen.without))] if chosen.without else None
    return edge.Filter(must=_conditions(chosen.where) or None, must_not=left_out)


def _conditions(where: Mapping[str, Sequence[str]]) -> Any:  # noqa: ANN401  # a list is invariant
    return [
        edge.FieldCondition(field, match=edge.MatchAny(list(values)))
        for field, values in where.items()
    ]


class ShardOperations:
    """An open shard; public methods are the requests that `EdgeIndex` sends by name."""

    def __init__(self, folder: Path, dim: int, settings: EdgeSettings, wait_s: float) -> None:
        self._folder = folder
        self._dim = dim
        self._settings = settings
        self._shard = _load(folder / "shard", shard_config(dim, settings), wait_s)
        self._counts: dict[str, int] = {}
        self._unflushed = 0
        self._sample = SampleKeeper(folder, settings.sample_size, self.count(EVERYTHING))
        self._tuning = read_tuning(folder)
        read_ahead(folder / "shard" / "segments")

    @staticmethod
    def create(folder: Path, dim: int, settings: EdgeSettings) -> None:
        """Lay out an empty shard in `folder`, with the payload indexes that filters need."""
        shard_folder = folder / "shard"
        shard_folder.mkdir()
        shard = edge.EdgeShard.create(str(shard_folder), shard_config(dim, settings))
        try:
            for field in INDEXED_FIELDS:
                shard.update(
                    edge.UpdateOperation.create_field_index(
                        field,
                        # Filters that a graph would serve badly are answered exactly instead, so
                        # links within every value of a field would be paid for in vain.
                        edge.KeywordIndexParams(enable_hnsw=False, memory=edge.Memory.Cached),
                    )
                )
            shard.flush()
        finally:
            shard.close()

    # -- changes

    def upsert(self, ids: bytes, vectors: bytes, payloads: bytes) -> None:
        """Put points in, replacing those of the same id."""
        self._changes()
        uuids = _uuids(ids)
        rows = np.frombuffer(vectors, dtype=np.float32).reshape(len(uuids), self._dim)
        records = json.loads(payloads)
        for start in range(0, len(uuids), _UPSERT_POINTS):
            part = slice(start, start + _UPSERT_POINTS)
            points = [
                edge.Point(uuid, row, record)
                for uuid, row, record in zip(uuids[part], rows[part], records[part], strict=True)
            ]
            self._shard.update(edge.UpdateOperation.upsert_points(points))
        self._sample.add(ids)
        self._unflushed += len(uuids)
        if self._unflushed >= _FLUSH_POINTS:
            self._shard.flush()
            self._unflushed = 0

    def delete(self, ids: bytes) -> None:
        """Take points out."""
        self._changes()
        self._shard.update(edge.UpdateOperation.delete_points(list(_uuids(ids))))
        self._sample.remove(ids)

    def flush(self) -> None:
        """Make everything so far durable."""
        self._shard.flush()
        self._unflushed = 0
        self._sample.save(self.count(EVERYTHING))

    def build(self) -> None:
        """Graphs for every segment that is large enough, sample and tuning where they need it."""
        while self._shard.optimize():
            pass
        self._shard.flush()  # also gives back the disk of merged segments
        self._repaired_sample()
        self.flush()
        self._tune()

    def _tune(self) -> None:
        points = self.count(EVERYTHING)
        if points <= self._settings.index_above:
            return  # there is no graph
        if self._tuning is not None and self._tuning.holds_for(points):
            return
        raw, _ = self.vectors(self._repaired_sample()[: QUERIES * _ID_BYTES])
        rows = np.frombuffer(raw, dtype=np.float32).reshape(-1, self._dim)

        def nearest(exact: bool, ef: int) -> list[set[bytes]]:
            found = self._nearest(rows, NEIGHBOURS, None, exact, ef)
            return [{point.id.bytes for point in points} for points in found]  # type: ignore[union-attr]

        truth = nearest(True, 0)
        self._tuning = tune(self._settings.ef, points, truth, lambda ef: nearest(False, ef))
        write_tuning(self._folder, self._tuning)

    def close(self) -> None:
        """Flush and let go of the lock."""
        try:
            self.flush()
        finally:
            self._shard.close()

    def _changes(self) -> None:
        self._counts.clear()
        self._sample.invalidate_file()

    # -- questions

    def search(
        self, queries: bytes, limit: int, chosen: Chosen, exact: bool
    ) -> list[tuple[bytes, bytes]]:
        """Per query: ids and float32 similarities, best first."""
        rows = np.frombuffer(queries, dtype=np.float32).reshape(-1, self._dim)
        matching = self.count(chosen)
        limit = min(limit, matching)
        if limit == 0:
            return [(b"", b"")] * len(rows)
        # Under a filter the graph loses hits, with ACORN too where the filter goes along with the
        # look of the images, as that of a creator does (recall 0.95, of single queries 0.7, at half
        # of 100,000 points). Comparing all that match takes about as long.
        exact = (
            exact
            or bool(chosen)
            or matching <= self._settings.index_above  # there is no graph
            or limit >= _EXACT_SHARE * matching
        )
        condition = _filter(chosen)
        out = []
        for start in range(0, len(rows), _QUERY_BATCH):
            part = rows[start : start + _QUERY_BATCH]
            # One more than asked for shows whether the limit cuts through equal similarities.
            found = self._nearest(part, limit + 1, condition, exact)
            for row, points in zip(part, found, strict=True):
                points = self._follow_tie(row, points, limit, condition, exact)
                hits = sorted([(-point.score, point.id.bytes) for point in points])[:limit]  # type: ignore[union-attr]
                similarities = -np.array([negative for negative, _ in hits], dtype=np.float32)
                out.append((b"".join([id_ for _, id_ in hits]), similarities.tobytes()))
        return out

    @property
    def _ef(self) -> int:
        return self._settings.ef if self._tuning is None else self._tuning.ef

    def _nearest(
        self,
        rows: NDArray[np.float32],
        limit: int,
        condition: edge.Filter | None,
        exact: bool,
        ef: int | None = None,
    ) -> list[list[edge.ScoredPoint]]:
        quantized = self._settings.quantization != "none"
        if ef is None:
            ef = max(self._ef, _CANDIDATES_PER_HIT * (limit - _FIRST_HITS))
        params = edge.SearchParams(
            hnsw_ef=ef,
            exact=exact,
            # Left to itself Edge rescores some codes and not others; similarities must be exact.
            quantization=edge.QuantizationSearchParams(
                rescore=True, oversampling=self._settings.candidates_per_hit
            )
            if quantized
            else None,
        )
        requests = [
            edge.QueryRequest(
                limit=limit, query=edge.Query.Nearest(row), filter=condition, params=params
            )
            for row in rows
        ]
        if not exact or len(requests) == 1:
            # A batch shares one pass over the vectors; through the graph it was slower than this.
            return [self._shard.query(request) for request in requests]
        return self._shard.query_batch(edge.QueryBatchRequest(requests))

    def _follow_tie(
        self,
        row: NDArray[np.float32],
        points: list[edge.ScoredPoint],
        limit: int,
        condition: edge.Filter | None,
        exact: bool,
    ) -> list[edge.ScoredPoint]:
        """More hits, until those equal to the last one asked for are all there (or very many)."""
        asked = limit + 1
        while (
            len(points) == asked
            and points[-1].score == points[limit - 1].score
            and asked <= limit + _TIE_POINTS
        ):
            asked = limit + 4 * (asked - limit)
            points = self._nearest(row[None], asked, condition, exact)[0]
        return points

    def fetch(self, ids: bytes, fields: Sequence[str] | None) -> bytes:
        """JSON list of payloads (null: no such point), in order."""
        wanted = _uuids(ids)
        found: dict[UUID, Any] = {}
        for start in range(0, len(wanted), _RETRIEVE_POINTS):
            part = list(set(wanted[start : start + _RETRIEVE_POINTS]))
            for record in self._shard.retrieve(list(part), True, False):
                payload = record.payload or {}
                if fields is not None:
                    payload = {field: payload[field] for field in fields if field in payload}
                found[record.id] = payload  # type: ignore[index]
        return json.dumps([found.get(uuid) for uuid in wanted], ensure_ascii=False).encode()

    def vectors(self, ids: bytes) -> tuple[bytes, bytes]:
        """(raw float32 rows in order, b"") or (b"", the first id that is not there)."""
        wanted = _uuids(ids)
        rows = np.empty((len(wanted), self._dim), dtype=np.float32)
        for start in range(0, len(wanted), _RETRIEVE_POINTS):
            part = wanted[start : start + _RETRIEVE_POINTS]
            found: dict[Any, Any] = {
                record.id: record.vector
                for record in self._shard.retrieve(list(set(part)), False, True)
            }
            for at, uuid in enumerate(part, start):
                if uuid not in found:
                    return b"", uuid.bytes
                rows[at] = found[uuid]
        return rows.tobytes(), b""

    def count(self, chosen: Chosen) -> int:
        """How many points are meant, exactly; remembered until the next change."""
        memo = json.dumps([chosen.where, chosen.without], sort_keys=True) if chosen else ""
        if memo not in self._counts:
            if len(self._counts) > 10_000:
                self._counts.clear()
            request = edge.CountRequest(exact=True, filter=_filter(chosen))
            self._counts[memo] = self._shard.count(request)
        return self._counts[memo]

    def facet(self, field: str, limit: int) -> list[tuple[str, int]]:
        """Values of an indexed field with their counts, most frequent first, then by value."""
        if (points := self.count(EVERYTHING)) == 0:
            return []
        request = edge.FacetRequest(field, limit=min(limit, points), exact=True)
        hits = [(str(hit.value), hit.count) for hit in self._shard.facet(request).hits]
        return sorted(hits, key=lambda hit: (-hit[1], hit[0]))

    def scroll(self, chosen: Chosen, after: bytes, batch: int) -> tuple[bytes, bytes]:
        """One page of the ids that are meant, and where the next one starts (b"": nowhere)."""
        records, following = self._shard.scroll(
            edge.ScrollRequest(
                offset=UUID(bytes=after) if after else None,
                limit=batch,
                filter=_filter(chosen),
                with_payload=False,
                with_vector=False,
            )
        )
        ids = b"".join([record.id.bytes for record in records])  # type: ignore[union-attr]
        return ids, following.bytes if isinstance(following, UUID) else b""

    def sample(self) -> tuple[bytes, bytes]:
        """Ids and raw float32 vectors of the sample."""
        ids = self._repaired_sample()
        vectors, missing = self.vectors(ids)
        if missing:  # the set of ids is newer than the sample: never answer from a stale one
            self._sample.forget()
            ids = self._repaired_sample()
            vectors, _ = self.vectors(ids)
        return ids, vectors

    def _repaired_sample(self) -> bytes:
        population = self.count(EVERYTHING)
        if self._sample.needs_repair(population):
            after = b""
            self._sample.start_over()
            while True:
                ids, after = self.scroll(EVERYTHING, after, 10_000)
                self._sample.add(ids)
                if not after:
                    break
        return self._sample.ids()

    def info(self) -> dict[str, Any]:
        """Counts, bytes on disk and in memory."""
        state = self._shard.info()
        return {
            "points": state.points_count,
            "indexed": state.indexed_vectors_count,
            "segments": state.segments_count,
            "ef": self._ef,
            "recall": None if self._tuning is None else self._tuning.recall,
            "sample": len(self._sample),
            "disk_bytes": disk_bytes(self._folder),
            **memory_bytes(),
        }


def _load(folder: Path, config: edge.EdgeConfig, wait_s: float) -> edge.EdgeShard:
    """Open a shard, waiting a little for a process that is still closing it."""
    until = time.monotonic() + wait_s
    while True:
        try:
            return edge.EdgeShard.load(str(folder), config)
        except Exception as exc:
            if "WouldBlock" not in str(exc):
                raise
            if time.monotonic() >= until:
                raise ShardBusyError from exc
        time.sleep(0.05)
