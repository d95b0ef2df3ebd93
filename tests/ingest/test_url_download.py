"""Downloads from a real server that is slow, dead, lying or huge: each with the right reason."""

from __future__ import annotations

import hashlib
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.download import Downloader
from ingest.download_fetch import Downloaded, checked_url, retry_after_s
from ingest.download_settings import DownloadSettings
from ingest.errors import ImageError, RejectReason, UsageError
from ingest.item import Item
from ingest.metadata import Metadata
from ingest.url_source import UrlListSource, key_of_url

Web = Any
MAX_BYTES = 200_000


def download(
    web: Web, *urls: str, sha256: str = "", **settings: Any
) -> list[bytes | tuple[RejectReason, str]]:
    settings = {"allow_private": True, "retries": 0, "timeout_s": 5, **settings}
    downloader = Downloader(DownloadSettings(**settings), MAX_BYTES, web.resolve)
    try:
        return [
            found.data if isinstance(found, Downloaded) else (found.reason, found.detail)
            for found in downloader.outcomes([(url, sha256) for url in urls])
        ]
    finally:
        downloader.close()


def test_images_come_in_the_order_asked_for(web: Web, make_jpeg: Callable[[int], bytes]) -> None:
    web.sleeps("/slow", 0.3)
    urls = [web.url("/slow"), *(web.url(f"/image/{i}", f"h{i % 7}.example") for i in range(60))]
    assert download(web, *urls) == [make_jpeg(0), *map(make_jpeg, range(60))]
    assert web.agents == {"attrib/1 (attribution of generated images to training images)"}


def test_the_contact_is_in_the_user_agent(web: Web) -> None:
    download(web, web.url("/image/1"), contact="mailto:a@b.example")
    assert web.agents == {
        "attrib/1 (attribution of generated images to training images; +mailto:a@b.example)"
    }


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (404, RejectReason.DEAD_LINK),
        (410, RejectReason.DEAD_LINK),
        (401, RejectReason.REFUSED),
        (403, RejectReason.REFUSED),
        (451, RejectReason.REFUSED),
        (429, RejectReason.TOO_MANY_REQUESTS),
        (500, RejectReason.SERVER_ERROR),
        (503, RejectReason.SERVER_ERROR),
    ],
)
def test_status(web: Web, status: int, reason: RejectReason) -> None:
    web.respond("/x", status, b"no", kind="image/jpeg")
    assert download(web, web.url("/x")) == [(reason, f"HTTP {status}")]
    assert web.paths() == ["/x"]


def test_an_answer_without_content(web: Web) -> None:
    web.respond("/x", 204)
    web.image("/y", length=0)
    web.respond("/y", 200, b"", kind="image/jpeg")
    assert download(web, web.url("/x"), web.url("/y")) == [
        (RejectReason.SERVER_ERROR, "HTTP 204 where an image was asked for"),
        (RejectReason.EMPTY, ""),
    ]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_may_pass_is_tried_again(
    web: Web, make_jpeg: Callable[[int], bytes], status: int
) -> None:
    web.fails_first("/x", 1, status, Retry_After="1")
    began = time.monotonic()
    assert download(web, web.url("/x"), retries=1) == [make_jpeg(0)]
    assert time.monotonic() - began >= 1
    assert web.paths() == ["/x", "/x"]


def test_a_host_that_asks_for_a_long_pause_is_left_alone(web: Web) -> None:
    web.respond("/x", 429, Retry_After="3600")
    urls = [web.url("/x"), *(web.url(f"/image/{i}") for i in range(20))]
    began = time.monotonic()
    first, *others = download(web, *urls, per_host=1, retries=2)
    assert time.monotonic() - began < 4
    assert first == (RejectReason.TOO_MANY_REQUESTS, "HTTP 429, again in 3600 s")
    detail = "not asked again, last answer: HTTP 429, again in 3600 s"
    assert others == [(RejectReason.TOO_MANY_REQUESTS, detail)] * 20
    assert web.paths() == ["/x"]


def test_redirects_are_followed(web: Web, make_jpeg: Callable[[int], bytes]) -> None:
    for status in (301, 302, 303, 307, 308):
        web.redirect(f"/{status}", web.url(f"/image/{status}", "cdn.example"), status)
    web.redirect("/relative", "image/5")
    urls = [web.url(f"/{status}") for status in (301, 302, 303, 307, 308)]
    assert download(web, *urls, web.url("/relative")) == [
        *map(make_jpeg, (301, 302, 303, 307, 308)),
        make_jpeg(5),
    ]


def test_loops_and_long_chains_end(web: Web, make_jpeg: Callable[[int], bytes]) -> None:
    web.redirect("/loop", "/loop")
    for i in range(5):
        web.redirect(f"/{i}", f"/{i + 1}")
    web.image("/5", 5)
    web.redirect("/start", "/0")
    assert download(web, web.url("/loop"), web.url("/0"), web.url("/start")) == [
        (RejectReason.TOO_MANY_REDIRECTS, "more than 5"),
        make_jpeg(5),
        (RejectReason.TOO_MANY_REDIRECTS, "more than 5"),
    ]
    assert web.paths().count("/loop") == 6


