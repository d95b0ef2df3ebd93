"""Stores on this machine: S3 as moto serves it over a socket, and a web server with its moods."""

from __future__ import annotations

import http.server
import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import fsspec
import pytest
from moto.server import ThreadedMotoServer

_numbers = count(1)


@dataclass
class Bucket:
    """A bucket of its own for each test."""

    name: str
    endpoint: str

    @property
    def files(self) -> Any:
        return fsspec.filesystem("s3", use_listings_cache=False)

    def url(self, path: str = "") -> str:
        return f"s3://{self.name}/{path}"

    def put(self, local: Path, path: str = "") -> str:
        """Upload a file, or all that is in a folder; returns the URL."""
        if local.is_file():
            self.files.put_file(str(local), f"{self.name}/{path}")
        else:
            for file in (file for file in local.rglob("*") if file.is_file()):
                below = file.relative_to(local).as_posix()
                self.files.put_file(str(file), "/".join(filter(None, [self.name, path, below])))
        return self.url(path)

    def read(self, path: str) -> bytes:
        return bytes(self.files.cat_file(f"{self.name}/{path}"))

    def names(self, below: str = "") -> list[str]:
        found = self.files.find(f"{self.name}/{below}")
        return sorted(str(name).removeprefix(f"{self.name}/") for name in found)


@contextmanager
def s3_server() -> Iterator[str]:
    """Its endpoint."""
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@contextmanager
def bucket_at(endpoint: str) -> Iterator[Bucket]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            patch.setenv(name, value)
        forget_clients()
        bucket = Bucket(f"bucket-{next(_numbers)}", endpoint)
        bucket.files.mkdir(bucket.name)
        yield bucket
    forget_clients()


def forget_clients() -> None:
    """Clients are kept by their options, which do not name the server or the credentials."""
    fsspec.get_filesystem_class("s3").clear_instance_cache()


@dataclass
class Site:
    """A web server of files.

    Attributes:
        ranges: it sends parts of files; otherwise always the whole, as python's own does.
        breaks: so many answers are broken off in the middle.
        refuses: so many requests are answered with `status`.
        requests: (method, path, range) of each.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    breaks: int = 0
    refuses: int = 0
    status: int = 503
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    port: int = 0

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        site, path = self.site, self.path.partition("?")[0]
        wanted = self.headers.get("Range", "")
        site.requests.append((self.command, path, wanted))
        if site.refuses > 0:
            site.refuses -= 1
            self._send(site.status, b"", {})
            return
        data = site.files.get(path)
        if data is None:
            self._send(404, b"", {})
            return
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)
        if not site.ranges or match is None:
            self._send(200, data, {}, with_body=with_body)
            return
        start = int(match[1])
        stop = min(int(match[2] or len(data) - 1) + 1, len(data))
        if start >= len(data):
            self._send(416, b"", {})
            return
        content = {"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"}
        self._send(206, data[start:stop], content, with_body=with_body)

    def _send(
        self, status: int, body: bytes, headers: dict[str, str], *, with_body: bool = True
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body and body:
            if self.site.breaks > 0 and len(body) > 1000:
                self.site.breaks -= 1
                body, self.close_connection = body[: len(body) // 2], True
            self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *args: Any) -> None:
        pass


@contextmanager
def web_site() -> Iterator[Site]:
    site = Site()
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"site": site}))
    site.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield site
    server.shutdown()
    server.server_close()
    thread.join()
