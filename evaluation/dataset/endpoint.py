"""A language model behind HTTP: one question, and what may go wrong with it."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ingest.errors import UsageError

__all__ = ["AnswerError", "Endpoint", "RefusedError", "UnreachedError", "asked"]

_MAX_BYTES = 1 << 20
_CONNECT_S = 10.0
_PASSING = (408, 409, 425, 429)
"""Of 400 to 499, those that another try may mend."""


@dataclass(frozen=True)
class Endpoint:
    """A language model that can be asked.

    Attributes:
        url: ``http(s)://host[:port]/v1``, or the whole address of its ``chat/completions``.
        model: its name there.
        key: sent as a bearer token, and nowhere else; '' for none.
        pause_s: before it is asked again after a failure; twice as long after the next.
        timeout_s: of one answer.
    """

    url: str
    model: str
    key: str = field(default="", repr=False)
    pause_s: float = 2.0
    timeout_s: float = 120.0

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise UsageError("--prompts-from is no web address: write http://HOST:PORT/v1")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise UsageError(
                "--prompts-from takes an address without user, password and query; the key goes "
                "into ATTRIB_PROMPTS_KEY"
            )
        if not self.model.strip() or not self.model.isprintable():
            raise UsageError("--prompts-model is no name of a model")
        if not re.fullmatch(r"[\x21-\x7e]*", self.key):
            raise UsageError("ATTRIB_PROMPTS_KEY is no key: letters, digits and signs, no spaces")

    @property
    def address(self) -> str:
        """Of the chat completions."""
        path = self.url.rstrip("/")
        return path if path.endswith("/chat/completions") else f"{path}/chat/completions"


class AnswerError(Exception):
    """No answer, or none that can be read; it may be worth another try."""


class UnreachedError(AnswerError):
    """Nobody is there."""


class RefusedError(Exception):
    """The question itself is wrong; asking again is of no use."""


def asked(endpoint: Endpoint, question: str) -> str:
    """What the model says.

    No answer is ever quoted in an error: it might repeat the key.

    Raises:
        UnreachedError: nobody is there.
        AnswerError: it is overloaded, or the answer is none of the protocol.
        RefusedError: key, model or address are wrong.
    """
    import httpx

    headers = {"Accept-Encoding": "identity"}
    if endpoint.key:
        headers["Authorization"] = f"Bearer {endpoint.key}"
    body = {"model": endpoint.model, "messages": [{"role": "user", "content": question}]}
    until = time.monotonic() + endpoint.timeout_s
    data = b""
    try:
        with (
            httpx.Client(
                # Another address would get the key, too.
                follow_redirects=False,
                timeout=httpx.Timeout(endpoint.timeout_s, connect=_CONNECT_S),
            ) as client,
            client.stream("POST", endpoint.address, json=body, headers=headers) as answer,
        ):
            _check(answer.status_code)
            for part in answer.iter_raw():
                data += part
                if len(data) > _MAX_BYTES:
                    raise AnswerError("its answer is too long")
                if time.monotonic() > until:
                    raise AnswerError("its answer takes too long")
    except httpx.TimeoutException as exc:
        raise AnswerError("it does not answer in time") from exc
    except (httpx.ConnectError, httpx.InvalidURL) as exc:
        raise UnreachedError("it cannot be reached") from exc
    except (httpx.HTTPError, OSError) as exc:
        raise AnswerError("it broke off its answer") from exc
    try:
        text = json.loads(data)["choices"][0]["message"]["content"]
    except (ValueError, TypeError, LookupError, RecursionError) as exc:
        raise AnswerError("its answer is none of a chat completion") from exc
    if not isinstance(text, str):
        raise AnswerError("its answer is none of a chat completion")
    return text


def _check(status: int) -> None:
    if status in (401, 403):
        raise RefusedError(f"it answers {status}; set its key in ATTRIB_PROMPTS_KEY")
    if 400 <= status < 500 and status not in _PASSING:
        raise RefusedError(f"it answers {status}; check the address and --prompts-model")
    if 300 <= status < 400:
        raise RefusedError(f"it answers {status}, a redirect; give the address that it leads to")
    if status != 200:
        raise AnswerError(f"it answers {status}")
