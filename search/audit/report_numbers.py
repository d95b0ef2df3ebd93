"""Distributions over a gallery, counted for a report's plots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["counted_numbers", "counted_shares"]

_BINS = 20


def counted_shares(values: NDArray[np.float64]) -> dict[str, Any]:
    """How many of the shares (0..1, NaN where there is none) are in each twentieth.

    A bin holds its lower end and not its upper one; the last one holds both.
    """
    return _counted(values, np.arange(_BINS + 1, dtype=np.float64) / _BINS, open_end=False)


def counted_numbers(values: NDArray[np.float64]) -> dict[str, Any]:
    """The same of numbers from 1 up: about twenty bins of a round width, which 98 % fall into;
    the others, if there are any, are counted in the last bin, which has no upper end."""
    known = values[np.isfinite(values)]
    most = max(float(known.max()), 2.0) if known.size else 2.0
    usual = min(max(float(np.quantile(known, 0.98)), 2.0), most) if known.size else 2.0
    width = _round_width((usual - 1) / _BINS)
    first = 1 if width <= 1 else 0  # else the edges would be odd numbers: 1, 3, 5 or 1, 6, 11
    bins = max(int(np.ceil((usual - first) / width)), 1)
    edges: NDArray[np.float64] = first + width * np.arange(bins + 1, dtype=np.float64)
    open_end = most > edges[-1]
    return _counted(values, np.append(edges, np.inf) if open_end else edges, open_end=open_end)


def _counted(
    values: NDArray[np.float64], edges: NDArray[np.float64], *, open_end: bool
) -> dict[str, Any]:
    known = values[np.isfinite(values)]
    finite = edges[:-1] if open_end else edges
    # Rounding may leave a value just outside; it is counted in the outermost bin.
    inside = np.clip(known, finite[0], None if open_end else finite[-1])
    counts, _ = np.histogram(inside, edges)
    return {
        "edges": [round(float(edge), 6) for edge in finite],
        "open": bool(open_end),
        "counts": counts.tolist(),
        "median": round(float(np.median(known)), 6) if known.size else None,
        "mean": round(float(known.mean()), 6) if known.size else None,
    }


def _round_width(width: float) -> float:
    """The least of 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 50 ... that is no smaller."""
    rounds = [0.05, 0.1, 0.25, 0.5] + [m * 10.0**e for e in range(7) for m in (1, 2, 5)]
    return next((each for each in rounds if each >= width), rounds[-1])
