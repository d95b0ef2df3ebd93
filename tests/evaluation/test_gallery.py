"""Distractors: the same blocks whatever they come from, and no exemplar among them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import extract_program as program
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray

from embed.mapper import Mapper, MapperPair, normalised
from evaluation.extract import extract
from evaluation.gallery import Gallery, Names, Part, distractors
from ingest.errors import (
    DataFolderBusyError,
    DataFolderError,
    ModelError,
    ModelMismatchError,
    SourceError,
    WeightsError,
)
from search.collection import Collection
from search.folder import DataFolder
from search.removal import take_down

BACKBONE = program.BACKBONE
DIM = program.DIM


def random(images: int, dim: int = DIM, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(images, dim)).astype(np.float32)


def whole(gallery: Gallery, rows: int = 7) -> NDArray[np.float32]:
    blocks = list(gallery.blocks(rows))
    assert all(len(block) == rows for block in blocks[:-1])
    assert all(block.dtype == np.float32 for block in blocks)
    assert sum(map(len, blocks)) == len(gallery)
    return np.concatenate(blocks)


def clip_retrieval(
    folder: Path, sizes: list[int], digits: int = 1, metadata: bool = True
) -> NDArray[np.float16]:
    """A feature folder as clip-retrieval writes it, with `image_path` alone."""
    (folder / "img_emb").mkdir(parents=True)
    (folder / "metadata").mkdir()
    parts = []
    for number, size in enumerate(sizes):
        parts.append(random(size, seed=number).astype(np.float16))
        np.save(folder / "img_emb" / f"img_emb_{number:0{digits}d}.npy", parts[-1])
        if metadata:
            paths = [f"images/{number}-{i}.jpg" for i in range(size)]
            pq.write_table(
                pa.table({"image_path": paths, "width": [1] * size}),
                folder / "metadata" / f"metadata_{number:0{digits}d}.parquet",
            )
    return np.concatenate(parts)


# -- the gallery itself ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("rows", [1, 4, 10, 11, 500])
def test_an_array_by_blocks(dtype: Any, rows: int) -> None:
    array = random(10).astype(dtype)
    gallery = Gallery.of_array(array)
    assert (len(gallery), gallery.dim) == (10, DIM)
    np.testing.assert_array_equal(whole(gallery, rows), array.astype(np.float32))
    assert gallery.keys == tuple(str(i) for i in range(10))


@pytest.mark.parametrize("rows", [1, 3, 8, 100])
def test_blocks_go_across_shards(tmp_path: Path, rows: int) -> None:
    array = clip_retrieval(tmp_path, [5, 1, 9])
    gallery = Gallery.of_shards(tmp_path)
    np.testing.assert_array_equal(whole(gallery, rows), array.astype(np.float32))
    assert gallery.keys[4:7] == ("images/0-4.jpg", "images/1-0.jpg", "images/2-0.jpg")


def test_several_folders_and_more_than_ten_shards(tmp_path: Path) -> None:
    first = clip_retrieval(tmp_path / "a", [2] * 12)
    second = clip_retrieval(tmp_path / "b", [3], digits=5, metadata=False)
    gallery = Gallery.of_shards(tmp_path / "a", tmp_path / "b")
    np.testing.assert_array_equal(whole(gallery), np.concatenate([first, second]))
    assert gallery.keys[20:] == (
        *("images/10-0.jpg", "images/10-1.jpg", "images/11-0.jpg", "images/11-1.jpg"),
        *("24", "25", "26"),
    )


def test_shards_stay_on_disk(tmp_path: Path) -> None:
    clip_retrieval(tmp_path, [2, 3])
    for part in Gallery.of_shards(tmp_path)._parts:
        assert isinstance(part.features, np.memmap)


def test_mapped_blocks_are_normalised(tmp_path: Path) -> None:
    array = clip_retrieval(tmp_path, [5, 4]).astype(np.float32)
    rng = np.random.default_rng(1)
    real = Mapper.linear(rng.normal(size=(6, DIM)), rng.normal(size=6))
    synth = Mapper.linear(rng.normal(size=(6, DIM)), np.zeros(6))
    gallery = Gallery.of_shards(tmp_path).mapped(MapperPair(real, synth))
    assert gallery.dim == 6
    found = whole(gallery, 4)
    np.testing.assert_allclose(found, normalised(real(array)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)
    again = gallery.materialised(rows=4)
    np.testing.assert_array_equal(whole(again, 4), found)
    assert again.keys == gallery.keys
    with pytest.raises(ModelError, match="mapped already"):
        gallery.mapped(MapperPair.identity(6))
    with pytest.raises(ModelError, match="base features of 24 numbers, the model takes 5"):
        Gallery.of_shards(tmp_path).mapped(MapperPair.identity(5))


def test_without_keys_keeps_the_order() -> None:
    array = random(6)
    names = Names(keys=["a", "b", "c", "d", "e", "f"], hashes=["", "x" * 64, "", "", "", "y" * 64])
    gallery = Gallery.of_array(array, names)
    left = gallery.without(keys=["c", "nobody"], hashes=["x" * 64])
    assert left.keys == ("a", "d", "e", "f")
    np.testing.assert_array_equal(whole(left, 3), array[[0, 3, 4, 5]])
    again = left.without(keys=["a"], hashes=["y" * 64])
    assert again.keys == ("d", "e")
    np.testing.assert_array_equal(whole(again), array[[3, 4]])
    stored = again.materialised()
    assert stored.without(keys=["d"]).keys == ("e",)
    assert len(gallery) == 6  # the gallery itself is not changed
    assert gallery.without() is gallery
    with pytest.raises(SourceError, match="no distractors are left without the exemplars"):
        again.without(keys=["d", "e"])


def test_unnamed_images_go_by_their_numbers(tmp_path: Path) -> None:
    array = clip_retrieval(tmp_path, [3, 3], metadata=False)
    left = Gallery.of_shards(tmp_path).without(keys=["1", "4"])
    assert left.keys == ("0", "2", "3", "5")
    np.testing.assert_array_equal(whole(left), array[[0, 2, 3, 5]])
    assert left.without(keys=["5"]).keys == ("0", "2", "3")


def test_without_files_follows_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    file = tmp_path / "real" / "a.png"
    file.touch()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    paths = [str(tmp_path / "link" / "a.png"), "real/a.png", "other/a.png", ""]
    monkeypatch.chdir("/")
    names = Names(paths=paths, folder=tmp_path)
    left = Gallery.of_array(random(4), names).without(paths=[file])
    assert left.keys == ("other/a.png", "3")


def test_wrong_galleries(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no distractors"):
        Gallery.of_array(np.empty((0, 3), np.float32))
    with pytest.raises(ModelError, match=r"unequal features: \(3,\), \(4,\)"):
        Gallery([Part(random(2, 3), Names), Part(random(2, 4), Names)])
    with pytest.raises(SourceError, match="3 features have names for another number"):
        Gallery.of_array(random(3), Names(keys=["a"]))
    with pytest.raises(SourceError, match=r"no features in .*: it has no img_emb"):
        Gallery.of_shards(tmp_path)
    bad = random(9)
    bad[[2, 3], 5] = np.nan
    with pytest.raises(WeightsError, match="2 of 4 distractors looked at together have features"):
        list(Gallery.of_array(bad).blocks(4))
    with pytest.raises(WeightsError, match="2 of 4 base features"):
        list(Gallery.of_array(bad).mapped(MapperPair.identity(DIM)).blocks(4))
    with pytest.raises(ValueError, match="rows must be 1 or more"):
        next(Gallery.of_array(bad).blocks(0))


def test_metadata_that_does_not_fit(tmp_path: Path) -> None:
    clip_retrieval(tmp_path, [3])
    path = tmp_path / "metadata" / "metadata_0.parquet"
    pq.write_table(pa.table({"image_path": ["a"]}), path)
    with pytest.raises(SourceError, match="3 features have names for another number of images"):
        _ = Gallery.of_shards(tmp_path).keys
    path.write_bytes(b"no table")
    with pytest.raises(SourceError, match=r"cannot read .*metadata_0\.parquet"):
        _ = Gallery.of_shards(tmp_path).keys


# -- what a person names ---------------------------------------------------------------------------


def test_images(tmp_path: Path) -> None:
    files = program.pictures(tmp_path / "images", 6)
    copy = tmp_path / "images" / "the same under another name.png"
    shutil.copy(files[2], copy)
    cache = tmp_path / "cache"
    embedder = program.FakeEmbedder()
    found = distractors(
        str(tmp_path / "images"), {files[2], files[4]}, lambda: embedder, BACKBONE, cache
    )
    left = [files[i] for i in (0, 1, 3, 5)]
    assert found.keys == tuple(str(file) for file in left)
    base = extract(left, program.FakeEmbedder, BACKBONE, cache).features()
    np.testing.assert_array_equal(whole(found), base.astype(np.float32))
    # Other exemplars need no other features.
    again = distractors(tmp_path / "images", {files[0]}, program.never, BACKBONE, cache)
    assert len(again) == 6


def test_a_list_of_images_with_a_bad_one(tmp_path: Path) -> None:
    files = program.pictures(tmp_path / "images", 3)
    files[1].write_bytes(b"no image")
    spec = tmp_path / "list.txt"
    spec.write_text("images/0002.png\nimages/0001.png\nimages/0000.png\n")
    arguments = (spec, set[Path](), program.FakeEmbedder, BACKBONE, tmp_path / "cache")
    with pytest.raises(SourceError, match=r"0001\.png cannot be used: not an image"):
        distractors(*arguments)
    told: list[str] = []
    found = distractors(*arguments, skip_bad=True, note=told.append)
    assert found.keys == (str(files[2]), str(files[0]))
    assert told == [
        f"1 of 3 distractors cannot be used and are left out, the first is {files[1]} "
        "(not an image)"
    ]
    with pytest.raises(SourceError, match="no such file or folder"):
        distractors(tmp_path / "no", set(), program.never, BACKBONE)
    with pytest.raises(SourceError, match="no such file or folder"):
        distractors("x" * 5000, set(), program.never, BACKBONE)


def test_a_data_folder(tmp_path: Path) -> None:
    files = program.pictures(tmp_path / "images", 20)
    data = tmp_path / "data"
    program.fake.run(data, [str(tmp_path / "images")], shard_size=8)
    found = distractors(data, {files[3], files[11]}, program.never, BACKBONE)
    left = [file for i, file in enumerate(files) if i not in (3, 11)]
    assert found.keys == tuple(str(file) for file in left)
    base = extract(left, program.FakeEmbedder, BACKBONE, tmp_path / "cache").features()
    np.testing.assert_array_equal(whole(found), base.astype(np.float32))


def test_a_data_folder_after_removals_and_a_broken_run(tmp_path: Path) -> None:
    files = program.pictures(tmp_path / "images", 12)
    data = tmp_path / "data"
    program.fake.run(data, [str(tmp_path / "images")], shard_size=8)
    with Collection.open(data) as collection:
        take_down(collection, keys=["0001.png"])
    # A shard that the ledger does not know is left over from a run that was killed.
    for file in (data / "features" / "set").glob("*/*_00000.*"):
        shutil.copy(file, file.with_name(file.name.replace("00000", "00007")))
    found = distractors(data, set(), program.never, BACKBONE)
    assert found.keys == tuple(str(file) for file in files if file.name != "0001.png")


def test_data_folders_that_will_not_do(tmp_path: Path) -> None:
    program.pictures(tmp_path / "images", 3)
    data = tmp_path / "data"
    program.fake.run(data, [str(tmp_path / "images")])
    other = replace(BACKBONE, name="other", weights_hash="e" * 64)
    with pytest.raises(ModelMismatchError) as caught:
        distractors(data, set(), program.never, other)
    assert str(caught.value) == (
        f"{data} holds base features of fake (weights ffffffff), wanted are those of other "
        "(weights eeeeeeee); name the images themselves, or another data folder"
    )
    resized = replace(BACKBONE, preprocessing=replace(BACKBONE.preprocessing, resize=20))
    with pytest.raises(ModelMismatchError):
        distractors(data, set(), program.never, resized)
    unpinned = replace(BACKBONE, weights_hash="")
    assert len(distractors(data, set(), program.never, unpinned, weights_hash="f" * 64)) == 3
    with pytest.raises(ModelMismatchError):
        distractors(data, set(), program.never, unpinned, weights_hash="e" * 64)
    with DataFolder.open(data), pytest.raises(DataFolderBusyError, match="is in use by process"):
        distractors(data, set(), program.never, BACKBONE)
    DataFolder.create(tmp_path / "fresh").close()
    with pytest.raises(DataFolderError, match="nothing was ingested into"):
        distractors(tmp_path / "fresh", set(), program.never, BACKBONE)


def test_feature_files(tmp_path: Path) -> None:
    array = clip_retrieval(tmp_path / "clip", [4, 3])
    exemplar = tmp_path / "clip" / "images" / "1-1.jpg"
    found = distractors(tmp_path / "clip", {exemplar}, program.never, BACKBONE)
    np.testing.assert_array_equal(whole(found), array[[0, 1, 2, 3, 4, 6]].astype(np.float32))

    feats = torch.from_numpy(random(5))
    paths = [f"laion/{i}.jpg" for i in range(5)]
    torch.save({"feats": feats, "paths": paths}, tmp_path / "laion_subset.pth")
    exemplar = tmp_path / "laion" / "2.jpg"
    found = distractors(tmp_path / "laion_subset.pth", {exemplar}, program.never, BACKBONE)
    assert found.keys == tuple(paths[:2] + paths[3:])
    np.testing.assert_array_equal(whole(found), feats[[0, 1, 3, 4]])

    told: list[str] = []
    path = tmp_path / "data_feats.npy"
    np.save(path, random(5))
    found = distractors(path, {exemplar}, program.never, BACKBONE, note=told.append)
    np.testing.assert_array_equal(whole(found), random(5))
    assert told == [f"{path} names no images: exemplars that are among them count as distractors"]
    np.save(path, random(5, dim=7))
    with pytest.raises(ModelError) as caught:
        distractors(path, set(), program.never, BACKBONE)
    assert str(caught.value) == (
        f"{path} has features of 7 numbers, fake gives 24; they are of another backbone"
    )
