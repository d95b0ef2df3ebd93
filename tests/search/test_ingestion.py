"""The ingest pipeline: what ends up in index, shards and ledger, whatever happens on the way."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import random
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from embed.shards import read_shard, read_thumbnails, shard_paths
from ingest.errors import DataFolderBusyError, DataFolderError
from ingest.ledger import Ledger
from ingest.record import point_id
from search.collection import Collection
from search.folder import DataFolder
from search.removal import take_down

_TARGET = Path(__file__).with_name("fake_backbone.py")


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fake_backbone", _TARGET)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fake_backbone"] = module
    spec.loader.exec_module(module)
    return module


fake = _load()


def draw(path: Path, seed: int, size: tuple[int, int] = (40, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.NEAREST).save(path)
    return path


def images(folder: Path, count: int, *, start: int = 0) -> Path:
    for i in range(start, start + count):
        draw(folder / f"image {i:04d}.png", i)
        (folder / f"image {i:04d}.json").write_text(
            json.dumps({"caption": f"picture {i}", "creator": f"creator {i % 7}"})
        )
    return folder


def state(data: Path) -> dict[str, Any]:
    """Everything that an ingest leaves: points with vectors and payloads, shards, rejects."""
    with Collection.open(data, wait_s=10) as collection:
        points: dict[str, Any] = {}
        for ids in collection.index.scroll():
            vectors = collection.index.vectors(ids)
            payloads = collection.index.fetch(ids)
            for point, vector, payload in zip(ids, vectors, payloads, strict=True):
                points[str(point)] = (vector.tobytes(), payload)
        shards = {}
        for row in collection.ledger.shards():
            folder = collection.folder.features(row.dataset)
            features, rows = read_shard(folder, row.number)
            thumbnails = read_thumbnails(folder, row.number, [r.key for r in rows])
            shards[row.number] = (np.asarray(features).tobytes(), rows, sorted(thumbnails.items()))
        sample = collection.index.sample()
        return {
            "points": points,
            "shards": shards,
            "rejects": collection.ledger.rejects(),
            "sample": {
                str(i): v.tobytes() for i, v in zip(sample.ids, sample.vectors, strict=True)
            },
        }


def test_a_folder_becomes_points_shards_and_a_ledger(tmp_path: Path) -> None:
    source = images(tmp_path / "pictures", 23)
    data = tmp_path / "data"
    report = fake.run(data, [str(source)], shard_size=10)
    assert (report.ingested, report.unchanged, report.shards, report.total) == (23, 0, 3, 23)
    found = state(data)
    assert len(found["points"]) == 23
    vector, payload = found["points"][str(point_id("set", "image 0008.png"))]
    assert payload["key"] == "image 0008.png"
    assert payload["dataset"] == "set"
    assert payload["caption"] == "picture 8"
    assert payload["creator"] == "creator 1"
    assert (payload["width"], payload["height"]) == (40, 30)
    assert payload["path"] == str(source / "image 0008.png")
    assert len(payload["sha256"]) == 64
    # The index holds the normalised float16 base feature: what a re-map from the shard gives.
    features, rows = read_shard(data / "features" / "set", 0)
    assert features.dtype == np.float16
    assert features.shape == (10, fake.DIM)
    row = [r.key for r in rows].index("image 0008.png")
    base = np.asarray(features[row], np.float32)
    np.testing.assert_allclose(
        np.frombuffer(vector, np.float32), base / np.linalg.norm(base), rtol=0, atol=1e-6
    )


def test_the_shards_have_the_layout_of_clip_retrieval(tmp_path: Path) -> None:
    source = images(tmp_path / "pictures", 12)
    fake.run(tmp_path / "data", [str(source)], shard_size=8)
    folder = tmp_path / "data" / "features" / "set"
    assert sorted(p.name for p in (folder / "img_emb").iterdir()) == [
        "img_emb_00000.npy",
        "img_emb_00001.npy",
    ]
    metadata = pq.read_table(folder / "metadata" / "metadata_00001.parquet").to_pylist()
    assert [row["image_path"] for row in metadata] == [
        str(source / f"image {i:04d}.png") for i in range(8, 12)
    ]
    assert np.load(folder / "img_emb" / "img_emb_00001.npy").shape == (4, fake.DIM)


def test_unchanged_images_are_passed_over(tmp_path: Path) -> None:
    source = images(tmp_path / "pictures", 9)
    data = tmp_path / "data"
    fake.run(data, [str(source)])
    before = state(data)
    embedder = fake.FakeEmbedder()
    report = fake.run(data, [str(source)], embedder=embedder)
    assert (report.ingested, report.unchanged) == (0, 9)
    assert embedder.images == 0
    assert state(data) == before


def test_only_new_and_changed_images_are_embedded(tmp_path: Path) -> None:
    source = images(tmp_path / "pictures", 20)
    data = tmp_path / "data"
    fake.run(data, [str(source)], shard_size=8)
    images(source, 3, start=100)
    draw(source / "image 0005.png", 999)
    (source / "image 0006.json").write_text(json.dumps({"caption": "another"}))
    embedder = fake.FakeEmbedder()
    report = fake.run(data, [str(source)], shard_size=8, embedder=embedder)
    assert embedder.images == 5
    assert (report.ingested, report.unchanged, report.total) == (5, 18, 23)
    found = state(data)
    _, payload = found["points"][str(point_id("set", "image 0006.png"))]
    assert payload["caption"] == "another"
    assert payload["creator"] == ""
    # Each image stands in exactly one shard.
    keys = [row.key for _, rows, _ in found["shards"].values() for row in rows]
    assert len(keys) == len(set(keys)) == 23


def test_force_embeds_everything_again_and_doubles_nothing(tmp_path: Path) -> None:
    source = images(tmp_path / "pictures", 20)
    data = tmp_path / "data"
    fake.run(data, [str(source)], shard_size=8)
    before = state(data)
    embedder = fake.FakeEmbedder()
    report = fake.run(data, [str(source)], shard_size=8, force=True, embedder=embedder)
    assert embedder.images == 20
    assert report.total == 20
    after = state(data)
    assert {k: v[0] for k, v in after["points"].items()} == {
        k: v[0] for k, v in before["points"].items()
    }
    rows = [row.key for _, rows, _ in after["shards"].values() for row in rows]
    assert sorted(rows) == sorted(f"image {i:04d}.png" for i in range(20))
    assert not shard_paths(data / "features" / "set", 0)[0].exists()


def test_bad_images_are_rejected_counted_and_not_read_again(tmp_path: Path) -> None:
    source = images(tmp_path / "pictures", 6)
    (source / "empty.png").write_bytes(b"")
    (source / "lies.jpg").write_bytes(b"this is no image")
    whole = (source / "image 0000.png").read_bytes()
    (source / "cut.png").write_bytes(whole[: len(whole) // 2])
    draw(source / "huge.png", 7, size=(300, 300))
    data = tmp_path / "data"
    report = fake.run(data, [str(source)], max_pixels=50_000)
    assert report.ingested == 6
    assert report.rejected == {
        "empty file": 1,
        "not an image": 1,
        "truncated image": 1,
        "more pixels than the limit": 1,
    }
    table = pq.read_table(data / "rejects.parquet").to_pylist()
    assert [(row["key"], row["reason"]) for row in table] == [
        ("cut.png", "truncated image"),
        ("empty.png", "empty file"),
        ("huge.png", "more pixels than the limit"),
        ("lies.jpg", "not an image"),
    ]
    again = fake.run(data, [str(source)])
    assert (again.ingested, again.unchanged, again.rejected) == (0, 10, {})
    # Mended, it comes in, and leaves the rejects.
    draw(source / "empty.png", 50)
    mended = fake.run(data, [str(source)])
    assert mended.ingested == 1
    keys = [row["key"] for row in pq.read_table(data / "rejects.parquet").to_pylist()]
    assert "empty.png" not in keys
    # And one that breaks later goes out again.
    (source / "image 0003.png").write_bytes(b"broken now")
    broken = fake.run(data, [str(source)])
    assert broken.rejected == {"not an image": 1}
    assert broken.total == 6
    assert str(point_id("set", "image 0003.png")) not in state(data)["points"]


def test_one_key_in_two_folders_is_refused_not_overwritten(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    draw(one / "a.png", 1)
    draw(two / "a.png", 2)
    draw(two / "b.png", 3)
    data = tmp_path / "data"
    for sources in ([str(one), str(two)], [str(two), str(one)]):
        report = fake.run(data, sources)
        assert report.rejected == {"key used twice in one dataset": 1}
        assert report.total == 2
        _, payload = state(data)["points"][str(point_id("set", "a.png"))]
        assert payload["path"] == str(one / "a.png")
    reject = pq.read_table(data / "rejects.parquet").to_pylist()[0]
    assert reject["detail"] == f"already used by {one / 'a.png'}"


def test_the_same_folder_by_another_path_is_the_same(tmp_path: Path, monkeypatch: Any) -> None:
    source = images(tmp_path / "pictures", 4)
    data = tmp_path / "data"
    fake.run(data, [str(source)])
    (tmp_path / "link").symlink_to(source)
    monkeypatch.chdir(tmp_path)
    for name in ("pictures", "./pictures/../pictures", "link"):
        report = fake.run(data, [name])
        assert (report.ingested, report.unchanged, report.rejected) == (0, 4, {})


def test_a_moved_folder_is_taken_over(tmp_path: Path) -> None:
    source = images(tmp_path / "pictures", 4)
    data = tmp_path / "data"
    fake.run(data, [str(source)])
    source.rename(tmp_path / "elsewhere")
    report = fake.run(data, [str(tmp_path / "elsewhere")])
    assert (report.ingested, report.rejected, report.total) == (4, {}, 4)
    _, payload = state(data)["points"][str(point_id("set", "image 0000.png"))]
    assert payload["path"] == str(tmp_path / "elsewhere" / "image 0000.png")


def tar_of(path: Path, numbers: range, *, broken: int | None = None) -> Path:
    with tarfile.open(path, "w") as tar:
        for i in numbers:
            picture = io.BytesIO()
            rng = np.random.default_rng(i)
            noise = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
            Image.fromarray(noise).resize((40, 30), 0).save(picture, "PNG")
            data = b"no image" if i == broken else picture.getvalue()
            described = json.dumps({"caption": f"sample {i}", "url": f"http://x.org/{i}"}).encode()
            for ending, content in (("png", data), ("json", described)):
                member = tarfile.TarInfo(f"{i:09d}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return path


def test_tars_by_a_brace_pattern(tmp_path: Path) -> None:
    for t in range(3):
        tar_of(tmp_path / f"{t:05d}.tar", range(t * 10, t * 10 + 7 + t), broken=12)
    data = tmp_path / "data"
    report = fake.run(data, [str(tmp_path / "{00000..00002}.tar")])
    assert (report.ingested, report.shards) == (7 + 7 + 9, 3)
    assert report.rejected == {"not an image": 1}
    _, payload = state(data)["points"][str(point_id("set", "00002/000000025"))]
    assert (payload["caption"], payload["url"]) == ("sample 25", "http://x.org/25")
    again = fake.run(data, [str(tmp_path / "{00000..00002}.tar")])
    assert (again.ingested, again.unchanged) == (0, 23)


def test_a_replaced_tar_replaces_its_images(tmp_path: Path) -> None:
    tar = tar_of(tmp_path / "00000.tar", range(0, 8), broken=2)
    data = tmp_path / "data"
    fake.run(data, [str(tar)])
    tar_of(tar, range(5, 12))
    os.utime(tar, ns=(1, 1))
    report = fake.run(data, [str(tar)])
    assert (report.ingested, report.total) == (7, 7)
    found = state(data)
    keys = sorted(payload["key"] for _, payload in found["points"].values())
    assert keys == [f"00000/{i:09d}" for i in range(5, 12)]
    assert found["rejects"] == []
    assert sorted(row.key for _, rows, _ in found["shards"].values() for row in rows) == keys


def test_a_tar_cut_off_in_the_middle_loses_nothing_that_is_whole(tmp_path: Path) -> None:
    whole = tar_of(tmp_path / "00000.tar", range(0, 20))
    tar_of(tmp_path / "00001.tar", range(20, 25))
    content = whole.read_bytes()
    whole.write_bytes(content[: len(content) // 2])
    data = tmp_path / "data"
    pattern = str(tmp_path / "{00000..00001}.tar")
    report = fake.run(data, [pattern])
    assert len(report.broken) == 1
    assert report.broken[0].startswith(f"{whole} is cut off after ")
    assert report.rejected == {"source cut off": 1}
    kept = report.total - 5
    assert 5 <= kept < 20
    # It is not forgotten while it stays as it is, and mends when it is replaced.
    again = fake.run(data, [pattern])
    assert (again.ingested, again.unchanged) == (0, kept + 5)
    assert again.broken == [f"{whole} was cut off when it was read; replace it"]
    whole.write_bytes(content)
    mended = fake.run(data, [pattern])
    assert (mended.broken, mended.total) == ([], 25)
    assert state(data)["rejects"] == []


def test_the_state_does_not_depend_on_threads_and_batches(tmp_path: Path) -> None:
    source = images(tmp_path / "pictures", 30)
    fake.run(tmp_path / "a", [str(source)])
    settings = fake.IngestSettings(shard_size=16, batch_size=11, decode_threads=7)
    embedder = fake.FakeEmbedder()
    with Collection.create(tmp_path / "b", None, fake.fake_model) as collection:
        fake.ingest(
            collection,
            lambda: embedder,
            fake.open_sources([str(source)]),
            "set",
            settings=settings,
        )
    assert state(tmp_path / "a") == state(tmp_path / "b")


def test_killed_at_any_moment_the_same_command_goes_on(tmp_path: Path) -> None:
    """SIGKILL at random moments, until a run comes through: the end is that of an unbroken run."""
    source = images(tmp_path / "pictures", 240)
    (source / "bad.png").write_bytes(b"bad")
    fake.run(tmp_path / "unbroken", [str(source)], shard_size=8)
    wanted = state(tmp_path / "unbroken")
    data = tmp_path / "killed"
    seed = 20231004
    print("seed", seed)
    rng = random.Random(seed)
    kills = 0
    for _ in range(40):
        process = subprocess.Popen(
            [sys.executable, str(_TARGET), str(data), "set", "8", str(source)],
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        process.stdout.readline()  # the first batch is being embedded, or all is done
        if rng.random() < 0.9:
            time.sleep(rng.uniform(0, 0.3))
        try:
            process.wait(timeout=0 if kills < 12 else 60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
        process.stdout.close()
        if process.returncode == 0:
            break
    assert process.returncode == 0
    assert kills >= 5
    assert state(data) == wanted


def test_leftovers_of_a_source_that_changed_after_a_kill_are_mended(tmp_path: Path) -> None:
    source = images(tmp_path / "pictures", 10)
    data = tmp_path / "data"
    fake.run(data, [str(source)])
    with Collection.open(data) as collection:
        # As if a run had been killed between index and ledger, and the file had then gone.
        vector = collection.index.vectors([point_id("set", "image 0000.png")])
        stray = point_id("set", "gone.png")
        collection.index.upsert([stray], vector, [{"key": "gone.png", "dataset": "set"}])
        collection.index.delete([point_id("set", "image 0004.png")])
        collection.index.delete([point_id("set", "image 0007.png")])
    images(source, 1, start=50)
    report = fake.run(data, [str(source)])
    assert report.total == 11
    points = state(data)["points"]
    assert str(stray) not in points
    assert points[str(point_id("set", "image 0004.png"))][1]["caption"] == "picture 4"


def test_a_takedown_is_gone_everywhere_and_stays_gone(tmp_path: Path) -> None:
    source = images(tmp_path / "pictures", 30)
    data = tmp_path / "data"
    fake.run(data, [str(source)], shard_size=8)
    with Collection.open(data) as collection:
        assert take_down(collection, where={"creator": ["creator 3"]}) == 4
        assert take_down(collection, keys=["image 0000.png"]) == 1
    taken = {f"image {i:04d}.png" for i in (3, 10, 17, 24, 0)}
    found = state(data)
    assert taken.isdisjoint(payload["key"] for _, payload in found["points"].values())
    for _, rows, thumbnails in found["shards"].values():
        assert taken.isdisjoint(row.key for row in rows)
        assert taken.isdisjoint(key for key, _ in thumbnails)
    assert len(found["points"]) == 25
    for force in (False, True):
        report = fake.run(data, [str(source)], shard_size=8, force=force)
        assert (report.total, report.buried) == (25, 5)
    # The same bytes under another name stay out, too; other images come in.
    (source / "renamed.png").write_bytes((source / "image 0003.png").read_bytes())
    draw(source / "new.png", 500)
    report = fake.run(data, [str(source)], shard_size=8)
    assert (report.ingested, report.buried, report.total) == (1, 6, 26)


def test_an_equal_image_of_another_owner_survives_a_takedown(tmp_path: Path) -> None:
    source = images(tmp_path / "pictures", 3)
    (source / "twin.png").write_bytes((source / "image 0001.png").read_bytes())
    data = tmp_path / "data"
    fake.run(data, [str(source)])
    with Collection.open(data) as collection:
        assert take_down(collection, keys=["image 0001.png"]) == 1
    report = fake.run(data, [str(source)], force=True)
    assert report.total == 3
    assert str(point_id("set", "twin.png")) in state(data)["points"]


def test_a_takedown_that_was_killed_is_finished_at_the_next_opening(tmp_path: Path) -> None:
    source = images(tmp_path / "pictures", 12)
    data = tmp_path / "data"
    fake.run(data, [str(source)], shard_size=8)
    ledger = Ledger(data / "ledger.sqlite")
    ledger.bury([("set", "image 0002.png", "")], "2026-01-01T00:00:00+00:00")
    ledger.close()  # killed here: nothing has left index and shards yet
    found = state(data)
    assert str(point_id("set", "image 0002.png")) not in found["points"]
    assert "image 0002.png" not in [
        row.key for _, rows, _ in found["shards"].values() for row in rows
    ]


def test_two_ingests_at_once_into_one_folder(tmp_path: Path) -> None:
    source = images(tmp_path / "pictures", 3)
    data = tmp_path / "data"
    with Collection.create(data, None, fake.fake_model):
        with pytest.raises(DataFolderBusyError) as caught:
            Collection.create(data, None, fake.fake_model, wait_s=0.1)
        assert str(caught.value).startswith(f"{data} is in use by process {os.getpid()} (")
        assert str(caught.value).endswith(
            "one process at a time can use a data folder: wait until it ends, or stop it"
        )
    assert fake.run(data, [str(source)]).total == 3


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path: Path) -> None:
    """A small real file system that fills up; and after making room, the same command goes on."""
    mount = tmp_path / "small"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", str(mount)], capture_output=True
    )
    if made.returncode:
        pytest.skip("a small file system can be mounted by root only")
    try:
        source = images(tmp_path / "pictures", 200)
        data = tmp_path / "data"
        fake.run(data, [str(images(tmp_path / "first", 10))])
        # The features are on the small disk, index and ledger are not.
        features = data / "features"
        features.rename(tmp_path / "kept")
        subprocess.run(["cp", "-r", str(tmp_path / "kept"), str(mount / "features")], check=True)
        features.symlink_to(mount / "features")
        (mount / "ballast").write_bytes(os.urandom(1_300_000))
        with pytest.raises(DataFolderError) as caught:
            fake.run(data, [str(source)], shard_size=50)
        assert str(caught.value) == (
            f"cannot write to {data}: No space left on device; free some space and run the same "
            "command again: finished shards are kept"
        )
        (mount / "ballast").unlink()
        assert fake.run(data, [str(source)], shard_size=50).total == 200
        fake.run(tmp_path / "unbroken", [str(tmp_path / "first")])
        fake.run(tmp_path / "unbroken", [str(source)], shard_size=50)
        assert state(data)["points"].keys() == state(tmp_path / "unbroken")["points"].keys()
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True)


def test_a_read_only_data_folder_is_one_line(tmp_path: Path) -> None:
    data = tmp_path / "data"
    fake.run(data, [str(images(tmp_path / "pictures", 3))])
    made = subprocess.run(["mount", "--bind", str(data), str(data)], capture_output=True)
    if made.returncode:
        pytest.skip("a folder can be mounted read-only by root only")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(data)], check=True)
        with pytest.raises(DataFolderError) as caught:
            DataFolder.open(data)
        assert str(caught.value) == (
            f"cannot write to {data}: Read-only file system; check its permissions"
        )
    finally:
        subprocess.run(["umount", "-l", str(data)], check=True)


def test_a_newer_data_folder_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    fake.run(data, [str(images(tmp_path / "pictures", 3))])
    facts = json.loads((data / "attrib.json").read_text())
    (data / "attrib.json").write_text(json.dumps({**facts, "format": 99}))
    with pytest.raises(DataFolderError) as caught:
        Collection.open(data)
    assert str(caught.value) == (
        f"{data} was written by a newer attrib (data format 99; this one reads 1); upgrade attrib"
    )


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    source = images(tmp_path / "pictures", 3)
    with pytest.raises(DataFolderError) as caught:
        fake.run(source, [str(source)])
    assert str(caught.value) == (
        f"{source} holds other things than attrib's; choose an empty or new folder with --data"
    )
    assert not (source / "lock").exists()


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    """What is in flight is bounded: prepared images never exceed the look-ahead and the queue."""
    source = images(tmp_path / "pictures", 160)
    alive = 0
    most = 0
    lock = threading.Lock()
    import search.ingestion as module

    real = module._prepare_item

    def counted(*arguments: Any) -> Any:
        nonlocal alive, most
        with lock:
            alive += 1
            most = max(most, alive)
        return real(*arguments)

    class Counting(fake.FakeEmbedder):
        def embed(self, pixels: Any) -> Any:
            nonlocal alive
            with lock:
                alive -= len(pixels)
            time.sleep(0.005)
            return super().embed(pixels)

    module._prepare_item = counted
    try:
        fake.run(tmp_path / "data", [str(source)], embedder=Counting())
    finally:
        module._prepare_item = real
    assert most <= 2 * 5 + 2 + 5 + 2  # look-ahead, one batch, what the threads hold
