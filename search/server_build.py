"""Having the server build a collection's graph, and waiting for it."""

from __future__ import annotations

import time
from collections.abc import Callable

from qdrant_client import QdrantClient, models

from ingest.errors import IndexFailedError
from search.server_calls import ServerCalls
from search.server_collection import ServerFacts
from search.server_requests import build_options

__all__ = ["build_graph"]

_POLL_S = 1.0
_AT_REST = 2  # looks in a row that must find the collection at rest: it rests between two steps too
_BETWEEN_S = 0.1


def build_graph(
    client: QdrantClient,
    calls: ServerCalls,
    facts: ServerFacts,
    progress: Callable[[float], None] | None,
) -> None:
    """Return once no segment waits for its graph; hours for a billion points.

    `progress` is called with the seconds so far, about once a second.

    Raises:
        IndexFailedError: the server failed to build it.
    """

    def state() -> models.CollectionInfo:
        return calls("describe the collection", client.get_collection, facts.name)

    started = time.monotonic()
    before = state()
    # Grey: after a restart the server waits for any change before it goes on optimizing.
    if (
        before.config.hnsw_config.m != facts.settings.m
        or before.status == models.CollectionStatus.GREY
    ):
        calls(
            "build the graph",
            client.update_collection,
            facts.name,
            **build_options(facts.settings),
        )
    at_rest = 0
    while True:
        found = state()
        if found.status == models.CollectionStatus.RED:
            raise IndexFailedError(
                f"{calls.where} failed to build {facts.name!r}: {found.optimizer_status}"
            )
        at_rest = at_rest + 1 if found.status == models.CollectionStatus.GREEN else 0
        if progress is not None:
            progress(time.monotonic() - started)
        if at_rest >= _AT_REST:
            return
        time.sleep(_BETWEEN_S if at_rest else _POLL_S)
