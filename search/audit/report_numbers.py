"""Distributions over a gallery, counted for a report's plots in bins that fit them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["counted_numbers", "counted_shares"]

_BINS = 20
_USUAL = 0.98  # of the values lie below the open end of a plot, if it has one

_ALL_ALIKE = 0.01  # width of the one bin of shares that are all the same
_SHARE_WIDTHS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
_NUMBER_WIDTHS = (0.05, 0.1, 0.25, 0.5, *(m * 10.0**e for e in range(7) for m in (1, 2, 5)))
_GROWING = (
    (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8),
    (1, 1.5, 2, 3, 5, 7),
    (1, 2, 5),
    (1,),
)
"""Round edges within a power of ten, from fine to coarse."""


def counted_shares(values: NDArray[np.float64]) -> dict[str, Any]:
    """How many of the shares (0..1, NaN where there is none) are in each of up to about twenty
    bins of a round width, from about the least of them (from 0, if that is near) to the greatest.

    A bin holds its lower end and not its upper one; the last one holds both. Where a few shares
    are far above the others, they are counted in the last bin, which has no upper end.
    """
    known = values[np.isfinite(values)]
    least, usual, most = _span(known) if known.size else (0.0, 1.0, 1.0)
    if least < usual / 4:
        least = 0.0
    if usual - least > (most - least) / 2:
        usual = most  # nothing is gained by an open end
    width = _least_width(_SHARE_WIDTHS, (usual - least) / _bins(known.size) or _ALL_ALIKE)
    start = min(int(np.floor(round(least / width, 6))), round(1 / width) - 1)
    # Beside an open end, what is usual must lie below it.
    end = np.ceil(round(usual / width, 6)) if usual == most else round(usual / width, 6) // 1 + 1
    edges = np.minimum(width * np.arange(start, max(int(end), start + 1) + 1), 1.0)
    return _counted(known, edges, open_end=bool(most > edges[-1] + 1e-9))


def counted_numbers(values: NDArray[np.float64]) -> dict[str, Any]:
    """The same of numbers from 1 up. Where half of them would fall into the first two bins, the
    bins grow, so that small numbers are told apart."""
    known = values[np.isfinite(values)]
    _, usual, most = _span(known) if known.size else (1.0, 2.0, 2.0)
    most, usual = max(most, 2.0), max(usual, 2.0)
    width = _least_width(_NUMBER_WIDTHS, (usual - 1) / _bins(known.size))
    if known.size and np.median(known) < 1 + 2 * width and usual > 4:
        edges = _growing(usual, _bins(known.size))
    else:
        first = 1 if width <= 1 else 0  # else the edges would be odd numbers: 1, 3, 5 or 1, 6, 11
        bins = max(int(np.ceil(round((usual - first) / width, 6))), 1)
        edges = first + width * np.arange(bins + 1, dtype=np.float64)
    return _counted(known, edges, open_end=bool(most > edges[-1]))


def _bins(images: int) -> int:
    """A few images need no twenty bins."""
    return int(np.clip(np.ceil(2 * np.sqrt(images)), 5, _BINS)) if images else _BINS


def _span(known: NDArray[np.float64]) -> tuple[float, float, float]:
    least, usual, most = np.quantile(known, (0, _USUAL, 1)).tolist()
    return least, usual, most


def _growing(usual: float, most: int) -> NDArray[np.float64]:
    """Round numbers from 1 on up to the first that is no smaller than ``usual``."""
    for steps in _GROWING:
        edges = [step * 10.0**power for power in range(7) for step in steps]
        last = next((place for place, edge in enumerate(edges) if edge >= usual), len(edges) - 1)
        if last <= most:
            break
    return np.array(edges[: last + 1])


def _counted(
    known: NDArray[np.float64], finite: NDArray[np.float64], *, open_end: bool
) -> dict[str, Any]:
    edges = np.append(finite, np.inf) if open_end else finite
    # Rounding may leave a value just outside; it is counted in the outermost bin.
    inside = np.clip(known, finite[0], None if open_end else finite[-1])
    counts, _ = np.histogram(inside, edges)
    return {
        "edges": [round(float(edge), 6) for edge in finite],
        "open": open_end,
        "counts": counts.tolist(),
        "median": round(float(np.median(known)), 6) if known.size else None,
        "mean": round(float(known.mean()), 6) if known.size else None,
    }


def _least_width(widths: tuple[float, ...], width: float) -> float:
    """The least of them that is no smaller, but for rounding."""
    return next((each for each in widths if each >= width - 1e-9), widths[-1])
