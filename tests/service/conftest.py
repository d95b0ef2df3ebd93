"""A data folder of some of the examples, and services of it on real sockets."""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
from folders import copy_folder
from typer.testing import CliRunner

from attrib.cli import app
from search.service.server import Service
from search.service.settings import ServiceSettings

# Helper modules that lie beside the tests are imported by their names.
sys.path.append(str(Path(__file__).parent))

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
MODEL = "efficientnet-lite0-clipart"
EXEMPLAR = "images/d4d82a397f76.jpg"

Serve = Callable[..., Any]


@contextmanager
def served(data: Path, **settings: Any) -> Iterator[str]:
    """The address of a service that is ready; it has ended afterwards."""
    service = Service(data, ServiceSettings(port=0, **settings))
    ports: SimpleQueue[int | BaseException] = SimpleQueue()

    def run() -> None:
        try:
            service.run(ready=ports.put)
        except BaseException as exc:
            ports.put(exc)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        port = ports.get(timeout=120)
        if isinstance(port, BaseException):
            raise port
        yield f"http://127.0.0.1:{port}"
    finally:
        service.stop()
        thread.join()


@pytest.fixture(scope="session")
def serve() -> Serve:
    return served


@pytest.fixture(scope="session")
def generated() -> Path:
    """A generated image of a model customized on `exemplar`."""
    return EXAMPLES / "generated" / "object-37-homes" / "media-1.png"


@pytest.fixture(scope="session")
def exemplar() -> str:
    return EXEMPLAR


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 training images, the exemplar among them, and a copy of it; not to be changed."""
    folder = tmp_path_factory.mktemp("training") / "set"
    (folder / "images").mkdir(parents=True)
    table = pq.read_table(EXAMPLES / "training" / "metadata.parquet")
    files = table.column("file").to_pylist()
    for file in [EXEMPLAR, *[file for file in files if file != EXEMPLAR][:39]]:
        shutil.copy(EXAMPLES / "training" / file, folder / file)
    shutil.copy(EXAMPLES / "training" / EXEMPLAR, folder / "images" / "copy.jpg")
    pq.write_table(table, folder / "metadata.parquet")
    root = tmp_path_factory.mktemp("data") / "data"
    done = CliRunner().invoke(
        app, ["ingest", str(folder), "--data", str(root), "--dataset", "clipart", "--model", MODEL]
    )
    assert done.exit_code == 0, done.stderr
    return root


@pytest.fixture
def own(data: Path, tmp_path: Path) -> Path:
    """A data folder of the test's own, which a service may have open beside that of the others."""
    return copy_folder(data, tmp_path / "data")


@pytest.fixture(scope="session")
def url(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service that reading is open at, absolute paths included."""
    root = copy_folder(data, tmp_path_factory.mktemp("served") / "data")
    more = {"max_images": 8, "max_in_flight": 64, "show_paths": True}
    with served(root, examples=EXAMPLES / "generated", **more) as address:
        yield address


@pytest.fixture(scope="session")
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=60) as opened:
        yield opened
