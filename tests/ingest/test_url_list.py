"""Lists of URLs as sources: which lists are ones, their items, records, and kept images."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.download_settings import DownloadSettings
from ingest.errors import DataFolderError, RejectReason, SourceError
from ingest.record import ImageRecord, Reject
from ingest.source import ListingSource, TarSource, UrlListSource, open_sources
from ingest.url_source import key_of_url

Web = Any
Open = Callable[..., UrlListSource]


@pytest.fixture
def open_urls(web: Web) -> Iterator[Open]:
    opened: list[UrlListSource] = []

    def open_list(path: Path, **settings: Any) -> UrlListSource:
        chosen = DownloadSettings(**{"allow_private": True, "retries": 0, **settings})
        [source] = open_sources([str(path)], download=chosen)
        assert isinstance(source, UrlListSource)
        opened.append(
            UrlListSource(path, source.max_bytes, source.column, source.settings, web.resolve)
        )
        return opened[-1]

    yield open_list
    for source in opened:
        source.close()


def kind(path: Path, table: dict[str, Any]) -> tuple[type, str | None]:
    pq.write_table(pa.table(table), path)
    [source] = open_sources([str(path)])
    return type(source), getattr(source, "column", None)


def test_which_tables_are_lists_of_urls(tmp_path: Path) -> None:
    path = tmp_path / "list.parquet"
    url, file = ["http://x.example/a"], ["a.jpg"]
    assert kind(path, {"URL": url, "TEXT": ["x"]}) == (UrlListSource, "URL")
    assert kind(path, {"url": url, "caption": ["x"]}) == (UrlListSource, "url")
    assert kind(path, {"image_url": url}) == (UrlListSource, "image_url")
    assert kind(path, {"key": ["000000001"], "url": url}) == (UrlListSource, "url")
    assert kind(path, {"image": [None, url[0]]}) == (UrlListSource, "image")
    assert kind(path, {"file": file, "url": url}) == (ListingSource, None)
    assert kind(path, {"key": file}) == (ListingSource, None)
    assert kind(path, {"caption": ["x"]}) == (ListingSource, None)


def test_text_and_csv_lists(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("# LAION\n\nHTTPS://x.example/a b.jpg\nhttp://x.example/é\n")
    (tmp_path / "a.csv").write_text("url,license\nhttp://x.example/1,CC0\n")
    text, table = open_sources([str(tmp_path / "a.txt"), str(tmp_path / "a.csv")])
    assert [item.origin for item in text.items()] == [
        "HTTPS://x.example/a b.jpg",
        "http://x.example/é",
    ]
    [item] = table.items()
    assert (item.origin, item.metadata.licence) == ("http://x.example/1", "CC0")


def test_items_keep_what_laion_says(tmp_path: Path) -> None:
    url = "http://x.example/a.jpg"
    row = {
        "SAMPLE_ID": [2**60], "URL": [f" {url} "], "TEXT": ["a cat"], "HEIGHT": [300.0],
        "WIDTH": [400.0], "LICENSE": ["CC-BY"], "NSFW": ["UNLIKELY"], "similarity": [0.33],
        "hash": [-12345], "punsafe": [0.01], "pwatermark": [float("nan")], "LANGUAGE": ["en"],
        "sha256": ["AB" * 32],
    }  # fmt: skip
    pq.write_table(pa.table(row), tmp_path / "laion.parquet")
    [source] = open_sources([str(tmp_path / "laion.parquet")])
    [item] = source.items()
    assert item.key == key_of_url(url)
    assert item.signature == "ab" * 32
    known = item.metadata
    assert (known.url, known.caption, known.licence) == (url, "a cat", "CC-BY")
    assert known.extra == {
        "SAMPLE_ID": 2**60, "HEIGHT": 300.0, "WIDTH": 400.0, "NSFW": "UNLIKELY",
        "similarity": 0.33, "hash": -12345, "punsafe": 0.01, "LANGUAGE": "en", "sha256": "AB" * 32,
    }  # fmt: skip


def test_the_key_is_the_beginning_of_the_urls_sha256() -> None:
    # printf %s http://x.example/a.jpg | sha256sum
    assert key_of_url("http://x.example/a.jpg") == "7c7247922fd6ac7c8c59f6dc96669fd6"


@given(st.text(max_size=50), st.text(max_size=50))
def test_keys_differ_as_urls_do(one: str, other: str) -> None:
    assert (key_of_url(one) == key_of_url(other)) == (one == other)


def test_records_and_rejects_come_in_order(
    tmp_path: Path, web: Web, open_urls: Open, make_jpeg: Callable[[int], bytes]
) -> None:
    good, gone = web.url("/image/1"), web.url("/gone")
    table = {"URL": [good, None, gone, good, "no url"], "TEXT": ["a", "b", "c", "d", "e"]}
    pq.write_table(pa.table(table), tmp_path / "laion.parquet")
    source = open_urls(tmp_path / "laion.parquet")
    items = list(source.items())
    assert items[0].key == items[3].key
    assert list(source.records(items)) == [
        ImageRecord(key_of_url(good), make_jpeg(1), good, url=good, caption="a"),
        Reject("laion.parquet#row2", "", RejectReason.BAD_URL, "0 characters"),
        Reject(key_of_url(gone), gone, RejectReason.DEAD_LINK, "HTTP 404"),
        ImageRecord(key_of_url(good), make_jpeg(1), good, url=good, caption="d"),
        Reject(key_of_url("no url"), "no url", RejectReason.BAD_URL, "scheme missing"),
    ]
    assert sorted(web.paths()) == ["/gone", "/image/1"]


def test_ignored_opt_outs_are_noted(
    tmp_path: Path, web: Web, open_urls: Open, make_jpeg: Callable[[int], bytes]
) -> None:
    web.image("/x", X_Robots_Tag="noai")
    (tmp_path / "a.txt").write_text(web.url("/x") + "\n")
    source = open_urls(tmp_path / "a.txt", ignore_opt_out=True)
    [record] = source.records(list(source.items()))
    assert isinstance(record, ImageRecord)
    assert record.extra == {"opt_out": "ignored"}


def test_a_network_that_is_down_is_no_fault_of_the_images(
    tmp_path: Path, web: Web, open_urls: Open
) -> None:
    hosts = [f"h{i}.example" for i in range(16)]
    web.names = {host: ["later"] for host in hosts}
    listing = tmp_path / "a.txt"
    listing.write_text("".join(web.url(f"/image/{i}", host) + "\n" for i, host in enumerate(hosts)))
    source = open_urls(listing)
    items = list(source.items())
    with pytest.raises(SourceError) as caught:
        list(source.records(items))
    assert str(caught.value) == (
        f"{listing}: none of 16 hosts could be reached; when the network is up again, the same "
        "command goes on"
    )
    web.names[hosts[3]] = []  # a name server that says no is a network that is up
    assert len(list(source.records(items))) == 16


def test_a_list_without_urls(tmp_path: Path) -> None:
    pq.write_table(pa.table({"URL": pa.array([], pa.string())}), tmp_path / "a.parquet")
    [source] = open_sources([str(tmp_path / "a.parquet")])
    with pytest.raises(SourceError) as caught:
        list(source.items())
    assert str(caught.value) == f"no images in {tmp_path / 'a.parquet'} (it lists no URLs)"


def test_a_url_column_of_other_data(tmp_path: Path) -> None:
    pq.write_table(pa.table({"URL": [["a"]]}), tmp_path / "a.parquet")
    [source] = open_sources([str(tmp_path / "a.parquet")])
    with pytest.raises(SourceError) as caught:
        list(source.items())
    assert str(caught.value) == (
        f"{tmp_path / 'a.parquet'}: column URL holds no URLs but other data"
    )


def test_kept_images_are_read_again_as_tars(
    tmp_path: Path, web: Web, open_urls: Open, make_jpeg: Callable[[int], bytes]
) -> None:
    web.image("/page", kind="image/jpeg")
    urls = [web.url("/image/1"), web.url("/gone"), web.url("/image/2")]
    table = {"URL": urls, "TEXT": ["one", "two", None], "LICENSE": ["CC0"] * 3, "score": [1, 2, 3]}
    pq.write_table(pa.table(table), tmp_path / "laion.parquet")
    kept = tmp_path / "kept"
    source = open_urls(tmp_path / "laion.parquet", keep_images=kept)
    items = list(source.items())
    direct = [r for r in source.records(items) if isinstance(r, ImageRecord)]
    before = {path.name: path.read_bytes() for path in kept.iterdir()}
    assert sorted(Path(name).suffix for name in before) == [".json", ".parquet", ".tar"]

    [tar, _] = open_sources([str(kept)])
    assert isinstance(tar, TarSource)
    again = list(tar.records())
    assert len(again) == 2
    for record, first in zip(again, direct, strict=True):
        assert isinstance(record, ImageRecord)
        assert record.key == f"{tar.path.stem}/{first.key}"
        assert (record.data, record.url, record.caption, record.licence) == (
            first.data,
            first.url,
            first.caption,
            first.licence,
        )
        assert record.extra["score"] == first.extra["score"]

    [rows] = [pq.read_table(path).to_pylist() for path in kept.glob("*.parquet")]
    assert [row["status"] for row in rows] == ["success", "failed_to_download", "success"]
    assert rows[1]["error_message"] == "dead link: HTTP 404"
    [stats] = [json.loads(path.read_text()) for path in kept.glob("*_stats.json")]
    assert stats == {
        "count": 3,
        "successes": 2,
        "failed_to_download": 1,
        "status_dict": {"dead link": 1},
    }
    with tarfile.open(tar.path) as file:
        key = key_of_url(urls[0])
        assert file.getnames()[:3] == [f"{key}.jpg", f"{key}.txt", f"{key}.json"]

    # The same shard again: the same files, none beside them.
    list(source.records(items))
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == before


def test_nothing_is_kept_of_a_shard_that_was_broken_off(
    tmp_path: Path, web: Web, open_urls: Open
) -> None:
    (tmp_path / "a.txt").write_text(f"{web.url('/image/1')}\n{web.url('/image/2')}\n")
    source = open_urls(tmp_path / "a.txt", keep_images=tmp_path / "kept")
    records = source.records(list(source.items()))
    next(records)
    records.close()  # type: ignore[attr-defined]
    assert list((tmp_path / "kept").iterdir()) == []


def test_no_tar_of_no_images(tmp_path: Path, web: Web, open_urls: Open) -> None:
    (tmp_path / "a.txt").write_text(f"{web.url('/gone')}\n")
    source = open_urls(tmp_path / "a.txt", keep_images=tmp_path / "kept")
    list(source.records(list(source.items())))
    assert sorted(path.suffix for path in (tmp_path / "kept").iterdir()) == [".json", ".parquet"]


def test_a_folder_where_nothing_can_be_kept(tmp_path: Path, web: Web, open_urls: Open) -> None:
    (tmp_path / "a.txt").write_text(f"{web.url('/image/1')}\n")
    (tmp_path / "kept").write_text("a file")
    source = open_urls(tmp_path / "a.txt", keep_images=tmp_path / "kept")
    with pytest.raises(DataFolderError) as caught:
        list(source.records(list(source.items())))
    assert str(caught.value) == f"cannot keep images in {tmp_path / 'kept'}: File exists"
