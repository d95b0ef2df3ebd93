"""Answers as the service gives and keeps them."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from PIL import Image

from search.answer import Attribution
from search.service.engine import Engine, Wanted

__all__ = ["KeptAnswer", "answer_id", "document", "versions"]

_LIBRARIES = ("attrib", "numpy", "pillow", "qdrant-client", "qdrant-edge-py", "torch")


@dataclass(frozen=True)
class KeptAnswer:
    """An answer behind a link, and the query image, small; None where features were given."""

    body: bytes
    image: Image.Image | None

    @property
    def size(self) -> int:
        """Bytes in memory."""
        pixels = 0 if self.image is None else 3 * self.image.width * self.image.height
        return len(self.body) + pixels

    def picture(self) -> bytes | None:
        """The query image as WebP, without anything else that its file held."""
        if self.image is None:
            return None
        file = io.BytesIO()
        self.image.save(file, "WEBP", quality=85)
        return file.getvalue()


def answer_id(query: bytes, wanted: Wanted, fingerprint: str) -> str:
    """SHA-256 over the query (an image file's bytes, or features), the settings and the model."""
    settings = json.dumps([asdict(wanted), fingerprint]).encode()
    return hashlib.sha256(hashlib.sha256(query).digest() + settings).hexdigest()


def document(answer: Attribution, identity: str, engine: Engine) -> dict[str, Any]:
    """`Attribution.to_dict`, with links and with the versions that it was made by.

    Where the index is on the service's disk is left out: it is the operator's affair.

    Reads the file system where a shard is seen for the first time.
    """
    body = answer.to_dict()
    body["index"] = {k: v for k, v in body["index"].items() if k != "folder"}
    for line, row in zip(body["rows"], answer.rows, strict=True):
        owner = row.owners[0]
        has = engine.has_thumbnail(owner.dataset, row.payload.get("shard"))
        line["thumbnail"] = f"/v1/images/{owner.id}/thumbnail" if has else None
    return {
        "id": identity,
        **body,
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
