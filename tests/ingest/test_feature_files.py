"""Feature files as others write them: read in blocks, and refused in one line where unsound."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.errors import SourceError
from ingest.feature_files import NpyFeatures, open_feature_folder

DIM = 5


def matrix(rows: int, dtype: str = "<f4", seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(rows, DIM)).astype(dtype)


def part(folder: Path, number: str, rows: int, **columns: list[Any]) -> Path:
    for name in ("img_emb", "metadata"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    np.save(folder / "img_emb" / f"img_emb_{number}.npy", matrix(rows))
    table = {"image_path": [f"{number}-{i}" for i in range(rows)], **columns}
    pq.write_table(pa.table(table), folder / "metadata" / f"metadata_{number}.parquet")
    return folder


def refused(line: str, make: Any) -> None:
    with pytest.raises(SourceError) as caught:
        make()
    assert str(caught.value) == line


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4"])
def test_any_floating_point_type(tmp_path: Path, dtype: str) -> None:
    np.save(tmp_path / "a.npy", matrix(7, dtype))
    file = NpyFeatures(tmp_path / "a.npy")
    assert (file.images, file.dim) == (7, DIM)
    blocks = list(file.blocks(3, lambda start: True))
    assert [(b.start, len(b.rows), b.features.dtype) for b in blocks] == [
        (0, 3, np.float32),
        (3, 3, np.float32),
        (6, 1, np.float32),
    ]
    got = np.concatenate([b.features for b in blocks])
    np.testing.assert_array_equal(got, matrix(7, dtype).astype(np.float32))
    assert [row.key for b in blocks for row in b.rows] == [f"{i:09d}" for i in range(7)]


def test_metadata_as_clip_retrieval_writes_it(tmp_path: Path) -> None:
    folder = part(
        tmp_path,
        "0",
        2,
        caption=["a cat", "b"],
        url=["http://x.org/1", None],
        key=["000000001", None],
        license=["CC0", ""],
        author=["Ann", None],
        similarity=[0.5, 0.25],
        width=[640, -1],
        sha256=["AB" * 32, "not one"],
    )
    (block,) = open_feature_folder(folder)[0].blocks(10, lambda start: True)
    first, second = block.rows
    assert (first.key, first.path, first.width, first.sha256) == (
        "000000001",
        "0-0",
        640,
        "ab" * 32,
    )
    said = first.metadata
    assert (said.caption, said.url, said.creator, said.licence) == (
        "a cat",
        "http://x.org/1",
        "Ann",
        "CC0",
    )
    assert said.extra == {"similarity": 0.5}
    assert (second.key, second.path, second.width, second.sha256) == ("0-1", "0-1", 0, "")


def test_parts_are_matched_by_number_not_by_order(tmp_path: Path) -> None:
    for number in ("10", "9", "00002"):
        part(tmp_path, number, 2)
    table = tmp_path / "metadata" / "metadata_9.parquet"
    table.rename(table.with_name("metadata_09.parquet"))
    files = open_feature_folder(tmp_path)
    keys = [row.key for f in files for b in f.blocks(8, lambda start: True) for row in b.rows]
    assert keys == ["00002-0", "00002-1", "9-0", "9-1", "10-0", "10-1"]


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 40), size=st.integers(1, 45), kept=st.sets(st.integers(0, 39)))
def test_any_choice_of_blocks_keeps_rows_and_features_together(
    tmp_path_factory: pytest.TempPathFactory, rows: int, size: int, kept: set[int]
) -> None:
    folder = part(tmp_path_factory.mktemp("f"), "3", rows)
    (file,) = open_feature_folder(folder)
    blocks = list(file.blocks(size, lambda start: start // size in kept))
    assert [b.start for b in blocks] == [s for s in range(0, rows, size) if s // size in kept]
    for block in blocks:
        stop = block.start + len(block.rows)
        assert [r.key for r in block.rows] == [f"3-{i}" for i in range(block.start, stop)]
        np.testing.assert_array_equal(block.features, matrix(rows)[block.start : stop])


def test_a_pickle_is_refused_unread(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "ran"),))

    path = tmp_path / "a.npy"
    line = f"{path} is refused: it holds Python objects (a pickle), not numbers alone"
    np.save(path, np.array([[Bomb()]], dtype=object), allow_pickle=True)
    refused(line, lambda: NpyFeatures(path))
    path.write_bytes(__import__("pickle").dumps(Bomb()))
    refused(line, lambda: NpyFeatures(path))
    assert not (tmp_path / "ran").exists()


def test_other_arrays_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    needed = "floating-point numbers, a row an image, are needed"
    for array, found in (
        (np.zeros((2, 3), np.int64), "int64 numbers (2 x 3)"),
        (np.zeros(4, np.float32), "float32 numbers (4)"),
        (np.zeros((0, 3), np.float32), "float32 numbers (0 x 3)"),
    ):
        np.save(path, array)
        refused(f"{path} holds {found}; {needed}", lambda: NpyFeatures(path))
    np.save(path, matrix(50))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(SourceError, match=r"a.npy cannot be read as an .npy file: "):
        NpyFeatures(path)


def test_unequal_lengths_name_both_files(tmp_path: Path) -> None:
    part(tmp_path, "0", 4)
    npy = tmp_path / "img_emb" / "img_emb_0.npy"
    np.save(npy, matrix(3))
    table = tmp_path / "metadata" / "metadata_0.parquet"
    refused(
        f"{npy} has 3 rows, but {table} has 4; they must describe the same images",
        lambda: open_feature_folder(tmp_path),
    )


def test_a_part_without_its_counterpart_is_named(tmp_path: Path) -> None:
    part(tmp_path, "0", 4)
    part(tmp_path, "1", 4)
    table = tmp_path / "metadata" / "metadata_1.parquet"
    (tmp_path / "img_emb" / "img_emb_1.npy").unlink()
    refused(
        f"{table} has no counterpart of its number in {tmp_path}/img_emb/*.npy",
        lambda: open_feature_folder(tmp_path),
    )
    refused(
        f"{tmp_path / 'img_emb'} is no output folder of clip-retrieval: it has no img_emb/*.npy",
        lambda: open_feature_folder(tmp_path / "img_emb"),
    )
