"""Nearest points on a server: how each search is asked, so that limits and ties keep their word."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from qdrant_client import QdrantClient, models

from search.chosen import EVERYTHING, Chosen
from search.edge_tuning import NEIGHBOURS, tune
from search.index import Features, Hits
from search.server_calls import ServerCalls
from search.server_collection import ServerFacts, is_local
from search.server_requests import condition, search_params

__all__ = ["ServerSearch"]

_QUERIES = 64  # of one request
_HITS = 1_000_000  # of one request, over its queries
# The same as the embedded index needs, see search/edge_shard.py.
_CANDIDATES_PER_HIT = 4
_FIRST_HITS = 32
_EXACT_SHARE = 0.01
_TIE_POINTS = 4096


class ServerSearch:
    """Searches one collection.

    Attributes:
        ef: candidates while the graph is searched, at least.
    """

    def __init__(self, client: QdrantClient, calls: ServerCalls, facts: ServerFacts) -> None:
        self.ef = max(facts.ef, facts.settings.ef)
        self._client = client
        self._calls = calls
        self._facts = facts
        self._local = is_local(client)

    def search(
        self,
        rows: Features,
        limit: int,
        chosen: Chosen,
        population: int,
        exact: bool,
    ) -> list[Hits]:
        """One `Hits` a row of (queries, dim); `limit` is at most `population`.

        Raises:
            IndexRefusedError: strict mode forbids it.
            IndexFailedError: the server fails.
        """
        if chosen.is_nothing:
            return [Hits([], np.empty(0, np.float32)) for _ in rows]
        exact = exact or self._loses_nothing(limit, chosen, population)
        out = []
        # One more than asked for shows whether the limit cuts through equal similarities.
        asked = limit if limit == self._facts.strict.query_limit else limit + 1
        for row, points in zip(
            rows, self._nearest(rows, asked, chosen, exact, self.ef), strict=True
        ):
            points = self._follow_tie(row, points, limit, chosen, exact)
            best = sorted([(-point.score, UUID(str(point.id)).bytes) for point in points])[:limit]
            similarities = -np.array([negative for negative, _ in best], dtype=np.float32)
            out.append(Hits([UUID(bytes=packed) for _, packed in best], similarities))
        return out

    def needed_ef(self, rows: Features, points: int) -> int:
        """How wide the graph must be searched to find the neighbours of stored points (n, dim).

        Raises:
            IndexRefusedError: strict mode forbids exact searches.
        """

        def found(exact: bool, ef: int) -> list[set[bytes]]:
            answers = self._nearest(rows, NEIGHBOURS, EVERYTHING, exact, ef, widen=False)
            return [{UUID(str(point.id)).bytes for point in points} for points in answers]

        truth = found(True, 0)
        return tune(self._facts.settings.ef, points, truth, lambda ef: found(False, ef)).ef

    def _loses_nothing(self, limit: int, chosen: Chosen, population: int) -> bool:
        """Whether comparing all is to be preferred: the graph would lose some or be no faster."""
        if not self._facts.strict.allow_exact:
            return False
        matching = population
        if chosen:
            about = self._calls(
                "count points",
                self._client.count,
                self._facts.name,
                count_filter=condition(chosen),
                exact=False,
            ).count
            if about <= self._facts.settings.scan_below:
                return True
            matching = int(about)
        return matching <= self._facts.settings.index_above or limit >= _EXACT_SHARE * matching

    def _nearest(
        self,
        rows: NDArray[np.float32],
        limit: int,
        chosen: Chosen,
        exact: bool,
        ef: int,
        widen: bool = True,
    ) -> Iterator[list[models.ScoredPoint]]:
        strict = self._facts.strict
        if widen:
            ef = max(ef, _CANDIDATES_PER_HIT * (limit - _FIRST_HITS))
        if strict.ef is not None:
            ef = min(ef, strict.ef)
        params = None  # of which the local stand-in has no use: it compares every point
        if not self._local:
            params = search_params(self._facts.settings, ef, exact, bool(chosen))
            if params.quantization and strict.oversampling is not None:
                params.quantization.oversampling = min(
                    params.quantization.oversampling, strict.oversampling
                )
        most = max(1, min(_QUERIES, strict.search_queries or _QUERIES, _HITS // limit))
        for start in range(0, len(rows), most):
            answers = self._calls(
                "search",
                self._client.query_batch_points,
                self._facts.name,
                requests=[
                    models.QueryRequest(
                        query=row.tolist(),
                        limit=limit,
                        filter=condition(chosen),
                        params=params,
                        with_payload=False,
                        with_vector=False,
                    )
                    for row in rows[start : start + most]
                ],
            )
            for answer in answers:
                yield answer.points

    def _follow_tie(
        self,
        row: NDArray[np.float32],
        points: list[models.ScoredPoint],
        limit: int,
        chosen: Chosen,
        exact: bool,
    ) -> list[models.ScoredPoint]:
        """More hits, until those equal to the last one asked for are all there (or very many)."""
        most = min(limit + _TIE_POINTS, self._facts.strict.query_limit or limit + _TIE_POINTS)
        asked = limit + 1
        while len(points) == asked and points[-1].score == points[limit - 1].score and asked < most:
            asked = min(limit + 4 * (asked - limit), most)
            [points] = self._nearest(row[None], asked, chosen, exact, self.ef)
        return points
