"""`attrib audit --workers`: embedded by a real worker over a real Redis, attributed here."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from programs import wait_until
from typer.testing import CliRunner

from attrib.cli import app
from attrib.opened import ingest_into

EXAMPLES = Path(__file__).parents[2] / "examples"


def attrib(*arguments: object) -> Any:
    return CliRunner().invoke(app, [*map(str, arguments)], prog_name="attrib")


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[str]:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = int(found.getsockname()[1])
    server = shutil.which("redis-server")
    assert server, "no redis-server here: scripts/setup installs it"
    options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path), "--save", ""]
    with subprocess.Popen([server, *options], stdout=subprocess.DEVNULL) as process:
        yield f"redis://127.0.0.1:{port}/0"
        process.kill()


@pytest.fixture
def worker(redis: str, tmp_path: Path) -> Iterator[Path]:
    log = tmp_path / "worker.log"
    with log.open("w") as out:
        command = [sys.executable, "-m", "attrib", "worker", "--redis", redis]
        with subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT) as process:
            wait_until(lambda: log.read_text() != "" or process.poll() is not None, 60)
            yield log
            process.terminate()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "training"
    (folder / "images").mkdir(parents=True)
    for path in sorted((EXAMPLES / "training" / "images").iterdir())[::24][:24]:
        shutil.copy(path, folder / "images")
    shutil.copy(EXAMPLES / "training" / "metadata.parquet", folder)
    ingest_into(tmp_path / "data", [str(folder)], dataset="clipart", calibrate=False)
    return tmp_path / "data"


def test_workers_embed_and_the_tables_are_those_of_this_machine(
    redis: str, worker: Path, data: Path, tmp_path: Path
) -> None:
    files = [path for path in sorted((EXAMPLES / "generated").rglob("*")) if path.suffix == ".jpg"]
    files = files or [p for p in sorted((EXAMPLES / "generated").rglob("*")) if p.suffix == ".png"]
    first, second = tmp_path / "first", tmp_path / "second"
    for folder, some in ((first, files[:5]), (second, files[5:8])):
        folder.mkdir()
        for number, path in enumerate(some):
            shutil.copy(path, folder / f"{number}{path.suffix}")
    (first / "bad.png").write_bytes(b"bad")
    (first / "prompts.json").write_text(json.dumps({"0.jpg": "a hat", "0.png": "a hat"}))
    with tarfile.open(tmp_path / "third.tar", "w") as tar:
        for number, path in enumerate(files[8:11]):
            tar.add(path, f"{number}{path.suffix}")
    gallery = [first, second, tmp_path / "third.tar"]
    settings = ["--data", data, "--part-size", "3"]
    here, there = tmp_path / "here", tmp_path / "there"
    result = attrib("audit", *gallery, *settings, "--out", here)
    assert result.exit_code == 0, result.stderr
    result = attrib("audit", *gallery, *settings, "--out", there, "--workers", "--redis", redis)
    assert result.exit_code == 0, result.stderr + worker.read_text()
    for name in ("attributions", "images", "creators", "rejects"):
        assert pq.read_table(here / f"{name}.parquet").equals(
            pq.read_table(there / f"{name}.parquet")
        ), name
    assert not (there / ".work").exists()
    again = attrib("audit", *gallery, *settings, "--out", there, "--workers", "--redis", redis)
    assert "nothing was done" in again.stdout


def test_workers_do_not_go_with_a_service(tmp_path: Path) -> None:
    result = attrib(
        *("audit", EXAMPLES / "generated", "--out", tmp_path / "out"),
        *("--workers", "--server", "http://127.0.0.1:9"),
    )
    assert result.exit_code == 2
    assert "--workers is for a data folder and does not go with --server" in result.stderr
