"""Folding: equal images (same sha256) become one row that keeps every owner.

The k most influential images are wanted, and an image's influence is the sum over its copies, so
the copies must be known before the k are chosen. Reading payloads costs about 4 us each whichever
fields are asked for. So a support up to `window` is read whole (512: 2 ms); of a larger one the
nearest `window` are read, the k rows chosen among them, and copies further out found by one lookup
of the rows' hashes, which are indexed (against 25 ms for reading 5,000 payloads). Copies have equal
features and so lie side by side: an image wholly outside the window could only belong among the
rows by the sheer number of its copies.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from itertools import accumulate
from math import fsum, inf

import numpy as np

from search.index import Index, Payload
from search.support import Support

__all__ = ["Fold", "PayloadReader", "fold_support", "until"]

_GROWTH = 4
_ROUNDING = 1e-9
"""More than a running sum of shares is ever off by."""
_WHOLE = 6
"""Up to so many records a row, whole payloads are read at once: it spares a round trip."""


@dataclass(frozen=True)
class Fold:
    """One image.

    Attributes:
        places: its records, as positions in the support, nearest first.
        weight: summed over them, unnormalised.
    """

    places: tuple[int, ...]
    weight: float


class PayloadReader:
    """Payloads of one support by position, each read once.

    Args:
        index: where they are.
        support: whose positions are meant.
    """

    def __init__(self, index: Index, support: Support) -> None:
        self._index = index
        self._support = support
        self._partial: dict[int, Payload] = {}
        self._whole: dict[int, Payload] = {}

    def read(
        self, places: Sequence[int], fields: Sequence[str] | None = None
    ) -> dict[int, Payload]:
        """Payloads by position; with `fields`, at least these. One round trip at most.

        All calls with `fields` on one reader must name the same ones. A point that was deleted
        since the search has an empty payload.
        """
        known = self._whole if fields is None else self._partial
        missing = [place for place in places if place not in known and place not in self._whole]
        if missing:
            ids = [self._support.ids[place] for place in missing]
            for place, payload in zip(missing, self._index.fetch(ids, fields=fields), strict=True):
                known[place] = payload or {}
        return {
            place: self._whole[place] if place in self._whole else known[place] for place in places
        }


def fold_support(
    index: Index,
    support: Support,
    reader: PayloadReader,
    k: int,
    *,
    fields: Sequence[str],
    window: int,
    keep: Callable[[Payload], bool] | None = None,
    enough: float = inf,
) -> list[Fold]:
    """The `k` most influential images of a support, ties by similarity and then by id.

    Args:
        index: of the support.
        support: with its hits best first.
        reader: of the support's payloads.
        k: images wanted; fewer come where the support has fewer.
        fields: payload fields that `keep` needs; ``sha256`` is always among those read.
        window: see above; grows until k images are found. The whole support with `keep`.
        keep: which records count, all by default.
        enough: weight at which the caller will cut the rows off, see `until`; all `k` are found
            nevertheless, because copies further out may change their order.
    """
    total = len(support.ids)
    # Images fold records, so fewer of them than of records make up a weight.
    wanted = k if keep is not None else min(k, 1 + _below(support, enough))
    width = total if keep is not None else min(max(window, k), total)
    while True:
        places: Sequence[int] = range(width)
        payloads = reader.read(places, None if width <= _WHOLE * wanted else fields)
        if keep is not None:
            places = [place for place in places if keep(payloads[place])]
        folds = _fold(places, payloads, support, k)
        if len(folds) >= k or width >= total:
            break
        width = min(width * _GROWTH, total)
    if width < total:
        folds = _with_far_copies(index, support, folds, payloads)
    return folds


def until(folds: list[Fold], total: float, mass: float) -> list[Fold]:
    """The first folds, up to and with the one at which their shares of `total` reach `mass`."""
    shares = [fold.weight / total for fold in folds]
    sums = list(accumulate(shares))
    end = bisect_left(sums, mass - _ROUNDING)
    while end < len(folds) and fsum(shares[: end + 1]) < mass:
        end += 1
    return folds[: end + 1]


def _below(support: Support, enough: float) -> int:
    """How many of the nearest records together weigh less than that."""
    return int(np.searchsorted(np.cumsum(support.weights), enough))


def _fold(
    places: Sequence[int], payloads: dict[int, Payload], support: Support, k: int
) -> list[Fold]:
    """Records by hash, one without a hash alone; the `k` most influential images."""
    images: dict[str | int, list[int]] = {}
    for place in places:
        images.setdefault(payloads[place].get("sha256") or place, []).append(place)
    weights = support.weights.tolist()
    summed = [
        (fsum(weights[place] for place in copies) if len(copies) > 1 else weights[copies[0]])
        for copies in images.values()
    ]
    folds = zip(images.values(), summed, strict=True)
    best = nsmallest(k, folds, key=lambda fold: (-fold[1], fold[0][0]))
    return [Fold(tuple(copies), weight) for copies, weight in best]


def _of(places: Sequence[int], support: Support) -> Fold:
    return Fold(tuple(places), fsum(support.weights[place] for place in places))


def _sorted(folds: list[Fold]) -> list[Fold]:
    # Positions ascend with falling similarity and, among equals, with the id.
    return sorted(folds, key=lambda fold: (-fold.weight, fold.places[0]))


def _with_far_copies(
    index: Index, support: Support, folds: list[Fold], payloads: dict[int, Payload]
) -> list[Fold]:
    """Adds copies that lie in the support outside of the window that was read."""
    hash_of = {payloads[fold.places[0]].get("sha256") or "": fold for fold in folds}
    hash_of.pop("", None)
    if not hash_of:
        return folds
    copies = [found for ids in index.scroll({"sha256": tuple(hash_of)}) for found in ids]
    if len(copies) <= sum(len(fold.places) for fold in hash_of.values()):
        return folds
    place_of = {found: place for place, found in enumerate(support.ids)}
    known = {place for fold in folds for place in fold.places}
    far = [place_of[found] for found in copies if found in place_of]
    far = sorted(place for place in far if place not in known)
    if not far:
        return folds
    added: dict[str, list[int]] = {}
    read = index.fetch([support.ids[place] for place in far], fields=["sha256"])
    for place, payload in zip(far, read, strict=True):
        added.setdefault((payload or {}).get("sha256", ""), []).append(place)
    extended = [
        _of((*fold.places, *added.get(payloads[fold.places[0]].get("sha256") or "-", ())), support)
        for fold in folds
    ]
    return _sorted(extended)
