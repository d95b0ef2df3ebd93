"""Who does not read what is sent holds nothing for ever: no request, no end of the service."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

SEND_S = 1.0


def connected(address: str) -> socket.socket:
    """A connection whose other end soon has more to send than goes into the buffers."""
    host, port = address.removeprefix("http://").split(":")
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.settimeout(60)
    raw.connect((host, int(port)))
    return raw


def asked(address: str, path: str, image: bytes, count: int) -> socket.socket:
    """A request of `count` images whose answer nobody reads."""
    head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    body = (head + image + b"\r\n") * count + b"--x--\r\n"
    raw = connected(address)
    raw.sendall(
        b"POST %s HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: %d\r\n\r\n"
        % (path.encode(), len(body))
        + body
    )
    return raw


def until(true: Callable[[], Any], within_s: float = 30) -> None:
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def metric(client: httpx.Client, name: str) -> float:
    found = re.search(rf"^{name} (\S+)$", client.get("/metrics").text, re.MULTILINE)
    assert found is not None, name
    return float(found[1])


@pytest.fixture
def many(generated: Path) -> bytes:
    return generated.read_bytes()


def test_a_batch_that_nobody_reads_is_broken_off_and_its_place_is_free(
    serve: Any, own: Path, many: bytes
) -> None:
    limits = {"max_in_flight": 1, "timeout_s": SEND_S + 2, "max_images": 256}
    with (
        serve(own, **limits) as address,
        httpx.Client(base_url=address, timeout=60) as client,
        # Enough that it fills the system's buffers, which grow to some megabytes.
        asked(address, "/v1/attributions:batch?k=1000", many, 256),
    ):
        until(lambda: metric(client, "attrib_requests_in_flight") == 1)
        busy = client.post("/v1/attributions", files={"image": many})
        assert busy.status_code == 429
        until(lambda: metric(client, "attrib_requests_in_flight") == 0)
        assert metric(client, "attrib_request_bytes_in_flight") == 0
        assert metric(client, "attrib_connections_cut_off_total") == 1
        after = client.post("/v1/attributions?k=1", files={"image": many})
        assert after.status_code == 200


def test_a_slow_reader_that_goes_on_reading_gets_all_of_it(
    serve: Any, own: Path, many: bytes
) -> None:
    with serve(own, timeout_s=SEND_S + 2, max_images=256) as address:
        with asked(address, "/v1/attributions:batch?k=1000", many, 60) as raw:
            received = b""
            while not received.endswith(b"0\r\n\r\n"):
                part = raw.recv(65536)
                assert part
                received += part
                time.sleep(0.02)
        assert received.count(b'"remaining_interval"') == 60


def test_the_service_ends_beside_one_who_does_not_read(serve: Any, own: Path, many: bytes) -> None:
    with serve(own, timeout_s=SEND_S + 2, max_images=256) as address:
        raw = asked(address, "/v1/attributions:batch?k=1000", many, 256)
        with httpx.Client(base_url=address, timeout=60) as client:
            until(lambda: metric(client, "attrib_requests_in_flight") == 1)
        time.sleep(0.5)
        began = time.monotonic()
    assert time.monotonic() - began < 20
    raw.close()


def test_pages_that_nobody_reads_do_not_keep_it_from_ending_either(serve: Any, own: Path) -> None:
    with (
        serve(own, timeout_s=SEND_S) as address,
        httpx.Client(base_url=address) as client,
        connected(address) as raw,
    ):
        # One after the other, as many as the buffers take and more; none of them is read.
        ask = b"GET /v1/openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
        raw.sendall(ask * 400)
        until(lambda: metric(client, "attrib_connections_cut_off_total") == 1)
