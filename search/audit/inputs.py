"""What an audit keeps of an image's sidecars and tables, as the text that goes into its tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Protocol

__all__ = ["Described", "metadata_text"]


class Described(Protocol):
    """An image, read or embedded: `ingest.record.ImageRecord`, `embed.shards.ImageRow`."""

    @property
    def url(self) -> str:
        """'' where unknown, as the others."""
        ...

    @property
    def creator(self) -> str:
        """As its source says."""
        ...

    @property
    def licence(self) -> str:
        """As its source says."""
        ...

    @property
    def extra(self) -> Mapping[str, str | int | float | bool | None]:
        """What else is known."""
        ...


def metadata_text(image: Described) -> str:
    """All that is known of an image but its prompt, as a JSON object; `metadata` of the tables."""
    named = {"url": image.url, "creator": image.creator, "licence": image.licence}
    told = {**image.extra, **{name: value for name, value in named.items() if value}}
    return json.dumps(told, ensure_ascii=False, sort_keys=True)
