"""Points of a collection on a server: put in, taken out, read, counted and listed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import numpy as np
from qdrant_client import QdrantClient, grpc, models

from ingest.errors import IndexFailedError
from search.chosen import Chosen
from search.index import Features, Payload
from search.server_calls import ServerCalls
from search.server_collection import REQUEST_S, ServerFacts, is_local
from search.server_requests import (
    PLACE,
    condition,
    grpc_points,
    place_of,
    request_parts,
    rest_points,
)

__all__ = ["ServerPoints"]

_IN_FLIGHT = 4  # requests of one upsert that are under way at once
_IDS = 1000  # of one request that reads or deletes


class ServerPoints:
    """The points of one collection; arguments were checked by the caller."""

    def __init__(self, client: QdrantClient, calls: ServerCalls, facts: ServerFacts) -> None:
        self._client = client
        self._calls = calls
        self._facts = facts
        self._local = is_local(client)
        self._grpc = bool(client.init_options.get("prefer_grpc")) and not self._local

    def put(
        self,
        ids: Sequence[UUID],
        packed: bytes,
        rows: Features,
        payloads: Sequence[Payload],
        sizes: Sequence[int],
    ) -> None:
        """Put points in; `packed`: the ids laid end to end, `sizes`: bytes of each payload."""
        at = place_of(packed)

        def send(part: slice) -> None:
            some = ids[part], rows[part], payloads[part], at[part]
            if self._grpc:
                request = grpc.UpsertPoints(
                    collection_name=self._facts.name, points=grpc_points(*some), wait=True
                )
                self._calls(
                    "put points in", self._client.grpc_points.Upsert, request, timeout=REQUEST_S
                )
            else:
                self._calls(
                    "put points in",
                    self._client.upsert,
                    self._facts.name,
                    points=rest_points(*some),
                    wait=True,
                )

        most = self._facts.strict.upsert_points
        parts = list(request_parts(sizes, self._facts.dim, self._grpc, most))
        if len(parts) <= 1 or self._local:
            for part in parts:
                send(part)
            return
        # No id stands twice in one call, so that their order does not matter.
        with ThreadPoolExecutor(min(_IN_FLIGHT, len(parts))) as pool:
            for done in [pool.submit(send, part) for part in parts]:
                done.result()

    def delete(self, ids: Sequence[UUID]) -> None:
        """Take points out."""
        for part in _parts(ids):
            self._calls(
                "take points out",
                self._client.delete,
                self._facts.name,
                points_selector=models.PointIdsList(points=part),
                wait=True,
            )

    def payloads(self, ids: Sequence[UUID], fields: Sequence[str] | None) -> list[Payload | None]:
        """In the order of `ids`, None where there is no such point."""
        chosen: Any = True if fields is None else list(fields) or False
        found: dict[str, Payload] = {}
        for record in self._retrieve(ids, with_payload=chosen, with_vectors=False):
            payload = dict(record.payload or {})
            payload.pop(PLACE, None)
            found[str(record.id)] = payload
        # Equal ids must not share one payload, which the caller may change.
        return [None if (p := found.get(str(uuid))) is None else dict(p) for uuid in ids]

    def vectors(self, ids: Sequence[UUID]) -> Features:
        """(ids, dim) in the order of `ids`; an unknown id raises IndexFailedError."""
        found = {
            str(record.id): np.asarray(record.vector, np.float32)
            for record in self._retrieve(ids, with_payload=False, with_vectors=True)
        }
        rows = np.empty((len(ids), self._facts.dim), dtype=np.float32)
        for at, uuid in enumerate(ids):
            row = found.get(str(uuid))
            if row is None:
                raise IndexFailedError(f"there is no point {uuid} in the index")
            rows[at] = row
        return rows

    def count(self, chosen: Chosen) -> int:
        """How many are meant, exactly."""
        if chosen.is_nothing:
            return 0
        answer = self._calls(
            "count points",
            self._client.count,
            self._facts.name,
            count_filter=condition(chosen),
            exact=True,
        )
        return int(answer.count)

    def facet(self, field: str, limit: int) -> dict[str, int]:
        """Counts of a field's values, most frequent first, then by value."""
        found = self._calls(
            "count values",
            self._client.facet,
            self._facts.name,
            key=field,
            limit=limit,
            exact=True,
        )
        hits = [(str(hit.value), int(hit.count)) for hit in found.hits]
        return dict(sorted(hits, key=lambda hit: (-hit[1], hit[0])))

    def pages(self, chosen: Chosen, batch: int, start: UUID | None) -> Iterator[list[UUID]]:
        """The ids that are meant, ascending, from `start` on."""
        if chosen.is_nothing:
            return
        following: Any = None if start is None else str(start)
        while True:
            records, following = self._calls(
                "list points",
                self._client.scroll,
                self._facts.name,
                scroll_filter=condition(chosen),
                limit=min(batch, self._facts.strict.query_limit or batch),
                offset=following,
                with_payload=False,
                with_vectors=False,
            )
            if records:
                yield [UUID(str(record.id)) for record in records]
            if following is None:
                return

    def _retrieve(self, ids: Sequence[UUID], **what: Any) -> Iterator[models.Record]:  # noqa: ANN401
        for part in _parts(ids):
            yield from self._calls(
                "read points", self._client.retrieve, self._facts.name, ids=part, **what
            )


def _parts(ids: Sequence[UUID]) -> Iterator[list[Any]]:
    """Different ids as texts, so many at a time as one request takes."""
    wanted = list(dict.fromkeys(str(uuid) for uuid in ids))
    for start in range(0, len(wanted), _IDS):
        yield wanted[start : start + _IDS]
