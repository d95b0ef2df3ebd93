"""Moving an index between data folder and server, over real sockets, with kills in the middle."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ingested import images
from on_server import close_to, ingest, state
from reindexed import Hook

from embed.calibrator import Calibrator
from embed.shards import shard_paths
from ingest.errors import DataFolderError, IndexFailedError, UsageError
from search.collection import Collection
from search.index_copy import copy_index
from search.index_place import open_index, server_place
from search.index_url import IndexUrl, parse_index_url
from search.removal import take_down
from search.server import ServerIndex


def place_of(data: Path) -> Any:
    with Collection.open(data, wait_s=10) as collection:
        return server_place(collection.folder.collection(collection.name))


def rounded(before: dict[str, Any]) -> dict[str, Any]:
    """Without vectors: a server keeps them as float16, which here changes their last bits."""
    return {
        **before,
        "points": {point: payload for point, (_, payload) in before["points"].items()},
    }


def near(found: Any, expected: Any) -> None:
    assert rounded(found)["points"] == rounded(expected)["points"]
    assert found["sample"] == expected["sample"]
    for one, other in zip(found["answers"], expected["answers"], strict=True):
        assert [row["owners"] for row in one["rows"]] == [row["owners"] for row in other["rows"]]
        assert one["rows"][0]["influence"] == pytest.approx(other["rows"][0]["influence"], rel=0.02)


def test_there_and_back(tmp_path: Path, real_or_stand_in: IndexUrl) -> None:
    data, source = tmp_path / "data", images(tmp_path / "pictures", 43)
    ingest(data, source, None)
    before = state(data)
    hook = Hook(lambda: None)
    there = copy_index(data, real_or_stand_in, progress=hook)
    assert (there.images, there.copied, there.verified, there.kept) == (43, 43, 43, False)
    assert (there.source, there.target) == ("the data folder", real_or_stand_in.server)
    assert (hook.started, hook.images) == (43, 43)
    assert place_of(data).collection == there.collection
    near(state(data), before)
    assert ingest(data, images(source, 2, start=60), None).total == 45
    assert not list(data.glob("collections/*/index"))
    back = copy_index(data, None)
    assert (back.images, back.copied, back.verified) == (45, 45, 45)
    assert (back.source, back.target) == (real_or_stand_in.server, "the data folder")
    for name in ("image 0060.png", "image 0061.png"):
        (source / name).unlink()
    with Collection.open(data) as collection:
        take_down(collection, keys=["image 0060.png", "image 0061.png"])
    close_to(state(data), before)
    assert not list(data.glob("collections/*/index.json"))
    with pytest.raises(IndexFailedError, match="has no collection"):
        ServerIndex.open(real_or_stand_in, there.collection)


def test_from_server_to_server(tmp_path: Path, url: IndexUrl) -> None:
    from qdrant_stand_in import Server

    data, source = tmp_path / "data", images(tmp_path / "pictures", 10)
    ingest(data, source, url)
    with Server() as other:
        there = parse_index_url(other.url(grpc=False).replace("?", "/mine?"))
        report = copy_index(data, there, quantization="int8", shards=3, replicas=2)
        assert (report.images, report.verified) == (10, 10)
        assert (report.source, report.target) == (url.server, there.server)
        with ServerIndex.open(there, "mine") as index:
            assert index.count() == 10
            assert (index.settings.quantization, index.settings.shards) == ("int8", 3)
        assert len(state(data)["points"]) == 10
    with pytest.raises(IndexFailedError, match=r"^no Qdrant server answers"):
        state(data)


KILLED = """
import sys
from pathlib import Path
from search.index_copy import copy_index
from search.index_place import server_place
from search.index_url import parse_index_url

class Slow:
    def start(self, pending): pass
    def advance(self, images):
        print("copied", images, flush=True)
        sys.stdin.readline()
    def building(self): print("building", flush=True)

