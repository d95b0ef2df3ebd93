"""Errors as the service tells them: application/problem+json (RFC 9457).

What a request did wrong is a `Problem` with its own status; attrib's errors are given one here; all
else is a fault of the service, told without its details.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from ingest.errors import (
    AttribError,
    DataFolderError,
    ImageError,
    IndexFailedError,
    ModelMismatchError,
    NothingLeftError,
    RejectReason,
    RunError,
    UsageError,
)

__all__ = ["PROBLEM_JSON", "Problem", "as_problem", "handle_errors", "problem_response"]

PROBLEM_JSON = "application/problem+json"

_TOO_LARGE = (RejectReason.TOO_MANY_BYTES, RejectReason.TOO_MANY_PIXELS)

_log = logging.getLogger("attrib.service")


class Problem(Exception):  # noqa: N818 (as RFC 9457 calls it)
    """What is wrong with a request.

    Attributes:
        status: of the response.
        kind: a short name for programs, the end of the problem's ``type``.
        detail: one line for people.
        headers: further ones of the response.
    """

    def __init__(
        self, status: int, kind: str, detail: str, *, headers: Mapping[str, str] | None = None
    ) -> None:
        self.status = status
        self.kind = kind
        self.detail = " ".join(detail.split())
        self.headers = dict(headers or {})
        super().__init__(self.detail)

    def to_dict(self, instance: str) -> dict[str, Any]:
        """The document; `instance`: the path that was asked."""
        return {
            "type": f"urn:attrib:problem:{self.kind}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "instance": instance,
        }


def as_problem(error: BaseException) -> Problem:
    """Any error as a problem."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, ImageError):
        kind = error.reason.value.replace(" ", "-")
        return Problem(413 if error.reason in _TOO_LARGE else 422, kind, str(error))
    if isinstance(error, UsageError):
        return Problem(422, "wrong-call", str(error))
    if isinstance(error, ModelMismatchError):
        return Problem(422, "model-mismatch", str(error))
    if isinstance(error, NothingLeftError):
        return Problem(422, "nothing-left", str(error))
    if isinstance(error, IndexFailedError):
        return Problem(503, "index-failed", str(error), headers={"Retry-After": "5"})
    if isinstance(error, DataFolderError):
        return Problem(500, "data-folder", "the data folder failed; the service's log says how")
    if isinstance(error, RunError):
        return Problem(503, "not-possible-now", str(error), headers={"Retry-After": "5"})
    if isinstance(error, TimeoutError):
        detail = "the answer took too long; ask again, or for fewer rows"
        return Problem(503, "timed-out", detail, headers={"Retry-After": "2"})
    if isinstance(error, AttribError):
        return Problem(500, "failed", str(error))
    return Problem(500, "fault", "a fault of the service; its log has the details")


def problem_response(problem: Problem, path: str) -> Response:
    """The response that tells a problem."""
    return Response(
        json.dumps(problem.to_dict(path)),
        problem.status,
        headers=problem.headers,
        media_type=PROBLEM_JSON,
    )


def handle_errors(app: FastAPI) -> None:
    """Make every error of the app's routes a problem."""

    async def failed(request: Request, error: Exception) -> Response:
        problem = as_problem(error)
        if problem.status >= 500 and not isinstance(error, Problem):
            _log.error("request failed", exc_info=error)
        return problem_response(problem, request.url.path)

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 (registered for it alone)
        kind = HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
        detail = {404: "there is nothing here", 405: "this cannot be done here"}.get(
            error.status_code, str(error.detail)
        )
        headers = dict(error.headers or {})
        if "GET" in headers.get("Allow", "").split(", "):
            headers["Allow"] += ", HEAD"  # see `search.service.frame`
        problem = Problem(error.status_code, kind, detail, headers=headers)
        return problem_response(problem, request.url.path)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101 (registered for it alone)
        told = "; ".join(
            f"{'.'.join(map(str, fault['loc'][1:]))}: {fault['msg']}" for fault in error.errors()
        )
        return problem_response(Problem(422, "wrong-call", told), request.url.path)

    for kind in (Problem, AttribError, TimeoutError):
        app.add_exception_handler(kind, failed)
    app.add_exception_handler(HTTPException, refused)
    app.add_exception_handler(RequestValidationError, invalid)
