"""The paper's protocol: where the exemplars of each generated image stand among the distractors.

Wang, Efros, Zhu, Zhang, ICCV 2023, section on evaluation; the published form is `eval.py` of
PeterWang512/GenDataAttribution. The gallery of a query is every distractor and the exemplars of
the query's own model, never those of another model. Recall@k is the share of the exemplars among
the first k; average precision is taken over the full ranking.

A rank is one more than what stands before it, so it is counted and nothing is sorted: similarities
come in blocks of float32 matrix products and each block is compared with the exemplars' own. A
distractor so near that float32 cannot tell is compared again in float64, so that the ranks are
those of float64 arithmetic, and a copy of an exemplar ties with it exactly.

Ties are pessimistic: a distractor as similar as an exemplar stands before it. Otherwise a model
that gives everything one feature would have full recall. (The published sort puts the distractors
first in the gallery and, on CPUs, keeps that order among equals: the same.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from evaluation.features import CaseFeatures
from ingest.errors import ModelError, SourceError, UsageError, WeightsError

__all__ = [
    "RECALL_AT",
    "UNRANKED",
    "ArrayBlocks",
    "Blocks",
    "Ranks",
    "average_precision",
    "dots",
    "ranks",
    "recall_at",
]

RECALL_AT = (5, 10, 100)
"""The k of the paper's tables."""

UNRANKED: int = np.iinfo(np.int64).max
"""The rank of an exemplar of which is only known that a search did not reach it."""

_ROWS = 16_384  # distractors a block: per-row calls cost little beside the work on 64 KiB
_QUERIES = 256  # with _ROWS: 16 MiB of similarities, which stay in the cache
_COMPARED = 10  # exemplars of a query above which sorting a block's similarities is faster
_FEW = 8  # what reaches a query's lowest exemplar is picked out where it is < 1 / _FEW of a block
_RESOLVED = 2_048  # pairs compared in float64 at a time
_ROUNDING = 2.0**-24


class Blocks(Protocol):
    """Distractors: features that can be gone through again and again, a block at a time."""

    def __len__(self) -> int:
        """How many distractors there are."""
        ...

    @property
    def dim(self) -> int:
        """Length of a feature."""
        ...

    def blocks(self, rows: int) -> Iterator[NDArray[np.float32]]:
        """All of them in order, float32 (at most `rows`, dim)."""
        ...


