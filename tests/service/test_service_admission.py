"""A service that has as much to do as it takes: it says when to come again, and then answers."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

import attrib
from ingest.decode import DecodeLimits


@contextmanager
def uploading(client: httpx.Client, length: int, metric: str) -> Iterator[None]:
    """Another client, that has begun to send so many bytes; the service tells so by a metric."""
    address = (client.base_url.host, client.base_url.port or 80)
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(
            b"POST /v1/attributions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x" % length
        )
        wait_for(client, metric)
        yield


def wait_for(client: httpx.Client, metric: str) -> None:
    deadline = time.monotonic() + 10
    while metric not in client.get("/metrics").text:
        assert time.monotonic() < deadline


def assert_busy(response: httpx.Response) -> None:
    assert (response.status_code, response.headers["retry-after"]) == (429, "1")
    assert response.json()["type"] == "urn:attrib:problem:busy"


def test_a_full_service_says_when_to_come_again(serve: Any, own: Path, generated: Path) -> None:
    image = {"image": generated.read_bytes()}
    with serve(own, max_in_flight=1) as address, httpx.Client(base_url=address) as client:
        with uploading(client, 1000, "attrib_requests_in_flight 1.0"):
            assert_busy(client.post("/v1/attributions", files=image))
        with attrib.connect(address) as patient:  # comes again by itself
            assert patient.query(generated, k=1).k == 1


def test_a_service_full_of_bytes_says_when_to_come_again(
    serve: Any, own: Path, generated: Path
) -> None:
    image = {"image": generated.read_bytes()}
    limits = {"max_bytes_in_flight": 100_000, "limits": DecodeLimits(max_bytes=300_000)}
    with serve(own, **limits) as address, httpx.Client(base_url=address) as client:
        with uploading(client, 98_000, "attrib_request_bytes_in_flight 98000.0"):
            for path in ("/v1/attributions", "/v1/attributions:batch"):
                assert_busy(client.post(path, files=image))
        wait_for(client, "attrib_request_bytes_in_flight 0.0")
        # More than the whole limit, but not more than an image may have: it goes alone.
        large = {"image": generated.read_bytes() + bytes(200_000)}
        assert client.post("/v1/attributions?k=1", files=large).status_code == 200
