"""Calls to a Qdrant server: tried again while that can help, and their errors in attrib's words.

This is the one edge where errors of `qdrant-client`, httpx and gRPC are translated. Every operation
of the index may be repeated (points go by id), so a call whose answer was lost is simply made
again.
"""

from __future__ import annotations

import json
import random
import ssl
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import grpc  # type: ignore[import-untyped]
import httpx
import tenacity
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from ingest.errors import AttribError, IndexFailedError, IndexRefusedError
from search.index_url import API_KEY_VARIABLE, IndexUrl, api_key

__all__ = ["CONNECT_S", "PATIENCE_S", "ServerCalls"]

PATIENCE_S = 120.0
"""How long a call is tried again: a restart of a node takes less."""

CONNECT_S = 5.0
"""The same for the first call, where a wrong address is likelier than a restart."""

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 15.0
_START = "docker run -p 6333:6333 -p 6334:6334 qdrant/qdrant"

_AGAIN = {429, 502, 503, 504, 507}
_AGAIN_GRPC = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.ABORTED,
}
_HTTP_OF = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
}

P = ParamSpec("P")
R = TypeVar("R")


class ServerCalls:
    """Makes the calls of one index.

    Attributes:
        url: of the server, for messages; None for one inside this process.
        patience_s: how long a call is tried again.
    """

    def __init__(self, url: IndexUrl | None, patience_s: float = PATIENCE_S) -> None:
        self.url = url
        self.patience_s = patience_s

    def __call__(self, what: str, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """The answer of `function`; `what` it does ("search") stands in messages.

        Raises:
            IndexRefusedError: strict mode or a quota forbids it.
            IndexFailedError: anything else, after `patience_s` where trying again can help.
        """
        again = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_can_pass),
            wait=_pause,
            stop=tenacity.stop_before_delay(self.patience_s),
            reraise=True,
        )
        try:
            return again(function, *args, **kwargs)
        except AttribError:
            raise
        except Exception as exc:
            raise self._translated(what, exc) from exc

    @property
    def where(self) -> str:
        """The server, as messages name it."""
        return "the index" if self.url is None else f"the Qdrant server at {self.url.server}"

    def _translated(self, what: str, exc: Exception) -> IndexFailedError:
        status, said = _answer(exc)
        where = self.where
        if _is_late(exc):
            return IndexFailedError(
                f"{where} did not {what} in time ({said}); it is overloaded, or its disk is slow"
            )
        if status is None and self.url is not None and _is_transport(exc):
            return self._unreachable(said)
        if status in (400, 403, 422) and "Help:" in said:
            return IndexRefusedError(f"{where} refuses to {what}: {said}")
        if status in (401, 403):
            if api_key() is None:
                return IndexFailedError(
                    f"{where} wants an API key ({said}); set {API_KEY_VARIABLE} in the environment"
                )
            return IndexFailedError(
                f"{where} does not accept the API key in {API_KEY_VARIABLE} for this ({said})"
            )
        if status == 413:
            return IndexRefusedError(f"{where} refuses to {what}: the request is too large")
        if status == 429:
            return IndexFailedError(
                f"{where} still limits the rate after {self.patience_s:g} s ({said}); send less "
                "at once, or raise its limits"
            )
        if status == 507:
            return IndexFailedError(
                f"{where} has no memory or disk left ({said}); make room or add a node, then run "
                "the same command again"
            )
        return IndexFailedError(f"{where} failed to {what}: {said}")

    def _unreachable(self, said: str) -> IndexFailedError:
        url = self.url
        if url is None:  # pragma: no cover  # inside the process nothing is to be reached
            return IndexFailedError(said)
        if "certificate" in said.lower() or "ssl" in said.lower():
            return IndexFailedError(
                f"no secure connection to {url.server} ({said}); check the certificate, or write "
                f"{'qdrant' if url.tls else 'qdrants'}:// for a server "
                f"{'without' if url.tls else 'with'} TLS"
            )
        port = url.grpc_port or url.port
        protocol = "gRPC" if url.grpc_port else "REST"
        hint = "; ?grpc_port=0 in the URL goes through the REST port alone" if url.grpc_port else ""
        return IndexFailedError(
            f"no Qdrant server answers at {url.host}, port {port} ({protocol}: {said}); check the "
            f"address, or start one: {_START}{hint}"
        )


