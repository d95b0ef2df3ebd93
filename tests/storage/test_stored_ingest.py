"""Whole ingests from and to a store: the same points, shards and rejects as from here."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from fake_backbone import FakeEmbedder, fake_model, run
from ingested import draw, images, state
from stores import Bucket, Site

from embed.shards import read_shard
from ingest.errors import DataFolderError, StorageError, UsageError
from ingest.source import open_sources
from search.collection import Collection
from search.feature_place import keep_features_at
from search.folder import DataFolder
from search.ingestion import IngestSettings, ingest
from search.removal import take_down


def tars(folder: Path, source: Path) -> Path:
    """Three tars of what is in a folder, each picture with its JSON."""
    folder.mkdir()
    for number in range(3):
        with tarfile.open(folder / f"{number:05}.tar", "w") as tar:
            for picture in sorted(source.glob("*.png"))[number::3]:
                for file in (picture, picture.with_suffix(".json")):
                    info = tarfile.TarInfo(file.name)
                    info.size = file.stat().st_size
                    tar.addfile(info, io.BytesIO(file.read_bytes()))
    return folder


def without_places(found: dict[str, Any], *places: str) -> Any:
    """What an ingest left, but where the images were."""
    text = repr(found)
    for place in places:
        text = text.replace(place, "PLACE")
    return text


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = images(tmp_path / "pictures", 40)
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "empty.png").write_bytes(b"")
    draw(folder / "sub" / "other.png", 99)
    return folder


def test_the_same_from_a_bucket_as_from_here(s3: Bucket, pictures: Path, tmp_path: Path) -> None:
    url = s3.put(pictures, "pictures")
    here, there = run(tmp_path / "here", [str(pictures)]), run(tmp_path / "there", [url])
    assert here == there
    assert (there.ingested, there.rejected) == (41, {"not an image": 1, "empty file": 1})
    assert without_places(state(tmp_path / "there"), url) == without_places(
        state(tmp_path / "here"), str(pictures)
    )
    again = run(tmp_path / "there", [url])
    assert (again.ingested, again.unchanged, again.shards) == (0, 43, 0)
    draw(pictures / "image 0003.png", 555)
    s3.put(pictures, "pictures")
    again = run(tmp_path / "there", [url])
    assert (again.ingested, again.unchanged) == (1, 42)


def test_the_same_from_tars(s3: Bucket, site: Site, pictures: Path, tmp_path: Path) -> None:
    folder = tars(tmp_path / "tars", images(tmp_path / "more", 20))
    url = s3.put(folder, "tars")
    here = run(tmp_path / "here", [str(folder)])
    assert here == run(tmp_path / "there", [url])
    expected = without_places(state(tmp_path / "here"), str(folder))
    assert without_places(state(tmp_path / "there"), url) == expected
    for path in folder.iterdir():
        site.files[f"/{path.name}"] = path.read_bytes()
    run(tmp_path / "web", [site.url("/{00000..00002}.tar")])
    assert without_places(state(tmp_path / "web"), site.url("").rstrip("/")) == expected
    assert run(tmp_path / "there", [url]).shards == 0


def test_an_outage_breaks_no_tar(site: Site, tmp_path: Path) -> None:
    """A tar that could not be fetched is no broken tar: the same command goes on."""
    folder = tars(tmp_path / "tars", images(tmp_path / "more", 12))
    for path in folder.iterdir():
        site.files[f"/{path.name}"] = path.read_bytes()
    spec = site.url("/{00000..00002}.tar")
    data, last = tmp_path / "data", site.files["/00001.tar"]
    sources = open_sources([spec])
    del site.files["/00001.tar"]  # known, but gone by the time it is read
    with (
        Collection.create(data, None, fake_model) as collection,
        pytest.raises(StorageError) as caught,
    ):
        ingest(collection, FakeEmbedder, sources, "set", settings=IngestSettings())
    assert str(caught.value) == f"no such file or folder: {site.url('/00001.tar')}"
    site.files["/00001.tar"] = last
    report = run(data, [spec])
    assert (report.total, report.broken) == (12, [])
    run(tmp_path / "unbroken", [spec])
    unbroken = state(tmp_path / "unbroken")
    assert state(data)["points"].keys() == unbroken["points"].keys()


def test_features_in_a_bucket(s3: Bucket, pictures: Path, tmp_path: Path) -> None:
    place = s3.url("features")
    keep_features_at(tmp_path / "there", place)
    run(tmp_path / "here", [str(pictures)])
    run(tmp_path / "there", [str(pictures)])
    assert state(tmp_path / "there") == state(tmp_path / "here")
    assert not (tmp_path / "there" / "features").exists()
    local = tmp_path / "here" / "features"
    files = [path for path in local.rglob("*") if path.is_file()]
    assert len(files) == 9
    for path in files:
        below = path.relative_to(local).as_posix()
        assert s3.read(f"features/{below}") == path.read_bytes()
    extra = set(s3.names("features")) - {
        f"features/{path.relative_to(local).as_posix()}" for path in files
    }
    assert extra == {"features/attrib-features.json"}


def test_a_takedown_reaches_the_bucket(s3: Bucket, pictures: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    keep_features_at(data, s3.url("features"))
    run(data, [str(pictures)])
    with Collection.open(data) as collection:
        assert take_down(collection, keys=["image 0003.png"]) == 1
        features, rows = read_shard(collection.folder.features("set"), 0)
    assert len(features) == len(rows)
    assert "image 0003.png" not in {row.key for row in rows}
    for name in s3.names("features"):
        assert b"image 0003.png" not in s3.read(name)
    assert run(data, [str(pictures)]).buried == 1


def test_a_place_is_one_folders(s3: Bucket, pictures: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    place = s3.url("features")
    keep_features_at(first, place + "/")
    keep_features_at(first, place)
    with pytest.raises(DataFolderError) as caught:
        keep_features_at(second, place)
    assert str(caught.value) == (
        f"{place} holds the features of another data folder; "
        "choose another place with --features-to"
    )
    # What was refused is not where the second folder writes.
    with DataFolder.open(second) as folder:
        assert folder.features("set") == second / "features" / "set"
    keep_features_at(first, s3.url("moved"))  # nothing is in it yet
    run(first, [str(pictures)])
    assert json.loads((first / "attrib.json").read_text())["features"] == s3.url("moved")
    with pytest.raises(UsageError) as wrong:
        keep_features_at(first, place)
    assert str(wrong.value) == (
        f"{first} keeps its features in {s3.url('moved')}, not in {place}; "
        "leave out --features-to, or choose another folder with --data"
    )


def test_a_place_that_will_not_do(s3: Bucket, site: Site, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with pytest.raises(UsageError) as wrong:
        keep_features_at(data, site.url("/x"))
    assert str(wrong.value) == (
        f"{site.url('/x')}: a web server cannot be written to; "
        "--features-to takes s3://, gs:// or a folder"
    )
    with pytest.raises(StorageError) as caught:
        keep_features_at(data, "s3://no-such-bucket/x")
    assert str(caught.value) == "no such bucket: s3://no-such-bucket"
    (tmp_path / "file").write_text("")
    with pytest.raises(DataFolderError) as refused:
        keep_features_at(data, str(tmp_path / "file"))
    assert str(refused.value) == (
        f"{tmp_path}/file is a file; --features-to takes a folder or a URL"
    )
    assert not data.exists()


def test_another_folder_here(pictures: Path, tmp_path: Path) -> None:
    keep_features_at(tmp_path / "data", str(tmp_path / "disk" / "features"))
    run(tmp_path / "data", [str(pictures)])
    run(tmp_path / "plain", [str(pictures)])
    assert state(tmp_path / "data") == state(tmp_path / "plain")
    assert (tmp_path / "disk" / "features" / "set" / "img_emb").is_dir()
