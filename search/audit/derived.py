"""Thresholds that depend on the collection and the model: taken from the collection itself.

How similar the images of a collection are to the nearest other one tells what "close" means there,
whatever the model: no training image is its own source, so each stands for an image whose source
is not in the collection, but which is of its kind. Two quantiles of these similarities are used,
over the index's fixed sample: the same collection gives the same thresholds.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from search.audit.flags import Thresholds
from search.audit.near_copy import copy_threshold

if TYPE_CHECKING:
    from search.index import Index

__all__ = ["LOOK_SHARE", "NOT_CLOSE_SHARE", "nearest_others", "thresholds_for"]

NOT_CLOSE_SHARE = 0.01
"""Of the training images, that have nothing close among the others."""
LOOK_SHARE = 0.2
"""Of the training images, whose nearest other one is too far for a near-copy to be looked for."""

_SAMPLE = 1000
_FEWEST = 200  # of which a hundredth is two
_NEIGHBOURS = 16
_EQUAL = 0.9999  # one picture under two names says nothing of what else there is
_BATCH = 100


def thresholds_for(
    index: Index | None, thresholds: Thresholds | None = None, copy_model: str = ""
) -> Thresholds:
    """`thresholds` with everything that is None filled in, as far as it can be known.

    Args:
        index: the collection's; None where it is out of reach.
        thresholds: what the user gave.
        copy_model: backbone that near-copies are looked for with; '' for none.

    Returns:
        `nothing_close` and `look_from` stay None without an index, or with fewer than 200 images.

    Raises:
        UsageError: the threshold of `copy_model` is not known.
        IndexFailedError: the engine failed.
    """
    known = thresholds or Thresholds()
    if known.near_copy is None:
        known = replace(known, near_copy=copy_threshold(copy_model))
    if index is None or (known.nothing_close is not None and known.look_from is not None):
        return known
    near = nearest_others(index)
    if len(near) < _FEWEST:
        return known
    close, look = (round(float(q), 4) for q in np.quantile(near, [NOT_CLOSE_SHARE, LOOK_SHARE]))
    return replace(
        known,
        nothing_close=close if known.nothing_close is None else known.nothing_close,
        look_from=look if known.look_from is None else known.look_from,
    )


def nearest_others(index: Index) -> NDArray[np.float32]:
    """(images,): similarity of some training images to the nearest one that is another picture."""
    vectors = index.sample().vectors[:_SAMPLE]
    found = []
    for start in range(0, len(vectors), _BATCH):
        for hits in index.search(vectors[start : start + _BATCH], _NEIGHBOURS):
            others = hits.similarities[hits.similarities < _EQUAL]
            if len(others):
                found.append(others[0])
    return np.array(found, np.float32)
