"""Filters by any field of a payload, told to an index that filters by a few.

An index has some fields that it can filter by (`search.index.INDEXED_FIELDS`). For others the
payloads are gone through once, and the training images found are named to it by dataset and key.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from ingest.errors import UsageError
from search.audit.payload_fields import value_text
from search.chosen import filter_in_words
from search.index import INDEXED_FIELDS, Index, Where

__all__ = ["Filters"]

_NAMES = ("dataset", "key", "sha256")


@dataclass
class _Found:
    """Training images that match. names: their different datasets, keys and hashes."""

    images: int = 0
    names: dict[str, set[str]] = field(default_factory=lambda: {name: set() for name in _NAMES})


class Filters:
    """Remembers what it found: nothing may be put into the index or taken out meanwhile.

    Args:
        index: of the collection.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        self._found: dict[str, _Found] = {}

    def count(self, where: Where) -> int:
        """How many training images match. A value is taken as text: 5 matches ``5``.

        Raises:
            IndexFailedError: the engine failed.
        """
        if _is_indexed(where):
            return self._index.count(where)
        return self._matching(where).images

    def indexed(self, where: Where) -> Where:
        """A filter by indexed fields alone that the same training images match.

        Raises:
            UsageError: there is none: keys occur in several datasets, and equal images, too.
            IndexFailedError: the engine failed.
        """
        if _is_indexed(where):
            return where
        found = self._matching(where)
        for names in (("key",), ("dataset", "key"), ("sha256",), _NAMES):
            chosen = {name: sorted(found.names[name]) for name in names}
            if self._index.count(chosen) == found.images:
                return chosen
        raise UsageError(
            f"the training images of {filter_in_words(where)} cannot be told from others of the "
            f"same keys: leave out by {', '.join(INDEXED_FIELDS)}"
        )

    def _matching(self, where: Where) -> _Found:
        name = json.dumps(where, sort_keys=True, default=list)
        if name not in self._found:
            self._found[name] = self._read(where)
        return self._found[name]

    def _read(self, where: Where) -> _Found:
        found = _Found()
        others = {name: frozenset(where[name]) for name in where if name not in INDEXED_FIELDS}
        for ids in self._index.scroll({name: where[name] for name in where if name not in others}):
            for id, payload in zip(ids, self._index.fetch(ids), strict=True):
                told = {**(payload or {}), "training_id": str(id)}
                if all(value_text(told.get(name)) in values for name, values in others.items()):
                    found.images += 1
                    for name, names in found.names.items():
                        names.add(value_text(told.get(name)))
        return found


def _is_indexed(where: Where) -> bool:
    return all(name in INDEXED_FIELDS for name in where)
