"""Extraction: once, resumable, and with the very features that a query has."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import extract_program as program
import numpy as np
import pytest

from embed.backbones import BACKBONES
from embed.mapper import normalised
from embed.shards import read_shard
from evaluation import extract_run
from evaluation.cases import read_case
from evaluation.extract import case_features, default_cache, extract
from ingest.decode import decode
from ingest.errors import DataFolderError, ModelMismatchError, SourceError
from ingest.source import open_sources
from search.collection import Collection

_PROGRAM = Path(program.__file__)
EXAMPLES = Path(__file__).parents[2] / "examples"
BACKBONE = program.BACKBONE


class Shown:
    def __init__(self) -> None:
        self.pending: int | None = -1
        self.images = 0

    def start(self, pending: int | None) -> None:
        self.pending = pending

    def advance(self, images: int) -> None:
        self.images += images


def test_features_are_those_of_a_query(tmp_path: Path) -> None:
    files = program.pictures(tmp_path / "images", 5)
    files = [files[i] for i in (3, 0, 4, 1, 2)]  # not the order of their names
    found = extract(files, program.FakeEmbedder, BACKBONE, tmp_path / "cache")
    assert (found.images, found.rows, found.shards, found.rejects) == (5, 5, 1, ())
    base = found.features()
    assert base.dtype == np.float16
    data = tmp_path / "data"
    program.fake.run(data, [str(tmp_path / "images")])
    with Collection.open(data) as collection:
        collection.adopt(program.FakeEmbedder())
        asked = collection.features([decode(file.read_bytes()).image for file in files])
    np.testing.assert_array_equal(normalised(base.astype(np.float32)), asked)
    _, rows = read_shard(found.folder, 0)
    assert [row.path for row in rows] == [str(file) for file in files]


def test_a_second_run_loads_nothing(tmp_path: Path) -> None:
    files = program.pictures(tmp_path / "images", 3)
    first = extract(files, program.FakeEmbedder, BACKBONE, tmp_path / "cache")
    shown = Shown()
    again = extract(files, program.never, BACKBONE, tmp_path / "cache", progress=shown)
    assert again == first
    assert (shown.pending, shown.images) == (-1, 0)
    assert first.folder.parent.name.startswith("fake-ffffffff")
    # A changed file, or another order, is another list.
    os.utime(files[0], ns=(1, 1))
    changed = extract(files, program.FakeEmbedder, BACKBONE, tmp_path / "cache")
    turned = extract(files[::-1], program.FakeEmbedder, BACKBONE, tmp_path / "cache")
    assert len({first.folder, changed.folder, turned.folder}) == 3


def test_torch_is_not_imported_for_what_is_cached(tmp_path: Path) -> None:
    files = program.pictures(tmp_path / "images", 2)
    extract(files, program.FakeEmbedder, BACKBONE, tmp_path / "cache")
    script = (
        "import sys; from pathlib import Path; from evaluation.extract import extract;"
        f"sys.path.insert(0, {str(_PROGRAM.parent)!r}); import extract_program as p;"
        f"found = extract([Path(f) for f in {[str(f) for f in files]}], None, p.BACKBONE,"
        f" Path({str(tmp_path / 'cache')!r}));"
        "assert found.rows == 2 and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_several_shards_and_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract_run, "SHARD", 40)
    files = program.pictures(tmp_path / "images", 100)
    embedder = program.FakeEmbedder()
    shown = Shown()
    found = extract(files, lambda: embedder, BACKBONE, tmp_path / "cache", progress=shown)
    assert embedder.batches == [32, 8, 32, 8, 20]
    assert (found.shards, found.rows) == (3, 100)
    assert (shown.pending, shown.images) == (100, 100)
    one = extract(files[41:42], program.FakeEmbedder, BACKBONE, tmp_path / "cache").features()
    np.testing.assert_array_equal(found.features()[41:42], one)


def test_a_killed_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = program.pictures(tmp_path / "images", 200)
    cache = tmp_path / "cache"
    whole = extract(files, program.FakeEmbedder, BACKBONE, tmp_path / "other").features()
    process = subprocess.Popen([sys.executable, str(_PROGRAM), str(cache), str(files[0].parent)])
    try:
        give_up = time.monotonic() + 60
        while not list(cache.glob("*/*/stats/00001.json")):
            assert time.monotonic() < give_up
            assert process.poll() is None
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    assert not list(cache.glob("*/*/done.json"))
    kept = len(list(cache.glob("*/*/stats/0*.json")))
    monkeypatch.setattr(extract_run, "SHARD", 32)
    embedder = program.FakeEmbedder()
    shown = Shown()
    found = extract(files, lambda: embedder, BACKBONE, cache, progress=shown)
    assert kept >= 2
    assert embedder.images == shown.pending == 200 - 32 * kept
    np.testing.assert_array_equal(found.features(), whole)
    assert list(cache.glob("*/*/done.json"))
    assert not list(found.folder.glob("*/.*.part"))


def test_a_damaged_shard_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract_run, "SHARD", 4)
    files = program.pictures(tmp_path / "images", 10)
    found = extract(files, program.FakeEmbedder, BACKBONE, tmp_path / "cache")
    whole = found.features()
    (found.folder / "img_emb" / "img_emb_00001.npy").write_bytes(b"cut")
    embedder = program.FakeEmbedder()
    again = extract(files, lambda: embedder, BACKBONE, tmp_path / "cache")
    assert embedder.images == 6
    np.testing.assert_array_equal(again.features(), whole)


def test_bad_images_are_named_or_skipped(tmp_path: Path) -> None:
    files = program.pictures(tmp_path / "images", 6)
    files[1].write_bytes(b"no image")
    files[4].write_bytes(b"")
    cache = tmp_path / "cache"
    error = f"{files[1]} cannot be used: not an image; mend it, or leave bad images out"
    with pytest.raises(SourceError) as caught:
        extract(files, program.FakeEmbedder, BACKBONE, cache)
    assert str(caught.value) == error
    found = extract(files, program.FakeEmbedder, BACKBONE, cache, skip_bad=True)
    assert (found.images, found.rows) == (6, 4)
    assert found.rejects == (
        (1, str(files[1]), "not an image"),
        (4, str(files[4]), "empty file"),
    )
    assert extract(files, program.never, BACKBONE, cache, skip_bad=True) == found
    with pytest.raises(SourceError) as caught:  # also when it is all in the cache
        extract(files, program.never, BACKBONE, cache)
    assert str(caught.value) == error
    with pytest.raises(SourceError, match="no usable image in"):
        extract([files[1]], program.never, BACKBONE, cache, skip_bad=True)
    with pytest.raises(SourceError, match="no images to extract"):
        extract([], program.never, BACKBONE, cache)


def test_sources(tmp_path: Path) -> None:
    files = program.pictures(tmp_path / "images", 7)
    with tarfile.open(tmp_path / "more.tar", "w") as tar:
        for file in files[:3]:
            tar.add(file, file.name)
    specs = [str(tmp_path / "images"), str(tmp_path / "more.tar")]
    shown = Shown()
    found = extract(
        open_sources(specs), program.FakeEmbedder, BACKBONE, tmp_path / "cache", progress=shown
    )
    assert (shown.pending, shown.images) == (None, 10)  # nobody counts a tar beforehand
    base = found.features()
    np.testing.assert_array_equal(base[7:], base[:3])
    assert extract(open_sources(specs), program.never, BACKBONE, tmp_path / "cache") == found
    _, rows = read_shard(found.folder, 0)
    assert rows[8].path == f"{tmp_path / 'more.tar'}#0001.png"
    assert rows[8].sha256 == rows[1].sha256


def test_other_weights_are_refused_or_cached_apart(tmp_path: Path) -> None:
    files = program.pictures(tmp_path / "images", 1)
    from dataclasses import replace

    unpinned = replace(BACKBONE, weights_hash="")
    with pytest.raises(ModelMismatchError, match="the weights of fake are ffffffffffffffff, want"):
        extract(files, program.FakeEmbedder, unpinned, tmp_path, weights_hash="a" * 64)
    found = extract(files, program.FakeEmbedder, unpinned, tmp_path)
    assert extract(files, program.never, unpinned, tmp_path, weights_hash="f" * 64) == found
    assert extract(files, program.never, BACKBONE, tmp_path) == found


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    files = program.pictures(tmp_path / "images", 1)
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DataFolderError, match=r"cannot write to .*: Not a directory"):
        extract(files, program.FakeEmbedder, BACKBONE, tmp_path / "cache")


def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTRIB_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "cache" / "features"
    found = extract(program.pictures(tmp_path / "images", 1), program.FakeEmbedder, BACKBONE)
    assert found.folder.is_relative_to(default_cache())
    monkeypatch.delenv("ATTRIB_HOME")
    assert default_cache().parts[-2:] == ("attrib", "features")


def test_a_case(tmp_path: Path) -> None:
    case = read_case(program.draw_case(tmp_path / "abc"))
    features = case_features(case, program.FakeEmbedder, BACKBONE, tmp_path / "cache")
    assert features.name == "case"
    assert features.model_ids == ("0", "1")
    np.testing.assert_array_equal(features.chunks, [0, 2, 3])
    np.testing.assert_array_equal(features.synth_model, [0, 1, 1, 1])
    assert features.synth_type == ("gpt", "gpt", "gpt", "media")

    def alone(*names: str) -> Any:
        files = [case.root / name for name in names]
        return extract(files, program.FakeEmbedder, BACKBONE, tmp_path / "cache").features()

    np.testing.assert_array_equal(
        features.exemplars, alone("real/a.png", "real/b.png", "real/c.png")
    )
    np.testing.assert_array_equal(
        features.synth, alone("made/a0.png", "made/c0.png", "made/c1.png", "made/c2.png")
    )


def test_a_case_with_bad_images(tmp_path: Path) -> None:
    case = read_case(program.draw_case(tmp_path / "abc"))
    (case.root / "real/a.png").write_bytes(b"no image")
    (case.root / "made/c1.png").write_bytes(b"no image")
    with pytest.raises(SourceError, match=r"real/a\.png cannot be used: not an image"):
        case_features(case, program.FakeEmbedder, BACKBONE, tmp_path / "cache")
    told: list[str] = []
    features = case_features(
        case,
        program.FakeEmbedder,
        BACKBONE,
        tmp_path / "cache",
        skip_bad=True,
        note=told.append,
    )
    assert told == [
        "case: model 0: 1 of 3 images unusable (real/a.png), left out",
        "case: model 1: 1 of 4 images unusable (made/c1.png), left out",
    ]
    np.testing.assert_array_equal(features.chunks, [0, 1, 2])
    left = extract([case.root / "made/c2.png"], program.FakeEmbedder, BACKBONE, tmp_path / "cache")
    np.testing.assert_array_equal(features.synth[-1:], left.features())


def test_the_real_backbone(tmp_path: Path) -> None:
    import torch

    from embed.embedder import Embedder

    backbone = BACKBONES["efficientnet-lite0"]
    threads = torch.get_num_threads()
    embedder = Embedder(backbone, device="cpu")
    try:
        case = read_case(EXAMPLES / "test_cases.json")
        files = [case.root / path for path in list(case.models[0].images)[:5]]
        base = extract(files, lambda: embedder, backbone, tmp_path).features()
        images = [decode(file.read_bytes()).image for file in files]
        pixels = np.stack([backbone.preprocessing.apply(image) for image in images])
        np.testing.assert_array_equal(base, embedder.embed(pixels).astype(np.float16))
        assert base.shape == (5, 1280)
        assert extract(files, program.never, backbone, tmp_path).rows == 5
    finally:
        torch.set_num_threads(threads)
