"""``attrib ingest --features`` as it is typed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

Run = Callable[..., "subprocess.CompletedProcess[str]"]

DIM = 1280
MODEL = ("--model", "efficientnet-lite0")


def clip_folder(folder: Path, rows: int = 30) -> Path:
    features = np.random.default_rng(0).normal(size=(rows, DIM)).astype(np.float16)
    features[4] = np.nan
    (folder / "img_emb").mkdir(parents=True)
    (folder / "metadata").mkdir()
    np.save(folder / "img_emb" / "img_emb_0.npy", features)
    table = pa.table(
        {
            "image_path": [f"/nowhere/{i}.jpg" for i in range(rows)],
            "caption": [f"picture {i}" for i in range(rows)],
            "creator": [f"creator {i % 3}" for i in range(rows)],
        }
    )
    pq.write_table(table, folder / "metadata" / "metadata_0.parquet")
    return folder


def test_from_features_to_a_picture(invoke: Run, tmp_path: Path, generated: Path) -> None:
    data = tmp_path / "data"
    features = ("ingest", "--features", clip_folder(tmp_path / "clip"), "--data", data)
    done = invoke(*features, *MODEL)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        f"clip: 29 ingested, 1 rejected; {data} now holds 29 training images\n"
        "  1 rejected: unusable features\n"
        f"  which ones: attrib rejects --data {data}\n"
    )
    again = json.loads(invoke(*features, "--json").stdout)
    assert (again["ingested"], again["unchanged"], again["total"]) == (0, 29, 29)
    picture = tmp_path / "answer.png"
    done = invoke("query", generated, "--data", data, "--k", "3", "--picture", picture)
    assert done.returncode == 0, done.stderr
    assert "creator " in done.stdout
    assert picture.stat().st_size > 1000
    done = invoke("delete", "--data", data, "--creator", "creator 1", "--yes")
    assert done.stdout == "9 training images taken down; not to be ingested again\n"
    assert json.loads(invoke(*features, "--force", "--json").stdout)["total"] == 20


def test_the_other_kinds(invoke: Run, tmp_path: Path) -> None:
    features = np.random.default_rng(1).normal(size=(6, DIM)).astype(np.float32)
    np.save(tmp_path / "data_feats.npy", features)
    pth = tmp_path / "laion_subset.pth"
    torch.save({"feats": torch.from_numpy(features), "paths": list("abcdef")}, pth)
    data = ("--data", tmp_path / "data", "--json")
    for number, source in enumerate((tmp_path / "data_feats.npy", pth), start=1):
        done = invoke("ingest", "--features", source, *data, *MODEL)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["total"] == 6 * number


def test_wrong_calls(invoke: Run, tmp_path: Path, training: Path) -> None:
    data = tmp_path / "data"
    folder = clip_folder(tmp_path / "clip")
    np.save(tmp_path / "short.npy", np.ones((2, 3), np.float32))
    needs_model = (
        "--features needs --model in a new data folder: nothing else can tell what the features "
        "were made with; see `attrib models list`"
    )
    images = "is for images and does not go with --features"
    kinds = (
        "a folder that clip-retrieval wrote (img_emb/, metadata/), a .npy file, or a .pth file "
        "with feats and paths"
    )
    for code, line, arguments in (
        (2, needs_model, ("--features", folder)),
        (2, f"SOURCE {images}", (training, "--features", folder)),
        (2, f"--threads {images}", ("--features", folder, "--threads", "2")),
        (
            2,
            "--features takes ready-made features, and 0.tar holds images: leave --features out to "
            "ingest them",
            ("--features", "0.tar"),
        ),
        (1, f"no such file or folder: {tmp_path}/none", ("--features", tmp_path / "none")),
        (1, f"cannot tell what {__file__} is: expected {kinds}", ("--features", __file__)),
        (
            1,
            f"{tmp_path}/short.npy has features of 3 numbers, those of efficientnet-lite0 have "
            "1280; name the model that they were made with by --model",
            ("--features", tmp_path / "short.npy", *MODEL),
        ),
        (2, "no source given: name a folder, a tar, a list or an image", ()),
    ):
        done = invoke("ingest", *arguments, "--data", data)
        assert (done.stderr, done.returncode) == (f"attrib: {line}\n", code)
        assert not data.exists()
