"""A data folder whose index is on a server: all that it does, over real sockets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fake_backbone as fake
import pytest
from ingested import images
from on_server import close_to, ingest, state
from reindexed import OUT, tuned

from ingest.errors import DataFolderError, IndexFailedError, ModelMismatchError, UsageError
from search.collection import Collection
from search.index_place import server_place
from search.index_url import IndexUrl, parse_index_url
from search.reindex import reindex
from search.removal import take_down
from search.server import ServerIndex


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
    assert not (tmp_path / "new").exists()


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
