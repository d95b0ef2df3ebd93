"""The fixed uniform sample of a collection on a server.

The points of the lowest places (see `search.sample`) are the sample. A place depends on the id
alone and lies in an indexed payload field, so the server finds them without reading the others,
whichever process put them in, and a deleted one is followed by the next.
"""

from __future__ import annotations

from uuid import UUID

import numpy as np
from qdrant_client import QdrantClient, models

from search.index import Sample
from search.sample import keys_from_bytes, places
from search.server_calls import ServerCalls
from search.server_collection import ServerFacts
from search.server_requests import PLACE

__all__ = ["take_sample"]

_PAGE = 1000


def take_sample(client: QdrantClient, calls: ServerCalls, facts: ServerFacts) -> Sample:
    """At most `facts.settings.sample_size` points, in order of place.

    Raises:
        IndexFailedError: the server fails.
    """
    size = facts.settings.sample_size
    page_size = min(_PAGE, facts.strict.query_limit or _PAGE)
    vectors: dict[bytes, object] = {}
    start_from: int | None = None
    while len(vectors) < size:
        page, _ = calls(
            "take the sample",
            client.scroll,
            facts.name,
            limit=page_size,
            # From the last place on, not behind it: two points can have the same one.
            order_by=models.OrderBy(key=PLACE, start_from=start_from),
            with_payload=[PLACE],
            with_vectors=True,
        )
        before = len(vectors)
        vectors.update((UUID(str(record.id)).bytes, record.vector) for record in page)
        if len(page) < page_size or len(vectors) == before:
            break
        start_from = int((page[-1].payload or {})[PLACE])
    found = list(vectors)
    at = places(keys_from_bytes(b"".join(found))).tolist()
    chosen = [packed for _, packed in sorted(zip(at, found, strict=True))][:size]
    rows = np.array([vectors[packed] for packed in chosen], dtype=np.float32)
    return Sample([UUID(bytes=packed) for packed in chosen], rows.reshape(-1, facts.dim))
