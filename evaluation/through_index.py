"""The protocol through an index: what of the exact result an approximate search keeps.

The index holds the distractors. A query's first `limit` hits stand for its gallery, and its
exemplars are ranked among them. So an exemplar is where it would be in an index that held it too
and found it; what is lost is what the search does to the distractors, and what lies beyond `limit`.
Missing distractors can only move exemplars forward: recall through a bad index looks better, not
worse, which is why the index's own recall is reported beside it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from evaluation.bootstrap import Interval, mean_intervals
from evaluation.features import CaseFeatures
from evaluation.protocol import (
    RECALL_AT,
    UNRANKED,
    Blocks,
    Ranks,
    average_precision,
    dots,
    recall_at,
)
from ingest.errors import UsageError

if TYPE_CHECKING:
    from search.edge import EdgeIndex
    from search.edge_settings import EdgeSettings
    from search.index import Hits, Index

__all__ = ["ThroughIndex", "build_index", "through_index"]

_BATCH = 64  # queries a search
_ROWS = 4_096  # distractors an upsert
_CLOSE = 1e-5  # above what two float32 inner products of unit features can differ by


@dataclass(frozen=True, eq=False)
class ThroughIndex:
    """A test case scored through an index, and what the index lost of it.

    Attributes:
        model: int64 (queries,) as in the test case.
        ranks: of the exemplars among the hits; `UNRANKED` where every hit stands before one.
        limit: hits asked for.
        index_recall: float64 (queries,) share of the exact first `limit` that were found; a hit as
            similar as the last of those is a right one.
        exact: the ranks by the whole gallery.
    """

    model: NDArray[np.int64]
    ranks: Ranks
    limit: int
    index_recall: NDArray[np.float64]
    exact: Ranks

    def to_dict(self) -> dict[str, Any]:
        """Metrics through the index, exactly, and their difference, with intervals over models.

        Recall@k for the k up to `limit`. `average_precision` counts an exemplar out of reach as
        nothing; `average_precision_within` is the exact one under the same rule, so that their
        difference is the index's error alone.
        """
        ks = [k for k in RECALL_AT if k <= self.limit]
        within = Ranks(
            # Out of reach is what has `limit` distractors before it, however many exemplars.
            np.where(self._before(self.exact) < self.limit, self.exact.flat, UNRANKED),
            self.exact.offsets,
            self.exact.distractors,
        )
        names = [*(f"recall_at_{k}" for k in ks), "average_precision"]
        found = np.stack(
            [*(recall_at(self.ranks, k) for k in ks), average_precision(self.ranks)], axis=1
        )
        true = np.stack(
            [*(recall_at(self.exact, k) for k in ks), average_precision(within)], axis=1
        )
        return {
            "limit": self.limit,
            "distractors": self.exact.distractors,
            "index_recall": self.recall.to_dict(),
            "through_index": _named(names, mean_intervals(found, self.model)),
            "exact": {
                **_named([*names[:-1], f"{names[-1]}_within"], mean_intervals(true, self.model)),
                **_named(
                    ["average_precision"],
                    mean_intervals(average_precision(self.exact)[:, None], self.model),
                ),
            },
            "index_error": _named(names, mean_intervals(found - true, self.model)),
        }

    @property
    def recall(self) -> Interval:
        """Mean of `index_recall`, with its interval over models."""
        return mean_intervals(self.index_recall[:, None], self.model)[0]

    @staticmethod
    def _before(ranks: Ranks) -> NDArray[np.int64]:
        """(exemplars,) distractors before each."""
        place = np.arange(len(ranks.flat)) - np.repeat(ranks.offsets[:-1], ranks.positives) + 1
        return ranks.flat - place


def through_index(
    case: CaseFeatures,
    index: Index,
    exact: Ranks,
    *,
    limit: int = 1_000,
    progress: Callable[[int, int], None] | None = None,
) -> ThroughIndex:
    """Score a test case through an index of its distractors.

    Args:
        case: final features.
        index: holds the distractors' features and nothing else.
        exact: of the same case, from `evaluation.protocol.ranks`.
        limit: hits of a query.
        progress: called with the queries done and in all.

    Raises:
        UsageError: `limit` below 1, an index of other features, or of another number of them than
            were ranked exactly.
        IndexFailedError: the engine fails.
    """
    if limit < 1:
        raise UsageError(f"limit must be 1 or more, not {limit}")
    if index.dim != case.dim:
        raise UsageError(f"{case.name}: features of {case.dim} numbers, the index has {index.dim}")
    points = index.count()
    if points != exact.distractors or len(exact) != len(case.synth):
        raise UsageError(
            f"{case.name}: the index has {points} points for {len(case.synth)} queries, ranked "
            f"exactly were {exact.distractors} for {len(exact)}; both must be of the same "
            "distractors and queries"
        )
    ranks = np.empty(int(exact.offsets[-1]), dtype=np.int64)
    recall = np.ones(len(exact))
    for start in range(0, len(exact), _BATCH):
        queries = case.synth[start : start + _BATCH]
        found = index.search(queries, limit)
        truth = index.search(queries, limit, exact=True)
        for query, hits, all_hits in zip(
            range(start, start + len(queries)), found, truth, strict=True
        ):
            part = slice(int(exact.offsets[query]), int(exact.offsets[query + 1]))
            ranks[part] = _among(case, query, index, hits, points)
            recall[query] = _recall(hits, all_hits)
        if progress is not None:
            progress(start + len(queries), len(exact))
    return ThroughIndex(case.synth_model, Ranks(ranks, exact.offsets, points), limit, recall, exact)


def build_index(
    gallery: Blocks,
    folder: str | os.PathLike[str],
    settings: EdgeSettings | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> EdgeIndex:
    """An index of the distractors in a new folder, built and open; the caller closes it.

    Args:
        gallery: L2-normalised; point i gets the id `UUID(int=i)`.
        folder: must not exist, or be empty.
        settings: of the index.
        progress: called with the distractors done and in all.

    Raises:
        DataFolderError: the folder cannot be made.
        UsageError: features that are not normalised.
    """
    from search.edge import EdgeIndex

    index = EdgeIndex.create(folder, gallery.dim, settings)
    try:
        done = 0
        for block in gallery.blocks(_ROWS):
            ids = [UUID(int=done + row) for row in range(len(block))]
            index.upsert(ids, block, [{"key": str(done + row)} for row in range(len(block))])
            done += len(block)
            if progress is not None:
                progress(done, len(gallery))
        index.flush()
        index.build()
    except BaseException:
        index.close()
        raise
    return index


def _among(
    case: CaseFeatures, query: int, index: Index, hits: Hits, points: int
) -> NDArray[np.int64]:
    """(exemplars of the query,) ranks among the hits, ascending; ties pessimistic."""
    exemplars = case.exemplars_of(int(case.synth_model[query]))
    own = dots(np.broadcast_to(case.synth[query], exemplars.shape), exemplars)
    wanted = -np.sort(-own)
    similarity = hits.similarities.astype(np.float64)
    # The engine sums in another order: what is too close to tell is summed again, as in `ranks`.
    near = np.abs(similarity[:, None] - wanted[None, :]).min(axis=1, initial=np.inf) < _CLOSE
    if near.any():
        rows = index.vectors([hits.ids[row] for row in near.nonzero()[0]])
        similarity[near] = dots(np.broadcast_to(case.synth[query], rows.shape), rows)
    before = (similarity[None, :] >= wanted[:, None]).sum(axis=1)
    reached = (before < len(similarity)) | (len(similarity) == points)
    ranks: NDArray[np.int64] = np.where(reached, before + np.arange(len(wanted)) + 1, UNRANKED)
    return ranks


def _recall(hits: Hits, all_hits: Hits) -> float:
    wanted = len(all_hits.similarities)
    if not wanted:
        return 1.0
    right = int(np.count_nonzero(hits.similarities >= all_hits.similarities[-1] - _CLOSE / 10))
    return min(right, wanted) / wanted


def _named(names: list[str], intervals: list[Interval]) -> dict[str, dict[str, Any]]:
    return {name: one.to_dict() for name, one in zip(names, intervals, strict=True)}