@pytest.mark.parametrize(
    ("to", "detail"),
    [
        ("ftp://images.example/a.jpg", "scheme ftp"),
        ("file:///etc/passwd", "scheme file"),
        ("http://user:secret@images.example/a.jpg", "holds a user name or password"),
    ],
)
def test_redirects_to_what_is_no_web_address(web: Web, to: str, detail: str) -> None:
    web.redirect("/x", to)
    assert download(web, web.url("/x")) == [(RejectReason.BAD_URL, detail)]


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/json", "video/mp4"])
def test_content_types_of_other_things(web: Web, kind: str) -> None:
    web.image("/x", kind=kind)
    expected = f"content type {kind.partition(';')[0]}"
    assert download(web, web.url("/x")) == [(RejectReason.NOT_AN_IMAGE, expected)]


@pytest.mark.parametrize("kind", ["", "image/png", "IMAGE/JPEG; q=1", "application/octet-stream"])
def test_content_types_that_may_be_images(
    web: Web, make_jpeg: Callable[[int], bytes], kind: str
) -> None:
    web.image("/x", kind=kind)
    assert download(web, web.url("/x")) == [make_jpeg(0)]


def test_huge_answers_are_given_up(web: Web) -> None:
    web.respond("/announced", 200, b"\xff" * (MAX_BYTES + 1), kind="image/jpeg")
    web.endless("/endless", 400_000_000)
    web.zipped("/bomb", b"\xff" * (MAX_BYTES + 1))
    announced, endless, bomb = download(web, *map(web.url, ("/announced", "/endless", "/bomb")))
    limit = f"the limit is {MAX_BYTES}"
    assert announced == (RejectReason.TOO_MANY_BYTES, f"at least {MAX_BYTES + 1} bytes, {limit}")
    assert endless[0] is RejectReason.TOO_MANY_BYTES
    assert bomb == (RejectReason.TOO_MANY_BYTES, f"at least {MAX_BYTES + 1} bytes, {limit}")


def test_packed_answers(web: Web, make_jpeg: Callable[[int], bytes]) -> None:
    web.zipped("/gzip", make_jpeg(3))
    web.zipped("/twice", make_jpeg(3), "gzip, gzip")
    web.image("/lie", Content_Encoding="gzip")
    good, twice, lie = download(web, *map(web.url, ("/gzip", "/twice", "/lie")))
    assert good == make_jpeg(3)
    assert twice == (RejectReason.SERVER_ERROR, "content encoding gzip, gzip unasked")
    assert lie[0] is RejectReason.BROKEN


def test_answers_cut_short_and_no_http_at_all(web: Web) -> None:
    web.breaks_off("/cut")
    web.garbage("/garbage")
    cut, garbage = download(web, web.url("/cut"), web.url("/garbage"))
    assert cut == (RejectReason.TRUNCATED, "the connection ended early")
    assert garbage[0] is RejectReason.SERVER_ERROR
    assert garbage[1].startswith("no proper answer: ")


def test_slow_and_dripping_answers_time_out(web: Web) -> None:
    web.sleeps("/slow", 3)
    web.drips("/drips", 0.05, 1000)
    began = time.monotonic()
    assert (
        download(web, web.url("/slow"), web.url("/drips"), timeout_s=0.5)
        == [(RejectReason.TIMED_OUT, "after 0.5 s")] * 2
    )
    assert time.monotonic() - began < 2.5


def test_nobody_listens(web: Web) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    [(reason, _)] = download(web, f"http://images.example:{port}/a.jpg", retries=1)
    assert reason is RejectReason.NO_CONNECTION


def test_names_that_are_not_there(web: Web) -> None:
    web.names = {"gone.example": [], "later.example": ["later"]}
    assert download(
        web, web.url("/a", "gone.example"), web.url("/a", "later.example"), retries=1
    ) == [
        (RejectReason.NO_CONNECTION, "gone.example: Name or service not known"),
        (RejectReason.NO_CONNECTION, "later.example: Temporary failure in name resolution"),
    ]
    assert web.looked_up.count("gone.example") == 1
    assert web.looked_up.count("later.example") == 2


def test_a_dead_host_is_left_alone_after_some_tries(web: Web) -> None:
    for i in range(60):
        web.sleeps(f"/s{i}", 2)
    urls = [web.url(f"/s{i}", "dead.example") for i in range(60)]
    began = time.monotonic()
    outcomes = download(web, *urls, timeout_s=0.3, per_host=4)
    # 60 URLs of 0.3 s each, four at a time, would be 4.5 s.
    assert time.monotonic() - began < 3
    assert {reason for reason, _ in outcomes} == {RejectReason.TIMED_OUT}
    assert sum("not asked again" in detail for _, detail in outcomes) >= 45
    assert 8 <= len(web.paths()) <= 15


