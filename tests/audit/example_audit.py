"""Audits of the examples as they are typed: training images, a gallery, and what came of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from typer.testing import CliRunner

from attrib.cli import app
from attrib.opened import ingest_into

EXAMPLES = Path(__file__).parents[2] / "examples"


def attrib(*arguments: object) -> Any:
    return CliRunner().invoke(app, [*map(str, arguments)], prog_name="attrib")


def example_data(folder: Path) -> Path:
    """A data folder of 48 example training images."""
    (folder / "images").mkdir()
    files = sorted((EXAMPLES / "training" / "images").iterdir())
    for path in files[::12][:48]:
        shutil.copy(path, folder / "images")
    shutil.copy(EXAMPLES / "training" / "metadata.parquet", folder)
    ingest_into(folder / "data", [str(folder)], dataset="clipart")
    return folder / "data"


def example_gallery(folder: Path) -> Path:
    """12 generated images with prompts, and a bad one."""
    folder.mkdir()
    files = sorted(path for path in (EXAMPLES / "generated").rglob("*") if path.is_file())
    images = [path for path in files if path.suffix in (".jpg", ".png")][::12][:12]
    for number, path in enumerate(images):
        shutil.copy(path, folder / f"{number:02d}{path.suffix}")
    (folder / "bad.png").write_bytes(b"bad")
    prompts = {path.name: f"prompt of {path.name}" for path in folder.iterdir()}
    (folder / "prompts.json").write_text(json.dumps(prompts))
    return folder


def table(out: Path, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(out / f"{name}.parquet").to_pylist()
    return rows


def table_of_training(data: Path) -> list[dict[str, Any]]:
    from embed.shards import read_shard

    return [{"creator": row.creator} for row in read_shard(data / "features" / "clipart", 0)[1]]
