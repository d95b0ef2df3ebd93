"""Duplicates inside a gallery: equal files, and images that look alike."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from search.audit.flags import Thresholds

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Entry", "alike", "find_duplicates", "fingerprint"]

_HASH_SIDE = 16  # bits a side of the perceptual hash
_WORDS = _HASH_SIDE**2 // 64
_COLOUR_SIDE = 8  # cells a side at which colours are compared
_COLOURS_APART = 8.0  # of 255, root of the mean square: most of a drawing is paper, often
_EVEN = 6.0  # standard deviation of lightness below which an image is even paper


class Entry(NamedTuple):
    """An image of a gallery: its key, the sha256 of its file, its `fingerprint`."""

    key: str
    sha256: str
    fingerprint: bytes


def fingerprint(image: Image.Image) -> bytes:
    """The looks of an image of mode RGB: a perceptual hash of 256 bits, and an 8 x 8 RGB picture.

    Images without any drawing have no hash worth the name: theirs is all zeros.
    """
    import imagehash
    from PIL import Image

    small = image.resize((4 * _HASH_SIDE, 4 * _HASH_SIDE), Image.Resampling.BOX)
    colours = small.resize((_COLOUR_SIDE, _COLOUR_SIDE), Image.Resampling.BOX).tobytes()
    if float(np.asarray(small.convert("L"), np.float32).std()) < _EVEN:
        return bytes(8 * _WORDS) + colours
    return np.packbits(imagehash.phash(small, hash_size=_HASH_SIDE).hash).tobytes() + colours


def alike(one: bytes, other: bytes, distance: float = Thresholds.duplicate) -> bool:
    """Whether two fingerprints are of one image: at most `distance` bits of the hashes differ, and
    the colours by at most 8 of 255, in the root mean square.
    """
    return bool(_alike(_Looks.of([one]), _Looks.of([other]), distance)[0])


def find_duplicates(
    entries: Iterable[tuple[str, str, bytes]], distance: float = Thresholds.duplicate
) -> list[str]:
    """For each image, in order, the key of the first one that is alike; '' where there is none.

    An image is compared with those that are no duplicates themselves: some 230 bytes each are
    held, and the time grows with the square of their number (10,000 images: seconds).

    Args:
        entries: (key, sha256 of the file, `fingerprint`) of every image, in order.
        distance: bits of 256 in which the hashes of two images alike differ at most.
    """
    files: dict[str, str] = {}
    keys: list[str] = []
    kept = _Looks.empty(64)
    found: list[str] = []
    for key, sha256, looks in entries:
        same = files.get(sha256, "")
        if not same:
            image = _Looks.of([looks])
            near = np.flatnonzero(_alike(kept.first(len(keys)), image, distance))
            same = keys[int(near[0])] if len(near) else ""
            if not same:
                kept = kept.put(len(keys), image)
                keys.append(key)
        files.setdefault(sha256, same or key)
        found.append(same)
    return found


class _Looks(NamedTuple):
    hashes: NDArray[np.uint64]  # (images, words)
    colours: NDArray[np.uint8]  # (images, cells * channels)

    @classmethod
    def of(cls, fingerprints: list[bytes]) -> _Looks:
        table = np.frombuffer(b"".join(fingerprints), np.uint8).reshape(len(fingerprints), -1)
        hashes = np.ascontiguousarray(table[:, : 8 * _WORDS]).view(np.uint64)
        return cls(hashes, table[:, 8 * _WORDS :])

    @classmethod
    def empty(cls, room: int) -> _Looks:
        colours = np.zeros((room, 3 * _COLOUR_SIDE**2), np.uint8)
        return cls(np.zeros((room, _WORDS), np.uint64), colours)

    def first(self, count: int) -> _Looks:
        return _Looks(self.hashes[:count], self.colours[:count])

    def put(self, place: int, image: _Looks) -> _Looks:
        """With that image in that place, in a table of twice the room where it was full."""
        table = self
        if place == len(self.hashes):
            more = _Looks.empty(place)
            hashes = np.concatenate([self.hashes, more.hashes])
            table = _Looks(hashes, np.concatenate([self.colours, more.colours]))
        table.hashes[place], table.colours[place] = image.hashes[0], image.colours[0]
        return table


def _alike(many: _Looks, one: _Looks, distance: float) -> NDArray[np.bool_]:
    """(images,)"""
    same = _bits(many.hashes ^ one.hashes) <= distance
    some = np.flatnonzero(same)
    apart = many.colours[some].astype(np.float64) - one.colours[0]
    same[some] = np.sqrt((apart**2).mean(axis=1)) <= _COLOURS_APART
    return same


def _bits(words: NDArray[np.uint64]) -> NDArray[np.int64]:
    """(images,): bits that are set in each row."""
    bits: NDArray[np.int64] = np.bitwise_count(words).sum(axis=1, dtype=np.int64)
    return bits
