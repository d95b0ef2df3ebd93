"""Answers as the service gives and keeps them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from search.service.asked import Found, Wanted
from search.service.engine import Engine
from search.service.json_text import written
from search.service.query_picture import QueryPicture

__all__ = ["KeptAnswer", "answer_id", "document", "named", "versions"]

_LIBRARIES = ("attrib", "numpy", "pillow", "qdrant-client", "qdrant-edge-py", "torch")


@dataclass(frozen=True)
class KeptAnswer:
    """An answer behind a link.

    Attributes:
        id: see `answer_id`.
        told: its JSON as anybody who may read may see it, but for its id and the query's name: the
            same image under two names is one answer, and its link tells nobody the other's name.
        picture: of the query; None where features were given.
    """

    id: str
    told: bytes
    picture: QueryPicture | None

    @property
    def body(self) -> bytes:
        """Its JSON behind the link."""
        return named(self.id, "", self.told)

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return len(self.told) + (0 if self.picture is None else self.picture.size)


def answer_id(query: bytes, wanted: Wanted, fingerprint: str) -> str:
    """SHA-256 over the query, the settings and the model.

    query: SHA-256 of an image file's bytes, or of features.
    """
    settings = json.dumps([vars(wanted), fingerprint]).encode()
    return hashlib.sha256(query + settings).hexdigest()


def named(identity: str, query: str, told: bytes) -> bytes:
    """The JSON of an answer, from what `document` made, with its id and the query's name."""
    return written({"id": identity, "query": query})[:-1] + b"," + told[1:]


def document(found: Found, identity: str, engine: Engine) -> dict[str, Any]:
    """`Attribution.to_dict`, with links, and with the collection and versions it was made by.

    Without the query's name, see `named`. All paths are in it, see `search.service.paths`.
    Where the index is on the service's disk is left out: it is the operator's affair.

    Reads the file system where a shard is seen for the first time.
    """
    answer = found.attribution
    body = answer.to_dict()
    del body["query"]
    body["index"] = {k: v for k, v in body["index"].items() if k != "folder"}
    for line, row in zip(body["rows"], answer.rows, strict=True):
        owner = row.owners[0]
        has = engine.has_thumbnail(owner.dataset, row.payload.get("shard"))
        line["thumbnail"] = f"/v1/images/{owner.id}/thumbnail" if has else None
    return {
        **body,
        "collection": found.collection,
        "contents": found.contents,
        "links": {"self": f"/v1/attributions/{identity}", "page": f"/#a={identity}"},
        "versions": dict(versions()),
    }


@cache
def versions() -> Mapping[str, str]:
    """Versions of what an answer's numbers depend on."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found
