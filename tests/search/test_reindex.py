"""Re-mapping gives what an ingest with the new model would, whatever happens meanwhile."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import fake_backbone as fake
import pytest
from ingested import images
from reindexed import Hook, ingest, keys, state, tuned

from embed.calibrator import Calibrator
from embed.shards import shard_paths
from ingest.errors import DataFolderError, ModelMismatchError
from search.collection import Collection
from search.folder import DataFolder
from search.reindex import reindex
from search.removal import take_down


def test_as_if_ingested_with_the_new_model_from_the_start(tmp_path: Path) -> None:
    source = images(tmp_path / "pictures", 43)
    ingest(tmp_path / "fresh", source, tuned())
    data = tmp_path / "data"
    ingest(data, source)
    with Collection.open(data) as collection:
        old = collection.name
    source.rename(tmp_path / "gone")  # no image is needed
    hook = Hook(lambda: None)
    report = reindex(data, tuned(), progress=hook)
    assert (report.rebuilt, report.mapped, report.images, report.replaced) == (True, 43, 43, old)
    assert (hook.started, hook.images) == (43, 43)
    assert state(data) == state(tmp_path / "fresh")
    with DataFolder.open(data) as folder:
        assert folder.collections() == [folder.current] == [report.collection]
    assert sorted(p.name for p in (data / "collections").glob("*/*")) == ["index", "model"]


def test_what_was_taken_down_or_replaced_does_not_come_back(tmp_path: Path) -> None:
    source = images(tmp_path / "pictures", 40)
    data = tmp_path / "data"
    ingest(data, source)
    images(source, 5, start=20, seed=500)  # changed: they stand in another shard now
    ingest(data, source)
    (source / "image 0001.png").write_bytes(b"broken")
    ingest(data, source)
    gone = [f"image {i:04d}.png" for i in (3, 21, 39)]
    with Collection.open(data) as collection:
        assert take_down(collection, keys=gone) == 3
        shard = shard_paths(collection.folder.features("set"), 0)
    # As a kill between the files leaves it: rows in a shard that the ledger places elsewhere.
    assert all(path.exists() for path in shard)
    reindex(data, tuned())
    found = state(data)
    for name in (*gone, "image 0001.png"):
        (source / name).unlink()
    ingest(tmp_path / "fresh", source, tuned())
    fresh = state(tmp_path / "fresh")
    assert {p: v for p, (v, _) in found["points"].items()} == {
        p: v for p, (v, _) in fresh["points"].items()
    }
    assert found["sample"] == fresh["sample"]
    assert [a["rows"] for a in found["answers"]] == [a["rows"] for a in fresh["answers"]]


def test_queries_ingests_and_takedowns_go_on_meanwhile(tmp_path: Path) -> None:
    source = images(tmp_path / "pictures", 40)
    data = tmp_path / "data"
    ingest(data, source)
    before = state(data)

    def meanwhile() -> None:
        assert state(data) == before
        with Collection.open(data, wait_s=0) as collection:
            take_down(collection, keys=["image 0002.png", "image 0030.png"])
        images(source, 6, start=100)
        images(source, 3, start=5, seed=900)
        ingest(data, source)

    report = reindex(data, tuned(), progress=Hook(meanwhile))
    assert report.images == 44
    for name in ("image 0002.png", "image 0030.png"):
        (source / name).unlink()
    ingest(tmp_path / "fresh", source, tuned())
    fresh = state(tmp_path / "fresh")["points"]
    assert {p: v for p, (v, _) in state(data)["points"].items()} == {
        p: v for p, (v, _) in fresh.items()
    }


def test_much_that_changed_meanwhile_is_caught_up_with_unlocked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.reindex._FEW", 3)
    source = images(tmp_path / "pictures", 20)
    data = tmp_path / "data"
    ingest(data, source)
    rounds = []

    class Twice(Hook):
        def building(self) -> None:
            rounds.append(self.images)
            if len(rounds) == 1:
                images(source, 30, start=100)
                ingest(data, source)
            else:
                assert keys(data)  # nobody holds the lock

    report = reindex(data, tuned(), progress=Twice(lambda: None))
    assert rounds == [20, 50]
    assert report.images == 50
    assert len(keys(data)) == 50


def test_only_another_calibrator_builds_nothing(tmp_path: Path) -> None:
    source = images(tmp_path / "pictures", 12)
    data = tmp_path / "data"
    ingest(data, source, tuned())
    with Collection.open(data) as collection:
        name = collection.name
    index = data / "collections" / name / "index" / "index.json"
    inode = index.stat().st_ino
    fitted = tuned(calibrator=Calibrator(0.03, -0.01, "test"), name="fitted")
    report = reindex(data, fitted)
    assert (report.rebuilt, report.mapped, report.images) == (False, 0, 12)
    assert (report.collection, report.replaced) == (name, "")
    assert index.stat().st_ino == inode
    ingest(tmp_path / "fresh", source, fitted)
    assert state(data) == state(tmp_path / "fresh")
    assert sorted(p.name for p in index.parents[1].iterdir()) == ["index", "model"]


def test_another_quantization_rebuilds_the_same_features(tmp_path: Path) -> None:
    data = tmp_path / "data"
    ingest(data, images(tmp_path / "pictures", 12))
    before = state(data)
    report = reindex(data, fake.fake_model(), quantization="int8")
    assert report.rebuilt
    with Collection.open(data) as collection:
        assert collection.index.info().quantization == "int8"
    assert state(data)["points"] == before["points"]
    # Without --quantization it stays.
    reindex(data, tuned())
    with Collection.open(data) as collection:
        assert collection.index.info().quantization == "int8"


def test_a_kept_collection_opens_and_is_reached_by_takedowns(tmp_path: Path) -> None:
    data = tmp_path / "data"
    ingest(data, images(tmp_path / "pictures", 12))
    before = state(data)
    report = reindex(data, tuned(), keep_old=True)
    assert report.kept
    assert state(data, report.replaced) == before
    with Collection.open(data) as collection:
        take_down(collection, keys=["image 0002.png"])
    assert "image 0002.png" not in keys(data, report.replaced)
    assert "image 0002.png" not in keys(data)
    # And back: it is made anew, not taken as it was left.
    images(tmp_path / "pictures", 1, start=50)
    ingest(data, tmp_path / "pictures")
    reindex(data, fake.fake_model())
    assert len(keys(data)) == 12
    with pytest.raises(DataFolderError) as caught:
        Collection.open(data, name="none")
    assert str(caught.value) == f"{data} has no collection 'none'; it has {report.replaced}"


def test_a_model_of_other_base_features_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    ingest(data, images(tmp_path / "pictures", 3))
    advice = (
        "; ingest the images into another folder: "
        "`attrib ingest SOURCE --model MODEL --data ANOTHER`"
    )
    preprocessing = replace(fake.BACKBONE.preprocessing, interpolation="bicubic")
    for change, fault in (
        ({"name": "other", "architecture": "another"}, "fake, tuned needs those of other"),
        (
            {"preprocessing": preprocessing},
            "fake, tuned needs those of images prepared another way",
        ),
        (
            {"weights_hash": "e" * 64},
            f"fake ({'f' * 16}), tuned needs those of other weights ({'e' * 16})",
        ),
    ):
        backbone = replace(fake.BACKBONE, **change)
        with pytest.raises(ModelMismatchError) as caught:
            reindex(data, tuned(backbone=backbone))
        assert str(caught.value) == f"{data} has base features of {fault}{advice}"
    assert list((data / "collections").glob(".*")) == []
