"""Files of stores read as if they were here: any bytes, through outages, never a mixture."""

from __future__ import annotations

import random
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stores import Bucket, Site

from ingest.errors import StorageError
from ingest.storage import is_remote, location
from ingest.stored import MissingError, read_bytes
from ingest.stored_file import StoredFile

DATA = np.random.default_rng(3).integers(0, 256, 3_000_000, dtype=np.uint8).tobytes()


def opened(url: str, *, scattered: bool = False) -> StoredFile:
    at = location(url)
    assert is_remote(at)
    return StoredFile(at, scattered=scattered)


@pytest.fixture(params=["s3", "ranges", "stream"])
def url(request: pytest.FixtureRequest) -> str:
    """The same file on S3, on a web server that sends parts, and on one that does not."""
    if request.param == "s3":
        s3: Bucket = request.getfixturevalue("s3")
        s3.files.pipe_file(f"{s3.name}/file", DATA)
        return s3.url("file")
    site: Site = request.getfixturevalue("site")
    site.ranges = request.param == "ranges"
    site.files["/file"] = DATA
    return site.url("/file")


@pytest.mark.parametrize("scattered", [False, True])
def test_any_bytes_of_it(url: str, scattered: bool) -> None:
    rng = random.Random(1)
    with opened(url, scattered=scattered) as file:
        for _ in range(20):
            start, size = rng.randrange(len(DATA) + 1000), rng.randrange(600_000)
            assert file.seek(start) == start
            assert file.read(size) == DATA[start : start + size]
            assert file.tell() == start + len(DATA[start : start + size])
        file.seek(0)
        assert file.read() == DATA
        assert file.read(1) == b""


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(moves=st.lists(st.tuples(st.integers(-70_000, 400_000), st.integers(0, 300_000))))
def test_a_stream_that_is_sought_to_and_fro(site: Site, moves: list[tuple[int, int]]) -> None:
    site.ranges = False
    site.files["/file"] = data = DATA[:500_000]
    with opened(site.url("/file")) as file:
        for step, size in moves:
            start = min(max(file.tell() + step, 0), len(data))
            file.seek(start)
            assert file.read(size) == data[start : start + size]


def test_the_end_is_where_a_file_ends(url: str) -> None:
    with opened(url, scattered=True) as file:
        file.read(10)
        assert file.seek(-5, 2) == len(DATA) - 5
        assert file.read() == DATA[-5:]
        with pytest.raises(ValueError, match=r"^negative seek position -1$"):
            file.seek(-1)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_connection_that_breaks_is_made_again(site: Site, ranges: bool) -> None:
    site.files["/file"], site.ranges, site.breaks = DATA, ranges, 3
    with opened(site.url("/file")) as file:
        assert file.read() == DATA
    assert site.breaks == 0


def test_a_busy_server_is_asked_again(site: Site) -> None:
    site.files["/file"], site.refuses = DATA, 4
    with opened(site.url("/file")) as file:
        assert file.read() == DATA


def test_a_server_that_stays_busy_is_given_up(site: Site) -> None:
    site.files["/file"], site.refuses = DATA, 1000
    with pytest.raises(StorageError) as caught:
        opened(site.url("/file"))
    assert str(caught.value) == (
        f"cannot reach {site.url('/file')} (503 Service Unavailable);"
        " the same command goes on when that is mended"
    )


def test_a_server_that_forbids_is_not_asked_again(site: Site) -> None:
    site.files["/file"], site.refuses, site.status = DATA, 1000, 403
    with pytest.raises(StorageError) as caught:
        opened(site.url("/file?signature=secret"))
    assert str(caught.value) == (
        f"no access to {site.url('/file')} (403 Forbidden); check that it may be read from here"
    )
    assert len(site.requests) <= 2


def test_a_file_that_is_not_there(s3: Bucket, site: Site) -> None:
    for url in (s3.url("none"), site.url("/none")):
        with pytest.raises(MissingError) as caught:
            opened(url)
        assert str(caught.value) == f"no such file or folder: {url}"
    assert len(site.requests) <= 2


def test_a_file_that_is_replaced_is_no_mixture(s3: Bucket) -> None:
    big = DATA * 12
    s3.files.pipe_file(f"{s3.name}/file", big)
    with opened(s3.url("file")) as file:
        assert file.read(1000) == big[:1000]
        s3.files.pipe_file(f"{s3.name}/file", big[::-1])
        file.seek(len(big) - 1000)
        with pytest.raises(StorageError) as caught:
            file.read(1000)
    assert str(caught.value) == (
        f"{s3.url('file')} changed while it was read; run the same command again"
    )


def test_no_more_than_is_wanted(site: Site) -> None:
    site.ranges = False
    site.files["/file"] = DATA
    at = location(site.url("/file"))
    assert is_remote(at)
    assert read_bytes(at, 100) == DATA[:101]


@pytest.mark.parametrize("ranges", [True, False])
def test_memory_is_bounded(site: Site, ranges: bool) -> None:
    big = DATA * 40  # 120 MB
    site.files["/big"], site.ranges = big, ranges
    tracemalloc.start()
    total = 0
    with opened(site.url("/big")) as file:
        while piece := file.read(500_000):
            total += len(piece)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == len(big)
    # Four blocks of 8 MiB, one more being joined, and the server's own slice of one.
    assert peak < 60_000_000
