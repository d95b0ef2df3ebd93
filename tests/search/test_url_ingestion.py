"""Lists of URLs through the whole pipeline: counts, resuming, trying again."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import fake_backbone as fake
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ingested import state
from numpy.typing import NDArray

from ingest.download_settings import DownloadSettings
from ingest.record import point_id
from ingest.source import UrlListSource
from ingest.url_source import key_of_url
from search.collection import Collection
from search.ingestion import IngestReport, IngestSettings, ingest

Web = Any


def laion(path: Path, urls: list[str]) -> Path:
    rows = {
        "URL": urls,
        "TEXT": [f"text {i}" for i in range(len(urls))],
        "similarity": [0.3 + i / 1000 for i in range(len(urls))],
        "LICENSE": ["?"] * len(urls),
    }
    pq.write_table(pa.table(rows), path)
    return path


def run(
    web: Web,
    data: Path,
    listing: Path,
    *,
    retry_failed: bool = False,
    embedder: fake.FakeEmbedder | None = None,
    **download: Any,
) -> IngestReport:
    download = {"allow_private": True, "retries": 0, "timeout_s": 5, **download}
    source = UrlListSource(listing, 100_000, "URL", DownloadSettings(**download), web.resolve)
    embedder = embedder or fake.FakeEmbedder()
    try:
        with Collection.create(data, None, fake.fake_model, wait_s=10) as collection:
            return ingest(
                collection,
                lambda: embedder,
                [source],
                "laion",
                settings=IngestSettings(shard_size=8, batch_size=5, decode_threads=2),
                retry_failed=retry_failed,
            )
    finally:
        source.close()


def test_counts_payloads_and_features(tmp_path: Path, web: Web) -> None:
    web.respond("/html", 200, b"<html>sorry", kind="image/jpeg")
    web.respond("/page", 200, b"<html>", kind="text/html")
    web.image("/withheld", X_Robots_Tag="noai")
    web.redirect("/loop", "/loop")
    web.sleeps("/slow", 3)
    web.breaks_off("/cut")
    web.names = {"nowhere.example": []}
    bad = ["/html", "/page", "/withheld", "/loop", "/slow", "/cut", "/gone"]
    urls = [*(web.url(f"/image/{i}") for i in range(20)), *map(web.url, bad), "nonsense",
            web.url("/image/1", "nowhere.example")]  # fmt: skip
    report = run(web, tmp_path / "data", laion(tmp_path / "list.parquet", urls), timeout_s=1)
    assert (report.ingested, report.unchanged, report.total) == (20, 0, 20)
    assert report.rejected == {
        "not an image": 2,
        "opted out": 1,
        "too many redirects": 1,
        "timed out": 1,
        "truncated image": 1,
        "dead link": 1,
        "not a web address": 1,
        "no connection": 1,
    }
    payload = state(tmp_path / "data")["points"][str(point_id("laion", key_of_url(urls[3])))][1]
    assert payload["url"] == payload["path"] == urls[3]
    assert payload["caption"] == "text 3"
    assert payload["licence"] == "?"
    assert payload["similarity"] == pytest.approx(0.303)
    rows = pq.read_table(tmp_path / "data" / "rejects.parquet").to_pylist()
    assert {row["path"]: row["detail"] for row in rows}[web.url("/page")] == (
        "content type text/html"
    )


def test_a_second_run_asks_nobody_and_retry_failed_only_for_what_failed(
    tmp_path: Path, web: Web
) -> None:
    urls = [web.url(f"/image/{i}") for i in range(10)]
    for i in (3, 4, 9):
        web.respond(f"/image/{i}", 404)
    listing = laion(tmp_path / "list.parquet", urls)
    data = tmp_path / "data"
    assert run(web, data, listing).rejected == {"dead link": 3}

    web.requests.clear()
    again = run(web, data, listing)
    assert (again.ingested, again.unchanged, again.rejected) == (0, 10, {})
    assert web.requests == []

    for i in (3, 9):
        del web.routes[f"/image/{i}"]
    mended = run(web, data, listing, retry_failed=True)
    assert (mended.ingested, mended.unchanged, mended.total) == (2, 7, 9)
    assert mended.rejected == {"dead link": 1}
    assert sorted(web.paths()) == ["/image/3", "/image/4", "/image/9"]
    [reject] = pq.read_table(data / "rejects.parquet").to_pylist()
    assert reject["path"] == web.url("/image/4")


def test_a_moved_list_and_a_new_caption_download_nothing(tmp_path: Path, web: Web) -> None:
    urls = [web.url(f"/image/{i}") for i in range(5)]
    data = tmp_path / "data"
    run(web, data, laion(tmp_path / "list.parquet", urls))
    (tmp_path / "list.parquet").unlink()
    web.requests.clear()
    report = run(web, data, laion(tmp_path / "other.parquet", urls[::-1]))
    assert (report.unchanged, report.ingested) == (5, 0)
    assert web.requests == []


def test_a_url_that_comes_twice_is_one_image(tmp_path: Path, web: Web) -> None:
    """Within a shard the second is refused; in a later shard it changes nothing."""
    urls = [web.url(f"/image/{i}") for i in (0, 1, 1, 2, 3, 4, 5, 6, 7, 1, 8)]
    data = tmp_path / "data"
    listing = laion(tmp_path / "list.parquet", urls)
    report = run(web, data, listing)
    assert report.total == 9
    assert report.rejected == {"key used twice in one dataset": 1}
    again = run(web, data, listing)
    assert (again.ingested, again.total, again.rejected) == (0, 9, {})


class Breaks(fake.FakeEmbedder):
    """Fails at its third batch."""

    def embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        if len(self.batches) == 2:
            raise KeyboardInterrupt
        return super().embed(pixels)


def test_a_broken_off_run_goes_on_where_it_stopped(tmp_path: Path, web: Web) -> None:
    web.respond("/image/5", 404)
    urls = [web.url(f"/image/{i}", f"h{i % 3}.example") for i in range(40)]
    listing = laion(tmp_path / "list.parquet", urls)
    run(web, tmp_path / "whole", listing)
    with pytest.raises(KeyboardInterrupt):
        run(web, tmp_path / "broken", listing, embedder=Breaks())
    web.requests.clear()
    report = run(web, tmp_path / "broken", listing)
    assert report.unchanged == 8  # the first shard, its reject among them
    assert not {f"/image/{i}" for i in range(8)} & set(web.paths())
    assert state(tmp_path / "broken") == state(tmp_path / "whole")


def test_the_next_shard_begins_while_the_last_image_of_one_is_waited_for(
    tmp_path: Path, web: Web
) -> None:
    web.sleeps("/slow", 1.5)
    urls = [web.url(f"/image/{i}", f"h{i}.example") for i in range(7)]
    urls += [web.url("/slow", "slow.example")]
    for i in range(8):
        web.sleeps(f"/late{i}", 1)
    urls += [web.url(f"/late{i}", f"l{i}.example") for i in range(8)]
    listing = laion(tmp_path / "list.parquet", urls)
    source = UrlListSource(
        listing, 100_000, "URL", DownloadSettings(allow_private=True), web.resolve
    )
    items = list(source.items())
    began = time.monotonic()
    first, second = source.records(items[:8]), source.records(items[8:])
    assert len([*first, *second]) == 16
    taken_s = time.monotonic() - began
    source.close()
    assert taken_s < 2.4  # one after the other: 2.5 s


def test_shards_are_downloaded_ahead_of_the_pipeline(tmp_path: Path, web: Web) -> None:
    web.sleeps("/slow", 1)
    urls = [web.url("/slow", "slow.example")]
    urls += [web.url(f"/image/{i}", f"h{i}.example") for i in range(15)]
    seen: list[int] = []

    class Watches(fake.FakeEmbedder):
        def embed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
            seen.append(len(web.paths()))
            return super().embed(pixels)

    listing = laion(tmp_path / "list.parquet", urls)
    run(web, tmp_path / "data", listing, embedder=Watches())
    # Before the slow first image of the first shard was there, all of the second had been asked.
    assert seen[0] == 16