data, url = Path(sys.argv[1]), sys.argv[2]
copy_index(data, parse_index_url(url) if url else None, progress=Slow())
"""


def killed_after(data: Path, url: IndexUrl | None, steps: int) -> None:
    """A copy in a process of its own, killed at its n-th step."""
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(data), str(url or "")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdin is not None
    assert child.stdout is not None
    for _ in range(steps):
        assert child.stdout.readline()
        child.stdin.write("\n")
        child.stdin.flush()
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdin.close()
    child.stdout.close()


@pytest.mark.parametrize("back", [False, True])
def test_a_kill_in_the_middle(
    tmp_path: Path, url: IndexUrl, qdrant: Any, monkeypatch: pytest.MonkeyPatch, back: bool
) -> None:
    data, source = tmp_path / "data", images(tmp_path / "pictures", 60)
    ingest(data, source, url if back else None)
    before = state(data)
    target = None if back else url
    for steps in (1, 2, 4, 3):
        killed_after(data, target, steps)
        near(state(data), before)  # the old one is whole and in use
    # What changes in between is not missed.
    images(source, 1, start=99)
    ingest(data, source, None)
    with Collection.open(data, wait_s=30) as collection:
        take_down(collection, keys=["image 0003.png"])
    changed = state(data)
    report = copy_index(data, target, wait_s=30)
    assert report.images == report.verified == 60
    near(state(data), changed)
    assert len(qdrant.engine.layouts) == (0 if back else 1)  # nothing is left over on the server


def test_it_goes_on_where_it_stopped(
    tmp_path: Path, url: IndexUrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.building._FLUSH_ROWS", 1)
    data = tmp_path / "data"
    ingest(data, images(tmp_path / "pictures", 60), None)

    def stop() -> None:
        raise KeyboardInterrupt

    class Later(Hook):
        def advance(self, images: int) -> None:
            super().advance(images)
            if self.images > 20:
                stop()

    with pytest.raises(KeyboardInterrupt):
        copy_index(data, url, progress=Later(lambda: None))
    hook = Hook(lambda: None)
    report = copy_index(data, url, progress=hook)
    assert report.images == 60
    assert 16 <= report.copied < 60
    assert report.copied == hook.images


def test_what_the_source_got_meanwhile(tmp_path: Path, url: IndexUrl) -> None:
    data, source = tmp_path / "data", images(tmp_path / "pictures", 20)
    ingest(data, source, None)

    def meanwhile() -> None:
        images(source, 4, start=50)
        ingest(data, source, None)
        with Collection.open(data, wait_s=0) as collection:
            take_down(collection, keys=["image 0001.png"])
            collection.recalibrate(Calibrator(tau=0.33, b=-0.01, fitted_on="meanwhile"))

    report = copy_index(data, url, progress=Hook(meanwhile))
    assert (report.images, report.verified) == (23, 23)
    with Collection.open(data) as collection:
        assert collection.index.count() == 23
        assert collection.model.calibrator.fitted_on == "meanwhile"


def test_a_copy_that_is_not_the_source(tmp_path: Path, url: IndexUrl) -> None:
    data = tmp_path / "data"
    ingest(data, images(tmp_path / "pictures", 20), None)
    with Collection.open(data) as collection:
        folder, name = collection.folder, collection.name
        points = list(collection.index.sample().ids)[:1]
        vector = np.roll(collection.index.vectors(points), 1)
        payload = collection.index.fetch(points)
        collection.index.upsert(points, vector, payload)  # type: ignore[arg-type]
    with pytest.raises(IndexFailedError, match=r"^the copy is not the index in use: vectors are"):
        copy_index(data, url)
    assert place_of(data) is None
    with open_index(folder.collection(name)) as index:
        np.testing.assert_array_equal(index.vectors(points), vector)


def test_missing_feature_shards(tmp_path: Path, url: IndexUrl) -> None:
    data = tmp_path / "data"
    ingest(data, images(tmp_path / "pictures", 20), None)
    with Collection.open(data) as collection:
        lost = shard_paths(collection.folder.features("set"), 0)[0]
    lost.unlink()
    with pytest.raises(DataFolderError, match=r"^feature shard 0 in .* cannot be read: "):
        copy_index(data, url)
    assert len(state(data)["points"]) == 20


def test_a_lost_server_is_replaced(tmp_path: Path, url: IndexUrl, qdrant: Any) -> None:
    data, source = tmp_path / "data", images(tmp_path / "pictures", 20)
    ingest(data, source, url)
    before = state(data)
    old = place_of(data)
    qdrant.__exit__(None, None, None)
    report = copy_index(data, None)
    assert (report.images, report.copied, report.verified) == (20, 20, 0)
    near(state(data), before)
    # It comes back one day: then the old index is removed there, too.
    with type(qdrant)(qdrant.engine, port=qdrant.port, grpc_port=qdrant.grpc_port):
        assert old.collection in qdrant.engine.layouts
        with pytest.raises(UsageError, match=r"is in the folder already$"):
            copy_index(data, None)
        assert old.collection not in qdrant.engine.layouts


def test_a_kept_source_loses_what_is_taken_down(tmp_path: Path, url: IndexUrl) -> None:
    data = tmp_path / "data"
    ingest(data, images(tmp_path / "pictures", 20), None)
    report = copy_index(data, url, keep_source=True)
    assert report.kept
    with Collection.open(data) as collection:
        assert len(collection.folder.collections()) == 2
        take_down(collection, keys=["image 0007.png"])
    for path in (data / "collections").iterdir():
        with open_index(path) as index:
            assert index.count() == 19


def test_wrong_calls(tmp_path: Path, url: IndexUrl) -> None:
    data, source = tmp_path / "data", images(tmp_path / "pictures", 3)
    with pytest.raises(DataFolderError, match="is no attrib data folder"):
        copy_index(data, url)
    ingest(data, source, url)
    with pytest.raises(UsageError) as error:
        copy_index(data, url)
    assert str(error.value) == f"the index of {data} is at {url.server} already"
    with pytest.raises(IndexFailedError, match=r"^no Qdrant server answers"):
        copy_index(data, IndexUrl("127.0.0.1", 1, 1))
    assert len(state(data)["points"]) == 3
    shutil.rmtree(data)
