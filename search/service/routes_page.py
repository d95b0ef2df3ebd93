"""The page, its examples, what is served, and what operators ask."""

from __future__ import annotations

import gzip

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import JSONResponse, PlainTextResponse, Response

from search.index import INDEXED_FIELDS
from search.service.answers import versions
from search.service.files import File
from search.service.problems import Problem
from search.service.schemas import ExampleModel, InfoModel, StatusModel, problems
from search.service.security import check_read
from search.service.state import State, cached

__all__ = ["page_routes"]

_REVALIDATE = "no-cache"


def page_routes(state: State) -> APIRouter:
    """All other routes."""
    router = APIRouter()
    engine, settings = state.engine, state.settings
    # Once, at the start, as small as it gets; each with an ETag of its own, by its bytes.
    zipped = {
        name: File(gzip.compress(file.data, 9, mtime=0), file.media_type)
        for name, file in state.page.items()
    }

    @router.get("/", include_in_schema=False)
    async def page(request: Request) -> Response:
        return asset(request, "index.html")

    @router.get("/assets/{name}", include_in_schema=False)
    async def asset_named(request: Request, name: str) -> Response:
        return asset(request, name)

    def asset(request: Request, name: str) -> Response:
        file = state.page.get(name)
        if file is None:
            raise Problem(404, "not-found", "there is nothing here")
        coding = {}
        if _takes_gzip(request) and len(zipped[name].data) < len(file.data):
            file, coding = zipped[name], {"Content-Encoding": "gzip"}
        response = cached(request, file, _REVALIDATE)
        response.headers["Vary"] = "Accept-Encoding"
        response.headers.update(coding)
        return response

    @router.get(
        "/v1/info",
        tags=["service"],
        summary="What is served: model, calibrator, collection, index and limits",
        response_model=InfoModel,
        responses=problems(401, 503),
    )
    async def info(request: Request) -> Response:
        check_read(request, settings.access)
        facts = await engine.run(engine.facts)
        limits = {
            "max_bytes": settings.limits.max_bytes,
            "max_pixels": settings.limits.max_pixels,
            "max_images": settings.max_images,
            "max_batch_bytes": settings.max_batch_bytes,
            "max_k": settings.max_k,
        }
        more = {"filters": list(INDEXED_FIELDS), "limits": limits, "versions": dict(versions())}
        return JSONResponse({**facts, **more})

    @router.get(
        "/v1/examples",
        tags=["service"],
        summary="Generated images to try",
        response_model=list[ExampleModel],
        responses=problems(401),
    )
    async def examples(request: Request) -> Response:
        check_read(request, settings.access)
        return JSONResponse(
            [{"name": name, "url": f"/v1/examples/{name}"} for name in state.examples]
        )

    @router.get(
        "/v1/examples/{name}",
        tags=["service"],
        summary="One of them",
        response_class=Response,
        responses={
            200: {"description": "A picture.", "content": {"image/*": {}}},
            304: {"description": "Not changed."},
            **problems(401, 404),
        },
    )
    async def example(request: Request, name: str) -> Response:
        check_read(request, settings.access)
        file = state.examples.get(name)
        if file is None:
            raise Problem(404, "not-found", "there is no such example")
        return cached(request, file, "private, max-age=3600")

    @router.get(
        "/healthz",
        tags=["operators"],
        summary="Is it alive",
        response_model=StatusModel,
        responses=problems(),
    )
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @router.get(
        "/readyz",
        tags=["operators"],
        summary="Are model and index loaded and warm",
        response_model=StatusModel,
        responses=problems(503),
    )
    async def readyz() -> dict[str, str]:
        _ = engine.collection
        return {"status": "ready"}

    @router.get(
        "/metrics",
        tags=["operators"],
        summary="Metrics for Prometheus",
        response_class=PlainTextResponse,
        responses=problems(401),
    )
    async def metrics(request: Request) -> Response:
        check_read(request, settings.access)
        body = generate_latest(state.metrics.registry)
        return Response(body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    return router


def _takes_gzip(request: Request) -> bool:
    """Whether the asker takes gzip: named, and not with a quality of 0."""
    for part in request.headers.get("accept-encoding", "").split(","):
        name, _, quality = part.replace(" ", "").partition(";")
        if name.lower() == "gzip":
            return quality.lower() not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
