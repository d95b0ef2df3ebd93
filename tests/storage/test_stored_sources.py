"""Sources by URL: what is found, and that it is read as it would be from a folder here."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ingested import draw
from stores import Bucket, Site, forget_clients

from ingest.errors import AttribError, RejectReason, SourceError, StorageError, UsageError
from ingest.item import ItemSource
from ingest.record import ImageRecord, Reject
from ingest.source import UrlListSource, open_sources

CANNOT_BE_LISTED = (
    "the web cannot be listed; name its files ({00000..00010}.tar works), or a list of their URLs"
)


def records(*specs: str) -> list[ImageRecord | Reject]:
    found: list[ImageRecord | Reject] = []
    for source in open_sources(specs):
        if isinstance(source, ItemSource):
            found += [source.read(item) for item in source.items()]
        else:
            found += source.records()
    return found


def told(found: list[ImageRecord | Reject]) -> list[Any]:
    """All that is the same wherever an image is: everything but its place."""
    return [
        (r.key, r.data, r.caption, r.creator, r.url, dict(r.extra))
        if isinstance(r, ImageRecord)
        else (r.key, r.reason)
        for r in found
    ]


def error_of(kind: type[AttribError], *specs: str) -> str:
    with pytest.raises(kind) as caught:
        records(*specs)
    assert isinstance(caught.value, kind)
    return str(caught.value)


def make_tar(path: Path, seed: int, count: int = 3) -> Path:
    rng = np.random.default_rng(seed)
    with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as tar:
        for i in range(count):
            for name, data in (
                (f"{i:04}.jpg", rng.bytes(20_000 + i)),
                (f"{i:04}.txt", f"caption {i}".encode()),
            ):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images in two folders, with all that can describe them."""
    root = tmp_path / "set"
    for i, name in enumerate(("b.png", "a b.png", "sub/c.jpg", "sub/deeper/é.png")):
        draw(root / name, i)
    (root / "b.txt").write_text("a caption")
    (root / "b.json").write_text('{"creator": "someone"}')
    (root / "empty.png").write_bytes(b"")
    draw(root / ".hidden.png", 9)
    table = {"file": ["c.jpg", "deeper/é.png"], "caption": ["in the table", "so is this"]}
    pq.write_table(pa.table(table), root / "sub" / "metadata.parquet")
    return root


def test_a_folder_of_images_is_read_as_here(s3: Bucket, folder: Path) -> None:
    for spec in (s3.put(folder, "some/set"), s3.url("some/set/"), s3.url("some/s*")):
        there, here = records(spec), records(str(folder))
        assert told(there) == told(here)
        assert len(here) == 5
    assert [r.path for r in there][:2] == [
        s3.url("some/set/a b.png"),
        s3.url("some/set/b.png"),
    ]


def test_a_whole_bucket(s3: Bucket, folder: Path) -> None:
    s3.put(folder)
    assert told(records(s3.url().rstrip("/"))) == told(records(str(folder)))


def test_signatures_change_with_what_is_read(s3: Bucket, folder: Path) -> None:
    spec = s3.put(folder, "set")

    def signatures() -> dict[str, str]:
        (source,) = open_sources([spec])
        assert isinstance(source, ItemSource)
        return {item.key: item.signature for item in source.items()}

    before = signatures()
    s3.put(folder, "set")  # the same bytes at another time
    assert signatures() == before
    draw(folder / "a b.png", 77)
    (folder / "b.txt").write_text("another caption")
    s3.put(folder, "set")
    after = signatures()
    assert {key for key in before if before[key] != after[key]} == {"a b.png", "b.png"}


def test_a_folder_of_tars_and_their_patterns(s3: Bucket, tmp_path: Path) -> None:
    folder = tmp_path / "tars"
    folder.mkdir()
    for i in range(4):
        make_tar(folder / f"{i:05}.tar", i)
    make_tar(folder / "more.tgz", 9)
    root = s3.put(folder, "tars")
    assert told(records(root)) == told(records(str(folder)))
    assert told(records(root + "/{00001..00003}.tar")) == told(
        records(f"{folder}/{{00001..00003}}.tar")
    )
    assert told(records(root + "/0*2.tar")) == told(records(f"{folder}/0*2.tar"))
    first, *_ = records(root)
    assert first.path == s3.url("tars/00000.tar#0000.jpg")
    assert error_of(SourceError, root + "/{00002..00006}.tar") == (
        f"3 of the 5 files of {root}/{{00002..00006}}.tar are missing,"
        f" the first is {root}/00004.tar"
    )


