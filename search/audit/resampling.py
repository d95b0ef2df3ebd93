"""Bootstrap over the images of a gallery, fed part by part: the Poisson bootstrap.

Each resample counts image i w times, w drawn from Poisson(1), and takes the weighted mean
(Chamandy, Muralidharan, Najmi, Naidu, *Estimating Uncertainty for Massive Data Streams*, 2012).
Unlike drawing n of n images this needs no n beforehand. The weights are a function of the seed and
the image's place in the gallery alone, and all sums are of whole numbers (shares in units of
2^-36), so that any cut into parts gives the same bytes.

Memory: what a value's images are is kept as pairs (24 bytes each) until there are `_RARE`; then as
one sum a resample (8 KB). So no value takes more than 12 KB, however many images there are, and a
value that is in few images takes little: 100,000 creators who share 10,000 images at 30 a piece
take 7 MB (and the table 10 s), and at most 1.2 GB whatever the gallery.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from math import exp, factorial

import numpy as np
from numpy.typing import NDArray

__all__ = ["CONFIDENCE", "RESAMPLES", "SEED", "Resampled", "percentile_ends"]

RESAMPLES = 1_000
CONFIDENCE = 0.95
SEED = 0
"""Of every bootstrap of an audit: who makes one and who checks it draw the same."""

_UNIT = 1 << 36
"""Shares are whole numbers of 1 / this: 7e-12 off at most, and 2^27 images fit into 63 bits."""

_BLOCK = 256  # images whose weights are made together
_CODES = 4_096  # values whose sums are held at a time at the end: 32 MB
_RARE = 500  # pairs of one value that take somewhat more than its sums
_PAIRS = 1 << 21  # pairs that are kept before frequent values are looked for: 50 MB


class Resampled:
    """Means over images of many values' shares, with the same resamples for each value.

    Args:
        seed: of the weights.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._images = 0
        self._pending: list[_Pairs] = []
        self._count = 0
        self._limit = _PAIRS
        self._sums: dict[int, NDArray[np.int64]] = {}

    def add(
        self,
        codes: NDArray[np.int64],
        images: NDArray[np.int64],
        shares: NDArray[np.float64],
        count: int,
    ) -> None:
        """Shares of the next `count` images; what is not named is 0.

        Args:
            codes: (pairs,) of the values, from 0.
            images: (pairs,) 0-based among those `count`; no (code, image) twice.
            shares: (pairs,) in -1..1.
            count: images, those without any share among them.
        """
        units = np.rint(shares * _UNIT).astype(np.int64)
        self._pending.append((codes.astype(np.int64), images + self._images, units))
        self._images += count
        self._count += len(codes)
        if self._count > self._limit:
            self._compact()

    def intervals(self, codes: int) -> NDArray[np.float64]:
        """(codes, 2) ends of the 95 % interval of each value's mean share; NaN below 2 images.

        See `percentile_ends`.
        """
        ends = np.full((codes, 2), np.nan)
        if self._images < 2:
            return ends
        totals = np.zeros(RESAMPLES, np.int64)
        for _, block in self._weights(0, self._images):
            totals += block.sum(axis=0)
        pairs = _joined(self._pending)
        order = np.argsort(pairs[0], kind="stable")
        pairs = (pairs[0][order], pairs[1][order], pairs[2][order])
        for start in range(0, codes, _CODES):
            stop = min(start + _CODES, codes)
            first, last = np.searchsorted(pairs[0], [start, stop])
            chosen = (pairs[0][first:last] - start, pairs[1][first:last], pairs[2][first:last])
            sums = self._folded(chosen, stop - start)
            for code in range(start, stop):
                if code in self._sums:
                    sums[code - start] += self._sums[code]
            drawn = totals > 0  # of few images, a resample may have drawn none
            means = sums[:, drawn] / (totals[drawn] * float(_UNIT))
            ends[start:stop] = percentile_ends(means, self._images)
        return ends

    def _compact(self) -> None:
        """Turns the pairs of values that are in many images into sums."""
        codes, images, units = _joined(self._pending)
        found, counts = np.unique(codes, return_counts=True)
        known = np.fromiter(self._sums, np.int64, len(self._sums))
        frequent = found[(counts >= _RARE) | np.isin(found, known)]
        for start in range(0, len(frequent), _CODES):
            part = frequent[start : start + _CODES]
            inside = np.isin(codes, part)
            rows = np.searchsorted(part, codes[inside])
            sums = self._folded((rows, images[inside], units[inside]), len(part))
            for code, row in zip(part.tolist(), sums, strict=True):
                self._sums[code] = self._sums[code] + row if code in self._sums else row.copy()
        rest = ~np.isin(codes, frequent)
        self._pending = [(codes[rest], images[rest], units[rest])]
        self._count = int(rest.sum())
        self._limit = max(_PAIRS, 2 * self._count)

    def _folded(self, pairs: _Pairs, rows: int) -> NDArray[np.int64]:
        """(rows, resamples) weighted sums of pairs whose codes are rows."""
        from scipy.sparse import coo_array

        sums = np.zeros((rows, RESAMPLES), np.int64)
        if not len(pairs[0]):
            return sums
        order = np.argsort(pairs[1], kind="stable")
        codes, images, units = (column[order] for column in pairs)
        for base, block in self._weights(int(images[0]), int(images[-1]) + 1):
            first, last = np.searchsorted(images, [base, base + len(block)])
            if first < last:
                # Only the rows that occur: else each block would walk through all of them.
                present, local = np.unique(codes[first:last], return_inverse=True)
                place = (local, images[first:last] - base)
                shape = (len(present), len(block))
                matrix = coo_array((units[first:last], place), shape=shape).tocsr()
                sums[present] += np.asarray(matrix @ block)
        return sums

    def _weights(self, first: int, last: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Blocks of (images, resamples) weights that cover these images, with their first image.

        The last block ends with the last image that was added.
        """
        table = _poisson_table()
        for block in range(first // _BLOCK, -(-last // _BLOCK)):
            base = block * _BLOCK
            # One stream a block; what a bit generator gives is fixed, unlike what is drawn from it.
            stream = np.random.Philox(key=self._seed, counter=[0, 0, 0, block])
            raw = stream.random_raw(_BLOCK * RESAMPLES // 4).astype("<u8").view("<u2")
            weights = table[raw].reshape(_BLOCK, RESAMPLES)
            yield base, weights[: min(_BLOCK, self._images - base)]


_Pairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
"""Codes, images and shares in units, one a pair."""


def percentile_ends(means: NDArray[np.float64], images: int) -> NDArray[np.float64]:
    """(values, 2) ends of the expanded percentile interval (Hesterberg, 2015) at 95 %.

    Plain percentiles of few images are too narrow, by sqrt((n - 1) / n) and by taking the normal
    for Student's t; they are moved outwards by just that.

    Args:
        means: (values, resamples).
        images: n, at least 2.
    """
    from scipy.special import ndtr, stdtrit

    expanded = np.sqrt(images / (images - 1)) * stdtrit(images - 1, (1 - CONFIDENCE) / 2)
    tail = float(ndtr(expanded))
    ends: NDArray[np.float64] = np.quantile(means, [tail, 1 - tail], axis=1).T
    return ends


@cache
def _poisson_table() -> NDArray[np.int64]:
    """(65536,) the Poisson(1) number of each 16-bit number, by the inverse of its distribution."""
    chances = np.cumsum([exp(-1) / factorial(number) for number in range(20)])
    middles = (np.arange(1 << 16) + 0.5) / (1 << 16)
    return np.searchsorted(chances, middles, side="right").astype(np.int64)


def _joined(parts: list[_Pairs]) -> _Pairs:
    if not parts:
        empty = np.zeros(0, np.int64)
        return empty, empty, empty
    codes, images, units = (np.concatenate(column) for column in zip(*parts, strict=True))
    return codes, images, units
