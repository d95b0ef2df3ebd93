"""Duplicates inside a gallery: equal files, and images that look alike."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Entry", "find_duplicates", "fingerprint"]

_WORDS = 4  # of 64 bits


class Entry(NamedTuple):
    """An image of a gallery: its key, the sha256 of its file, its `fingerprint`."""

    key: str
    sha256: str
    fingerprint: bytes


def fingerprint(image: Image.Image) -> bytes:
    """The looks of an image of mode RGB."""
    import imagehash

    return np.packbits(imagehash.phash(image, hash_size=16).hash).tobytes()


def find_duplicates(entries: Iterable[tuple[str, str, bytes]], distance: float = 10) -> list[str]:
    """For each image, in order, the key of the first one that is alike; '' where there is none."""
    files: dict[str, str] = {}
    keys: list[str] = []
    firsts = np.empty((64, _WORDS), np.uint64)
    found: list[str] = []
    for key, sha256, looks in entries:
        words = np.frombuffer(looks, np.uint64)
        same = files.get(sha256, "")
        if not same and keys:
            apart = np.bitwise_count(firsts[: len(keys)] ^ words).sum(axis=1)
            nearest = np.flatnonzero(apart <= distance)
            same = keys[int(nearest[0])] if len(nearest) else ""
        if not same:
            if len(keys) == len(firsts):
                firsts = np.concatenate([firsts, np.empty_like(firsts)])
            firsts[len(keys)] = words
            keys.append(key)
        files.setdefault(sha256, same or key)
        found.append(same)
    return found
