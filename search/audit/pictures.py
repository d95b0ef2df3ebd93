"""Thumbnails of generated images, found by their keys in the parts of an audit."""

from __future__ import annotations

import hashlib

import numpy as np

from search.audit.parts import PartsFolder

__all__ = ["GeneratedPictures"]

_HELD = 2  # batches


class GeneratedPictures:
    """Looks them up; quick where they are asked for in order of the gallery.

    Memory: 20 bytes an image, and the thumbnails of two batches.
    """

    def __init__(self, parts: PartsFolder) -> None:
        self._parts = parts
        hashes: list[bytes] = []
        groups: list[tuple[int, int, int]] = []
        for number, group, keys in parts.thumbnail_groups():
            hashes.append(b"".join(_hash(key) for key in keys))
            groups.append((number, group, len(keys)))
        known = np.frombuffer(b"".join(hashes), "<u8")
        self._groups = groups
        of_group = np.repeat(np.arange(len(groups)), [count for _, _, count in groups])
        order = np.argsort(known, kind="stable")
        self._hashes, self._of_group = known[order], of_group[order].astype(np.int32)
        self._held: dict[int, dict[str, bytes]] = {}

    def of(self, image: str) -> bytes | None:
        """The image file of a thumbnail; None where there is no such image."""
        wanted = np.frombuffer(_hash(image), "<u8")[0]
        at = int(np.searchsorted(self._hashes, wanted))
        while at < len(self._hashes) and self._hashes[at] == wanted:
            found = self._batch(int(self._of_group[at])).get(image)
            if found is not None:
                return found
            at += 1
        return None

    def _batch(self, at: int) -> dict[str, bytes]:
        if at not in self._held:
            number, group, _ = self._groups[at]
            self._held[at] = self._parts.thumbnails(number, group)
            while len(self._held) > _HELD:
                del self._held[next(iter(self._held))]
        return self._held[at]


def _hash(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=8).digest()
