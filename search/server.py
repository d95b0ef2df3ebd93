"""The server index: a collection on a Qdrant server or cluster, through `qdrant-client`.

Any number of processes may have it open and put points in at once. What they share is on the server
alone: settings and model with the collection, and each point's place in the sample beside its
payload.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any
from uuid import UUID

import numpy as np
from qdrant_client import QdrantClient, models

from ingest.errors import IndexFailedError, IndexRefusedError
from search.checks import (
    check_features,
    check_fields,
    check_points,
    check_positive,
    pack_ids,
    payload_sizes,
)
from search.chosen import EVERYTHING, Chosen, check_chosen
from search.edge_tuning import QUERIES, Tuning
from search.index import Features, Hits, IndexInfo, Payload, Sample, Where
from search.index_url import IndexUrl
from search.server_build import build_graph
from search.server_calls import CONNECT_S, PATIENCE_S, ServerCalls
from search.server_collection import (
    ServerFacts,
    check_made_for,
    connect,
    drop_collection,
    is_local,
    make_collection,
    name_collection,
    read_facts,
    write_tuning,
)
from search.server_points import ServerPoints
from search.server_sample import take_sample
from search.server_search import ServerSearch
from search.server_settings import ServerSettings

__all__ = ["ServerIndex", "ServerSettings"]

_COUNT_ABOVE = 1_000_000  # points from which on the server's own count is taken
_COUNT_S = 10.0  # how long a count is remembered: other processes put points in, too
_TUNE_BELOW = 10_000_000  # exact searches of more points take minutes


class ServerIndex:
    """A collection on a server; implements `search.index.Index`.

    Made by `create` or `open`; a context manager. Safe to use from several threads, and from
    several processes where each opens its own. A call returns when the server has carried it out:
    `flush` has nothing left to wait for. Deletions leave the sample whole: it is always the points
    of the lowest places.

    Attributes:
        facts: what the collection says of itself.
    """

    def __init__(
        self, client: QdrantClient, calls: ServerCalls, facts: ServerFacts, owns_client: bool
    ) -> None:
        self.facts = facts
        self._client = client
        self._calls = calls
        self._owns_client = owns_client
        self._local = is_local(client)
        self._closed = False
        self._writes = False
        self._counted: tuple[float, int] | None = None
        self._points = ServerPoints(client, calls, facts)
        self._search = ServerSearch(client, calls, facts)

    @classmethod
    def create(
        cls,
        server: IndexUrl | QdrantClient,
        collection: str,
        dim: int,
        settings: ServerSettings | None = None,
        *,
        model: str = "",
        fingerprint: str = "",
        patience_s: float = PATIENCE_S,
    ) -> ServerIndex:
        """Make a collection of features of length `dim`, and open it.

        `server`: its URL, or a client that is ready and stays the caller's. `model`,
        `fingerprint`: of the attribution model that the features are made with. `patience_s`: how
        long a call is tried again while the server cannot be reached or is overloaded.

        Raises:
            UsageError: there is a collection of that name.
            IndexFailedError: no server answers, it is too old, refuses the key, or fails.
        """
        client, calls, owned = _connected(server, patience_s)
        try:
            make_collection(
                client, calls, collection, dim, settings or ServerSettings(), model, fingerprint
            )
            return cls(client, calls, read_facts(client, calls, collection), owned)
        except BaseException:
            if owned:
                client.close()
            raise

    @classmethod
    def open(
        cls,
        server: IndexUrl | QdrantClient,
        collection: str,
        *,
        fingerprint: str | None = None,
        dim: int | None = None,
        patience_s: float = PATIENCE_S,
    ) -> ServerIndex:
        """Open a collection; its name or an alias of it.

        `fingerprint`, `dim`: what it must have been made for.

        Raises:
            IndexFailedError: as `create`; or there is no such collection, or not one of attrib's.
            ModelMismatchError: it is of another model or dimension.
        """
        client, calls, owned = _connected(server, patience_s)
        try:
            facts = read_facts(client, calls, collection)
            check_made_for(calls, facts, fingerprint, dim)
            return cls(client, calls, facts, owned)
        except BaseException:
            if owned:
                client.close()
            raise

    @property
    def dim(self) -> int:
        """Length of a feature."""
        return self.facts.dim

    @property
    def settings(self) -> ServerSettings:
        """The settings that it was created with."""
        return self.facts.settings

    @property
    def collection(self) -> str:
        """Its name on the server."""
        return self.facts.name

    # -- changes

    def upsert(self, ids: Sequence[UUID], vectors: Features, payloads: Sequence[Payload]) -> None:
        """Put points in, replacing those of the same id; see `Index.upsert`.

        Raises UsageError, and changes nothing, where ids repeat, lengths differ, a vector is not
        finite or not of norm 1, or a payload is not JSON.
        """
        packed = pack_ids(ids)
        rows = check_points(ids, vectors, payloads, self.dim)
        sizes = payload_sizes(payloads)
        self._changes()
        self._points.put(ids, packed, rows, payloads, sizes)

    def delete(self, ids: Sequence[UUID]) -> None:
        """Take points out; unknown ids are no error."""
        pack_ids(ids)
        self._changes()
        self._points.delete(ids)

    def build(self, progress: Callable[[float], None] | None = None) -> None:
        """Have the graph built, and wait for it: hours for a billion points.

        `progress` is called with the seconds so far, about once a second. Other processes may go on
        asking, and putting points in.
        """
        self._check_open()
        if self._local:
            return
        build_graph(self._client, self._calls, self.facts, progress)
        self._counted = None
        self._tune()

    def flush(self) -> None:
        """Does nothing: the server has everything in its log when a call returns."""
        self._check_open()

    # -- questions

    def search(
        self,
        queries: Features,
        limit: int,
        *,
        where: Where | None = None,
        without: Where | None = None,
        exact: bool = False,
    ) -> list[Hits]:
        """The `limit` nearest points of each query, (queries, dim); see `Index.search`.

        Of points exactly as similar as the last one, those of the lowest ids are returned.

        Raises:
            IndexRefusedError: strict mode forbids an exact or so large a search.
        """
        check_positive("limit", limit)
        chosen = check_chosen(where, without)
        rows = check_features(queries, self.dim, "queries")
        self._check_open()
        limit = min(limit, self.count())
        if limit == 0 or not len(rows):
            return [Hits([], np.empty(0, np.float32)) for _ in rows]
        return self._search.search(rows, limit, chosen, self.count(), exact)

    def fetch(
        self, ids: Sequence[UUID], *, fields: Sequence[str] | None = None
    ) -> list[Payload | None]:
        """Payloads in the order of `ids`, None where there is no such point."""
        pack_ids(ids)
        self._check_open()
        return self._points.payloads(ids, fields)

    def vectors(self, ids: Sequence[UUID]) -> Features:
        """(ids, dim) in the order of `ids`; an unknown id raises IndexFailedError."""
        pack_ids(ids)
        self._check_open()
        return self._points.vectors(ids)

    def count(self, where: Where | None = None, *, without: Where | None = None) -> int:
        """How many points match, and do not match `without`.

        Exactly, but for this: a count of all (less those of `without`) is remembered for ten
        seconds, in which other processes may put points in; and where this one only reads, above a
        million points, it is the server's own count, which is exact while nothing is being written
        or optimized.
        """
        chosen = check_chosen(where, without)
        self._check_open()
        if chosen.where:
            return self._points.count(chosen)
        if chosen.without:  # few, as a rule: counting the others would take the server long
            return max(self.count() - self._points.count(Chosen(chosen.without)), 0)
        now = time.monotonic()
        if self._counted is None or now - self._counted[0] > _COUNT_S:
            points = self._state().points_count or 0
            if points <= _COUNT_ABOVE or self._writes:
                points = self._points.count(EVERYTHING)
            self._counted = (now, points)
        return self._counted[1]

    def facet(self, field: str, *, limit: int = 1000) -> dict[str, int]:
        """How many points each value of an indexed field has, most frequent first."""
        check_fields([field])
        check_positive("limit", limit)
        points = self.count()
        return self._points.facet(field, min(limit, points)) if points else {}

    def scroll(
        self,
        where: Where | None = None,
        *,
        without: Where | None = None,
        batch: int = 1000,
        start: UUID | None = None,
    ) -> Iterator[list[UUID]]:
        """Ids that match, and do not match `without`, in batches, ascending, from `start` on."""
        check_positive("batch", batch)
        chosen = check_chosen(where, without)
        self._check_open()
        return self._points.pages(chosen, batch, start)

    def sample(self) -> Sample:
        """The fixed uniform sample, at most `settings.sample_size` points."""
        self._check_open()
        return take_sample(self._client, self._calls, self.facts)

    def info(self) -> IndexInfo:
        """State and settings."""
        state, settings = self._state(), self.settings
        url = self._calls.url
        details: dict[str, Any] = {
            "collection": self.collection,
            "version": self.facts.version,
            "m": settings.m,
            "ef_construct": settings.ef_construct,
            "oversampling": settings.candidates_per_hit,
            "datatype": settings.datatype,
            "shards": state.config.params.shard_number or 1,
            "replicas": state.config.params.replication_factor or 1,
        }
        if url is not None:
            details["server"] = url.server
        return IndexInfo(
            backend="qdrant",
            points=self.count(),
            indexed=state.indexed_vectors_count or 0,
            dim=self.dim,
            quantization=settings.quantization,
            ef=self._search.ef,
            details=details,
        )

    # -- the collection as a whole

    def name_as(self, alias: str, *, free: bool = False) -> None:
        """Let `alias` mean this collection from now on, in one step on the server.

        Raises:
            UsageError: a collection bears that name, or, with `free`, an alias does.
        """
        self._check_open()
        name_collection(self._client, self._calls, alias, self.collection, free)

    def drop(self) -> None:
        """Remove the collection from the server for good, and close."""
        self._check_open()
        drop_collection(self._client, self._calls, self.collection)
        self.close()

    @staticmethod
    def remove(url: IndexUrl, collection: str, *, patience_s: float = CONNECT_S) -> None:
        """Remove a collection for good, whatever state it is in; none of that name is no error.

        Raises:
            IndexFailedError: the server cannot be reached, or refuses.
        """
        client, calls, _ = _connected(url, patience_s)
        try:
            drop_collection(client, calls, collection)
        finally:
            client.close()

    def close(self) -> None:
        """Let go of the connection. Calling it again does nothing."""
        if self._closed:
            return
        self._closed = True
        if self._owns_client:
            self._client.close()

    def __enter__(self) -> ServerIndex:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # -- inside

    def _state(self) -> models.CollectionInfo:
        self._check_open()
        return self._calls("describe the collection", self._client.get_collection, self.collection)

    def _tune(self) -> None:
        """Measure how wide the graph must be searched, unless that is known."""
        points, facts = self.count(), self.facts
        if not facts.settings.index_above < points <= _TUNE_BELOW:
            return
        if facts.ef and Tuning(facts.ef, 0.0, facts.ef_points).holds_for(points):
            return
        rows = self.sample().vectors[:QUERIES]
        try:
            ef = self._search.needed_ef(rows, points)
        except IndexRefusedError:
            return  # strict mode: the width that was set has to do
        self.facts = write_tuning(self._client, self._calls, facts, ef, points)
        self._search = ServerSearch(self._client, self._calls, self.facts)

    def _changes(self) -> None:
        self._check_open()
        self._writes = True
        self._counted = None

    def _check_open(self) -> None:
        if self._closed:
            raise IndexFailedError("the index is closed")


def _connected(
    server: IndexUrl | QdrantClient, patience_s: float
) -> tuple[QdrantClient, ServerCalls, bool]:
    if isinstance(server, IndexUrl):
        return connect(server), ServerCalls(server, patience_s), True
    return server, ServerCalls(None, patience_s), False
