"""A data folder whose index is on a server: all that it does, over real sockets."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_backbone as fake
import pytest
from ingested import images, points_of
from reindexed import OUT, tuned

from ingest.errors import DataFolderError, IndexFailedError, ModelMismatchError, UsageError
from search.collection import Collection
from search.edge_settings import EdgeSettings
from search.index_place import remove_index, server_place
from search.index_url import IndexUrl, parse_index_url
from search.reindex import reindex
from search.removal import take_down
from search.server import ServerIndex
from search.server_settings import ServerSettings

# Exactly as stored: what float16 costs is no matter of this file.
EXACT = ServerSettings(datatype="float32", quantization="none")


@pytest.fixture
def url(qdrant: Any, request: pytest.FixtureRequest) -> IndexUrl:
    return parse_index_url(qdrant.url(grpc=getattr(request, "param", True)))


@pytest.fixture
def real_or_stand_in(qdrant: Any, tmp_path: Path) -> Iterator[IndexUrl]:
    """The real server where there is one; what was put there is removed again."""
    given = os.environ.get("ATTRIB_TEST_QDRANT_URL")
    yield parse_index_url(given or qdrant.url(grpc=True))
    for path in tmp_path.glob("*/collections/*/index.json"):
        remove_index(path.parent)


def ingest(data: Path, source: Path, url: IndexUrl | None, **options: Any) -> Any:
    settings = EXACT if url is not None else EdgeSettings()
    settings = options.pop("settings", settings)
    embedder = fake.FakeEmbedder()
    with Collection.create(
        data, None, fake.fake_model, settings=settings, index_url=url, wait_s=10
    ) as collection:
        return fake.ingest(
            collection,
            lambda: embedder,
            fake.open_sources([str(source)]),
            "set",
            settings=fake.IngestSettings(shard_size=16, batch_size=5, decode_threads=1),
            **options,
        )


def state(data: Path) -> dict[str, Any]:
    """Points, sample and answers, without what names the backend."""
    with Collection.open(data, wait_s=10) as collection:
        base = fake.FakeEmbedder()._matrix[:4]
        found = collection.attribute(
            collection.model.mappers.synth(base / 9), list("abcd"), k=9, group_by="creator"
        )
        answers = [answer.to_dict() for answer in found]
        for answer in answers:
            del answer["index"]
        sample = collection.index.sample()
        return {
            "points": points_of(collection),
            "sample": [str(uuid) for uuid in sample.ids],
            "answers": answers,
        }


def close_to(found: Any, expected: Any) -> None:
    """Equal, but for the last digits of numbers: two engines add in different orders."""
    if isinstance(expected, float):
        assert found == pytest.approx(expected, abs=2e-6)
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            close_to(found[key], value)
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            close_to(one, other)
    else:
        assert found == expected


def test_the_same_answers_as_from_a_folder(tmp_path: Path, real_or_stand_in: IndexUrl) -> None:
    source = images(tmp_path / "pictures", 43)
    ingest(tmp_path / "embedded", source, None)
    report = ingest(tmp_path / "data", source, real_or_stand_in)
    assert (report.ingested, report.total) == (43, 43)
    close_to(state(tmp_path / "data"), state(tmp_path / "embedded"))
    [path] = (tmp_path / "data").glob("collections/*/index.json")
    assert "key" not in json.loads(path.read_text())
    assert sorted(p.name for p in path.parent.iterdir()) == ["index.json", "model"]


def test_it_is_found_there_from_then_on(tmp_path: Path, url: IndexUrl, qdrant: Any) -> None:
    data, source = tmp_path / "data", images(tmp_path / "pictures", 20)
    ingest(data, source, url)
    report = ingest(data, images(source, 3, start=50), None)  # without saying where
    assert (report.ingested, report.unchanged, report.total) == (3, 20, 23)
    with Collection.open(data) as collection:
        facts = collection.facts()["index"]
        assert facts["backend"] == "qdrant"
        assert facts["server"] == url.server
        place = server_place(collection.folder.collection(collection.name))
        assert place is not None
        assert facts["collection"] == place.collection
        assert take_down(collection, keys=["image 0002.png"]) == 1
    assert len(state(data)["points"]) == 22
    # By its alias, as other programs may ask for it.
    with ServerIndex.open(url, place.alias) as index:
        assert index.count() == 22


def test_a_re_map_switches_the_alias(tmp_path: Path, real_or_stand_in: IndexUrl) -> None:
    source, data = images(tmp_path / "pictures", 20), tmp_path / "data"
    ingest(data, source, real_or_stand_in)
    with Collection.open(data) as collection:
        old = server_place(collection.folder.collection(collection.name))
        assert old is not None
    report = reindex(data, tuned())
    assert (report.mapped, report.images, report.kept) == (20, 20, False)
    with Collection.open(data) as collection:
        new = server_place(collection.folder.collection(collection.name))
        assert new is not None
        assert collection.index.dim == OUT
    assert (new.alias, new.url) == (old.alias, old.url)
    assert new.collection != old.collection
    with ServerIndex.open(real_or_stand_in, old.alias) as index:
        assert (index.dim, index.count()) == (OUT, 20)
        assert index.facts.fingerprint == tuned().with_weights("f" * 64).feature_fingerprint
    with pytest.raises(IndexFailedError, match=f"has no collection '{old.collection}'"):
        ServerIndex.open(real_or_stand_in, old.collection)


def test_a_name_of_ones_own(tmp_path: Path, url: IndexUrl) -> None:
    named = parse_index_url(f"{str(url).replace('?', '/laion?')}")
    ingest(tmp_path / "data", images(tmp_path / "pictures", 3), named)
    with ServerIndex.open(url, "laion") as index:
        assert index.count() == 3
    with pytest.raises(UsageError) as error:
        ingest(tmp_path / "another", tmp_path / "pictures", named)
    assert str(error.value) == (
        f"the Qdrant server at {url.server} has a collection 'laion' already; choose another name"
    )
    assert ingest(tmp_path / "another", tmp_path / "pictures", url).total == 3  # nothing was left


def test_elsewhere_than_it_is(tmp_path: Path, url: IndexUrl) -> None:
    source = images(tmp_path / "pictures", 3)
    data, embedded = tmp_path / "data", tmp_path / "embedded"
    ingest(data, source, url)
    ingest(embedded, source, None)
    with pytest.raises(UsageError) as error:
        ingest(embedded, source, url)
    assert str(error.value) == (
        f"the index of {embedded} is in the folder, not at {url}; leave --index out, or move it "
        f"with `attrib index copy {embedded} {url}`"
    )
    other = IndexUrl("elsewhere.example")
    with pytest.raises(UsageError) as error:
        ingest(data, source, other)
    assert f"the index of {data} is at {url.server} (data-" in str(error.value)
    assert f"not at {other}; leave --index out" in str(error.value)
    assert ingest(data, source, url).unchanged == 3


def test_a_server_that_is_gone(tmp_path: Path, qdrant: Any, url: IndexUrl) -> None:
    data, source = tmp_path / "data", images(tmp_path / "pictures", 3)
    ingest(data, source, url)
    qdrant.__exit__(None, None, None)
    with pytest.raises(IndexFailedError, match=r"^no Qdrant server answers at 127\.0\.0\.1, port"):
        Collection.open(data)
    with pytest.raises(IndexFailedError, match=r"^no Qdrant server answers"):
        ingest(tmp_path / "new", source, url)
    assert not list((tmp_path / "new").glob("current"))


def test_the_collection_was_replaced_by_another_hand(tmp_path: Path, url: IndexUrl) -> None:
    data = tmp_path / "data"
    ingest(data, images(tmp_path / "pictures", 3), url)
    [folder] = (data / "collections").iterdir()
    place = server_place(folder)
    assert place is not None
    ServerIndex.remove(url, place.collection)
    ServerIndex.create(
        url, place.collection, fake.DIM, model="theirs", fingerprint="0" * 16
    ).close()
    with pytest.raises(ModelMismatchError) as error:
        Collection.open(data)
    mine = fake.fake_model().with_weights("f" * 64).feature_fingerprint
    assert str(error.value) == (
        f"the collection {place.collection!r} of the Qdrant server at {url.server} was built with "
        f"theirs ({'0' * 16}), not with the model at hand ({mine})"
    )
    ServerIndex.remove(url, place.collection)
    ServerIndex.create(url, place.collection, 7, model="theirs").close()
    with pytest.raises(ModelMismatchError, match=r"has features of 7 numbers, not 24$"):
        Collection.open(data)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": 1, "url": "x"}'])
def test_a_damaged_place(tmp_path: Path, text: str) -> None:
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(DataFolderError, match=r"index\.json is damaged \(.*; put it back from a"):
        server_place(tmp_path)


def test_a_newer_place(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text('{"format": 2}')
    with pytest.raises(DataFolderError, match=r"was written by a newer attrib \(format 2; this"):
        server_place(tmp_path)
