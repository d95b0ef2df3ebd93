"""``/v1/images``: training images, their thumbnails, and takedowns."""

from __future__ import annotations

import json
import logging
from uuid import UUID

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from search.service.files import File
from search.service.paths import is_place, sees_places
from search.service.problems import Problem
from search.service.request_bodies import body_of
from search.service.schemas import DeletedModel, TrainingImageModel, problems
from search.service.security import check_read, check_write
from search.service.state import State, cached
from search.service.takedown import Takedown, read_takedown
from search.service.uploads import read_json

__all__ = ["image_routes"]

_log = logging.getLogger("attrib.service")

_KINDS = ((b"\xff\xd8", "image/jpeg"), (b"\x89PNG", "image/png"), (b"RIFF", "image/webp"))
_PICTURES: dict[str, object] = {"image/jpeg": {}, "image/png": {}, "image/webp": {}}


def image_routes(state: State) -> APIRouter:
    """The routes of training images."""
    router = APIRouter(tags=["training images"])
    engine, access = state.engine, state.settings.access

    @router.get(
        "/v1/images/{id}",
        summary="What is known of a training image",
        response_model=TrainingImageModel,
        responses=problems(401, 404, 422, 503),
    )
    async def image(request: Request, id: UUID) -> Response:
        check_read(request, access)
        payload = await engine.run(engine.payload, id)
        if payload is None:
            raise _none()
        if is_place(str(payload.get("path", ""))) and not sees_places(request, state.settings):
            payload = {**payload, "path": ""}
        body = json.dumps({"id": str(id), **payload}, default=str)
        return Response(body, media_type="application/json")

    @router.get(
        "/v1/images/{id}/thumbnail",
        summary="A small picture of a training image",
        response_class=Response,
        responses={
            200: {"description": "A picture.", "content": _PICTURES},
            304: {"description": "Not changed."},
            **problems(401, 404, 422, 503),
        },
    )
    async def thumbnail(request: Request, id: UUID) -> Response:
        check_read(request, access)
        data = await engine.run(engine.thumbnail, id)
        if data is None:
            raise _none()
        kind = next((kind for start, kind in _KINDS if data.startswith(start)), None)
        file = File(data, kind or "application/octet-stream")
        return cached(request, file, "private, max-age=3600, immutable")

    @router.delete(
        "/v1/images",
        summary="Take training images down for good",
        description="Needs a write key. Images that have one of the keys, or fit the filter.",
        response_model=DeletedModel,
        responses=problems(400, 401, 403, 413, 415, 422, 503),
        openapi_extra=body_of("delete"),
    )
    async def delete(request: Request) -> Response:
        check_write(request, access)
        _ = engine.collection
        wanted = read_takedown(await read_json(request))
        matching = await engine.run(engine.matching, wanted.keys, wanted.where)
        deleted = 0
        if not wanted.dry_run and matching:
            deleted = await engine.run(take_down, wanted)
            _log.info("takedown", extra={"fields": {"deleted": deleted}})
        return JSONResponse({"matching": matching, "deleted": deleted})

    def take_down(wanted: Takedown) -> int:
        try:
            return engine.delete(wanted.keys, wanted.where)
        finally:
            state.forget()  # here: also where whoever asked is gone by now

    return router


def _none() -> Problem:
    return Problem(404, "no-such-image", "there is no such training image, or nothing to show")
