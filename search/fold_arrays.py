"""Folding, as `search.fold` does it, where what is known of all records lies in arrays."""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum

import numpy as np
from numpy.typing import NDArray

from search.fold import GROWTH, end_of

__all__ = ["Folded", "fold_arrays"]


@dataclass(frozen=True)
class Folded:
    """The most influential images of a support, first come first.

    Attributes:
        places: (records,) positions in the support: the records of the first image, nearest first,
            then those of the next.
        starts: (images + 1,) where each image's records begin in `places`, and the end.
        weights: (images,) summed over each image's records, unnormalised.
    """

    places: NDArray[np.int64]
    starts: NDArray[np.int64]
    weights: NDArray[np.float64]


def fold_arrays(
    weights: NDArray[np.float64],
    pictures: NDArray[np.int64],
    k: int,
    *,
    window: int,
    total: float,
    mass: float | None,
) -> Folded:
    """What `search.fold.fold_support` and `until` find, in the same order.

    Args:
        weights: (hits,) of a support, best first.
        pictures: (hits,) from 0, equal for equal images.
        k: images wanted.
        window: nearest records that images are chosen among, at least; see `search.fold`.
        total: Z, what weights are shares of.
        mass: end with the image at which the summed share reaches this; None for all `k`.
    """
    hits = len(weights)
    width = min(max(window, k), hits)
    if _differ(pictures) and _falls(weights[:width]):
        kept = min(width, k)
        kept = min(kept, _end(weights[:kept], total, mass))
        return Folded(np.arange(kept), np.arange(kept + 1), weights[:kept])
    first = _firsts(pictures[:width])
    while len(first) < k and width < hits:
        width = min(width * GROWTH, hits)
        first = _firsts(pictures[:width])
    return _folded(weights, pictures, first, width, k, total, mass)


def _differ(pictures: NDArray[np.int64]) -> bool:
    """Whether no image has two records."""
    return int(np.bincount(pictures).max()) == 1


def _firsts(pictures: NDArray[np.int64]) -> NDArray[np.int64]:
    """(images,) the place of each image's nearest record, ascending."""
    _, first = np.unique(pictures, return_index=True)
    return np.sort(first)


def _falls(weights: NDArray[np.float64]) -> bool:
    """Whether none is larger than the one before; neighbours might be, by rounding."""
    return bool((weights[1:] <= weights[:-1]).all())


def _folded(
    weights: NDArray[np.float64],
    pictures: NDArray[np.int64],
    first: NDArray[np.int64],
    width: int,
    k: int,
    total: float,
    mass: float | None,
) -> Folded:
    inside = _sums(weights[:width], pictures[:width], first)
    # Ties by the place of the nearest record: a stable sort, places ascend.
    best = np.argsort(-inside, kind="stable")[:k]
    if width < len(pictures):  # records further out may change the order of the chosen
        chosen = np.sort(first[best])
        summed = _sums(weights, pictures, chosen)
        order = np.argsort(-summed, kind="stable")
        leading, summed = chosen[order], summed[order]
    else:
        leading, summed = first[best], inside[best]
    kept = min(len(leading), _end(summed, total, mass))
    leading, summed = leading[:kept], summed[:kept]
    of_image = {int(pictures[place]): image for image, place in enumerate(leading.tolist())}
    image_of = np.array([of_image.get(picture, -1) for picture in pictures.tolist()], np.int64)
    order = np.argsort(image_of, kind="stable")
    places = order[np.count_nonzero(image_of < 0) :]
    counts = np.bincount(image_of[places], minlength=kept)
    return Folded(places, np.concatenate([[0], np.cumsum(counts)]), summed)


def _sums(
    weights: NDArray[np.float64], pictures: NDArray[np.int64], first: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(images,) of the images whose nearest records are in these places, exactly rounded."""
    summed = weights[first].copy()
    copies: dict[int, list[float]] = {}
    leading = {int(pictures[place]): image for image, place in enumerate(first.tolist())}
    is_first = np.zeros(len(pictures), np.bool_)
    is_first[first] = True
    for place in np.flatnonzero(~is_first).tolist():
        image = leading.get(int(pictures[place]))
        if image is not None:
            copies.setdefault(image, [float(summed[image])]).append(float(weights[place]))
    for image, parts in copies.items():
        summed[image] = fsum(parts)
    return summed


def _end(weights: NDArray[np.float64], total: float, mass: float | None) -> int:
    return len(weights) if mass is None else end_of((weights / total).tolist(), mass)
