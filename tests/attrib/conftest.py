"""A data folder made by the command line from a part of the examples, once for all tests."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from folders import copy_folder
from typer.testing import CliRunner

from attrib.cli import app

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
GENERATED = EXAMPLES / "generated" / "object-37-homes" / "media-1.png"
EXEMPLAR = "images/d4d82a397f76.jpg"

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def run() -> Run:
    """Runs `attrib ARGUMENTS` as a user would; keyword arguments go to subprocess.run."""

    def attrib(*arguments: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "attrib", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=300,
            cwd=ROOT,
            **options,  # type: ignore[call-overload]
        )

    return attrib


@pytest.fixture(scope="session")
def invoke() -> Run:
    """As `run`, without a process of its own: torch is imported once for all tests."""

    def attrib(*arguments: str | Path, **options: str) -> subprocess.CompletedProcess[str]:
        command = [str(argument) for argument in arguments]
        done = CliRunner().invoke(app, command, prog_name="attrib", **options)
        return subprocess.CompletedProcess(command, done.exit_code, done.stdout, done.stderr)

    return attrib


@pytest.fixture(scope="session")
def generated() -> Path:
    """A generated image of a model customized on `exemplar`."""
    return GENERATED


@pytest.fixture(scope="session")
def exemplar() -> str:
    """Key of the training image that `generated` was made from."""
    return EXEMPLAR


@pytest.fixture(scope="session")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 of the example training images with their metadata, the exemplar among them."""
    folder = tmp_path_factory.mktemp("training") / "clip art"
    (folder / "images").mkdir(parents=True)
    table = pq.read_table(EXAMPLES / "training" / "metadata.parquet")
    files = table.column("file").to_pylist()
    chosen = [EXEMPLAR, *[file for file in files if file != EXEMPLAR][:47]]
    for file in chosen:
        shutil.copy(EXAMPLES / "training" / file, folder / file)
    # An equal image of another owner: one row that keeps both.
    shutil.copy(EXAMPLES / "training" / EXEMPLAR, folder / "images" / "copy.jpg")
    (folder / "images" / "copy.txt").write_text("the same once more")
    pq.write_table(table, folder / "metadata.parquet")
    return folder


@pytest.fixture(scope="session")
def built(run: Run, training: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder that all tests read; one that writes takes a copy (`own`)."""
    data = tmp_path_factory.mktemp("built") / "data"
    done = run("ingest", training, "--data", data, "--dataset", "clipart")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"clipart: 49 ingested; {data} now holds 49 training images\n"
    return data


@pytest.fixture
def own(built: Path, tmp_path: Path) -> Path:
    """A data folder of the test's own."""
    return copy_folder(built, tmp_path / "data")
