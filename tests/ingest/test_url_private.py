"""Addresses that are not public are never asked: by number, by name, by redirect, by rebinding.

127.0.0.2 stands in for a public address here, since no test may ask the real ones; the server
listens on all addresses of this machine and counts what each of them was asked.
"""

from __future__ import annotations

import asyncio
import socket
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ingest.download_address
from ingest.download import Downloader
from ingest.download_address import PinnedBackend, SystemResolver, is_public
from ingest.download_errors import TransientError
from ingest.download_fetch import Downloaded
from ingest.download_settings import DownloadSettings
from ingest.errors import ImageError, RejectReason

Web = Any
PUBLIC = "127.0.0.2"


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        ingest.download_address, "is_public", lambda text: text == PUBLIC or is_public(text)
    )


def download(web: Web, *urls: str, **settings: Any) -> list[bytes | tuple[RejectReason, str]]:
    downloader = Downloader(DownloadSettings(retries=0, **settings), 100_000, web.resolve)
    try:
        return [
            found.data if isinstance(found, Downloaded) else (found.reason, found.detail)
            for found in downloader.outcomes([(url, "") for url in urls])
        ]
    finally:
        downloader.close()


def refused(host: str, address: str) -> tuple[RejectReason, str]:
    return RejectReason.FORBIDDEN_ADDRESS, f"{host} is {address}"


def test_a_name_of_a_private_address(web: Web) -> None:
    web.names = {"router.example": ["10.0.0.1", "::1"], "loop.example": ["127.0.0.1"]}
    assert download(
        web, web.url("/image/1", "router.example"), web.url("/image/1", "loop.example")
    ) == [refused("router.example", "10.0.0.1, ::1"), refused("loop.example", "127.0.0.1")]
    assert web.requests == []


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "127.1", "0x7f000001", "2130706433", "0.0.0.0", "[::1]",
     "[::ffff:127.0.0.1]", "[::ffff:7f00:1]"],
)  # fmt: skip
def test_this_machine_by_all_its_spellings(web: Web, host: str) -> None:
    downloader = Downloader(DownloadSettings(retries=0), 100_000)  # the system's own resolver
    [outcome] = downloader.outcomes([(f"http://{host}:{web.port}/image/1", "")])
    downloader.close()
    assert isinstance(outcome, ImageError)
    assert outcome.reason is RejectReason.FORBIDDEN_ADDRESS
    assert web.requests == []


@pytest.mark.usefixtures("stand_in")
def test_a_redirect_to_a_private_address(web: Web) -> None:
    web.names = {"images.example": [PUBLIC], "inside.example": ["127.0.0.1"]}
    web.redirect("/by-name", web.url("/image/1", "inside.example"))
    web.redirect("/by-number", web.url("/image/1", "127.0.0.1"))
    web.redirect("/meta", "http://169.254.169.254/latest/meta-data/")
    web.names["169.254.169.254"] = ["169.254.169.254"]
    urls = map(web.url, ("/by-name", "/by-number", "/meta"))
    assert download(web, *urls) == [
        refused("inside.example", "127.0.0.1"),
        refused("127.0.0.1", "127.0.0.1"),
        refused("169.254.169.254", "169.254.169.254"),
    ]
    assert set(web.asked_at) == {PUBLIC}


@pytest.mark.usefixtures("stand_in")
def test_robots_txt_that_redirects_to_a_private_address(web: Web) -> None:
    web.names = {"images.example": [PUBLIC], "inside.example": ["127.0.0.1"]}
    web.redirect("images.example/robots.txt", web.url("/robots.txt", "inside.example"))
    assert download(web, web.url("/image/1")) == [refused("inside.example", "127.0.0.1")]
    assert set(web.asked_at) == {PUBLIC}
    assert web.paths() == []


