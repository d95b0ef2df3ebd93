"""Ingests with workers or without, as `attrib ingest` does, so that tests can kill it.

python distributed_program.py DATA REDIS LEASE_S ATTEMPTS SHARD_SIZE SOURCE...
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import slow_backbone as backbone

from ingest.decode import DecodeLimits
from ingest.source import open_sources
from search.collection import Collection
from search.index_url import parse_index_url
from search.ingestion import IngestReport, IngestSettings, ingest
from workers.coordinator import CoordinatorSettings
from workers.distributed import WorkersReport, ingest_with_workers


def settings(shard_size: int) -> IngestSettings:
    return IngestSettings(
        shard_size=shard_size, batch_size=16, decode_threads=2, limits=DecodeLimits()
    )


def opened(data: Path, index: str | None) -> Collection:
    url = None if index is None else parse_index_url(index)
    return Collection.create(data, None, backbone.model, index_url=url, wait_s=20)


def here(
    data: Path,
    sources: list[str],
    *,
    shard_size: int = 100,
    force: bool = False,
    index: str | None = None,
) -> IngestReport:
    with opened(data, index) as collection:
        return ingest(
            collection,
            backbone.Projection,
            open_sources(sources),
            "set",
            settings=settings(shard_size),
            force=force,
        )


def with_workers(
    data: Path,
    redis: str,
    sources: list[str],
    *,
    shard_size: int = 100,
    lease_s: float = 2.0,
    attempts: int = 3,
    force: bool = False,
    index: str | None = None,
    notice: Any = print,
) -> WorkersReport:
    with opened(data, index) as collection:
        return ingest_with_workers(
            collection,
            open_sources(sources) if sources else [],
            "set",
            redis=redis,
            settings=settings(shard_size),
            workers=CoordinatorSettings(lease_s=lease_s, max_attempts=attempts),
            force=force,
            notice=notice,
        )


if __name__ == "__main__":
    data, redis, lease, attempts, size, *sources = sys.argv[1:]
    report = with_workers(
        Path(data),
        redis,
        sources,
        shard_size=int(size),
        lease_s=float(lease),
        attempts=int(attempts),
        notice=lambda line: print(line, flush=True),
    )
    print(report, flush=True)