def test_one_slow_host_does_not_hold_up_the_others(web: Web) -> None:
    for i in range(12):
        web.sleeps(f"/s{i}", 0.5)
    slow = [web.url(f"/s{i}", "slow.example") for i in range(12)]
    quick = [web.url(f"/image/{i}", f"h{i % 9}.example") for i in range(90)]
    download(web, *slow, *quick, per_host=2, concurrency=8)
    order = [host for host, path in web.requests if path != "/robots.txt"]
    # The slow host needs 3 s for its 12; all others are asked while it does its first few.
    last_quick = max(i for i, host in enumerate(order) if host != "slow.example")
    assert order[:last_quick].count("slow.example") <= 8
    assert web.most["slow.example"] == 2


def test_limits_per_host(web: Web) -> None:
    for i in range(30):
        web.sleeps(f"/s{i}", 0.02)
    download(web, *(web.url(f"/s{i}") for i in range(30)), per_host=3)
    assert web.most["images.example"] == 3


def test_listed_checksums(web: Web, make_jpeg: Callable[[int], bytes]) -> None:
    right = hashlib.sha256(make_jpeg(1)).hexdigest()
    assert download(web, web.url("/image/1"), sha256=right.upper()) == [make_jpeg(1)]
    assert download(web, web.url("/image/2"), sha256=right) == [
        (RejectReason.OTHER_CONTENT, f"its SHA-256 is not {right}")
    ]


def test_a_downloader_that_is_closed_breaks_off_and_can_be_used_again(
    web: Web, make_jpeg: Callable[[int], bytes]
) -> None:
    web.sleeps("/slow", 5)
    downloader = Downloader(DownloadSettings(allow_private=True), MAX_BYTES, web.resolve)
    outcomes = downloader.outcomes([(web.url("/image/1"), ""), (web.url("/slow"), "")])
    assert next(outcomes) == Downloaded(make_jpeg(1), "image/jpeg")
    outcomes.close()
    began = time.monotonic()
    downloader.close()
    assert time.monotonic() - began < 3
    assert list(downloader.outcomes([(web.url("/image/2"), "")])) == [
        Downloaded(make_jpeg(2), "image/jpeg")
    ]
    downloader.close()


@pytest.mark.parametrize(
    ("url", "detail"),
    [
        ("", "0 characters"),
        ("http://" + "a" * 8192, "8199 characters"),
        ("images.example/a.jpg", "scheme missing"),
        ("ftp://images.example/a.jpg", "scheme ftp"),
        ("http:///a.jpg", "no host"),
        ("http://images.example:99999/a.jpg", "port 99999"),
        ("http://images.example:0/a.jpg", "port 0"),
        ("http://me@images.example/a.jpg", "holds a user name or password"),
    ],
)
def test_what_is_no_web_address(url: str, detail: str) -> None:
    with pytest.raises(ImageError) as caught:
        checked_url(url)
    assert (caught.value.reason, caught.value.detail) == (RejectReason.BAD_URL, detail)


@given(st.text(max_size=60) | st.text("http:/@[]%.\\#?ab1\x00 é", max_size=40))
def test_any_text_is_an_address_or_a_reject(text: str) -> None:
    try:
        url = checked_url(text)
    except ImageError as exc:
        reason = exc.reason
    else:
        reason = RejectReason.BAD_URL
        assert url.scheme in ("http", "https")
        assert url.host
    assert reason is RejectReason.BAD_URL


@given(st.text(max_size=40))
def test_any_retry_after_is_a_number_of_seconds(text: str) -> None:
    assert retry_after_s(text) >= 0


def test_retry_after() -> None:
    assert retry_after_s(" 120 ") == 120
    assert retry_after_s("-5") == 0
    in_a_minute = datetime.now(UTC) + timedelta(seconds=60)
    assert 58 <= retry_after_s(format_datetime(in_a_minute, usegmt=True)) <= 60
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"per_host": 0}, "a download needs at least one request at a time"),
        ({"timeout_s": 0}, "a timeout of 0 s is not within 0 to 3600 s"),
        ({"timeout_s": float("nan")}, "a timeout of nan s is not within 0 to 3600 s"),
        ({"contact": "a\nb"}, "the contact goes into an HTTP header: plain ASCII, on one line"),
    ],
)
def test_settings_that_cannot_be_meant(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        DownloadSettings(**settings)
    assert str(caught.value) == message


def test_one_reader_alone_reads_one_item(web: Web, make_jpeg: Callable[[int], bytes]) -> None:
    url = web.url("/image/4")
    source = UrlListSource(
        Path("list.txt"), settings=DownloadSettings(allow_private=True), resolver=web.resolve
    )
    item = Item(key_of_url(url), Path("list.txt"), 0, 0, "url", metadata=Metadata(url), origin=url)
    record = source.read(item)
    source.close()
    assert record.data == make_jpeg(4)
