"""The known creator with the largest share of one answer."""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum

import numpy as np

from search.answer import Row
from search.rows import RecordRows

__all__ = ["main_creator"]

_ROUNDING = 1e-9
"""Relative: more than a plain sum of shares is ever off by."""


def main_creator(rows: Sequence[Row]) -> tuple[str, float]:
    """Name and share, ties by name; ('', 0) where no creator is known.

    Equal records share their image's influence evenly. Sums are rounded once.
    """
    if isinstance(rows, RecordRows):
        return _of_arrays(rows)
    by_creator: dict[str, list[float]] = {}
    for row in rows:
        each = row.influence / len(row.owners)
        for owner in row.owners:
            if owner.creator:
                by_creator.setdefault(owner.creator, []).append(each)
    return _largest({creator: fsum(parts) for creator, parts in by_creator.items()})


def _of_arrays(rows: RecordRows) -> tuple[str, float]:
    names = rows.records.values("creator")
    codes = rows.records.codes("creator")[rows.numbers]
    each = np.repeat(rows.influences / rows.counts, rows.counts)
    about = np.bincount(codes, each, minlength=len(names))
    if "" in names:
        about[names.index("")] = 0.0
    # Exact sums only of those that may be the largest.
    near = np.flatnonzero(about >= about.max(initial=0.0) * (1 - _ROUNDING)).tolist()
    summed = {names[code]: fsum(each[codes == code].tolist()) for code in near if about[code] > 0}
    return _largest(summed)


def _largest(summed: dict[str, float]) -> tuple[str, float]:
    main = min(summed, key=lambda creator: (-summed[creator], creator), default="")
    return main, summed.get(main, 0.0)
