"""What every request goes through: its id, its log line, its metrics and its headers."""

from __future__ import annotations

import json
import logging
import re
import secrets
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from search.service.metrics import Metrics
from search.service.problems import Problem, as_problem, problem_response
from search.service.security import SECURITY_HEADERS

__all__ = ["Frame", "JsonLines"]

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PORT = re.compile(r":\d+$")
_SECURITY = [(name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]
_OURS = frozenset({b"x-request-id", *(name for name, _ in _SECURITY)})
_log = logging.getLogger("attrib.service")


class JsonLines(logging.Formatter):
    """A log record as one line of JSON; `fields` given with it become members."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class Frame:
    """ASGI middleware around the whole app.

    Args:
        app: what is framed.
        metrics: where requests are counted.
        host_names: names that the service may be called by; () for any.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics, host_names: Sequence[str]) -> None:
        self._app = app
        self._metrics = metrics
        self._host_names = host_names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked = Headers(scope=scope)
        given = asked.get("x-request-id", "")
        request_id = given if _ID.fullmatch(given) else secrets.token_hex(8)
        began = time.perf_counter()
        status = 0
        # A HEAD is answered as a GET is, but for the body.
        inner = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope

        async def framed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
                message["headers"] = _framed(message.get("headers", ()), request_id)
            elif scope["method"] == "HEAD":
                message = {**message, "body": b""}
            await send(message)

        try:
            if (refusal := self._refusal(asked)) is not None:
                await problem_response(refusal, scope["path"])(scope, receive, framed)
            else:
                await self._app(inner, receive, framed)
        except Exception as exc:
            _log.error("fault", exc_info=exc, extra={"fields": {"request_id": request_id}})
            if not status:
                await problem_response(as_problem(exc), scope["path"])(scope, receive, framed)
        finally:
            self._note(inner, scope["method"], request_id, status, time.perf_counter() - began)

    def _refusal(self, asked: Headers) -> Problem | None:
        name = _PORT.sub("", asked.get("host", "")).lower()
        if not self._host_names or name in self._host_names:
            return None
        detail = "this service answers to this machine only; start it with --host to open it"
        return Problem(421, "wrong-host", detail)

    def _note(
        self, scope: Scope, method: str, request_id: str, status: int, seconds: float
    ) -> None:
        # The route's template, never what was asked: a path has any number of values.
        route = getattr(scope.get("route"), "path", "none")
        known = method in ("GET", "HEAD", "POST", "DELETE", "OPTIONS")
        method = method if known else "other"
        self._metrics.requests.labels(route, method, str(status)).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        if route in ("/healthz", "/readyz", "/metrics") and status == 200:
            return
        if route == "/readyz" and status == 503:  # loading: it is asked every few seconds
            return
        client = scope.get("client")
        _log.info(
            "request",
            extra={
                "fields": {
                    "request_id": request_id,
                    "client": client[0] if client else "",
                    "method": method,
                    "path": scope["path"][:200],
                    "status": status,
                    "ms": round(seconds * 1000, 1),
                }
            },
        )


def _framed(given: Iterable[tuple[bytes, bytes]], request_id: str) -> list[tuple[bytes, bytes]]:
    headers = [header for header in given if header[0] not in _OURS]
    if not any(name == b"cache-control" for name, _ in headers):
        headers.append((b"cache-control", b"no-store"))
    return [*headers, (b"x-request-id", request_id.encode()), *_SECURITY]