def test_a_tar_that_is_cut_off_is_told_from_a_network_that_is_down(
    s3: Bucket, site: Site, tmp_path: Path
) -> None:
    whole = make_tar(tmp_path / "a.tar", 1).read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[:30_000])
    url = s3.put(tmp_path / "cut.tar", "cut.tar")
    assert error_of(SourceError, url) == f"{url} is cut off after 1 images"
    site.files["/a.tar"] = whole
    (tar,) = open_sources([site.url("/a.tar")])
    site.refuses = 1000
    with pytest.raises(StorageError) as caught:
        list(tar.records())  # type: ignore[union-attr]
    assert not isinstance(caught.value, SourceError)


def test_lists_of_files_beside_them(s3: Bucket, folder: Path, site: Site) -> None:
    names = ["b.png", "sub/c.jpg", "none.png", "./sub/../a b.png"]
    (folder / "list.txt").write_text("\n".join(names))
    table = {"path": [*names, None], "caption": ["one", "two", "three", "four", "five"]}
    pq.write_table(pa.table(table), folder / "list.parquet")
    (folder / "list.csv").write_text("file,creator\nb.png,Jane\nsub/c.jpg,Joe\n")
    root = s3.put(folder, "set")
    for name in ("list.txt", "list.parquet", "list.csv"):
        assert told(records(f"{root}/{name}")) == told(records(f"{folder}/{name}"))
        site.files[f"/{name}"] = (folder / name).read_bytes()
    site.files["/b.png"] = (folder / "b.png").read_bytes()
    (here, *_), (there, *_) = records(f"{folder}/list.parquet"), records(site.url("/list.parquet"))
    assert isinstance(here, ImageRecord)
    assert isinstance(there, ImageRecord)
    assert (there.key, there.data) == (here.key, here.data)


