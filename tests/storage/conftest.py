"""Stores to read from and write to; see `stores`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Helper modules that lie beside tests are imported by their names.
sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1] / "search")]

from stores import Bucket, Site, bucket_at, s3_server, web_site


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    with s3_server() as url:
        yield url


@pytest.fixture
def s3(endpoint: str) -> Iterator[Bucket]:
    with bucket_at(endpoint) as bucket:
        yield bucket


@pytest.fixture
def site() -> Iterator[Site]:
    with web_site() as site:
        yield site
