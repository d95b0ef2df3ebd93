"""``/v1/attributions``: asking, one image or many, and answers behind links."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from search.service.answers import KeptAnswer, answer_id, document, named
from search.service.asked import Asked, Found, Wanted
from search.service.examples import ANSWER
from search.service.files import File
from search.service.json_text import written
from search.service.paths import hide_places, sees_places
from search.service.problems import Problem, as_problem
from search.service.request_bodies import body_of
from search.service.schemas import AnswerModel, lines_of, problems
from search.service.security import check_read
from search.service.state import State, cached
from search.service.uploads import (
    Body,
    Upload,
    bytes_of_batch,
    bytes_of_query,
    read_batch,
    read_query,
)

__all__ = ["answer_routes"]

_NDJSON = "application/x-ndjson"
_log = logging.getLogger("attrib.service")


@dataclass(frozen=True)
class _Told:
    """An answer as whoever asked is told it, and as it is kept."""

    body: bytes
    kept: KeptAnswer


class _Lines(StreamingResponse):
    """Lines as they come; what they hold is let go of however the sending ends."""

    def __init__(self, lines: AsyncGenerator[bytes], held: ExitStack) -> None:
        super().__init__(lines, media_type=_NDJSON)
        self._lines = lines
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._held:
            async with aclosing(self._lines):
                await super().__call__(scope, receive, send)


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
        with state.admission.take(bytes_of_query(request, settings)) as ticket:
            async with asyncio.timeout(settings.timeout_s):
                dim = state.engine.collection.index.dim  # not ready: told before it is read
                body = await read_query(request, settings, dim)
                if body.url:
                    ticket.add(settings.limits.max_bytes)
                answer = await _answer(state, body, paths=sees_places(request, settings))
        return Response(answer, media_type="application/json")

    @router.post(
        "/v1/attributions:batch",
        summary="Attribute many generated images",
        description="One line of JSON an image, in order: an answer, or what is wrong with it.",
        response_class=StreamingResponse,
        responses={
            200: {
                "description": "One line an image.",
                "content": {_NDJSON: lines_of(ANSWER)},
            },
            **problems(400, 401, 413, 415, 422, 429, 503),
        },
        openapi_extra=body_of("batch"),
    )
    async def attribute_many(request: Request) -> Response:
        check_read(request, settings.access)
        with ExitStack() as held:
            held.enter_context(state.admission.take(bytes_of_batch(request, settings)))
            _ = state.engine.collection
            async with asyncio.timeout(settings.timeout_s):
                wanted, uploads = await read_batch(request, settings)
            lines = _lines(state, wanted, deque(enumerate(uploads)), sees_places(request, settings))
            return _Lines(lines, held.pop_all())

    @router.get(
        "/v1/attributions/{id}",
        summary="An answer that was given, while it is kept",
        description="Without the name of the image that it was asked with.",
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


async def _answer(state: State, body: Body, *, paths: bool) -> bytes:
    """The answer to a query, kept behind its link. `paths`: absolute ones are told, too."""
    engine = state.engine
    since = state.kept.generation
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

    def write(found: Found) -> _Told:
        identity = answer_id(digest, body.wanted, found.attribution.fingerprint)
        whole = document(found, identity, engine)
        mine = written(whole) if paths else b""
        hidden = not state.settings.show_paths and hide_places(whole)
        told = written(whole) if hidden or not mine else mine  # to whoever follows the link
        kept = KeptAnswer(identity, told, picture)
        return _Told(named(identity, name, mine or told), kept)

    answer = await engine.answer(Asked(features, name, body.wanted), write)
    kept = answer.kept
    # Not where an image was taken down since the search: the answer may show it.
    state.kept.put(kept.id, kept, kept.size, since=since)
    return answer.body


async def _lines(
    state: State,
    wanted: Wanted,
    left: deque[tuple[int, Upload | Problem]],
    paths: bool,
) -> AsyncGenerator[bytes]:
    """The answers in order; as many images under way as the model takes at once."""
    waiting: deque[asyncio.Task[bytes]] = deque()
    try:
        while left or waiting:
            while left and len(waiting) < 2 * state.settings.embed_batch:
                place, upload = left.popleft()
                task = asyncio.create_task(_line(state, wanted, upload, place, paths))
                waiting.append(task)
            yield await waiting[0]
            waiting.popleft()
    finally:
        for task in waiting:
            task.cancel()


async def _line(
    state: State, wanted: Wanted, upload: Upload | Problem, place: int, paths: bool
) -> bytes:
    name = upload.name if isinstance(upload, Upload) else f"image {place}"
    try:
        if isinstance(upload, Problem):
            raise upload
        async with asyncio.timeout(state.settings.timeout_s):
            return await _answer(state, Body(wanted, upload=upload), paths=paths) + b"\n"
    except Exception as exc:
        problem = as_problem(exc)
        if problem.status >= 500:
            _log.error("an image of a batch failed", exc_info=exc)
        line: dict[str, Any] = {"error": problem.to_dict("/v1/attributions:batch"), "name": name}
        return written(line) + b"\n"
