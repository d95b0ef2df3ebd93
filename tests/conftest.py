"""A real web server on this machine, with every way to answer that the tests need."""

from __future__ import annotations

import gzip
import http.server
import io
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

# `folders` is imported by its name.
sys.path.append(str(Path(__file__).parent))

# A shell's background command ignores Ctrl-C, and so would every program that tests start from it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

Route = Callable[["Handler"], None]


def jpeg(seed: int) -> bytes:
    """A small image, another for every seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((32, 24), Image.Resampling.NEAREST).save(file, "JPEG")
    return file.getvalue()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    web: Web

    def do_GET(self) -> None:
        host = self.headers["Host"].partition(":")[0]
        at = str(self.connection.getsockname()[0])
        with self.web.mutex:
            self.web.requests.append((host, self.path))
            self.web.asked_at[at] += 1
            self.web.active[host] += 1
            self.web.most[host] = max(self.web.most[host], self.web.active[host])
            self.web.agents.add(self.headers.get("User-Agent", ""))
        try:
            route = self.web.routes.get(self.path) or self.web.routes.get(host + self.path)
            if route is not None:
                route(self)
            elif self.path == "/robots.txt":
                self.answer(404)
            elif self.path.startswith("/image/"):
                self.answer(200, jpeg(int(self.path.rpartition("/")[2])), kind="image/jpeg")
            else:
                self.answer(404)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            with self.web.mutex:
                self.web.active[host] -= 1

    def answer(
        self,
        status: int,
        body: bytes = b"",
        *,
        kind: str = "",
        length: int | None = None,
        **more: str,
    ) -> None:
        self.send_response(status)
        if kind:
            self.send_header("Content-Type", kind)
        for name, value in more.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, *args: Any) -> None:
        pass


@dataclass
class Web:
    """The server, and what it was asked.

    Attributes:
        routes: by path, or by host and path, what answers; all else is an image or a 404.
        requests: (host, path) of every request.
        asked_at: requests by the address of this machine that they came to.
        most: requests of a host at the same time, at most.
    """

    port: int = 0
    routes: dict[str, Route] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    asked_at: Counter[str] = field(default_factory=Counter)
    active: Counter[str] = field(default_factory=Counter)
    most: Counter[str] = field(default_factory=Counter)
    agents: set[str] = field(default_factory=set)
    mutex: threading.Lock = field(default_factory=threading.Lock)
    names: dict[str, list[str]] = field(default_factory=dict)
    looked_up: list[str] = field(default_factory=list)

    def url(self, path: str, host: str = "images.example") -> str:
        return f"http://{host}:{self.port}{path}"

    async def resolve(self, host: str, port: int) -> list[str]:
        """Every name is this machine, unless `names` says otherwise; none: no such name."""
        self.looked_up.append(host)
        found = self.names.get(host, ["127.0.0.1"])
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        if found == ["later"]:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return found

    def paths(self, *, robots: bool = False) -> list[str]:
        return [path for _, path in self.requests if robots or path != "/robots.txt"]

    def respond(self, path: str, *args: Any, **more: Any) -> None:
        self.routes[path] = lambda handler: handler.answer(*args, **more)

    def image(self, path: str, seed: int = 0, **more: Any) -> None:
        self.respond(path, 200, jpeg(seed), **{"kind": "image/jpeg", **more})

    def redirect(self, path: str, to: str, status: int = 302) -> None:
        self.respond(path, status, Location=to)

    def sleeps(self, path: str, seconds: float) -> None:
        def route(handler: Handler) -> None:
            time.sleep(seconds)
            handler.answer(200, jpeg(0), kind="image/jpeg")

        self.routes[path] = route

    def drips(self, path: str, pause_s: float, count: int) -> None:
        """An answer that never pauses long, and never comes to an end in time."""

        def route(handler: Handler) -> None:
            handler.send_response(200)
            handler.send_header("Content-Type", "image/jpeg")
            handler.send_header("Content-Length", str(count))
            handler.end_headers()
            for _ in range(count):
                handler.wfile.write(b"\xff")
                handler.wfile.flush()
                time.sleep(pause_s)

        self.routes[path] = route

    def breaks_off(self, path: str) -> None:
        def route(handler: Handler) -> None:
            handler.answer(200, jpeg(0)[:100], kind="image/jpeg", length=5000)
            handler.close_connection = True

        self.routes[path] = route

    def endless(self, path: str, limit: int) -> None:
        """A body without a length, until the client has enough or `limit` bytes are sent."""

        def route(handler: Handler) -> None:
            handler.send_response(200)
            handler.send_header("Content-Type", "image/jpeg")
            handler.send_header("Connection", "close")
            handler.end_headers()
            handler.close_connection = True
            sent = 0
            while sent < limit:
                handler.wfile.write(b"\xff" * 65536)
                sent += 65536
            handler.wfile.flush()
            raise AssertionError("the client took everything")

        self.routes[path] = route

    def garbage(self, path: str) -> None:
        def route(handler: Handler) -> None:
            handler.wfile.write(b"\x00\x01 no HTTP at all\r\n\r\n")
            handler.wfile.flush()
            handler.close_connection = True

        self.routes[path] = route

    def zipped(self, path: str, data: bytes, encoding: str = "gzip") -> None:
        packed = gzip.compress(data)
        self.respond(path, 200, packed, kind="image/jpeg", Content_Encoding=encoding)

    def fails_first(self, path: str, times: int, status: int, **more: str) -> None:
        left = [times]

        def route(handler: Handler) -> None:
            if left[0]:
                left[0] -= 1
                handler.answer(status, **more)
            else:
                handler.answer(200, jpeg(0), kind="image/jpeg")

        self.routes[path] = route


class _Server(http.server.ThreadingHTTPServer):
    request_queue_size = 512
    daemon_threads = True

    def handle_error(self, *args: Any) -> None:
        pass


@pytest.fixture
def web() -> Iterator[Web]:
    site = Web()
    handler = type("SiteHandler", (Handler,), {"web": site})
    server = _Server(("0.0.0.0", 0), handler)
    site.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield site
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def make_jpeg() -> Callable[[int], bytes]:
    return jpeg
