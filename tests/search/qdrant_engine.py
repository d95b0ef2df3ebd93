"""What the Qdrant stand-in does, whichever protocol it is asked through."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from typing import Any

from qdrant_client import QdrantClient, models


@dataclass
class Fault(Exception):  # noqa: N818
    """What the server answers instead; status 0 breaks the connection off (REST alone)."""

    status: int
    said: str = ""
    headers: dict[str, str] = field(default_factory=dict)


class Engine:
    """What both protocols do, in the terms of the REST models.

    Attributes:
        faults: answered one after the other to calls whose name fits (a regular expression).
        calls: names of the calls so far.
        layouts: by collection, what was asked of `create` and `update` and local mode forgets.
    """

    def __init__(self, *, version: str = "1.20.0", key: str | None = None) -> None:
        self.version = version
        self.key = key
        self.client = QdrantClient(":memory:")
        self.faults: list[tuple[str, Fault]] = []
        self.calls: list[str] = []
        self.layouts: dict[str, dict[str, Any]] = {}
        self.lock = threading.RLock()

    def strict(self, collection: str, **limits: Any) -> None:
        self.layouts[collection]["strict_mode_config"] = {"enabled": True, **limits}

    def enter(self, name: str, key: str | None) -> None:
        """At the start of every call: is it allowed, and is it to fail?"""
        self.calls.append(name)
        if self.key is not None and key != self.key and name != "version":
            if key:
                raise Fault(401, "Invalid API key or JWT")
            raise Fault(401, "Must provide an API key or an Authorization bearer token")
        for at, (pattern, fault) in enumerate(self.faults):
            if re.search(pattern, name):
                del self.faults[at]
                raise fault

    def check(self, collection: str, value: Any, limit: str) -> None:
        allowed = self.layouts[self.real(collection)].get("strict_mode_config", {}).get(limit)
        if allowed is not None and value is not None and value > allowed:
            raise Fault(
                400,
                f'Bad request: Limit exceeded {value} > {allowed} for "limit". '
                f'Help: Reduce the "limit" parameter to or below {allowed}.',
            )

    def real(self, collection: str) -> str:
        for alias in self.client.get_aliases().aliases:
            if alias.alias_name == collection:
                return str(alias.collection_name)
        if collection not in self.layouts:
            raise Fault(404, f"Not found: Collection `{collection}` doesn't exist!")
        return collection

    def create(self, collection: str, request: models.CreateCollection) -> bool:
        if collection in self.layouts:
            raise Fault(409, f"Wrong input: Collection `{collection}` already exists!")
        self.client.create_collection(
            collection, vectors_config=request.vectors, metadata=request.metadata
        )
        self.layouts[collection] = {
            **request.model_dump(mode="json", exclude_none=True),
            "hnsw": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10_000},
            "indexes": {},
        }
        self._merge(collection, request.hnsw_config)
        return True

    def update(self, collection: str, request: models.UpdateCollection) -> bool:
        self.real(collection)
        if request.metadata is not None:
            self.client.update_collection(collection, metadata=request.metadata)
        self._merge(collection, request.hnsw_config)
        return True

    def _merge(self, collection: str, diff: models.HnswConfigDiff | None) -> None:
        if diff is not None:
            self.layouts[collection]["hnsw"] |= diff.model_dump(mode="json", exclude_none=True)

    def describe(self, collection: str) -> models.CollectionInfo:
        layout = self.layouts[self.real(collection)]
        info = self.client.get_collection(collection)
        info.config.hnsw_config = models.HnswConfig(**layout["hnsw"])
        if strict := layout.get("strict_mode_config"):
            info.config.strict_mode_config = models.StrictModeConfigOutput(**strict)
        for name in ("shard_number", "replication_factor", "write_consistency_factor"):
            setattr(info.config.params, name, layout.get(name, 1))
        return info

    def drop(self, collection: str) -> bool:
        self.client.delete_collection(collection)
        return self.layouts.pop(collection, None) is not None

    def index(self, collection: str, name: str, schema: Any) -> None:
        self.layouts[self.real(collection)]["indexes"][name] = schema

    def upsert(self, collection: str, points: Any) -> None:
        self.real(collection)
        count = len(points.ids) if isinstance(points, models.Batch) else len(points)
        self.check(collection, count, "upsert_max_batchsize")
        self.client.upsert(collection, points=points)

    def query(self, collection: str, requests: list[models.QueryRequest]) -> list[Any]:
        self.check(collection, len(requests), "search_max_batchsize")
        strict = self.layouts[self.real(collection)].get("strict_mode_config", {})
        for request in requests:
            self.check(collection, request.limit, "max_query_limit")
            exact = request.params is not None and request.params.exact
            if exact and strict.get("search_allow_exact") is False:
                raise Fault(400, "Bad request: Exact search disabled. Help: Set exact=false.")
            request.params = None
        return self.client.query_batch_points(collection, requests=requests)

    def scroll(self, collection: str, request: models.ScrollRequest) -> Any:
        self.real(collection)
        self.check(collection, request.limit, "max_query_limit")
        return self.client.scroll(
            collection,
            scroll_filter=request.filter,
            limit=request.limit or 10,
            offset=request.offset,
            order_by=request.order_by,
            with_payload=request.with_payload,
            with_vectors=request.with_vector or False,
        )
