"""The HTTP application: what is asked where."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import chain
from typing import Any

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import DEFAULT_EXCLUDED_CONTENT_TYPES, GZipMiddleware

from ingest.errors import AttribError
from search.service.addresses import Addresses
from search.service.engine import Engine
from search.service.examples import OF_ROUTES
from search.service.files import example_images, page_files
from search.service.frame import Frame
from search.service.metrics import Metrics
from search.service.problems import handle_errors
from search.service.routes_answers import answer_routes
from search.service.routes_images import image_routes
from search.service.routes_near_equal import near_equal_routes
from search.service.routes_page import page_routes
from search.service.schemas import further_schemas
from search.service.settings import ServiceSettings
from search.service.state import State

__all__ = ["make_app"]

_ABOUT = (
    "Finds the training images that most influenced a generated image, and says how much of the "
    "influence each one carries: a similarity-based estimate, calibrated, not a causal proof."
)
_log = logging.getLogger("attrib.service")
_WATCH_S = 2
_ZIP_LEVEL = 1
"""An answer of 50 rows is 24 kB: 0.2 ms at level 1, and higher levels save little more."""
_AS_IT_IS = ("application/x-ndjson", "application/octet-stream", "text/*", "image/*")
"""Lines of a batch must leave when they are ready, which a compressor would hold back; the page is
compressed already, where it is to be."""


def make_app(engine: Engine, settings: ServiceSettings, metrics: Metrics) -> FastAPI:
    """The application over an engine, which is loaded, and closed, by the caller.

    Raises:
        UsageError: an examples folder that is not there.
    """
    state = State(engine, settings, metrics, page_files(), example_images(settings.examples))

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        state.addresses = Addresses(settings.limits, allow_private=settings.allow_private_urls)
        watching = asyncio.create_task(_watch(state))
        try:
            yield
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
            await state.addresses.close()

    origins = settings.access.origins
    cors = [
        Middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "X-API-Key", "Content-Type", "X-Request-ID"],
            expose_headers=["X-Request-ID", "Retry-After"],
        )
    ]
    zipped = Middleware(
        GZipMiddleware,
        minimum_size=1024,
        compresslevel=_ZIP_LEVEL,
        exclude_content_types=(*DEFAULT_EXCLUDED_CONTENT_TYPES, *_AS_IT_IS),
    )
    app = FastAPI(
        title="attrib",
        summary="Attribution of generated images to training images.",
        description=_ABOUT,
        version="1",
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=running,
        middleware=[
            Middleware(Frame, metrics=metrics, host_names=settings.host_names),
            *(cors if origins else []),
            zipped,
        ],
    )
    handle_errors(app)
    for routes in (answer_routes, near_equal_routes, image_routes, page_routes):
        app.include_router(routes(state))
    _complete(app, is_open=not settings.access.read_keys)
    return app


async def _watch(state: State) -> None:
    """Forget answers that may show what another process took down from a shared folder."""
    while True:
        await asyncio.sleep(_WATCH_S)
        try:
            if await state.engine.run(state.engine.notice):
                state.forget()
        except AttribError as exc:
            _log.warning("cannot see what is written to the data folder", exc_info=exc)


def _complete(app: FastAPI, *, is_open: bool) -> None:
    """Put into the OpenAPI document what FastAPI does not know: problems and keys."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        document = made()
        components = document.setdefault("components", {})
        for name, schema in further_schemas().items():
            components.setdefault("schemas", {}).setdefault(name, schema)
        components["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        for operation in chain.from_iterable(map(dict.values, document["paths"].values())):
            # FastAPI's own, for every path with a part that varies: ours are problems.
            if "HTTPValidationError" in str(operation["responses"].get("422")):
                del operation["responses"]["422"]
        for name in ("HTTPValidationError", "ValidationError"):
            components["schemas"].pop(name, None)
        keys: list[dict[str, list[str]]] = [{"bearer": []}, {"header": []}]
        document["security"] = [{}, *keys] if is_open else keys
        paths = document["paths"]
        for (path, method), example in OF_ROUTES.items():  # here: FastAPI leaves out what is null
            answer = paths[path][method]["responses"]["200"]
            answer["content"]["application/json"]["example"] = example
        for path in ("/healthz", "/readyz"):
            paths[path]["get"]["security"] = [{}]
        paths["/v1/images"]["delete"]["security"] = keys
        return document

    app.openapi = openapi  # type: ignore[method-assign]
