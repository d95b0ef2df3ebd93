"""Opt-outs are honoured: X-Robots-Tag, the TDM reservation, robots.txt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.download import Downloader
from ingest.download_fetch import Downloaded
from ingest.download_opt_out import opt_out_of, withheld_by
from ingest.download_settings import DownloadSettings
from ingest.errors import RejectReason

Web = Any


def download(web: Web, *urls: str, **settings: Any) -> list[bytes | tuple[RejectReason, str]]:
    settings = {"allow_private": True, "retries": 0, "timeout_s": 5, **settings}
    downloader = Downloader(DownloadSettings(**settings), 100_000, web.resolve)
    try:
        return [
            found.data if isinstance(found, Downloaded) else (found.reason, found.detail)
            for found in downloader.outcomes([(url, "") for url in urls])
        ]
    finally:
        downloader.close()


WITHHELD = [
    "noai", "NoAI", "noimageai", "noindex", "noimageindex", "none", "nofollow, noai",
    " noai ", "attrib: noai", "ATTRIB:noimageai , nofollow", "otherbot: nofollow, attrib: noai",
    "*: noindex", "unavailable_after: 25 Jun 2030 15:00:00 PST, noai", "max-snippet: 3, noindex",
    "otherbot: noai, attrib: nofollow, noimageai",
]  # fmt: skip
GIVEN = [
    "", "all", "nofollow", "noarchive, nosnippet", "otherbot: noai", "otherbot: nofollow, noindex",
    "attrib: all", "unavailable_after: 25 Jun 2030 15:00:00 PST", "noaix", "no ai", "attribx: noai",
    "attrib: nofollow, otherbot: noai",
]  # fmt: skip


@pytest.mark.parametrize("value", WITHHELD)
def test_directives_that_withhold(value: str) -> None:
    assert withheld_by(value)


@pytest.mark.parametrize("value", GIVEN)
def test_directives_that_do_not(value: str) -> None:
    assert not withheld_by(value)


@given(st.text(max_size=80), st.sampled_from(["noai", "noimageai", "noindex", "noimageindex"]))
def test_a_directive_for_all_holds_whatever_follows_it(rest: str, directive: str) -> None:
    assert withheld_by(f"{directive},{rest}")


@given(st.text("abnoi:*, ;\t", max_size=40))
def test_without_a_directive_nothing_is_withheld(text: str) -> None:
    if not any(d in text for d in ("noai", "none", "noindex", "noimage")):
        assert not withheld_by(text)


def test_headers() -> None:
    assert opt_out_of([("content-type", "noai")]) == ""
    assert opt_out_of([("TDM-Reservation", " 1 ")]) == "tdm-reservation: 1"
    assert opt_out_of([("tdm-reservation", "0"), ("tdm-policy", "1")]) == ""
    several = [("x-robots-tag", "otherbot: noai"), ("X-Robots-Tag", "nofollow,  noai")]
    assert opt_out_of(several) == "X-Robots-Tag: nofollow, noai"


def test_answers_that_opt_out(web: Web, make_jpeg: Callable[[int], bytes]) -> None:
    web.image("/robots", X_Robots_Tag="noai, noimageai")
    web.image("/tdm", TDM_Reservation="1")
    web.image("/other", X_Robots_Tag="otherbot: noai")
    web.image("/redirected", X_Robots_Tag="noindex")
    web.redirect("/redirect", "/redirected")
    urls = list(map(web.url, ("/robots", "/tdm", "/other", "/redirect")))
    assert download(web, *urls) == [
        (RejectReason.OPTED_OUT, "X-Robots-Tag: noai, noimageai"),
        (RejectReason.OPTED_OUT, "tdm-reservation: 1"),
        make_jpeg(0),
        (RejectReason.OPTED_OUT, "X-Robots-Tag: noindex"),
    ]
    assert download(web, *urls, ignore_opt_out=True) == [make_jpeg(0)] * 4


ROBOTS = b"""\
User-agent: *
Disallow: /private/

User-agent: attrib
Disallow: /no-attrib/
Allow: /private/yes
"""


def test_robots_txt(web: Web, make_jpeg: Callable[[int], bytes]) -> None:
    web.respond("/robots.txt", 200, ROBOTS)
    for path in ("/private/no", "/private/yes", "/no-attrib/x", "/free"):
        web.image(path)
    urls = [web.url(path) for path in ("/private/yes", "/no-attrib/x", "/free", "/private/no")]
    image = make_jpeg(0)
    withheld = (RejectReason.OPTED_OUT, "robots.txt of images.example")
    # Rules for us by name stand in the place of those for all.
    assert download(web, *urls) == [image, withheld, image, image]
    assert web.paths(robots=True).count("/robots.txt") == 1
    assert "/no-attrib/x" not in web.paths()
    assert download(web, urls[1], ignore_opt_out=True) == [image]
    assert web.paths(robots=True).count("/robots.txt") == 1


def test_robots_txt_of_the_host_that_a_redirect_leads_to(web: Web) -> None:
    web.respond("closed.example/robots.txt", 200, b"User-agent: *\nDisallow: /\n")
    web.redirect("/x", web.url("/image/1", "closed.example"))
    assert download(web, web.url("/x")) == [
        (RejectReason.OPTED_OUT, "robots.txt of closed.example")
    ]
    assert ("closed.example", "/image/1") not in web.requests


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_no_robots_txt_allows(web: Web, make_jpeg: Callable[[int], bytes], status: int) -> None:
    web.respond("/robots.txt", status)
    assert download(web, web.url("/image/1")) == [make_jpeg(1)]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_robots_txt_that_cannot_be_had_forbids(web: Web, status: int) -> None:
    web.respond("/robots.txt", status)
    detail = f"robots.txt answered {status}: nothing may be fetched until then"
    assert download(web, web.url("/image/1")) == [(RejectReason.SERVER_ERROR, detail)]
    assert web.paths() == []


def test_odd_robots_txt(web: Web, make_jpeg: Callable[[int], bytes]) -> None:
    rules = {
        "loop.example": None,
        "html.example": b"<html>Disallow: /",
        "binary.example": bytes(range(256)),
        "bom.example": b"\xef\xbb\xbfUser-agent: *\nDisallow: /\n",
        "long.example": b"# x\n" * 200_000 + b"User-agent: *\nDisallow: /\n",
    }
    for host, body in rules.items():
        if body is None:
            web.redirect(f"{host}/robots.txt", "/robots.txt")
        else:
            web.respond(f"{host}/robots.txt", 200, body)
    outcomes = download(web, *(web.url("/image/1", host) for host in rules))
    closed = (RejectReason.OPTED_OUT, "robots.txt of bom.example")
    # What stands behind the first 500 KiB is not read.
    assert outcomes == [make_jpeg(1), make_jpeg(1), make_jpeg(1), closed, make_jpeg(1)]


def test_a_robots_txt_that_failed_once_is_asked_for_again(
    web: Web, make_jpeg: Callable[[int], bytes]
) -> None:
    web.drips("/robots.txt", 0.05, 1000)
    downloader = Downloader(
        DownloadSettings(allow_private=True, retries=0, timeout_s=0.3), 100_000, web.resolve
    )
    [first] = downloader.outcomes([(web.url("/image/1"), "")])
    web.respond("/robots.txt", 404)
    [second] = downloader.outcomes([(web.url("/image/1"), "")])
    downloader.close()
    assert str(first) == "timed out: after 0.3 s"
    assert second == Downloaded(make_jpeg(1), "image/jpeg")
