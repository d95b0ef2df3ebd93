"""A service beside processes that write to its data folder: its index is on a server."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from folders import copy_folder
from typer.testing import CliRunner

from attrib.cli import app
from ingest.errors import DataFolderBusyError, DataFolderError
from ingest.ledger import Ledger
from search.collection import Collection
from search.folder import DataFolder
from search.service.settings import Access

STAND_IN = Path(__file__).parents[1] / "search" / "qdrant_stand_in.py"
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
KEY = {"X-API-Key": "w"}


@pytest.fixture(scope="module")
def qdrant() -> Iterator[str]:
    """URL of the stand-in for a Qdrant server, in a process of its own."""
    with subprocess.Popen(
        [sys.executable, str(STAND_IN)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        rest, grpc = server.stdout.readline().split()
        yield f"qdrant://127.0.0.1:{rest}?grpc_port={grpc}"
        server.kill()


def attrib(*words: str) -> str:
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Eight training images; more can be put beside them."""
    folder = tmp_path / "set"
    folder.mkdir()
    for file in sorted((EXAMPLES / "training" / "images").iterdir())[:8]:
        shutil.copy(file, folder / file.name)
    return folder


@pytest.fixture
def shared(qdrant: str, pictures: Path, tmp_path: Path) -> Path:
    data = tmp_path / "data"
    words = ("--data", str(data), "--model", "efficientnet-lite0-clipart", "--index", qdrant)
    attrib("ingest", str(pictures), *words)
    return data


def until(true: Callable[[], Any], within_s: float = 30) -> None:
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.2)


def test_it_serves_while_others_ingest_and_take_down(
    shared: Path, pictures: Path, serve: Any, generated: Path
) -> None:
    query = {"image": generated.read_bytes()}
    keys = Access(write_keys=("w",))
    with serve(shared, access=keys) as url, httpx.Client(base_url=url, timeout=60) as client:
        first = client.post("/v1/attributions?exact=true", files=query, headers=KEY).json()
        assert first["population"] == 8
        new = sorted((EXAMPLES / "training" / "images").iterdir())[8:12]
        for file in new:
            shutil.copy(file, pictures / file.name)
        attrib("ingest", str(pictures), "--data", str(shared))
        until(lambda: client.get("/v1/info").json()["images"] == 12)
        info = client.get("/v1/info").json()
        assert info["datasets"] == {"set": 12}
        again = client.post("/v1/attributions?exact=true&k=100", files=query).json()
        assert again["population"] == 12
        shown = {owner["key"] for row in again["rows"] for owner in row["owners"]}
        assert client.get(again["rows"][0]["thumbnail"]).status_code == 200

        gone = sorted(shown)[0]
        attrib("delete", "--key", gone, "--data", str(shared), "--yes")
        until(lambda: client.get(again["links"]["self"]).status_code == 404)
        until(lambda: client.get("/v1/info").json()["images"] == 11)
        after = client.post("/v1/attributions?exact=true&k=100", files=query).json()
        assert gone not in {owner["key"] for row in after["rows"] for owner in row["owners"]}


def test_a_takedown_through_it_needs_the_folder_for_itself(
    shared: Path, serve: Any, generated: Path
) -> None:
    keys = Access(write_keys=("w",))
    with serve(shared, access=keys) as url, httpx.Client(base_url=url, timeout=60) as client:
        query = {"image": generated.read_bytes()}
        row = client.post("/v1/attributions", files=query).json()["rows"][0]
        body = {"keys": [row["owners"][0]["key"]]}
        with DataFolder.open(shared):
            busy = client.request("DELETE", "/v1/images", json=body, headers=KEY)
        assert (busy.status_code, busy.headers["retry-after"]) == (503, "60")
        assert busy.json()["type"] == "urn:attrib:problem:folder-busy"
        done = client.request("DELETE", "/v1/images", json=body, headers=KEY)
        assert done.json() == {"matching": 1, "deleted": 1}
        assert client.get(f"/v1/images/{row['owners'][0]['id']}").status_code == 404
        with Collection.open(shared) as collection:
            assert collection.ledger.tombstones() == 1


def test_an_embedded_index_keeps_the_folder_to_itself(data: Path, tmp_path: Path) -> None:
    own = copy_folder(data, tmp_path / "own")
    with Collection.open(own, shared=True) as collection:
        assert not collection.folder.shared
        with pytest.raises(DataFolderBusyError):
            DataFolder.open(own, wait_s=0.1)


def test_two_readers_and_a_writer(shared: Path) -> None:
    with (
        Collection.open(shared, shared=True) as one,
        Collection.open(shared) as writer,
        Collection.open(shared, shared=True) as other,
    ):
        assert one.folder.shared
        assert not writer.folder.shared
        assert one.index.count() == other.index.count() == writer.ledger.images() == 8
        with pytest.raises(DataFolderError, match="readonly"):
            one.ledger.set_mark("x", "y")


def test_a_ledger_is_only_read_in_the_format_that_is_known(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with pytest.raises(DataFolderError, match="unable to open"):
        Ledger(path, read_only=True)
    assert not path.exists()
    Ledger(path).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version=0")
    with pytest.raises(DataFolderError, match="of an older attrib"):
        Ledger(path, read_only=True)