def _can_pass(exc: BaseException) -> bool:
    """Whether the same call may succeed a little later."""
    if isinstance(exc, ResourceExhaustedResponse):
        return True
    if isinstance(exc, UnexpectedResponse):
        return exc.status_code in _AGAIN
    if isinstance(exc, ResponseHandlingException):
        transport = isinstance(exc.source, httpx.TransportError)
        return transport and not any(isinstance(cause, ssl.SSLError) for cause in _causes(exc))
    return isinstance(exc, grpc.RpcError) and _code(exc) in _AGAIN_GRPC and not _too_large(exc)


def _pause(state: tenacity.RetryCallState) -> float:
    """Exponential with full jitter; never sooner than the server asked for."""
    backoff = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** (state.attempt_number - 1))
    jitter = random.uniform(0, backoff)  # many workers must not come back all at once
    asked = _retry_after(state.outcome.exception() if state.outcome else None)
    return jitter if asked is None else asked + min(jitter, 1.0)


def _retry_after(exc: BaseException | None) -> float | None:
    if isinstance(exc, ResourceExhaustedResponse):
        return max(0.0, float(exc.retry_after_s))
    if isinstance(exc, UnexpectedResponse):
        given = exc.headers.get("Retry-After", "")
        if given.isdigit():
            return float(given)
    return None


def _answer(exc: Exception) -> tuple[int | None, str]:
    """The status in HTTP's terms, None where there was no answer, and what was said, one line."""
    if isinstance(exc, ResourceExhaustedResponse):
        return 429, _one_line(exc.message)
    if isinstance(exc, UnexpectedResponse):
        return exc.status_code, _one_line(_body(exc.content) or exc.reason_phrase)
    if isinstance(exc, ResponseHandlingException):
        source = exc.source
        return None, _one_line(str(source) or type(source).__name__)
    if isinstance(exc, grpc.RpcError):
        code = _code(exc)
        details = getattr(exc, "details", lambda: "")() or (code.name if code else "no answer")
        said = _one_line(details)
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            return None, said
        if _too_large(exc):
            return 413, said
        if code == grpc.StatusCode.RESOURCE_EXHAUSTED:  # which stands for two things in HTTP
            return 429 if "rate" in said.lower() else 507, said
        return _HTTP_OF.get(code, 500) if code else 500, said
    return 500, _one_line(str(exc) or type(exc).__name__)


def _is_transport(exc: Exception) -> bool:
    if isinstance(exc, ResponseHandlingException):
        return isinstance(exc.source, httpx.TransportError)
    return isinstance(exc, grpc.RpcError)


def _is_late(exc: Exception) -> bool:
    """Whether the server was reached and took too long."""
    if isinstance(exc, ResponseHandlingException):
        return isinstance(exc.source, httpx.ReadTimeout)
    return isinstance(exc, grpc.RpcError) and _code(exc) == grpc.StatusCode.DEADLINE_EXCEEDED


def _too_large(exc: grpc.RpcError) -> bool:
    """Whether a message was over a size limit, which no later try will change."""
    said = getattr(exc, "details", lambda: "")() or ""
    return _code(exc) == grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in said


def _code(exc: grpc.RpcError) -> Any:  # noqa: ANN401  # grpc has no types
    return exc.code() if hasattr(exc, "code") else None


def _causes(exc: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while exc is not None and id(exc) not in seen:
        seen.add(id(exc))
        yield exc
        source = getattr(exc, "source", None)
        exc = source if isinstance(source, BaseException) else exc.__cause__ or exc.__context__


def _body(content: bytes) -> str:
    """The error text in an answer of Qdrant, or the start of whatever else it is."""
    try:
        status = json.loads(content)["status"]
        return str(status["error"] if isinstance(status, dict) else status)
    except (ValueError, KeyError, TypeError):
        return content[:200].decode("utf-8", "replace")


def _one_line(text: object) -> str:
    line = " ".join(str(text).split())
    return line if len(line) <= 300 else line[:297] + "..."
