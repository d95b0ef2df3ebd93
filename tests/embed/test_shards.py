"""Feature shards: whole or not there, equal to what went in, and rows leave every file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embed.shards import (
    ImageRow,
    ShardWriter,
    drop_rows,
    read_shard,
    read_thumbnails,
    shard_paths,
)

DIM = 7


def row(key: str, **more: object) -> ImageRow:
    values: dict[str, object] = {
        "key": key,
        "dataset": "set",
        "path": f"/a/{key}",
        "url": "",
        "caption": "a caption",
        "creator": "Ünknown \N{SNOWMAN}",
        "licence": "CC0",
        "width": 30,
        "height": 20,
        "sha256": "0" * 64,
        "extra": {"aesthetic": 5.5, "lang": None},
    }
    return ImageRow(**{**values, **more})  # type: ignore[arg-type]


def write(folder: Path, keys: list[str], *, batches: int = 3, number: int = 4) -> np.ndarray:
    features = np.random.default_rng(5).normal(size=(len(keys), DIM)).astype(np.float32)
    writer = ShardWriter(folder, number, DIM)
    for part in np.array_split(np.arange(len(keys)), batches):
        if len(part):
            some = [row(keys[i]) for i in part]
            writer.append(features[part], some, [keys[i].encode() for i in part])
    writer.finish()
    return features.astype(np.float16)


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    keys = [f"key {i}" for i in range(150)]
    features = write(tmp_path, keys, batches=7)
    read, rows = read_shard(tmp_path, 4)
    np.testing.assert_array_equal(read, features)
    assert rows == [row(key) for key in keys]
    # The header was written again in place: numpy alone reads the file, too.
    assert np.load(shard_paths(tmp_path, 4)[0]).shape == (150, DIM)
    found = read_thumbnails(tmp_path, 4, ["key 149", "key 0", "nobody"])
    assert found == {"key 149": b"key 149", "key 0": b"key 0"}


def test_thumbnails_of_keys_in_no_order(tmp_path: Path) -> None:
    initials = "\u00e9\U0001f600a\uffff"
    keys = [f"{initials[i % 4]}{i}" for i in range(300)]
    np.random.default_rng(3).shuffle(keys)
    write(tmp_path, keys)
    for key in ("a2", "\u00e90", "\U0001f60081", "\uffff299"):
        assert read_thumbnails(tmp_path, 4, [key]) == {key: key.encode()}
    assert read_thumbnails(tmp_path, 4, [*keys, "z"]) == {key: key.encode() for key in keys}


def test_nothing_is_there_before_it_is_whole(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, 0, DIM)
    writer.append(np.zeros((1, DIM), np.float32), [row("a")], [b"t"])
    assert not any(path.exists() for path in shard_paths(tmp_path, 0))
    writer.abandon()
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_a_shard_of_rejects_alone_has_no_files(tmp_path: Path) -> None:
    ShardWriter(tmp_path, 0, DIM).finish()
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
    features, rows = read_shard(tmp_path, 0)
    assert (features.shape, rows) == ((0, 0), [])
    assert read_thumbnails(tmp_path, 0, ["a"]) == {}


@pytest.mark.parametrize("shape", [(2, DIM), (1, DIM + 1), (DIM, 1)])
def test_features_that_do_not_fit_are_refused(tmp_path: Path, shape: tuple[int, int]) -> None:
    writer = ShardWriter(tmp_path, 0, DIM)
    with pytest.raises(ValueError, match="a shard of dim 7 was given features"):
        writer.append(np.zeros(shape, np.float32), [row("a")], [b"t"])
    writer.abandon()


@given(count=st.integers(1, 40), dropped=st.sets(st.integers(0, 45), max_size=40))
@settings(max_examples=25, deadline=None)
def test_dropped_rows_leave_all_three_files(
    tmp_path_factory: pytest.TempPathFactory, count: int, dropped: set[int]
) -> None:
    folder = tmp_path_factory.mktemp("shard")
    keys = [f"k{i}" for i in range(count)]
    features = write(folder, keys)
    expected = [i for i in range(count) if i not in dropped]
    went = drop_rows(folder, 4, [f"k{i}" for i in dropped])
    assert went == count - len(expected)
    read, rows = read_shard(folder, 4)
    assert [r.key for r in rows] == [keys[i] for i in expected]
    if expected:
        np.testing.assert_array_equal(read, features[expected])
        thumbnails = pq.read_table(shard_paths(folder, 4)[2]).column("key").to_pylist()
        assert thumbnails == [keys[i] for i in expected]
    else:
        assert not any(path.exists() for path in shard_paths(folder, 4))
    assert drop_rows(folder, 4, [f"k{i}" for i in dropped]) == 0


def test_a_drop_that_was_killed_between_two_files_is_finished(tmp_path: Path) -> None:
    keys = [f"k{i}" for i in range(9)]
    features = write(tmp_path, keys)
    _, metadata, _ = shard_paths(tmp_path, 4)
    before = metadata.read_bytes()
    drop_rows(tmp_path, 4, ["k2", "k5"])
    metadata.write_bytes(before)  # killed before the last rename: the metadata is the old one
    assert drop_rows(tmp_path, 4, ["k2", "k5"]) == 2
    read, rows = read_shard(tmp_path, 4)
    kept = [0, 1, 3, 4, 6, 7, 8]
    assert [r.key for r in rows] == [keys[i] for i in kept]
    np.testing.assert_array_equal(read, features[kept])
