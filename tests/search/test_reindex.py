"""Re-mapping gives what an ingest with the new model would, whatever happens meanwhile."""

from __future__ import annotations

import importlib.util
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from embed.calibrator import Calibrator
from embed.mapper import Mapper, MapperPair
from embed.model import AttributionModel
from embed.shards import shard_paths
from ingest.errors import DataFolderBusyError, DataFolderError, ModelMismatchError
from search.collection import Collection
from search.folder import DataFolder, reindex_lock
from search.reindex import reindex
from search.removal import take_down


def _load() -> ModuleType:
    target = Path(__file__).with_name("fake_backbone.py")
    spec = importlib.util.spec_from_file_location("fake_backbone", target)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fake_backbone"] = module
    spec.loader.exec_module(module)
    return module


fake = _load()

OUT = 11  # unlike the backbone's


def tuned(seed: int = 1, **changes: Any) -> AttributionModel:
    rng = np.random.default_rng(seed)
    real, synth = (
        Mapper.linear(rng.normal(size=(OUT, fake.DIM)), rng.normal(size=OUT)) for _ in range(2)
    )
    values: dict[str, Any] = {"name": "tuned", "backbone": fake.BACKBONE, **changes}
    return AttributionModel(mappers=MapperPair(real, synth), **values)


def images(folder: Path, count: int, *, start: int = 0, seed: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    for i in range(start, start + count):
        rng = np.random.default_rng(seed + i)
        coarse = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((40, 30), 0).save(folder / f"{i:04d}.png")
        (folder / f"{i:04d}.txt").write_text(f"picture {i}")
    return folder


def ingest(data: Path, source: Path, model: AttributionModel | None = None, **options: Any) -> None:
    embedder = fake.FakeEmbedder()
    first = fake.fake_model if model is None else lambda: model
    with Collection.create(data, None, first, wait_s=10) as collection:
        fake.ingest(
            collection,
            lambda: embedder,
            fake.open_sources([str(source)]),
            "set",
            settings=fake.IngestSettings(shard_size=16, batch_size=5, decode_threads=1),
            **options,
        )


def answers(collection: Collection) -> list[Any]:
    rng = np.random.default_rng(3)
    base = rng.normal(size=(4, fake.DIM)).astype(np.float32)
    found = collection.attribute(collection.model.mappers.synth(base), list("abcd"), k=9)
    written = [answer.to_dict() for answer in found]
    for answer in written:
        answer["index"].pop("folder")
    return written


def state(data: Path, name: str | None = None) -> dict[str, Any]:
    with Collection.open(data, name=name, wait_s=10) as collection:
        points: dict[str, Any] = {}
        for ids in collection.index.scroll():
            vectors = collection.index.vectors(ids)
            payloads = collection.index.fetch(ids)
            for point, vector, payload in zip(ids, vectors, payloads, strict=True):
                points[str(point)] = (vector.tobytes(), payload)
        sample = collection.index.sample()
        return {
            "points": points,
            "sample": [(str(i), v.tobytes()) for i, v in zip(*vars(sample).values(), strict=True)],
            "answers": answers(collection),
            "model": collection.model.fingerprint,
        }


def keys(data: Path, name: str | None = None) -> list[str]:
    return sorted(payload["key"] for _, payload in state(data, name)["points"].values())


class Hook:
    """A progress that does something while the new collection is being built."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act
        self.started: int | None = None
        self.images = 0
        self.acted = 0

    def start(self, pending: int | None) -> None:
        self.started = pending

    def advance(self, images: int) -> None:
        self.images += images
        if not self.acted:
            self._act()
        self.acted += 1

    def building(self) -> None:
        pass


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
    (source / "0001.png").write_bytes(b"broken")
    ingest(data, source)
    with Collection.open(data) as collection:
        assert take_down(collection, keys=["0003.png", "0021.png", "0039.png"]) == 3
        shard = shard_paths(collection.folder.features("set"), 0)
    # As a kill between the files leaves it: rows in a shard that the ledger places elsewhere.
    assert all(path.exists() for path in shard)
    reindex(data, tuned())
    found = state(data)
    for name in ("0003.png", "0021.png", "0039.png", "0001.png"):
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
            take_down(collection, keys=["0002.png", "0030.png"])
        images(source, 6, start=100)
        images(source, 3, start=5, seed=900)
        ingest(data, source)

    report = reindex(data, tuned(), progress=Hook(meanwhile))
    assert report.images == 44
    for name in ("0002.png", "0030.png"):
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


def test_killed_at_any_moment_the_old_one_answers_and_the_end_is_the_same(tmp_path: Path) -> None:
    source = images(tmp_path / "pictures", 160)
    data = tmp_path / "data"
    ingest(data, source)
    before = state(data)
    ingest(tmp_path / "fresh", source, tuned())
    wanted = state(tmp_path / "fresh")
    tuned().save(tmp_path / "model")
    code = (
        "import sys, time; from pathlib import Path\n"
        "import search.building as b; from search.reindex import reindex\n"
        "from embed.model import load\n"
        "b._FLUSH_ROWS = 16\n"
        "class P:\n"
        "  def start(self, n): print('started', flush=True)\n"
        "  def advance(self, n): print('advanced', flush=True); time.sleep(0.1)\n"
        "  def building(self): print('building', flush=True)\n"
        "reindex(Path(sys.argv[1]), load(Path(sys.argv[2])), progress=P(), wait_s=10)\n"
    )
    seed = 20261124
    print("seed", seed)
    rng = random.Random(seed)
    kills = 0
    for _ in range(30):
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(data), str(tmp_path / "model")], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        # By what it has said, not by the clock alone: a fast machine must not be done before.
        for _ in range(rng.randint(1, 4)):
            process.stdout.readline()
        try:
            process.wait(timeout=rng.uniform(0, 0.09) if kills < 7 else 60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
            assert state(data) in (before, wanted)
        process.stdout.close()
        if process.returncode == 0:
            break
    assert process.returncode == 0
    assert kills >= 3
    assert state(data) == wanted
    assert list((data / "collections").glob(".*")) == []
    with DataFolder.open(data) as folder:
        assert folder.collections() == [folder.current]


def test_a_broken_run_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.building._FLUSH_ROWS", 16)
    data = tmp_path / "data"
    ingest(data, images(tmp_path / "pictures", 64))

    def stop() -> None:
        raise KeyboardInterrupt

    class Late(Hook):
        def advance(self, images: int) -> None:
            self.images += images
            if self.images == 48:
                stop()

    with pytest.raises(KeyboardInterrupt):
        reindex(data, tuned(), progress=Late(stop))
    assert len(list((data / "collections").glob(".building-*"))) == 1
    report = reindex(data, tuned())
    assert (report.mapped, report.images) == (32, 64)


def test_another_model_than_the_broken_run_starts_over(tmp_path: Path) -> None:
    data = tmp_path / "data"
    source = images(tmp_path / "pictures", 20)
    ingest(data, source)

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reindex(data, tuned(), progress=Hook(stop))
    reindex(data, tuned(seed=2))
    ingest(tmp_path / "fresh", source, tuned(seed=2))
    assert state(data) == state(tmp_path / "fresh")
    assert list((data / "collections").glob(".*")) == []


def test_a_takedown_removes_what_a_broken_run_left(tmp_path: Path) -> None:
    data = tmp_path / "data"
    ingest(data, images(tmp_path / "pictures", 20))

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reindex(data, tuned(), progress=Hook(stop))
    with Collection.open(data) as collection:
        take_down(collection, keys=["0002.png"])
    assert list((data / "collections").glob(".*")) == []


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
        take_down(collection, keys=["0002.png"])
    assert "0002.png" not in keys(data, report.replaced)
    assert "0002.png" not in keys(data)
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


def test_lost_shards_leave_the_old_collection_in_use(tmp_path: Path) -> None:
    data = tmp_path / "data"
    ingest(data, images(tmp_path / "pictures", 20))
    before = state(data)
    shutil.rmtree(data / "features")
    with pytest.raises(DataFolderError) as caught:
        reindex(data, tuned())
    assert str(caught.value) == (
        f"{data}/features lacks the base features of 20 training images; put them back from a "
        "backup, or ingest with --force; the collection in use was left as it is"
    )
    assert state(data) == before


def test_a_damaged_shard_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.building._TRIES", 2)
    data = tmp_path / "data"
    ingest(data, images(tmp_path / "pictures", 20))
    path = shard_paths(data / "features" / "set", 1)[0]
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataFolderError) as caught:
        reindex(data, tuned())
    assert str(caught.value).startswith(f"feature shard 1 in {data}/features/set cannot be read: ")
    assert len(keys(data)) == 20


def test_one_at_a_time(tmp_path: Path) -> None:
    data = tmp_path / "data"
    ingest(data, images(tmp_path / "pictures", 3))
    with reindex_lock(data), pytest.raises(DataFolderBusyError) as caught:
        reindex(data, tuned())
    assert str(caught.value) == (
        f"{data} is being re-mapped by another process; wait until it ends, or stop it"
    )


def test_a_folder_in_use_at_the_end_is_said_and_switched_later(tmp_path: Path) -> None:
    data = tmp_path / "data"
    ingest(data, images(tmp_path / "pictures", 9))
    held: list[DataFolder] = []
    began = time.monotonic()
    with pytest.raises(DataFolderBusyError) as caught:
        reindex(
            data,
            tuned(),
            progress=Hook(lambda: held.append(DataFolder.open(data))),
            switch_wait_s=0.2,
        )
    assert time.monotonic() - began < 30
    assert str(caught.value).endswith(
        "; the new collection is ready: run the same command again to switch to it"
    )
    held[0].close()
    assert reindex(data, tuned()).mapped == 0
    assert len(keys(data)) == 9


def test_nothing_ingested_or_no_folder(tmp_path: Path) -> None:
    none = tmp_path / "none"
    with pytest.raises(DataFolderError) as caught:
        reindex(none, tuned())
    assert str(caught.value).startswith(f"{none} is no attrib data folder; ")
    assert not none.exists()
    empty = tmp_path / "empty"
    DataFolder.create(empty).close()
    with pytest.raises(DataFolderError) as caught:
        reindex(empty, tuned())
    assert str(caught.value) == (
        f"nothing was ingested into {empty} yet; run `attrib ingest SOURCE --data {empty}`"
    )
