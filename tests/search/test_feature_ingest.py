"""Ready-made features: the guarantees of an ingest of images, without an image."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from embed.backbones import BACKBONES
from embed.feature_checkpoint import CheckpointFeatures
from embed.mapper import Mapper, MapperPair
from embed.model import AttributionModel, identity_model
from embed.shards import read_shard, shard_paths
from ingest.errors import ModelMismatchError, SourceError
from ingest.feature_files import FeatureFile, NpyFeatures, open_feature_folder
from search.collection import Collection
from search.feature_ingest import ingest_features
from search.ingestion import IngestReport
from search.picture import draw_picture
from search.reindex import reindex
from search.removal import take_down

DIM = 12
BACKBONE = replace(BACKBONES["efficientnet-lite0"], name="small", dim=DIM, weights_hash="f" * 64)


def model() -> AttributionModel:
    return identity_model(BACKBONE)


def matrix(rows: int, seed: int = 0) -> Any:
    rows_ = np.random.default_rng(seed).normal(size=(rows, DIM))
    return (rows_ / np.linalg.norm(rows_, axis=1, keepdims=True)).astype(np.float32)


def write(folder: Path, number: int, features: Any, keys: list[str], **columns: Any) -> Path:
    for name in ("img_emb", "metadata"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    np.save(folder / "img_emb" / f"img_emb_{number}.npy", features)
    table = {"image_path": keys, "caption": [f"picture {key}" for key in keys], **columns}
    pq.write_table(pa.table(table), folder / "metadata" / f"metadata_{number}.parquet")
    return folder


def names(start: int, stop: int) -> list[str]:
    return [f"{i:04d}" for i in range(start, stop)]


def run(data: Path, source: Path | list[FeatureFile], **options: Any) -> IngestReport:
    files = open_feature_folder(source) if isinstance(source, Path) else source
    with Collection.create(data, None, model, wait_s=10) as collection:
        return ingest_features(collection, files, "set", **{"shard_rows": 8, **options})


def state(data: Path) -> dict[str, Any]:
    with Collection.open(data, wait_s=10) as collection:
        found: dict[str, Any] = {}
        for ids in collection.index.scroll():
            vectors, payloads = collection.index.vectors(ids), collection.index.fetch(ids)
            for vector, payload in zip(vectors, payloads, strict=True):
                assert payload is not None
                found[payload["key"]] = (vector.tobytes(), payload)
        rows = [
            row.key
            for shard in collection.ledger.shards()
            for row in read_shard(collection.folder.features("set"), shard.number)[1]
        ]
        assert sorted(rows) == sorted(found)
        assert collection.ledger.images() == len(found)
        return {"points": found, "rejects": collection.ledger.rejects()}


def test_features_become_points_and_shards(tmp_path: Path) -> None:
    features = matrix(20)
    folder = write(tmp_path / "clip", 0, features[:12], names(0, 12))
    write(folder, 1, features[12:], names(12, 20))
    data = tmp_path / "data"
    report = run(data, folder)
    assert (report.ingested, report.shards, report.total, report.rejected) == (20, 3, 20, {})
    points = state(data)["points"]
    vector, payload = points["0013"]
    half = features[13].astype(np.float16).astype(np.float32)
    np.testing.assert_allclose(
        np.frombuffer(vector, np.float32), half / np.linalg.norm(half), rtol=0, atol=1e-6
    )
    assert (payload["caption"], payload["sha256"], payload["dataset"]) == (
        "picture 0013",
        "",
        "set",
    )
    stored, _ = read_shard(data / "features" / "set", 2)
    np.testing.assert_array_equal(stored, features[12:].astype(np.float16))
    assert not shard_paths(data / "features" / "set", 2)[2].exists()
    again = run(data, folder)
    assert (again.ingested, again.unchanged, again.shards, again.total) == (0, 20, 0, 20)
    forced = run(data, folder, force=True)
    assert (forced.ingested, forced.total) == (20, 20)
    other_cut = run(data, folder, shard_rows=5)
    assert (other_cut.ingested, other_cut.unchanged, other_cut.rejected) == (0, 20, {})
    assert state(data)["points"].keys() == points.keys()


def test_unusable_rows_are_rejected_with_their_reason(tmp_path: Path) -> None:
    features = matrix(6)
    features[1, 3] = np.nan
    features[2, 0] = np.inf
    features[3] = 0
    features[4, 2] = 1e6
    folder = write(tmp_path / "clip", 0, features, ["a", "b", "c", "d", "e", "a"])
    data = tmp_path / "data"
    report = run(data, folder)
    assert report.ingested == 1
    assert report.rejected == {"unusable features": 4, "key used twice in one dataset": 1}
    path = folder / "img_emb" / "img_emb_0.npy"
    assert [(r.key, r.path, r.detail) for _, r in state(data)["rejects"]] == [
        ("a", f"{path}#5", f"already used by {path}"),
        ("b", f"{path}#1", "a number is not finite"),
        ("c", f"{path}#2", "a number is not finite"),
        ("d", f"{path}#3", "all numbers are 0"),
        ("e", f"{path}#4", "a number is too large for float16"),
    ]
    assert run(data, folder).rejected == {}
    # Mended, they come in and leave the rejects.
    write(folder, 0, matrix(6), ["a", "b", "c", "d", "e", "f"])
    os.utime(path, ns=(1, 1))
    assert run(data, folder).total == 6
    assert state(data)["rejects"] == []


def test_a_key_of_another_part_or_block_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "clip", 0, matrix(10), [*names(0, 9), "0003"])
    write(folder, 1, matrix(3, seed=1), ["x", "0005", "y"])
    data = tmp_path / "data"
    for force in (False, True):
        report = run(data, folder, force=force)
        assert report.total == 11
        assert report.rejected == {"key used twice in one dataset": 2}
        if not force:
            assert run(data, folder).rejected == {}


def test_a_replaced_file_replaces_its_rows_wherever_they_moved(tmp_path: Path) -> None:
    folder = write(tmp_path / "clip", 0, matrix(20), names(0, 20))
    data = tmp_path / "data"
    run(data, folder)
    # One row more in front: every key is in another place, some in another block; three are gone.
    moved = np.concatenate([matrix(1, seed=9), matrix(20)[:17]])
    write(folder, 0, moved, ["new", *names(0, 17)])
    report = run(data, folder)
    assert (report.ingested, report.total, report.rejected) == (18, 18, {})
    assert sorted(state(data)["points"]) == [*names(0, 17), "new"]


def test_takedowns_and_unknown_hashes(tmp_path: Path) -> None:
    features = np.repeat(matrix(1), 9, axis=0)  # all equally similar, none known to be equal
    features[6:] = matrix(3, seed=5)
    hashes = ["" if i else "ab" * 32 for i in range(9)]
    folder = write(tmp_path / "clip", 0, features, names(0, 9), sha256=hashes)
    data = tmp_path / "data"
    run(data, folder)
    with Collection.open(data) as collection:
        answer = collection.attribute(matrix(1), ["query"], k=9)[0]
        assert [len(row.owners) for row in answer.rows] == [1] * len(answer.rows)
        assert len(answer.rows) >= 6
        # No picture, and a sheet with placeholders all the same.
        assert [collection.image_of(row) for row in answer.rows] == [None] * len(answer.rows)
        sheet = draw_picture(answer, Image.new("RGB", (9, 9)), collection.image_of)
        assert sheet.size[0] == 1600
        assert take_down(collection, keys=["0000", "0004"]) == 2
    assert sorted(state(data)["points"]) == [n for n in names(0, 9) if n not in ("0000", "0004")]
    report = run(data, folder, force=True)
    assert (report.total, report.buried) == (7, 2)
    # The bytes that were taken down stay out under another name; unknown ones do not count.
    write(folder, 1, matrix(2, seed=7), ["same", "other"], sha256=["ab" * 32, ""])
    report = run(data, folder)
    assert (report.ingested, report.buried, report.total) == (1, 1, 8)


def test_reindexed_as_if_ingested_with_the_new_model(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    real, synth = (Mapper.linear(rng.normal(size=(7, DIM)), rng.normal(size=7)) for _ in "ab")
    tuned = AttributionModel("tuned", BACKBONE, MapperPair(real, synth))
    folder = write(tmp_path / "clip", 0, matrix(20), names(0, 20))
    run(tmp_path / "data", folder)
    reindex(tmp_path / "data", tuned)
    with Collection.create(tmp_path / "fresh", None, lambda: tuned) as collection:
        ingest_features(collection, open_feature_folder(folder), "set", shard_rows=8)
    assert state(tmp_path / "data") == state(tmp_path / "fresh")


def test_the_official_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "laion_subset.pth"
    paths = [f"../../etc/{i}.jpg" for i in range(10)]
    torch.save({"feats": torch.from_numpy(matrix(10)).half(), "paths": paths}, path)
    data = tmp_path / "data"
    assert run(data, [CheckpointFeatures(path)]).ingested == 10
    _, payload = state(data)["points"][paths[3]]
    assert payload["path"] == paths[3]
    assert run(data, [CheckpointFeatures(path)]).unchanged == 10
    for content, line in (
        ({"feats": torch.zeros(2, 3), "paths": ["a"]}, f"{path} has 2 feats, but 1 paths"),
        ({"paths": []}, f"{path} does not hold features: it lacks feats and paths"),
        ({"feats": torch.zeros(2, 3), "paths": [1, 2]}, f"{path}: paths is not a list of paths"),
    ):
        torch.save(content, path)
        with pytest.raises(SourceError) as caught:
            CheckpointFeatures(path)
        assert str(caught.value) == line


class Bomb:
    def __reduce__(self) -> Any:
        return (os.mkdir, ("ran",))


def test_a_checkpoint_with_code_is_refused(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"feats": Bomb(), "paths": []}, "a.pth")
    with pytest.raises(SourceError, match=r"^a\.pth is refused: its pickle carries code"):
        CheckpointFeatures(Path("a.pth"))
    assert not Path("ran").exists()


def test_rows_without_names_have_their_number(tmp_path: Path) -> None:
    np.save(tmp_path / "data_feats.npy", matrix(9))
    assert run(tmp_path / "data", [NpyFeatures(tmp_path / "data_feats.npy")]).ingested == 9
    assert sorted(state(tmp_path / "data")["points"]) == [f"{i:09d}" for i in range(9)]


def test_another_length_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", matrix(4)[:, :5])
    with pytest.raises(ModelMismatchError) as caught:
        run(tmp_path / "data", [NpyFeatures(tmp_path / "a.npy")])
    assert str(caught.value) == (
        f"{tmp_path / 'a.npy'} has features of 5 numbers, those of small have {DIM}; "
        "name the model that they were made with by --model"
    )
    assert not (tmp_path / "data" / "features").exists()


def test_killed_at_any_moment_the_same_call_goes_on(tmp_path: Path) -> None:
    folder = write(tmp_path / "clip", 0, matrix(150), names(0, 150))
    write(folder, 1, matrix(90, seed=2), names(150, 240))
    run(tmp_path / "unbroken", folder)
    data = tmp_path / "killed"
    code = (
        "import sys, importlib.util, time; from pathlib import Path\n"
        "spec = importlib.util.spec_from_file_location('t', sys.argv[1])\n"
        "t = importlib.util.module_from_spec(spec); spec.loader.exec_module(t)\n"
        "class P:\n"
        "  def start(self, n): print('started', flush=True)\n"
        "  def advance(self, n): time.sleep(0.01)\n"
        "  def building(self): pass\n"
        "t.run(Path(sys.argv[2]), Path(sys.argv[3]), progress=P())\n"
    )
    rng = random.Random(5)
    kills = 0
    for _ in range(30):
        process = subprocess.Popen(
            [sys.executable, "-c", code, __file__, str(data), str(folder)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(rng.uniform(0, 0.15))
        if kills < 4 and process.poll() is None:
            process.kill()
            kills += 1
        process.wait(timeout=120)
        process.stdout.close()
        if process.returncode == 0:
            break
    assert process.returncode == 0
    assert kills >= 2
    assert state(data) == state(tmp_path / "unbroken")
