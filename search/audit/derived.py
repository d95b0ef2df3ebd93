"""Thresholds that depend on the model and the collection.

What is close: the similarity that all but one in a hundred generated images reach whose source is
in the collection. It takes such images to know it, so it is a measured constant of a model; for
other models the flag is not raised unless a threshold is given. How similar training images are to
each other does not tell: a quarter of such generated images are farther from their nearest training
image than 99 % of the training images are from theirs (docs/audit-flags.md).

Where near-copies are looked for: that is a matter of time, and does go by how similar the
collection's images are to the nearest other one. A training image that is less similar to a
generated one than the most solitary of the collection are to their neighbours is not looked at. The
index's fixed sample is asked: the same collection gives the same threshold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from search.audit.flags import Thresholds
from search.audit.near_copy import copy_threshold

if TYPE_CHECKING:
    from search.index import Index

__all__ = ["LOOK_SHARE", "NOTHING_CLOSE", "nearest_others", "thresholds_for"]

NOTHING_CLOSE: Mapping[str, float] = {
    "efficientnet-lite0": 0.42,
    "efficientnet-lite0-clipart": 0.215,
}
"""By model, measured by ``python -m benchmarks.near_copy --generated FOLDER``."""

LOOK_SHARE = 0.005
"""Of the training images, whose nearest other one is less similar than `look_from`."""

_SAMPLE = 300
_FEWEST = 100
_NEIGHBOURS = 16
_EQUAL = 0.9999  # one picture under two names says nothing of what else there is
_BATCH = 100


def thresholds_for(
    index: Index | None,
    model: str,
    thresholds: Thresholds | None = None,
    copy_model: str = "",
) -> Thresholds:
    """`thresholds` with everything that is None filled in, as far as it can be known.

    Args:
        index: the collection's; None where it is out of reach.
        model: name of the attribution model.
        thresholds: what the user gave.
        copy_model: backbone that near-copies are looked for with; '' for none.

    Returns:
        `nothing_close` stays None for a model that it was not measured for, `look_from` without
        an index, or with fewer than 100 images: all answers are looked at then.

    Raises:
        UsageError: the threshold of `copy_model` is not known.
        IndexFailedError: the engine failed.
    """
    known = thresholds or Thresholds()
    if known.near_copy is None:
        known = replace(known, near_copy=copy_threshold(copy_model))
    if known.nothing_close is None:
        known = replace(known, nothing_close=NOTHING_CLOSE.get(model))
    if known.look_from is None and index is not None:
        near = nearest_others(index)
        if len(near) >= _FEWEST:
            known = replace(known, look_from=round(float(np.quantile(near, LOOK_SHARE)), 4))
    return known


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
