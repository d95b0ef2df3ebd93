"""One exchange with a service: how it can fail, and when it is worth asking again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from ingest.errors import (
    AttribError,
    ImageError,
    ModelMismatchError,
    NothingLeftError,
    RejectReason,
    RunError,
    UsageError,
)

if TYPE_CHECKING:
    import httpx
    from tenacity import RetryCallState

__all__ = ["AskAgainError", "Exchange", "NoSuchImageError", "again_and_again", "error_of"]

T = TypeVar("T")

_PATIENCE_S = 30.0
_LONGEST_PAUSE_S = 4.0
"""Unless the service asks for more."""
_REASONS = {reason.value.replace(" ", "-"): reason for reason in RejectReason}


class AskAgainError(RunError):
    """What may go well the next time; `pause_s`: as the service asks, None where it does not."""

    def __init__(self, text: str, pause_s: float | None = None) -> None:
        super().__init__(text)
        self.pause_s = pause_s


class NoSuchImageError(RunError):
    """The service has no training image of that id, or no longer."""


class Exchange:
    """One exchange with the service; every way in which it can fail as an error of attrib."""

    def __init__(
        self, client: httpx.Client, method: str, path: str, content: Mapping[str, Any]
    ) -> None:
        self._url = str(client.base_url)
        self._stream = client.stream(method, path, **content)

    def __enter__(self) -> httpx.Response:
        import httpx

        try:
            response = self._stream.__enter__()
            if response.is_success:
                return response
            body = response.read()
        except httpx.TransportError as exc:
            raise self._failed(exc) from exc
        self._stream.__exit__(None, None, None)
        try:
            problem = json.loads(body)
            kind, detail = str(problem["type"]), str(problem["detail"])
        except (ValueError, KeyError, TypeError):
            kind, detail = "", f"{self._url} answered {response.status_code}: no attrib service?"
        told = {"type": kind, "detail": detail, "status": response.status_code}
        raise error_of(told, response.headers.get("retry-after", ""))

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        import httpx

        self._stream.__exit__(kind, error, trace)  # type: ignore[arg-type]
        if isinstance(error, httpx.TransportError):
            raise self._failed(error) from error
        if isinstance(error, ValueError):
            raise RunError(f"{self._url} did not answer with JSON: no attrib service?") from error

    def _failed(self, error: Exception) -> AttribError:
        import httpx

        if isinstance(error, httpx.UnsupportedProtocol):
            return UsageError(f"{self._url} is no address of a service: write http://host:port")
        detail = str(error) or type(error).__name__
        return AskAgainError(f"cannot reach the service at {self._url}: {detail}")


def again_and_again(ask: Callable[[], T]) -> T:
    """What `ask` gives, asked again for half a minute where it raises `AskAgainError`."""
    from tenacity import Retrying, retry_if_exception_type

    tries = Retrying(
        stop=lambda state: _spent_s(state) >= _PATIENCE_S,
        wait=_pause_s,
        retry=retry_if_exception_type(AskAgainError),
        reraise=True,
    )
    return tries(ask)


def _pause_s(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.pause_s if isinstance(error, AskAgainError) else None
    doubling = min(0.25 * 2.0 ** min(state.attempt_number - 1, 9), _LONGEST_PAUSE_S)
    left = max(_PATIENCE_S - _spent_s(state), 0.0)  # one last try at the end of it
    return min(max(asked or 0.0, doubling), left)


def _spent_s(state: RetryCallState) -> float:
    return max(state.seconds_since_start or 0.0, state.idle_for)


def error_of(problem: Mapping[str, Any], retry_after: str) -> AttribError:
    """A problem as the error that `attrib.open` would have raised."""
    kind = str(problem.get("type", "")).rpartition(":")[2]
    detail, status = str(problem.get("detail", "")), int(problem.get("status", 0))
    if kind in _REASONS:
        reason = _REASONS[kind]
        return ImageError(reason, detail.removeprefix(reason.value).removeprefix(": "))
    if kind == "wrong-call":
        return UsageError(detail)
    if kind == "model-mismatch":
        return ModelMismatchError(detail)
    if kind == "nothing-left":
        return NothingLeftError(detail)
    if kind == "no-such-image":
        return NoSuchImageError(detail)
    if kind in ("key-needed", "read-only-key"):
        return RunError(f"{detail}; set ATTRIB_API_KEY")
    if status in (429, 503):
        return AskAgainError(detail, float(retry_after) if retry_after.isdecimal() else None)
    return RunError(detail or f"the service answered {status}")
