"""What is known of training images, kept by number: answers that share them read them once."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from search.index import Index, Payload
from search.packed_ids import id_bytes

__all__ = ["COLUMNS", "MOST_RECORDS", "OWNER_FIELDS", "Records", "key_of", "text_of"]

MOST_RECORDS = 20_000
"""Collections up to this size are kept: payloads of about 2 KB each, 60 MB in all. The gain is of
images that are in many answers, as those of a small collection are."""

OWNER_FIELDS = ("dataset", "creator", "licence", "url", "path", "caption")
"""Of a payload, in the order of `search.answer.Owner`."""

COLUMNS = ("training_id", "training_key", *OWNER_FIELDS, "sha256")
"""Texts of a record, named as in the table of attributions."""


def key_of(point_id: str, payload: Payload) -> str:
    """A record's key; its id where it has none."""
    return str(payload.get("key") or point_id)


def text_of(payload: Payload, name: str) -> str:
    """A field of a payload as text, '' where it is not there."""
    return str(payload.get(name) or "")


class Records:
    """The training records of one collection, as far as they were asked for; for one thread.

    Nothing may be put in or taken out of the index meanwhile.

    Args:
        index: where payloads are read.
        most: records of the largest collection that is kept.

    Attributes:
        ids: (records,) UUIDs as texts.
        payloads: (records,)
    """

    def __init__(self, index: Index, most: int = MOST_RECORDS) -> None:
        self._index = index
        self._most = most
        self._number: dict[bytes, int] = {}
        self.ids: list[str] = []
        self.payloads: list[Payload] = []
        self._picture_of: dict[object, int] = {}
        self._pictures: list[int] = []
        self._columns = {name: _Column() for name in COLUMNS}
        self._arrays: dict[str, NDArray[np.int64]] = {}

    def numbers(self, ids: Sequence[UUID], population: int) -> NDArray[np.int64] | None:
        """(ids,) each one's number; what is not known yet is read.

        None where the collection, of `population` records, is too large to be kept, or a record is
        gone.

        Raises:
            IndexFailedError: the engine failed.
        """
        if population > self._most:
            return None
        names = id_bytes(ids)
        known = self._number
        found = np.array([known.get(name, -1) for name in names], np.int64)
        missing = np.flatnonzero(found < 0).tolist()
        if missing:
            if not self._read([names[place] for place in missing]):
                return None
            found[missing] = [known[names[place]] for place in missing]
        return found

    @property
    def pictures(self) -> NDArray[np.int64]:
        """(records,) the first one of the same sha256; of one without it, itself."""
        return self._array("", self._pictures)

    def codes(self, column: str) -> NDArray[np.int64]:
        """(records,) places in `values` of that column, one of `COLUMNS`."""
        return self._array(column, self._columns[column].codes)

    def values(self, column: str) -> Sequence[str]:
        """The different texts of that column, one of `COLUMNS`."""
        return self._columns[column].values

    def _array(self, name: str, numbers: list[int]) -> NDArray[np.int64]:
        if len(self._arrays.get(name, ())) != len(numbers):
            self._arrays[name] = np.array(numbers, np.int64)
        return self._arrays[name]

    def _read(self, names: Sequence[bytes]) -> bool:
        """Whether all of them are there."""
        if len(self._number) + len(names) > self._most:
            return False  # others put records in meanwhile
        uuids = [UUID(bytes=name) for name in names]
        payloads = self._index.fetch(uuids)
        if None in payloads:
            return False
        for name, uuid, payload in zip(names, uuids, payloads, strict=True):
            self._keep(name, str(uuid), payload or {})
        return True

    def _keep(self, name: bytes, point_id: str, payload: Payload) -> None:
        number = self._number[name] = len(self.ids)
        self.ids.append(point_id)
        self.payloads.append(payload)
        sha256 = payload.get("sha256")
        self._pictures.append(self._picture_of.setdefault(sha256, number) if sha256 else number)
        texts = {
            "training_id": point_id,
            "training_key": key_of(point_id, payload),
            **{field: text_of(payload, field) for field in (*OWNER_FIELDS, "sha256")},
        }
        for column, text in texts.items():
            self._columns[column].add(text)


class _Column:
    """Texts by record, each different one kept once."""

    def __init__(self) -> None:
        self.codes: list[int] = []
        self.values: list[str] = []
        self._code: dict[str, int] = {}

    def add(self, text: str) -> None:
        code = self._code.setdefault(text, len(self.values))
        if code == len(self.values):
            self.values.append(text)
        self.codes.append(code)
