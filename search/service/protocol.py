"""What is no HTTP, or has an endless head, never reaches the app: it is answered here."""

from __future__ import annotations

import json
from http import HTTPStatus

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from search.service.problems import PROBLEM_JSON, Problem
from search.service.security import SECURITY_HEADERS

__all__ = ["ProblemProtocol"]

_BROKEN = Problem(
    400, "broken-request", "the request is no HTTP/1.1, or its address and headers are too long"
)


class ProblemProtocol(H11Protocol):
    """uvicorn's protocol, whose own errors are problems, too."""

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