@pytest.mark.usefixtures("stand_in")
def test_a_name_that_changes_its_address(web: Web) -> None:
    """The answer that was checked is the one that is connected to, and every new one is checked."""
    answers = iter([[PUBLIC], ["127.0.0.1"], ["127.0.0.1"], ["127.0.0.1"]])

    async def rebinding(host: str, port: int) -> list[str]:
        return next(answers)

    web.respond("/robots.txt", 404, Connection="close")  # a second connection is needed
    web.resolve = rebinding
    assert download(web, web.url("/image/1")) == [refused("images.example", "127.0.0.1")]
    assert dict(web.asked_at) == {PUBLIC: 1}


@pytest.mark.usefixtures("stand_in")
def test_of_several_addresses_only_public_ones_are_asked(web: Web) -> None:
    web.names = {"images.example": ["127.0.0.1", "10.0.0.1", PUBLIC]}
    [found] = download(web, web.url("/image/1"))
    assert isinstance(found, bytes)
    assert set(web.asked_at) == {PUBLIC}


def test_private_addresses_can_be_allowed(web: Web) -> None:
    [found] = download(web, web.url("/image/1"), allow_private=True)
    assert isinstance(found, bytes)


def test_a_proxy_in_the_environment_is_not_asked(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{web.port}")
    web.names = {"images.example": ["10.0.0.1"]}
    assert download(web, web.url("/image/1")) == [refused("images.example", "10.0.0.1")]
    assert web.requests == []


NOT_PUBLIC = [
    "0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "127.255.255.255", "169.254.169.254",
    "172.16.0.1", "172.31.255.255", "192.0.0.8", "192.0.2.1", "192.88.99.1", "192.168.0.1",
    "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.1.1.1", "240.0.0.1",
    "255.255.255.255",
]  # fmt: skip
PUBLIC_V4 = ["8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "193.0.0.1", "223.255.255.255"]
NOT_PUBLIC_V6 = [
    "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "fec0::1", "ff02::1", "100::1",
    "2001:db8::1", "2001::1", "3fff::1", "64:ff9b:1::a00:1", "::8.8.8.8",
]  # fmt: skip


@pytest.mark.parametrize("text", [*NOT_PUBLIC, *NOT_PUBLIC_V6, "", "images.example", "1.2.3"])
def test_addresses_that_are_not_public(text: str) -> None:
    assert not is_public(text)


@pytest.mark.parametrize("text", [*PUBLIC_V4, "2606:4700:4700::1111", "2a00:1450::1"])
def test_addresses_that_are_public(text: str) -> None:
    assert is_public(text)


@given(st.sampled_from(NOT_PUBLIC + PUBLIC_V4) | st.ip_addresses(v=4).map(str))
def test_an_ipv4_address_in_any_dress_of_ipv6_is_judged_as_itself(text: str) -> None:
    number = int(IPv4Address(text))
    mapped = IPv6Address((0xFFFF << 32) | number)
    nat64 = IPv6Address((0x64FF9B << 96) | number)
    six_to_four = IPv6Address((0x2002 << 112) | (number << 80) | 1)
    assert {is_public(str(dress)) for dress in (mapped, nat64, six_to_four)} == {is_public(text)}


@given(st.ip_addresses())
def test_public_addresses_are_global_unicast(address: IPv4Address | IPv6Address) -> None:
    if is_public(str(address)):
        assert address.is_global
        assert not address.is_multicast
        assert not address.is_loopback


def test_the_systems_resolver() -> None:
    async def look_up() -> None:
        resolver = SystemResolver()
        try:
            assert await resolver("127.0.0.1", 80) == ["127.0.0.1"]
            assert "127.0.0.1" in await resolver("localhost", 80)
            with pytest.raises(socket.gaierror):
                await resolver("no-such-name.invalid", 80)
        finally:
            resolver.close()

    asyncio.run(look_up())


def test_a_resolver_that_does_not_answer() -> None:
    async def never(host: str, port: int) -> list[str]:
        await asyncio.sleep(60)
        return []

    async def connect() -> None:
        await PinnedBackend(never, allow_private=False).connect_tcp("slow.example", 80, 0.05)

    with pytest.raises(TransientError) as caught:
        asyncio.run(connect())
    assert str(caught.value) == "timed out: looking up the name slow.example"
