"""What is known of a query's influence: the nearest training images, their weights, and Z.

Three ways to it, in order of preference:

- ``complete`` (b < 0): a range search. The limit of the search grows until the last similarity
  found has weight 0; everything further away has weight 0 too, so the sum is whole.
- ``exact``: every training image is compared. Taken by itself where the support is not small and
  the collection is, else when asked for.
- ``estimated``: a head from the index, the rest from the index's fixed uniform sample.

A server's strict mode may forbid the first two. Then the next way is taken, and `Support.refused`
says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import fsum
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from embed.calibrator import Calibrator
from ingest.errors import IndexRefusedError
from search.answer import Method
from search.calibration import Normaliser, cutoff, normaliser, weights
from search.index import Features, Hits, Sample, Where
from search.others import Searched

__all__ = ["Limits", "Support", "SupportFinder", "search_as_allowed"]

_GROWTH = 4
_SCAN_BLOCK = 4096
_FEW = 32
_HOPE = 1.5
"""Supports estimated at up to so many times the limit are still tried."""
_ROUNDING = 1e-5
"""More than engine and numpy ever differ by in the cosine of one pair."""
_SINGLE = 1e-6
"""What they differ by at most (512 numbers: 3e-7), for s and m together."""


@dataclass(frozen=True)
class Limits:
    """How much of a collection one answer may fetch; all counts of training images.

    Attributes:
        first: of the first range search. A support below it takes one search. It is fixed and not
            learnt from earlier queries, because results of an approximate index depend on the
            limit: an answer must not depend on what was asked before.
        support: a support above it is not fetched whole.
        head: fetched from the index where the rest is estimated; more where more rows are wanted.
        precision: half-width of the interval of Z, relative, above which the head leaves too much
            to the sample, and one four times as large is fetched instead. (Not the standard error:
            it is small too where the sample happens to hold none of the larger weights.)
        exact_below: collections up to this size are scanned rather than sampled.
        scan: an exact answer for b >= 0 fetches the similarities of a whole collection up to this
            size; of a larger one it reads the vectors in blocks, which needs no memory, and keeps
            the ids of `head` only.
    """

    first: int = 128
    support: int = 10_000
    head: int = 256
    precision: float = 0.05
    exact_below: int = 20_000
    scan: int = 100_000


@dataclass(frozen=True)
class Support:
    """The nearest training images of one query, best first, and the normaliser of all.

    Attributes:
        ids: (hits,) each with weight above 0.
        similarities: (hits,)
        weights: (hits,) unnormalised, see `search.calibration.weights`.
        largest: m, the similarity that weights are relative to.
        normaliser: Z of the whole training set.
        method: how Z was found.
        size: training images with influence above 0; None where that was not counted.
        refused: why the index did not do what a better method needed; '' where it did.
    """

    ids: Sequence[UUID]
    similarities: NDArray[np.float32]
    weights: NDArray[np.float64]
    largest: float
    normaliser: Normaliser
    method: Method
    size: int | None
    refused: str = ""


class SupportFinder:
    """Finds the `Support` of queries in one collection.

    Args:
        index: the collection, or what of it counts.
        calibrator: decides what has weight.
        limits: how much may be fetched.
    """

    def __init__(self, index: Searched, calibrator: Calibrator, limits: Limits) -> None:
        self._index = index
        self._calibrator = calibrator
        self._limits = limits
        self._sample: Sample | None = None
        self._sample_of = -1

    def find(self, features: Features, population: int, *, rows: int, exact: bool) -> list[Support]:
        """One `Support` a query.

        Args:
            features: (queries, dim), validated.
            population: training images in the collection, at least 1.
            rows: wanted in the answer; the head is never less than twice as many.
            exact: compare with every training image.

        Raises:
            IndexFailedError: the engine failed.
        """
        head = min(max(self._limits.head, 2 * rows), population)
        try:
            return self._find(features, population, head, exact=exact)
        except IndexRefusedError as exc:
            refused = str(exc)
        found: dict[int, Support] = {}
        if self._calibrator.b < 0:
            # What a refusal cuts short stays in `found`; the others are estimated.
            with suppress(IndexRefusedError):
                self._grow(features, population, head, found, exact=False)
        rest = [query for query in range(len(features)) if query not in found]
        if rest:
            others = self._estimate(features[rest], population, head)
            found.update(zip(rest, others, strict=True))
        return [replace(found[query], refused=refused) for query in range(len(features))]

    def _find(
        self, features: Features, population: int, head: int, *, exact: bool
    ) -> list[Support]:
        found: dict[int, Support] = {}
        if self._calibrator.b < 0:
            self._grow(features, population, head, found, exact=exact)
        rest = [query for query in range(len(features)) if query not in found]
        if rest:
            if population <= (self._limits.scan if exact else self._limits.exact_below):
                others = self._scan(features[rest], population)
            elif exact:
                others = self._scan_blocks(features[rest], head)
            else:
                others = self._estimate(features[rest], population, head)
            found.update(zip(rest, others, strict=True))
        return [found[query] for query in range(len(features))]

    def _grow(
        self,
        features: Features,
        population: int,
        head: int,
        found: dict[int, Support],
        *,
        exact: bool,
    ) -> None:
        """Range search by growing limits; queries whose support is too large are not `found`."""
        open_queries = list(range(len(features)))
        ceiling = population if exact else min(max(self._limits.support, head), population)
        limit = min(self._limits.first, ceiling)
        searches = 0
        largest_of: dict[int, float] = {}
        while open_queries:
            results = self._index.search(features[open_queries], limit, exact=exact)
            still_open = []
            for query, hits in zip(open_queries, results, strict=True):
                largest = float(hits.similarities[0])
                weight = weights(hits.similarities, largest, self._calibrator)
                size = int(np.count_nonzero(weight))
                if size == len(weight) and len(weight) >= limit and limit < population:
                    still_open.append(query)
                    largest_of[query] = largest
                    continue
                whole = exact or len(weight) >= population
                found[query] = _known(hits, weight, largest, "exact" if whole else "complete")
            if searches == 1 and still_open and not exact:
                still_open = self._within_reach(features, still_open, largest_of, population)
            open_queries = still_open
            if limit >= ceiling:
                break
            searches += 1
            limit = min(limit * _GROWTH, ceiling)

    def _within_reach(
        self,
        features: Features,
        queries: list[int],
        largest_of: dict[int, float],
        population: int,
    ) -> list[int]:
        """Those whose support can be expected to fit, by the sample: wide searches are slow."""
        sample = self._load_sample(population)
        if not len(sample.ids):
            return queries
        scores = features[queries] @ sample.vectors.T  # (queries, sample)
        each_stands_for = population / len(sample.ids)
        return [
            query
            for query, row in zip(queries, scores, strict=True)
            if np.count_nonzero(row > cutoff(largest_of[query], self._calibrator)) * each_stands_for
            <= _HOPE * self._limits.support
        ]

    def _scan(self, features: Features, population: int) -> list[Support]:
        """Every similarity from the index; one query at a time, to hold one list of ids only."""
        found = []
        for query in range(len(features)):
            hits = self._index.search(features[query : query + 1], population, exact=True)[0]
            largest = float(hits.similarities[0])
            weight = weights(hits.similarities, largest, self._calibrator)
            found.append(_known(hits, weight, largest, "exact"))
        return found

    def _scan_blocks(self, features: Features, head: int) -> list[Support]:
        """The head exactly, and Z from one pass over all vectors for all queries together."""
        heads = self._index.search(features, head, exact=True)
        largest = np.array([float(hits.similarities[0]) for hits in heads])  # (queries,)
        sums: list[NDArray[np.float64]] = []
        sizes = np.zeros(len(features), np.int64)
        for ids in self._index.scroll(batch=_SCAN_BLOCK):
            scores = self._index.vectors(ids) @ features.T  # (block, queries)
            # A cosine that rounds above the largest one would weigh more than 1 + b.
            block = weights(np.minimum(scores, largest), largest, self._calibrator)
            sums.append(block.sum(axis=0))
            sizes += np.count_nonzero(block, axis=0)
        found = []
        for query, hits in enumerate(heads):
            weight = weights(hits.similarities, largest[query], self._calibrator)
            total = max(fsum(block[query] for block in sums), fsum(weight))
            size = int(sizes[query])
            found.append(
                _support(hits, weight, largest[query], Normaliser.known(total), "exact", size)
            )
        return found

    def _estimate(self, features: Features, population: int, head: int) -> list[Support]:
        """Head from the index and tail from the sample (Mussmann, Levy, Ermon, UAI 2017)."""
        sample = self._load_sample(population)
        scores = features @ sample.vectors.T  # (queries, sample)
        large_head = min(_GROWTH * head, population)
        found: dict[int, Support] = {}
        rest = list(range(len(features)))
        while rest:
            unsure = []
            results, _ = search_as_allowed(self._index, features[rest], head)
            for query, hits in zip(rest, results, strict=True):
                found[query] = self._from_sample(sample, scores[query], hits, population)
                total = found[query].normaliser
                half_width = (total.high - total.low) / 2
                if head < large_head and half_width > self._limits.precision * total.value:
                    unsure.append(query)
            rest, head = unsure, large_head
        return [found[query] for query in range(len(features))]

    def _from_sample(
        self, sample: Sample, scores: NDArray[np.float32], hits: Hits, population: int
    ) -> Support:
        tail = self._without_head(sample, scores, hits)
        largest = float(hits.similarities[0])
        if len(tail) and tail.max() > largest + _ROUNDING:  # missed by the approximate search
            largest = float(tail.max())
        weight = weights(hits.similarities, largest, self._calibrator)
        if not weight[-1] and self._calibrator.b < 0:  # the cut-off lies within the head after all
            return _known(hits, weight, largest, "complete")
        total = normaliser(
            weight,
            weights(tail, largest, self._calibrator),
            population,
            smallest=max(self._calibrator.b, 0.0),
        )
        # Similarities are single precision, which alone moves exp((s - m) / tau) by so much.
        rounding = _SINGLE / self._calibrator.tau
        total = replace(
            total, low=total.low * (1 - min(rounding, 1)), high=total.high * (1 + rounding)
        )
        return _support(hits, weight, largest, total, "estimated", None)

    def _load_sample(self, population: int) -> Sample:
        """The sample as one float32 matrix, read once for each state of the collection."""
        if self._sample is None or self._sample_of != population:
            sample = self._index.sample()
            vectors = np.ascontiguousarray(sample.vectors, np.float32)
            self._sample = Sample(ids=sample.ids, vectors=vectors)
            self._sample_of = population
        return self._sample

    @staticmethod
    def _without_head(
        sample: Sample, scores: NDArray[np.float32], hits: Hits
    ) -> NDArray[np.float32]:
        """Similarities (sample,) of the sampled training images that are not in the head.

        Only those as near as the last of the head can be in it, and they are few.
        """
        near = np.flatnonzero(scores >= hits.similarities[-1] - _ROUNDING)
        if not len(near):
            return scores
        if len(near) <= _FEW:  # then it costs less to look where each would stand
            falling = -hits.similarities
            inside = []
            for place in near.tolist():
                first, last = np.searchsorted(
                    falling, [-scores[place] - _ROUNDING, -scores[place] + _ROUNDING]
                )
                if sample.ids[place] in hits.ids[first : last + 1]:
                    inside.append(place)
            return np.delete(scores, inside)
        found = set(hits.ids)
        return np.delete(scores, [place for place in near.tolist() if sample.ids[place] in found])


def search_as_allowed(
    index: Searched,
    features: Features,
    limit: int,
    *,
    where: Where | None = None,
    exact: bool = False,
) -> tuple[list[Hits], str]:
    """`Index.search` with what strict mode allows: not exact if need be, fewer hits if need be.

    Returns the hits, and what was refused ('': nothing).

    Raises:
        IndexRefusedError: a single hit was refused, too.
        IndexFailedError: the engine failed.
    """
    refused = ""
    while True:
        try:
            return index.search(features, limit, where=where, exact=exact), refused
        except IndexRefusedError as exc:
            if not exact and limit == 1:
                raise
            refused = refused or str(exc)
            limit = limit if exact else limit // 2
            exact = False


def _known(hits: Hits, weight: NDArray[np.float64], largest: float, method: Method) -> Support:
    """A support that was fetched whole."""
    total = Normaliser.known(fsum(weight))
    return _support(hits, weight, largest, total, method, int(np.count_nonzero(weight)))


def _support(
    hits: Hits,
    weight: NDArray[np.float64],
    largest: float,
    total: Normaliser,
    method: Method,
    size: int | None,
) -> Support:
    """Hits with weight; they come first, weights fall with similarity."""
    kept = int(np.count_nonzero(weight))
    return Support(
        ids=hits.ids[:kept],
        similarities=hits.similarities[:kept],
        weights=weight[:kept],
        largest=largest,
        normaliser=total,
        method=method,
        size=size,
    )
