"""`attrib audit` of a list of URLs, as it is typed, with the options of downloads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from attrib.cli import app
from attrib.opened import ingest_into

EXAMPLES = Path(__file__).parents[2] / "examples"


def attrib(*arguments: object) -> Any:
    return CliRunner().invoke(app, [*map(str, arguments)], prog_name="attrib")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder of 12 example training images."""
    folder = tmp_path_factory.mktemp("training")
    (folder / "images").mkdir()
    for path in sorted((EXAMPLES / "training" / "images").iterdir())[::50][:12]:
        shutil.copy(path, folder / "images")
    ingest_into(folder / "data", [str(folder / "images")], dataset="clipart", calibrate=False)
    return folder / "data"


@pytest.fixture
def made(tmp_path: Path, web: Any) -> Path:
    """A list of 3 generated images, one that is gone, and one that is withheld."""
    web.image("/withheld", X_Robots_Tag="noai")
    paths = [*(f"/image/{i}" for i in range(3)), "/gone", "/withheld"]
    urls = [web.url(path, "127.0.0.1") for path in paths]
    path = tmp_path / "made.parquet"
    pq.write_table(pa.table({"URL": urls, "TEXT": [f"prompt of {path}" for path in paths]}), path)
    return path


def rejects(out: Path) -> list[str]:
    return sorted(pq.read_table(out / "rejects.parquet").column("reason").to_pylist())


def test_the_options_of_downloads(data: Path, made: Path, web: Any, tmp_path: Path) -> None:
    out, kept = tmp_path / "report", tmp_path / "kept"
    asked = ("audit", made, "--data", data, "--out", out, "--allow-private")
    result = attrib(
        *(*asked, "--contact", "me@x.example", "--timeout-s", "5", "--per-host", "2"),
        *("--download-concurrency", "3", "--keep-images", kept),
    )
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("made.parquet: 3 images attributed to ")
    assert rejects(out) == ["dead link", "opted out"]
    assert all(agent.endswith("; +me@x.example)") for agent in web.agents)
    prompts = pq.read_table(out / "images.parquet").column("prompt").to_pylist()
    assert prompts == [f"prompt of /image/{i}" for i in range(3)]
    assert len(list(kept.glob("*.tar"))) == 1

    # What may be fetched decides what there is: with other rules it is another audit.
    assert attrib(*asked).exit_code == 0
    again = attrib(*asked, "--ignore-opt-out")
    assert again.exit_code == 2
    assert "there is another gallery; --restart begins anew" in again.stderr
    again = attrib(*asked, "--ignore-opt-out", "--restart")
    assert again.exit_code == 0, again.stderr
    assert rejects(out) == ["dead link"]
    metadata = pq.read_table(out / "images.parquet").column("metadata").to_pylist()
    assert all(json.loads(text)["opt_out"] == "ignored" for text in metadata)

    web.requests.clear()
    asked = ("audit", "verify", out, "--data", data, "--gallery", made)
    result = attrib(*asked, "--allow-private", "--ignore-opt-out")
    assert result.exit_code == 0, result.stderr
    assert (
        "sample     holds        4 of 4 images, drawn at random, were attributed" in result.stdout
    )
    assert "4 images of lists of URLs not downloaded again" in result.stdout
    assert len(web.paths()) == 4
    result = attrib(*asked)
    assert "could not be: " in result.stdout
    assert "it cannot be read: not a public address" in result.stdout


def test_private_addresses_are_refused_unless_allowed(
    data: Path, made: Path, web: Any, tmp_path: Path
) -> None:
    result = attrib("audit", made, "--data", data, "--out", tmp_path / "report")
    assert result.exit_code == 1
    assert "none of the images of made.parquet can be used: 5 not a public address" in result.stderr
    assert web.requests == []


def test_images_are_not_kept_in_the_audit(data: Path, made: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    asked = ("audit", made, "--data", data, "--out", out)
    for inside in (out, out / "kept"):
        result = attrib(*asked, "--keep-images", inside)
        assert result.exit_code == 2
        assert result.stderr == (
            f"attrib: {inside} is in the audit's folder {out}: choose another folder with "
            "--keep-images\n"
        )
    result = attrib(*asked, "--timeout-s", "0")
    assert result.exit_code == 2
    assert not out.exists()
