"""Feature shards in a store: the same bytes as on a disk, whole or not there."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import numpy as np
import pytest
from stores import Bucket, Site

from embed.shards import (
    ImageRow,
    ShardWriter,
    drop_rows,
    read_shard,
    read_thumbnails,
    shard_paths,
)
from ingest.errors import StorageError
from ingest.storage import Location, location

DIM = 7


def row(key: str) -> ImageRow:
    return ImageRow(key, "set", f"/a/{key}", "", "a caption", "Ünknown", "CC0", 3, 2, "0" * 64)


def write(
    folder: Location, keys: list[str], *, number: int = 4, thumbnails: bool = True
) -> np.ndarray:
    features = np.random.default_rng(5).normal(size=(len(keys), DIM)).astype(np.float32)
    writer = ShardWriter(folder, number, DIM)
    for part in np.array_split(np.arange(len(keys)), 3):
        some = [row(keys[i]) for i in part]
        writer.append(
            features[part], some, [keys[i].encode() for i in part] if thumbnails else None
        )
    writer.finish()
    return features.astype(np.float16)


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder, in which nothing may stay behind."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture(params=["s3", "memory"])
def place(request: pytest.FixtureRequest) -> Location:
    if request.param == "memory":
        return location(f"memory://{request.node.name}")
    s3: Bucket = request.getfixturevalue("s3")
    return location(s3.url("features/set"))


KEYS = [f"key {i}" for i in range(150)]


def test_the_same_bytes_as_on_a_disk(place: Location, tmp_path: Path, scratch: Path) -> None:
    features = write(place, KEYS)
    write(tmp_path, KEYS)
    for there, here in zip(shard_paths(place, 4), shard_paths(tmp_path, 4), strict=True):
        assert there.read_bytes() == here.read_bytes()
    read, rows = read_shard(place, 4)
    np.testing.assert_array_equal(read, features)
    assert rows == [row(key) for key in KEYS]
    assert read_thumbnails(place, 4, ["key 149", "key 0", "nobody"]) == {
        "key 149": b"key 149",
        "key 0": b"key 0",
    }
    assert list(scratch.iterdir()) == []


def test_an_abandoned_one_leaves_nothing(place: Location, scratch: Path) -> None:
    writer = ShardWriter(place, 0, DIM)
    writer.append(np.zeros((1, DIM), np.float32), [row("a")], [b"t"])
    assert not any(path.exists() for path in shard_paths(place, 0))
    writer.abandon()
    assert not any(path.exists() for path in shard_paths(place, 0))
    assert list(scratch.iterdir()) == []


def test_a_shard_of_no_image_has_no_files(place: Location, scratch: Path) -> None:
    write(place, KEYS)
    ShardWriter(place, 4, DIM).finish()
    assert not any(path.exists() for path in shard_paths(place, 4))
    features, rows = read_shard(place, 4)
    assert (features.shape, rows) == ((0, 0), [])
    assert read_thumbnails(place, 4, ["a"]) == {}
    assert list(scratch.iterdir()) == []


def test_written_again_without_thumbnails(place: Location) -> None:
    write(place, KEYS)
    write(place, KEYS[:10], thumbnails=False)
    assert not shard_paths(place, 4)[2].exists()
    assert len(read_shard(place, 4)[0]) == 10


def test_rows_leave_every_file(place: Location) -> None:
    features = write(place, KEYS)
    assert drop_rows(place, 4, ["key 3", "key 149", "nobody"]) == 2
    read, rows = read_shard(place, 4)
    kept = [i for i in range(150) if i not in (3, 149)]
    np.testing.assert_array_equal(read, features[kept])
    assert [r.key for r in rows] == [KEYS[i] for i in kept]
    assert read_thumbnails(place, 4, KEYS).keys() == {KEYS[i] for i in kept}
    assert drop_rows(place, 4, ["key 3"]) == 0
    assert drop_rows(place, 4, KEYS) == 148
    assert not any(path.exists() for path in shard_paths(place, 4))


def test_a_takedown_that_was_broken_off_is_mended(s3: Bucket) -> None:
    place = location(s3.url("features/set"))
    features = write(place, KEYS)
    metadata = shard_paths(place, 4)[1]
    old = metadata.read_bytes()
    drop_rows(place, 4, ["key 3"])
    metadata.write_bytes(old)  # as if killed before the last file
    drop_rows(place, 4, ["key 3"])
    read, rows = read_shard(place, 4)
    np.testing.assert_array_equal(read, np.delete(features, 3, axis=0))
    assert len(rows) == 149


def test_a_killed_upload_leaves_no_half_file(s3: Bucket) -> None:
    """Killed with some of its parts uploaded: the old file is there, whole."""
    s3.files.pipe_file(f"{s3.name}/features/file", b"the old one")
    program = textwrap.dedent("""
        import os, sys, tempfile
        from pathlib import Path
        import s3fs
        from ingest.storage import location
        from ingest.stored import put_file

        sent = []
        real = s3fs.S3FileSystem._call_s3

        async def killed_at_the_third_part(self, method, *args, **kwargs):
            if method == "upload_part":
                sent.append(kwargs["PartNumber"])
                if len(sent) == 3:
                    print("killed", flush=True)
                    os.kill(os.getpid(), 9)
            return await real(self, method, *args, **kwargs)

        s3fs.S3FileSystem._call_s3 = killed_at_the_third_part
        path = Path(sys.argv[2])
        path.write_bytes(bytes(220_000_000))
        put_file(path, location(sys.argv[1]))
    """)
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", program, s3.url("features/file"), f"{folder}/big"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stdout) == (-9, "killed\n"), done.stderr
    assert s3.read("features/file") == b"the old one"
    assert s3.names() == ["features/file"]


def test_the_metadata_comes_last(s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    import embed.shards

    order: list[str] = []
    real = embed.shards.publish

    def noted(temporary: Path, path: Location) -> None:
        order.append(path.name)
        real(temporary, path)

    monkeypatch.setattr(embed.shards, "publish", noted)
    write(location(s3.url("set")), KEYS)
    assert order == ["img_emb_00004.npy", "thumbnails_00004.parquet", "metadata_00004.parquet"]


def test_no_bucket_and_no_writing_to_the_web(s3: Bucket, site: Site, scratch: Path) -> None:
    with pytest.raises(StorageError) as caught:
        write(location("s3://no-such-bucket/set"), KEYS)
    assert str(caught.value) == "no such bucket: s3://no-such-bucket"
    with pytest.raises(StorageError) as caught:
        write(location(site.url("/set")), KEYS)
    assert str(caught.value) == (
        f"{site.url('/set/img_emb/img_emb_00004.npy')}: a web server cannot be written to; "
        "name s3:// or gs://"
    )
