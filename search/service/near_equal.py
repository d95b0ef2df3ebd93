"""Which training images of an answer are near-equal: the same picture, saved another way.

Two thumbnails are near-equal where all three hold:

- their shapes agree: width by height, to 2 %;
- their perceptual hashes (imagehash's `phash` of 16 x 16: which of the lowest frequencies of the
  grey image are above their median) differ in at most 12 of 256 bits;
- no square of a 16 x 16 grid differs by more than 16 of 255 in its mean colour, averaged over red,
  green and blue.

The hash sees the drawing and is blind to colour, the grid sees colours and is blind to fine lines;
the worst square counts, not the mean, since most of an image may be a white ground. The limits were
measured: see docs/service.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ingest.decode import DecodeLimits, decode

__all__ = ["Print", "folds", "print_of"]

_SIDE = 16
_HASH_BITS = 12
_COLOUR = 16.0
_SHAPE = 0.02
_LIMITS = DecodeLimits(max_bytes=1 << 20, max_pixels=1 << 20)


@dataclass(frozen=True)
class Print:
    """What of a thumbnail is compared.

    Attributes:
        ratio: width by height.
        bits: (256,) bool, the perceptual hash.
        colours: (16, 16, 3) uint8, mean colours of the squares.
    """

    ratio: float
    bits: NDArray[np.bool_]
    colours: NDArray[np.uint8]


def print_of(thumbnail: bytes) -> Print:
    """The print of an image file.

    Raises:
        ImageError: not an image that can be used.
    """
    import imagehash  # it imports scipy

    image = decode(thumbnail, _LIMITS).image
    small = image.resize((_SIDE, _SIDE), Image.Resampling.BOX)
    return Print(
        image.width / image.height,
        imagehash.phash(image, hash_size=_SIDE).hash.ravel(),
        np.asarray(small, np.uint8),
    )


def folds(prints: Sequence[Print | None]) -> list[list[int]]:
    """Places of near-equal images, the first of each list being the one that the others fold into.

    In order: each image folds into the first one before it that it is near-equal to and that is not
    itself folded. So all of a list are near-equal to the image that is shown, and no chain of small
    differences leads to another picture. None stands for an image without a thumbnail. Images that
    are alone are left out.
    """
    there = [(place, each) for place, each in enumerate(prints) if each is not None]
    if not there:
        return []
    ratios = np.array([each.ratio for _, each in there])
    bits = np.stack([each.bits for _, each in there])
    colours = np.stack([each.colours for _, each in there]).astype(np.int16)
    free = np.ones(len(there), np.bool_)
    found = []
    for first in range(len(there)):
        if not free[first]:
            continue
        free[first] = False
        others = np.flatnonzero(free)
        others = others[np.abs(ratios[others] / ratios[first] - 1) <= _SHAPE]
        others = others[(bits[others] != bits[first]).sum(axis=1) <= _HASH_BITS]
        differences = np.abs(colours[others] - colours[first]).mean(axis=3)  # (others, 16, 16)
        others = others[differences.max(axis=(1, 2), initial=0) <= _COLOUR]
        free[others] = False
        if len(others):
            found.append([there[place][0] for place in (first, *others.tolist())])
    return found
