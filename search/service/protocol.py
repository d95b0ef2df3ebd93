"""Connections: what never reaches the app is answered here, and who does not read is hung up on."""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from search.service.metrics import Metrics
from search.service.problems import PROBLEM_JSON, Problem
from search.service.security import SECURITY_HEADERS

__all__ = ["ProblemProtocol", "protocol_of"]

_BROKEN = Problem(
    400, "broken-request", "the request is no HTTP/1.1, or its address and headers are too long"
)


class ProblemProtocol(H11Protocol):
    """uvicorn's protocol, whose own errors are problems, too.

    Whoever asked must take what is sent within a time, or the connection is broken off: it would
    keep its request, and the end of the service, waiting for ever.

    Attributes:
        send_timeout_s: that time: for what stands ready to be sent to become little.
        metrics: where the broken-off connections are counted.
    """

    send_timeout_s: ClassVar[float]
    metrics: ClassVar[Metrics]
    _cutting: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        """More stands ready than is worth holding: the app waits."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        """It was taken, but for a little: the app goes on."""
        super().resume_writing()
        self._unwatch()
        if self.cycle is not None and self.cycle.response_complete:
            self._watch()  # the last of it, too, must be taken

    def on_response_complete(self) -> None:
        """All of a response stands ready, or is sent."""
        super().on_response_complete()
        self._watch()

    def shutdown(self) -> None:
        """The service ends."""
        super().shutdown()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is no more."""
        self._unwatch()
        super().connection_lost(exc)

    def _watch(self) -> None:
        if self._cutting is None and self.transport.get_write_buffer_size():
            self._cutting = self.loop.call_later(self.send_timeout_s, self._cut_off)

    def _unwatch(self) -> None:
        if self._cutting is not None:
            self._cutting.cancel()
            self._cutting = None

    def _cut_off(self) -> None:
        self._cutting = None
        if self.transport.get_write_buffer_size():
            self.metrics.cut_off.inc()
            self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """Answer what cannot be read, and hang up."""
        body = json.dumps(_BROKEN.to_dict("")).encode()
        headers = {
            "Content-Type": PROBLEM_JSON,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "Connection": "close",
            **SECURITY_HEADERS,
        }
        response = h11.Response(
            status_code=_BROKEN.status,
            headers=list(headers.items()),
            reason=HTTPStatus(_BROKEN.status).phrase,
        )
        for event in (response, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
        self._watch()


def protocol_of(send_timeout_s: float, metrics: Metrics) -> type[ProblemProtocol]:
    """The protocol of one service; uvicorn takes a class."""
    return type(
        ProblemProtocol.__name__,
        (ProblemProtocol,),
        {"send_timeout_s": send_timeout_s, "metrics": metrics},
    )
