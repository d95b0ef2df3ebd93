"""``/v1/attributions``: asking, one image or many, and answers behind links."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from search.answer import Attribution
from search.service.answers import KeptAnswer, answer_id, document
from search.service.engine import Asked, Wanted
from search.service.files import File
from search.service.json_text import written
from search.service.problems import Problem, as_problem
from search.service.schemas import AnswerModel, body_of, problems
from search.service.security import check_read
from search.service.state import State, cached
from search.service.uploads import Body, Upload, read_batch, read_query

__all__ = ["answer_routes"]

_NDJSON = "application/x-ndjson"
_log = logging.getLogger("attrib.service")


def answer_routes(state: State) -> APIRouter:
    """The routes of answers."""
    router = APIRouter(tags=["attributions"])
    settings = state.settings

    @router.post(
        "/v1/attributions",
        summary="Attribute one generated image",
        response_model=AnswerModel,
        responses=problems(400, 401, 413, 415, 422, 429, 503),
        openapi_extra=body_of("one"),
    )
    async def attribute(request: Request) -> Response:
        check_read(request, settings.access)
        with state.admission:
            async with asyncio.timeout(settings.timeout_s):
                dim = state.engine.collection.index.dim  # not ready: told before it is read
                answer = await _answer(state, await read_query(request, settings, dim))
        return Response(answer.body, media_type="application/json")

    @router.post(
        "/v1/attributions:batch",
        summary="Attribute many generated images",
        description='One line of JSON an image, in order: an answer, or `{"error", "name"}`.',
        response_class=StreamingResponse,
        responses={
            200: {
                "description": "One line an image.",
                "content": {_NDJSON: {"schema": {"type": "string"}}},
            },
            **problems(400, 401, 413, 415, 422, 429, 503),
        },
        openapi_extra=body_of("batch"),
    )
    async def attribute_many(request: Request) -> Response:
        check_read(request, settings.access)
        with state.admission:
            _ = state.engine.collection
            async with asyncio.timeout(settings.timeout_s):
                wanted, uploads = await read_batch(request, settings)
        return StreamingResponse(_lines(state, wanted, uploads), media_type=_NDJSON)

    @router.get(
        "/v1/attributions/{id}",
        summary="An answer that was given, while it is kept",
        response_model=AnswerModel,
        responses=problems(401, 404),
    )
    async def kept(request: Request, id: str) -> Response:
        return Response(_kept(state, request, id).body, media_type="application/json")

    @router.get(
        "/v1/attributions/{id}/query",
        summary="The query image of an answer, small",
        response_class=Response,
        responses={
            200: {"description": "A picture.", "content": {"image/webp": {}}},
            304: {"description": "Not changed."},
            **problems(401, 404),
        },
    )
    async def query_image(request: Request, id: str) -> Response:
        picture = _kept(state, request, id).picture
        if picture is None:
            raise Problem(404, "no-image", "this answer was asked for with features")
        file = File(await state.engine.run(picture.webp), "image/webp")
        return cached(request, file, "private, max-age=3600, immutable")

    return router


def _kept(state: State, request: Request, identity: str) -> KeptAnswer:
    check_read(request, state.settings.access)
    answer = state.kept.get(identity)
    if answer is None:
        raise Problem(404, "no-such-answer", "this answer is not kept (any more): ask again")
    return answer


async def _answer(state: State, body: Body) -> KeptAnswer:
    """The answer to a query, kept behind its link."""
    engine = state.engine
    picture, name = None, "features"
    if body.features is not None:
        features, digest = body.features, hashlib.sha256(body.features.tobytes()).digest()
    else:
        if body.upload is not None:
            data, name = body.upload.data, body.upload.name
        else:
            data, name = await state.addresses.read(body.url), body.url
        image = await engine.read(data)
        picture, digest = image.picture, image.digest
        features = await engine.features(image)

    def write(found: Attribution) -> KeptAnswer:
        identity = answer_id(digest, body.wanted, found.fingerprint)
        return KeptAnswer(identity, written(document(found, identity, engine)), picture)

    answer = await engine.answer(Asked(features, name, body.wanted), write)
    state.kept.put(answer.id, answer, answer.size)
    return answer


async def _lines(
    state: State, wanted: Wanted, uploads: Sequence[Upload | Problem]
) -> AsyncIterator[bytes]:
    """The answers in order; as many images under way as the model takes at once."""
    waiting: deque[asyncio.Task[bytes]] = deque()
    left = deque(enumerate(uploads))
    try:
        with state.admission.counted():
            while left or waiting:
                while left and len(waiting) < 2 * state.settings.embed_batch:
                    place, upload = left.popleft()
                    waiting.append(asyncio.create_task(_line(state, wanted, upload, place)))
                yield await waiting[0]
                waiting.popleft()
    finally:
        for task in waiting:
            task.cancel()


async def _line(state: State, wanted: Wanted, upload: Upload | Problem, place: int) -> bytes:
    name = upload.name if isinstance(upload, Upload) else f"image {place}"
    try:
        if isinstance(upload, Problem):
            raise upload
        async with asyncio.timeout(state.settings.timeout_s):
            return (await _answer(state, Body(wanted, upload=upload))).body + b"\n"
    except Exception as exc:
        problem = as_problem(exc)
        if problem.status >= 500:
            _log.error("an image of a batch failed", exc_info=exc)
        line: dict[str, Any] = {"error": problem.to_dict("/v1/attributions:batch"), "name": name}
        return written(line) + b"\n"
