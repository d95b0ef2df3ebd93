"""Where a server index is: `qdrant://host[:port][/name][?grpc_port=6334]`, `qdrants://` for TLS."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from ingest.errors import UsageError

__all__ = ["API_KEY_VARIABLE", "IndexUrl", "api_key", "parse_index_url"]

API_KEY_VARIABLE = "ATTRIB_QDRANT_API_KEY"
"""Environment variable that holds the server's API key: it is never written anywhere."""

_REST_PORT = 6333
_GRPC_PORT = 6334
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252}[A-Za-z0-9_])?")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_FORM = "write it as qdrant://host[:port], or qdrants://host[:port] for TLS"


@dataclass(frozen=True)
class IndexUrl:
    """A Qdrant server, or the load balancer before a cluster.

    Attributes:
        host: name or address, IPv6 without brackets.
        port: of the REST interface; it is always needed, to ask for the version.
        grpc_port: of the gRPC interface, which uploads and searches go through; 0: REST alone.
        tls: whether connections are encrypted.
        name: alias that the collection gets on the server; '' for one made up from the data folder.
    """

    host: str
    port: int = _REST_PORT
    grpc_port: int = _GRPC_PORT
    tls: bool = False
    name: str = ""

    @property
    def rest(self) -> str:
        """Address of the REST interface, which is also that of the web console's pages."""
        return f"{'https' if self.tls else 'http'}://{self._host}:{self.port}"

    @property
    def server(self) -> str:
        """The URL without `name`, in its shortest form."""
        port = "" if self.port == _REST_PORT else f":{self.port}"
        query = "" if self.grpc_port == _GRPC_PORT else f"?grpc_port={self.grpc_port}"
        return f"{'qdrants' if self.tls else 'qdrant'}://{self._host}{port}{query}"

    @property
    def _host(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host

    def __str__(self) -> str:
        base, question, query = self.server.partition("?")
        return f"{base}{f'/{self.name}' if self.name else ''}{question}{query}"


def parse_index_url(text: str) -> IndexUrl:
    """Read an index URL; `str` of the result gives the same index again.

    Raises:
        UsageError: it is none, or it holds a key or password.
    """

    def wrong(what: str) -> UsageError:
        return UsageError(f"--index {_shown(text)} will not do: {what}")

    if any(c.isspace() or not c.isprintable() for c in text):
        raise wrong(f"it has a blank in it; {_FORM}")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError as exc:
        raise wrong(f"{exc}; {_FORM}") from exc
    if parts.scheme not in ("qdrant", "qdrants"):
        raise wrong(_FORM)
    if parts.username is not None or parts.password is not None:
        raise wrong(f"keys do not belong in a URL; set {API_KEY_VARIABLE} in the environment")
    if not _is_host(host):
        raise wrong(f"it names no host; {_FORM}")
    if port == 0:
        raise wrong(f"there is no port 0; {_FORM}")
    name = parts.path.strip("/")
    if name and not _NAME.fullmatch(name):
        raise wrong(
            f"{name[:50]!r} cannot name a collection: up to 100 letters, digits, '.', '_' and '-'"
        )
    if parts.fragment:
        raise wrong(f"it has a part after '#'; {_FORM}")
    grpc_port = _GRPC_PORT
    for field, value in parse_qsl(parts.query, keep_blank_values=True):
        if field != "grpc_port":
            raise wrong(f"it has an unknown option {field!r}; grpc_port is the only one")
        if not re.fullmatch(r"[0-9]{1,5}", value) or int(value) > 65_535:
            raise wrong(f"grpc_port must be 0 to 65535, not {value[:20]!r}")
        grpc_port = int(value)
    return IndexUrl(host, port or _REST_PORT, grpc_port, parts.scheme == "qdrants", name)


def api_key() -> str | None:
    """The server's API key from the environment, None where there is none."""
    return os.environ.get(API_KEY_VARIABLE) or None


def _is_host(host: str) -> bool:
    if ":" in host:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            return False
        return "%" not in host
    return bool(_HOST.fullmatch(host))


def _shown(text: str) -> str:
    """The URL as a message may show it: without what could be a password."""
    text = re.sub(r"//[^/@]*@", "//...@", text)
    return repr(re.sub(r"(?i)((?:key|token|password)=)[^&#]*", r"\1...", text)[:200])
