"""The ingest pipeline: what ends up in index, shards and ledger, whatever happens on the way."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import fake_backbone as fake
import numpy as np
import pyarrow.parquet as pq
from ingested import draw, images, state
from PIL import Image

from embed.shards import read_shard, shard_paths
from ingest.record import point_id
from search.collection import Collection


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