def test_a_list_leads_nowhere_else(s3: Bucket, folder: Path, tmp_path: Path) -> None:
    s3.put(folder, "set")
    secret = draw(tmp_path / "secret.png", 5)
    lines = [str(secret), "../../../x.png", "../set/b.png", s3.url("set/sub/c.jpg"), "/set/b.png"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    found = records(s3.put(tmp_path / "list.txt", "lists/list.txt"))
    assert [(r.key, isinstance(r, ImageRecord)) for r in found] == [
        (s3.url(str(secret).lstrip("/")), False),
        ("list.txt#row2", False),
        (s3.url("set/b.png"), True),
        (s3.url("set/sub/c.jpg"), True),
        (s3.url("set/b.png"), True),
    ]
    # A list here may name files there.
    here = tmp_path / "here.txt"
    here.write_text(s3.url("set/b.png"))
    assert [(r.key, isinstance(r, ImageRecord)) for r in records(str(here))] == [
        (s3.url("set/b.png"), True)
    ]


def test_images_named_one_by_one(s3: Bucket, folder: Path, site: Site) -> None:
    root = s3.put(folder, "set")
    there = records(f"{root}/b.png", f"{root}/sub/c.jpg")
    assert told(there) == told(records(f"{folder}/b.png", f"{folder}/sub/c.jpg"))
    site.files["/x/a%20b.png"] = (folder / "b.png").read_bytes()
    (found,) = records(site.url("/x/a%20b.png?X-Signature=secret"))
    assert isinstance(found, ImageRecord)
    assert (found.key, found.path) == ("a b.png", site.url("/x/a%20b.png"))


def test_tars_of_the_web(site: Site, tmp_path: Path) -> None:
    for i in range(3):
        site.files[f"/{i}.tar"] = make_tar(tmp_path / f"{i}.tar", i).read_bytes()
    here = told(records(f"{tmp_path}/{{0..2}}.tar"))
    for ranges in (True, False):
        site.ranges = ranges
        there = records(site.url("/{0..2}.tar?signed=secret"))
        assert told(there) == here
        assert not any("secret" in record.path for record in there)
    spec = site.url("/{1..4}.tar")
    assert error_of(SourceError, spec) == (
        f"2 of the 4 files of {spec} are missing, the first is {site.url('/3.tar')}"
    )
    for spec in (site.url("/folder/"), site.url("/*.tar")):
        assert error_of(UsageError, spec) == f"{spec}: {CANNOT_BE_LISTED}"


def test_an_outage_is_not_the_images_fault(site: Site, folder: Path) -> None:
    site.files["/b.png"] = (folder / "b.png").read_bytes()
    (source,) = open_sources([site.url("/b.png")])
    assert isinstance(source, ItemSource)
    (item,) = source.items()
    site.refuses = 1000
    with pytest.raises(StorageError) as caught:
        source.read(item)
    assert str(caught.value) == (
        f"cannot reach {site.url('/b.png')} (503 Service Unavailable);"
        " the same command goes on when that is mended"
    )
    site.refuses = 0
    del site.files["/b.png"]
    assert source.read(item) == Reject(
        "b.png", site.url("/b.png"), RejectReason.UNREADABLE, "No such file or directory"
    )


def test_lists_of_urls(s3: Bucket, tmp_path: Path) -> None:
    urls = [f"https://images.example/{i}.jpg" for i in range(3)]
    pq.write_table(pa.table({"URL": urls, "TEXT": ["a", "b", "c"]}), tmp_path / "laion.parquet")
    (source,) = open_sources([s3.put(tmp_path / "laion.parquet", "lists/laion.parquet")])
    assert isinstance(source, UrlListSource)
    assert [(item.origin, item.metadata.caption) for item in source.items()] == list(
        zip(urls, "abc", strict=True)
    )


def test_too_many_bytes_are_not_fetched(s3: Bucket, folder: Path, site: Site) -> None:
    root = s3.put(folder, "set")
    site.files["/b.png"] = b"x" * 5000
    for spec in (f"{root}/b.png", site.url("/b.png")):
        (source,) = open_sources([spec], max_bytes=10)
        assert isinstance(source, ItemSource)
        (item,) = source.items()
        found = source.read(item)
        assert isinstance(found, Reject)
        assert found.detail == f"{item.size} bytes, the limit is 10"


def test_what_is_not_there(s3: Bucket) -> None:
    assert error_of(SourceError, s3.url("none")) == f"no such file or folder: {s3.url('none')}"
    assert error_of(SourceError, s3.url("n*.tar")) == f"no files match {s3.url('n*.tar')}"
    for url in ("s3://no-such-bucket/a.tar", "s3://no-such-bucket", "s3://no-such-bucket/*.tar"):
        assert error_of(StorageError, url) == "no such bucket: s3://no-such-bucket"
    assert error_of(UsageError, "s3:///a.tar") == "s3:///a.tar names no bucket"
    assert error_of(UsageError, "https://") == "https:// names no host"
    s3.files.pipe_file(f"{s3.name}/model.ckpt", b"x")
    assert error_of(SourceError, s3.url("model.ckpt")) == (
        f"cannot tell what {s3.url('model.ckpt')} is: expected a folder, a tar"
        " (.tar, .tar.gz, .tgz), a list (.txt, .parquet, .csv) or an image"
    )


def test_no_credentials(s3: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    forget_clients()
    assert error_of(StorageError, s3.url("a.tar")) == (
        f"no credentials for {s3.url('a.tar')}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
        "or AWS_PROFILE; of a public bucket, FSSPEC_S3_ANON=true"
    )


def test_bad_credentials(s3: Bucket, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    # moto takes any credentials; a server that refuses them all says so by its status.
    site.refuses, site.status = 1000, 403
    monkeypatch.setenv("AWS_ENDPOINT_URL", site.url(""))
    forget_clients()
    url = s3.url("a.tar")
    assert error_of(StorageError, url) == (
        f"no access to {url} (Forbidden); check the credentials "
        "(AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE)"
    )


def test_a_store_that_is_not_reached(s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    forget_clients()
    url = s3.url("a.tar")
    assert error_of(StorageError, url) == (
        f'cannot reach {url} (Could not connect to the endpoint URL: "http://127.0.0.1:9/'
        f'{s3.name}/a.tar"); the same command goes on when that is mended'
    )


def test_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.storage._is_installed", lambda package: False)
    for url, line in {
        "s3://b/a.tar": "s3:// needs s3fs: pip install 'attrib[s3]'",
        "gs://b/a.tar": "gs:// needs gcsfs: pip install 'attrib[gcs]'",
        "https://h/a.tar": "https:// needs aiohttp: pip install aiohttp",
    }.items():
        assert error_of(UsageError, url) == line


def test_a_file_url_is_a_path(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "a b.tar", 1)
    assert [s.name for s in open_sources([f"file://{tmp_path}/a%20b.tar"])] == [str(path)]
