"""A mark of what is in a collection: answers with the same one were found in the same images."""

from __future__ import annotations

import hashlib
import json

from search.collection import Collection

__all__ = ["contents_of"]


def contents_of(collection: Collection) -> str:
    """64 hexadecimal digits; others after every ingest that brought or replaced images, after
    every takedown and every re-mapping; the same however often the folder is opened.

    It is made of what the ledger says of shards and takedowns, not of the images themselves, which
    may be billions.

    Raises:
        DataFolderError: the ledger cannot be read.
    """
    ledger = collection.ledger
    state = [
        collection.name,
        collection.model.feature_fingerprint,
        [[row.number, row.dataset, row.source, row.images] for row in ledger.shards()],
        ledger.tombstones(),
        sorted(ledger.buried_bytes()),
    ]
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()
