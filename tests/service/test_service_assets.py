"""What is sent compressed, what is not, and that caches are told the truth."""

from __future__ import annotations

import gzip
import time
from pathlib import Path

import httpx
import pytest

PAGE = Path(__file__).parents[2] / "search" / "page"
GZIP = {"Accept-Encoding": "gzip"}
PLAIN = {"Accept-Encoding": "identity"}


def raw(client: httpx.Client, path: str, **headers: str) -> tuple[httpx.Response, bytes]:
    """A response, and its body as it was on the wire."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    with client.stream("GET", path, headers=names) as response:
        return response, b"".join(response.iter_raw())


@pytest.mark.parametrize("name", [file.name for file in sorted(PAGE.iterdir()) if file.is_file()])
def test_the_page_is_sent_compressed_to_those_who_take_it(client: httpx.Client, name: str) -> None:
    content = (PAGE / name).read_bytes()
    small, body = raw(client, f"/assets/{name}", accept_encoding="br, gzip")
    whole, plain = raw(client, f"/assets/{name}", accept_encoding="identity")
    assert plain == content
    assert "content-encoding" not in whole.headers
    assert small.headers["content-encoding"] == "gzip"
    assert len(body) < len(plain)
    assert gzip.decompress(body) == content
    assert small.headers["etag"] != whole.headers["etag"]
    for response in (small, whole):
        assert response.headers["vary"] == "Accept-Encoding"
        assert response.headers["cache-control"] == "no-cache"
        assert response.headers["content-length"] == str(len(body if response is small else plain))


def test_who_has_it_gets_none_of_it_again(client: httpx.Client) -> None:
    first, _ = raw(client, "/", accept_encoding="gzip")
    etag = first.headers["etag"]
    again, body = raw(client, "/", accept_encoding="gzip", if_none_match=etag)
    assert (again.status_code, body) == (304, b"")
    assert again.headers["etag"] == etag
    assert again.headers["vary"] == "Accept-Encoding"
    # The same tag means nothing to one who cannot take gzip: it is of other bytes.
    other, plain = raw(client, "/", accept_encoding="gzip;q=0", if_none_match=etag)
    assert (other.status_code, plain) == (200, (PAGE / "index.html").read_bytes())


def test_the_whole_page_is_light(client: httpx.Client) -> None:
    names = [file.name for file in PAGE.iterdir() if file.is_file()]
    assert sum(len(raw(client, f"/assets/{name}", **_gzip())[1]) for name in names) < 40_000


def _gzip() -> dict[str, str]:
    return {"accept_encoding": "gzip"}


def test_answers_are_compressed_and_the_same(client: httpx.Client, generated: Path) -> None:
    files = {"image": generated.read_bytes()}
    small = client.post("/v1/attributions", files=files, headers=GZIP)
    whole = client.post("/v1/attributions", files=files, headers=PLAIN)
    assert small.headers["content-encoding"] == "gzip"
    assert "Accept-Encoding" in small.headers["vary"]
    assert "content-encoding" not in whole.headers
    assert small.content == whole.content
    assert int(small.headers["content-length"]) < len(small.content) / 3
    kept, body = raw(client, small.json()["links"]["self"], **_gzip())
    assert kept.headers["content-encoding"] == "gzip"
    named = whole.content.replace(b'"query":"upload"', b'"query":""')  # a link tells no name
    assert gzip.decompress(body) == named


def test_pictures_and_short_answers_are_sent_as_they_are(
    client: httpx.Client, generated: Path
) -> None:
    files = {"image": generated.read_bytes()}
    answer = client.post("/v1/attributions", files=files).json()
    paths = [answer["rows"][0]["thumbnail"], f"{answer['links']['self']}/query", "/healthz"]
    for path in paths:
        response, _ = raw(client, path, **_gzip())
        assert response.status_code == 200
        assert "content-encoding" not in response.headers, path


def test_lines_of_a_batch_come_one_by_one(client: httpx.Client, generated: Path) -> None:
    images = [("image", (f"{i}.png", generated.read_bytes())) for i in range(8)]
    pieces = []
    with client.stream("POST", "/v1/attributions:batch", files=images, headers=GZIP) as response:
        assert "content-encoding" not in response.headers
        for piece in response.iter_raw():
            pieces.append((time.perf_counter(), piece))
    assert b"".join(piece for _, piece in pieces).count(b"\n") == 8
    assert len(pieces) > 1, "all lines at once: something held them back"
