"""``/v1/attributions/{id}/near-equal``: which images of an answer are the same picture.

Asked for by itself, so that no answer waits for thumbnails to be read.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

from ingest.errors import ImageError
from search.service.near_equal import Print, folds, print_of
from search.service.problems import Problem
from search.service.schemas import problems
from search.service.security import check_read
from search.service.state import State

__all__ = ["near_equal_routes"]

_PRINT_BYTES = 1200


class NearEqualModel(BaseModel):
    """Which rows of an answer are near-equal."""

    folds: list[list[int]] = Field(
        description="Ranks of near-equal rows, ascending; every one near-equal to the first."
    )
    compared: int = Field(description="Rows that have a thumbnail to compare.")


def near_equal_routes(state: State) -> APIRouter:
    """The route of near-equal images."""
    router = APIRouter(tags=["attributions"])
    engine = state.engine
    known = state.prints

    @router.get(
        "/v1/attributions/{id}/near-equal",
        summary="Which rows of an answer are the same picture, saved another way",
        response_model=NearEqualModel,
        responses=problems(401, 404, 429, 503),
    )
    async def near_equal(request: Request, id: str) -> Response:
        check_read(request, state.settings.access)
        answer = state.kept.get(id)
        if answer is None:
            raise Problem(404, "no-such-answer", "this answer is not kept (any more): ask again")
        with state.admission.take(0):
            return JSONResponse(await engine.run(compared, answer.body))

    def compared(body: bytes) -> dict[str, Any]:
        rows: Sequence[dict[str, Any]] = json.loads(body)["rows"]
        prints = [print_for(row) for row in rows]
        return {
            "folds": [[rows[place]["rank"] for place in places] for places in folds(prints)],
            "compared": sum(each is not None for each in prints),
        }

    def print_for(row: dict[str, Any]) -> Print | None:
        if row["thumbnail"] is None:
            return None
        name = row["sha256"] or row["owners"][0]["id"]
        if (found := known.get(name)) is not None:
            return found
        since = known.generation
        thumbnail = engine.thumbnail(UUID(row["owners"][0]["id"]))
        if thumbnail is not None:
            with suppress(ImageError):
                made = print_of(thumbnail)
                known.put(name, made, _PRINT_BYTES, since=since)
                return made
        return None

    return router
