"""The commands as they are typed, on a bucket."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ingested import draw, images
from stores import Bucket
from typer.testing import CliRunner

from attrib.cli import app
from attrib.opened import dataset_name

PIXELS = ("--no-calibrate", "--threads", "1")


def attrib(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="attrib")


def test_from_a_bucket_to_a_bucket(s3: Bucket, tmp_path: Path) -> None:
    folder = images(tmp_path / "pictures", 6)
    url, data = s3.put(folder, "photos"), tmp_path / "data"
    place = s3.url("features")
    done = attrib("ingest", url + "/", "--data", data, "--features-to", place, *PIXELS)
    assert done.exit_code == 0, done.stderr
    assert done.stdout == f"photos: 6 ingested; {data} now holds 6 training images\n"
    assert [name for name in s3.names("features/photos") if "img_emb" in name] == [
        "features/photos/img_emb/img_emb_00000.npy"
    ]
    query = draw(tmp_path / "query.png", 3)
    picture = tmp_path / "answer.png"
    done = attrib("query", query, "--data", data, "--k", 1, "--picture", picture, "--json")
    assert done.exit_code == 0, done.stderr
    assert "image 0003.png" in done.stdout
    assert picture.stat().st_size > 1000
    done = attrib("delete", "--key", "image 0003.png", "--yes", "--data", data)
    assert done.exit_code == 0, done.stderr
    assert not any(b"image 0003.png" in s3.read(name) for name in s3.names("features"))
    done = attrib("ingest", url, "--data", data, "--features-to", s3.url("other"), *PIXELS)
    assert done.exit_code == 2
    assert done.stderr == (
        f"attrib: {data} keeps its features in {place}, not in {s3.url('other')}; "
        "leave out --features-to, or choose another folder with --data\n"
    )


def test_wrong_calls(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for arguments, code, line in (
        (
            ["ftp://host/a.tar"],
            2,
            "ftp://host/a.tar: ftp:// is no storage that attrib reads; name a local path, or a URL "
            "that begins with s3://, gs:// or https://",
        ),
        (["s3://"], 2, "s3:// names no bucket"),
        (
            ["--features", "s3://b/f.npy", "--model", "dino-vitb16"],
            2,
            "--features reads files of this machine; copy s3://b/f.npy here first",
        ),
    ):
        done = attrib("ingest", *arguments, "--data", data)
        assert (done.exit_code, done.stderr) == (code, f"attrib: {line}\n")
    assert not data.exists()


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("s3://bucket/photos/", "photos"),
        ("s3://bucket/laion.v2", "laion.v2"),
        ("s3://bucket/set/{00000..00010}.tar", "set"),
        ("s3://bucket/set/*.tar", "set"),
        ("s3://bucket", "bucket"),
        ("gs://bucket/a/list.parquet", "list"),
        ("https://host/x/a.tar?X-Amz-Signature=1", "a"),
    ],
)
def test_names_of_datasets(source: str, name: str) -> None:
    assert dataset_name(source) == name
