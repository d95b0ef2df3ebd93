"""How sure a mean over queries is: bootstrap over models.

The queries of one customized model share its exemplars and succeed or fail together; as if they
were independent, an interval would be far too narrow. So models are drawn with replacement, each
with all of its queries, and the mean over the queries drawn is taken again and again.

The interval is the expanded percentile one (Hesterberg, *What Teachers Should Know About the
Bootstrap*, The American Statistician 69, 2015): plain percentiles of few models are too narrow, by
sqrt((n - 1) / n) and by taking the normal for Student's t; here the percentiles are moved outwards
by just that. With 100 models the two hardly differ.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ingest.errors import UsageError

__all__ = ["CONFIDENCE", "ENOUGH", "RESAMPLES", "Interval", "mean_intervals", "paired_difference"]

RESAMPLES = 10_000
CONFIDENCE = 0.95
ENOUGH = 6
"""Models below which nothing is said to differ: all n lie on one side of the truth by chance once
in 2^(n - 1), and then so does every resample; only from 6 on is that less than 1 in 20."""

_ROUNDING = 1e-9
_DRAWN = 2_000_000  # counts of models held at a time


@dataclass(frozen=True)
class Interval:
    """A mean over queries with its bootstrap interval over models.

    Attributes:
        mean: over all queries; nan where there is none.
        low: lower end; None with fewer than 2 models, which say nothing of how models differ.
        high: upper end, or None likewise.
        models: how many models were resampled.
        queries: how many queries they have.
    """

    mean: float
    low: float | None
    high: float | None
    models: int
    queries: int

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside of the interval, and there are at least `ENOUGH` models.

        Scores lie in 0..1; what is nearer to 0 than their sums are rounded to is 0.
        """
        if self.low is None or self.high is None or self.models < ENOUGH:
            return False
        return self.low > _ROUNDING or self.high < -_ROUNDING

    def to_dict(self) -> dict[str, float | int | None]:
        """Its fields; a mean of nothing is None."""
        return {**asdict(self), "mean": self.mean if self.queries else None}


def mean_intervals(
    values: ArrayLike,
    model_of_query: ArrayLike,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> list[Interval]:
    """The mean of each metric over queries, with its interval over models.

    Args:
        values: (queries, metrics); all metrics are of the same resamples.
        model_of_query: (queries,) whole numbers; those without a query do not count as models.
        resamples: sets of models that are drawn.
        confidence: of the interval.
        seed: of the draws. Same input, same seed: same intervals.

    Returns:
        One a metric.

    Raises:
        UsageError: values and models of different lengths.
    """
    table = np.asarray(values, dtype=np.float64)
    models = np.asarray(model_of_query)
    if table.ndim != 2 or len(table) != len(models):
        raise UsageError(
            f"values of shape {table.shape} for {len(models)} queries; they must be "
            "(queries, metrics)"
        )
    if not 0 < confidence < 1:
        raise UsageError(f"confidence lies between 0 and 1, not at {confidence}")
    if not len(table):
        return [Interval(np.nan, None, None, 0, 0)] * table.shape[1]
    _, model = np.unique(models, return_inverse=True)
    count = int(model.max()) + 1
    means = table.mean(axis=0)
    if count < 2:
        return [Interval(float(mean), None, None, count, len(table)) for mean in means]
    sums = np.zeros((count, table.shape[1] + 1))  # (models, metrics and number of queries)
    np.add.at(sums[:, :-1], model, table - means)  # centred: equal values must give equal ends
    sums[:, -1] = np.bincount(model)
    tail = _expanded((1 - confidence) / 2, count)
    ends = np.quantile(_resampled(sums, resamples, seed), [tail, 1 - tail], axis=0) + means
    return [
        Interval(float(mean), float(low), float(high), count, len(table))
        for mean, low, high in zip(means, *ends, strict=True)
    ]


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    model_of_query: ArrayLike,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> list[Interval]:
    """b - a on the same queries, resampling models: what both find easy or hard cancels.

    `a`, `b`: (queries, metrics), row by row of the same query. Otherwise like `mean_intervals`.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape:
        raise UsageError(f"pairs of shapes {first.shape} and {second.shape}; they must be equal")
    return mean_intervals(
        second - first, model_of_query, resamples=resamples, confidence=confidence, seed=seed
    )


def _resampled(sums: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    """(resamples, metrics) means over the queries of models drawn with replacement.

    `sums`: (models, metrics + 1), the last column the queries of each model.
    """
    random = np.random.default_rng(seed)
    models = len(sums)
    chances = np.full(models, 1 / models)
    means = np.empty((resamples, sums.shape[1] - 1))
    step = max(1, _DRAWN // models)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        total = random.multinomial(models, chances, size=size).astype(np.float64) @ sums
        means[start : start + size] = total[:, :-1] / total[:, -1:]
    return means


def _expanded(tail: float, models: int) -> float:
    """The tail to cut off instead of `tail`: Phi(sqrt(n / (n - 1)) * t of n - 1 degrees)."""
    from scipy.special import ndtr, stdtrit

    return float(ndtr(np.sqrt(models / (models - 1)) * stdtrit(models - 1, tail)))