@dataclass(frozen=True, eq=False)
class ArrayBlocks:
    """Distractors that lie in memory, or in a memory map: (distractors, dim) of any float type."""

    features: NDArray[np.floating]

    def __len__(self) -> int:
        return len(self.features)

    @property
    def dim(self) -> int:
        """Length of a feature."""
        return int(self.features.shape[1])

    def blocks(self, rows: int) -> Iterator[NDArray[np.float32]]:
        """All of them in order, float32 (at most `rows`, dim)."""
        for start in range(0, len(self.features), rows):
            yield np.asarray(self.features[start : start + rows], dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Ranks:
    """Where the exemplars of each query stand in its gallery.

    Attributes:
        flat: int64 (exemplars of all queries,), from 1 on; ascending within a query.
        offsets: int64 (queries + 1,); query q has flat[offsets[q]] .. flat[offsets[q + 1]].
        distractors: how many were ranked with them.
    """

    flat: NDArray[np.int64]
    offsets: NDArray[np.int64]
    distractors: int

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def of(self, query: int) -> NDArray[np.int64]:
        """(exemplars of that query,) ranks, ascending."""
        return self.flat[self.offsets[query] : self.offsets[query + 1]]

    @property
    def positives(self) -> NDArray[np.int64]:
        """(queries,) how many exemplars each has."""
        counts: NDArray[np.int64] = np.diff(self.offsets)
        return counts


def average_precision(found: Ranks) -> NDArray[np.float64]:
    """(queries,) mean over the exemplars of i / rank, the i-th one in order of rank.

    An exemplar that is `UNRANKED` adds nothing.
    """
    place = np.arange(len(found.flat)) - np.repeat(found.offsets[:-1], found.positives) + 1
    precision = np.where(found.flat == UNRANKED, 0.0, place / found.flat)
    return _sums(precision, found) / found.positives


def recall_at(found: Ranks, k: int) -> NDArray[np.float64]:
    """(queries,) share of a query's exemplars among the first k of its gallery."""
    if k < 1:
        raise UsageError(f"recall is taken among the first 1 or more, not {k}")
    return _sums((found.flat <= k).astype(np.float64), found) / found.positives


def ranks(
    case: CaseFeatures,
    gallery: Blocks,
    *,
    rows: int = _ROWS,
    progress: Callable[[int, int], None] | None = None,
) -> Ranks:
    """Rank the exemplars of every query among all distractors and themselves.

    Args:
        case: final features, L2-normalised: similarity is their inner product.
        gallery: the distractors, mapped and normalised as the exemplars are.
        rows: distractors a block; memory is that many features and 256 similarities each.
        progress: called after each block with the distractors done and the distractors in all.

    Raises:
        ModelError: distractors of another dim than the case.
        SourceError: a gallery that yields other than its length.
        WeightsError: distractors with numbers that are not finite.
    """
    if gallery.dim != case.dim:
        raise ModelError(
            f"{case.name}: features of {case.dim} numbers, but the distractors have {gallery.dim}"
        )
    offsets = np.concatenate([[0], np.cumsum(case.positives)]).astype(np.int64)
    wanted = _similarities(case, offsets)
    before = np.zeros(len(wanted), dtype=np.int64)
    lengths = np.sqrt(dots(case.synth, case.synth))
    done = 0
    for block in gallery.blocks(rows):
        longest = float(np.sqrt(np.einsum("ij,ij->i", block, block).max(initial=0.0)))
        if not np.isfinite(longest):
            raise WeightsError(
                f"among distractors {done} to {done + len(block)} are features that are not finite"
            )
        # A float32 inner product errs by a random walk of `dim` roundings, each at most
        # 2^-24 of the product of lengths (Higham and Mary, SIAM J. Sci. Comput. 41, 2019). Twice
        # the most that was seen for dims of 64 to 2,816, features all alike included.
        doubt = (np.sqrt(case.dim) + 8) * _ROUNDING * longest * lengths
        for start in range(0, len(case.synth), _QUERIES):
            queries = slice(start, min(start + _QUERIES, len(case.synth)))
            _count(case.synth[queries], block, doubt[queries], offsets[start:], wanted, before)
        done += len(block)
        if progress is not None:
            progress(done, len(gallery))
    if done != len(gallery):
        raise SourceError(f"of {len(gallery)} distractors the gallery gave {done}; build it again")
    place = np.arange(len(wanted)) - np.repeat(offsets[:-1], case.positives) + 1
    return Ranks(before + place, offsets, done)


def dots(one: NDArray[np.floating], other: NDArray[np.floating]) -> NDArray[np.float64]:
    """(pairs,) inner products of rows (pairs, dim), in float64.

    A function of the two rows alone: unlike in a matrix product, equal rows give equal bits
    wherever they stand.
    """
    products: NDArray[np.float64] = np.multiply(one, other, dtype=np.float64)
    sums: NDArray[np.float64] = products.sum(axis=1)
    return sums


def _sums(values: NDArray[np.float64], found: Ranks) -> NDArray[np.float64]:
    if not len(found):
        return np.empty(0)
    sums: NDArray[np.float64] = np.add.reduceat(values, found.offsets[:-1])
    return sums


def _similarities(case: CaseFeatures, offsets: NDArray[np.int64]) -> NDArray[np.float64]:
    """Of each query with its exemplars, flat by `offsets`, descending within a query."""
    wanted = np.empty(int(offsets[-1]))
    for query, model in enumerate(case.synth_model):
        exemplars = case.exemplars_of(int(model))
        own = dots(np.broadcast_to(case.synth[query], exemplars.shape), exemplars)
        wanted[offsets[query] : offsets[query + 1]] = -np.sort(-own)
    return wanted


def _count(
    queries: NDArray[np.float32],
    block: NDArray[np.float32],
    doubt: NDArray[np.float64],
    offsets: NDArray[np.int64],
    wanted: NDArray[np.float64],
    before: NDArray[np.int64],
) -> None:
    """Add to `before` how many of the block stand before each exemplar of some queries.

    `queries`: (queries, dim); `doubt`: (queries,) how far a float32 similarity may be off;
    `offsets`: of these queries into `wanted` and `before`.
    """
    scores = queries @ block.T  # (queries, block)
    best = scores.max(axis=1)
    lowest = wanted[offsets[1 : len(queries) + 1] - 1]
    close_query, close_wanted, close_row = [], [], []
    for query in np.flatnonzero(best >= (lowest - doubt).astype(np.float32)):
        part = slice(int(offsets[query]), int(offsets[query + 1]))
        low = (wanted[part] - doubt[query]).astype(np.float32)
        high = (wanted[part] + doubt[query]).astype(np.float32)
        rows, candidates = _candidates(scores[query], low[-1])
        surely, perhaps = _above(candidates, best[query], low, high)
        before[part] += surely
        for exemplar in np.flatnonzero(perhaps > surely):
            near = (candidates >= low[exemplar]) & (candidates < high[exemplar])
            close_row.append(near.nonzero()[0] if rows is None else rows[near])
            close_query.append(query)
            close_wanted.append(part.start + exemplar)
    if not close_row:
        return
    counts = [len(row) for row in close_row]
    query_of, wanted_of = np.repeat(close_query, counts), np.repeat(close_wanted, counts)
    row_of = np.concatenate(close_row)
    for start in range(0, len(row_of), _RESOLVED):
        some = slice(start, start + _RESOLVED)
        similarity = dots(queries[query_of[some]], block[row_of[some]])
        stands_before = similarity >= wanted[wanted_of[some]]
        np.add.at(before, wanted_of[some][stands_before], 1)


def _candidates(
    scores: NDArray[np.float32], low: np.float32
) -> tuple[NDArray[np.int64] | None, NDArray[np.float32]]:
    """Rows and values of the scores (block,) that are at least `low`, if few; else None and all."""
    reached = scores >= low
    if np.count_nonzero(reached) * _FEW >= len(scores):
        return None, scores
    rows = reached.nonzero()[0]
    return rows, scores[rows]


def _above(
    scores: NDArray[np.float32],
    best: np.float32,
    low: NDArray[np.float32],
    high: NDArray[np.float32],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(exemplars,) how many scores are at least `high`, and how many at least `low`.

    Both are descending. Few exemplars are compared one by one, many with the sorted scores.
    """
    if len(low) > _COMPARED:
        ordered = np.sort(scores)
        return (
            len(ordered) - np.searchsorted(ordered, high),
            len(ordered) - np.searchsorted(ordered, low),
        )
    surely, perhaps = np.zeros(len(low), np.int64), np.zeros(len(low), np.int64)
    for exemplar in range(len(low)):
        if best >= low[exemplar]:
            perhaps[exemplar] = np.count_nonzero(scores >= low[exemplar])
        if best >= high[exemplar]:
            surely[exemplar] = np.count_nonzero(scores >= high[exemplar])
    return surely, perhaps
