"""`reindex` that is killed, fails, or finds the folder in use."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ingested import images
from reindexed import Hook, ingest, keys, state, tuned

from embed.shards import shard_paths
from ingest.errors import DataFolderBusyError, DataFolderError
from search.collection import Collection
from search.folder import DataFolder, reindex_lock
from search.reindex import reindex
from search.removal import take_down


def test_killed_at_any_moment_the_old_one_answers_and_the_end_is_the_same(tmp_path: Path) -> None:
    source = images(tmp_path / "pictures", 160)
    data = tmp_path / "data"
    ingest(data, source)
    before = state(data)
    ingest(tmp_path / "fresh", source, tuned())
    wanted = state(tmp_path / "fresh")
    tuned().save(tmp_path / "model")
    code = (
        "import sys, time; from pathlib import Path\n"
        "import search.building as b; from search.reindex import reindex\n"
        "from embed.model import load\n"
        "b._FLUSH_ROWS = 16\n"
        "class P:\n"
        "  def start(self, n): print('started', flush=True)\n"
        "  def advance(self, n): print('advanced', flush=True); time.sleep(0.1)\n"
        "  def building(self): print('building', flush=True)\n"
        "reindex(Path(sys.argv[1]), load(Path(sys.argv[2])), progress=P(), wait_s=10)\n"
    )
    seed = 20261124
    print("seed", seed)
    rng = random.Random(seed)
    kills = 0
    for _ in range(30):
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(data), str(tmp_path / "model")], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        # By what it has said, not by the clock alone: a fast machine must not be done before.
        for _ in range(rng.randint(1, 4)):
            process.stdout.readline()
        try:
            process.wait(timeout=rng.uniform(0, 0.09) if kills < 7 else 60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
            assert state(data) in (before, wanted)
        process.stdout.close()
        if process.returncode == 0:
            break
    assert process.returncode == 0
    assert kills >= 3
    assert state(data) == wanted
    assert list((data / "collections").glob(".*")) == []
    with DataFolder.open(data) as folder:
        assert folder.collections() == [folder.current]


def test_a_broken_run_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.building._FLUSH_ROWS", 16)
    data = tmp_path / "data"
    ingest(data, images(tmp_path / "pictures", 64))

    def stop() -> None:
        raise KeyboardInterrupt

    class Late(Hook):
        def advance(self, images: int) -> None:
            self.images += images
            if self.images == 48:
                stop()

    with pytest.raises(KeyboardInterrupt):
        reindex(data, tuned(), progress=Late(stop))
    assert len(list((data / "collections").glob(".building-*"))) == 1
    report = reindex(data, tuned())
    assert (report.mapped, report.images) == (32, 64)


def test_another_model_than_the_broken_run_starts_over(tmp_path: Path) -> None:
    data = tmp_path / "data"
    source = images(tmp_path / "pictures", 20)
    ingest(data, source)

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reindex(data, tuned(), progress=Hook(stop))
    reindex(data, tuned(seed=2))
    ingest(tmp_path / "fresh", source, tuned(seed=2))
    assert state(data) == state(tmp_path / "fresh")
    assert list((data / "collections").glob(".*")) == []


def test_a_takedown_removes_what_a_broken_run_left(tmp_path: Path) -> None:
    data = tmp_path / "data"
    ingest(data, images(tmp_path / "pictures", 20))

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reindex(data, tuned(), progress=Hook(stop))
    with Collection.open(data) as collection:
        take_down(collection, keys=["image 0002.png"])
    assert list((data / "collections").glob(".*")) == []


def test_lost_shards_leave_the_old_collection_in_use(tmp_path: Path) -> None:
    data = tmp_path / "data"
    ingest(data, images(tmp_path / "pictures", 20))
    before = state(data)
    shutil.rmtree(data / "features")
    with pytest.raises(DataFolderError) as caught:
        reindex(data, tuned())
    assert str(caught.value) == (
        f"{data}/features lacks the base features of 20 training images; put them back from a "
        "backup, or ingest with --force; the collection in use was left as it is"
    )
    assert state(data) == before


def test_a_damaged_shard_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.building._TRIES", 2)
    data = tmp_path / "data"
    ingest(data, images(tmp_path / "pictures", 20))
    path = shard_paths(data / "features" / "set", 1)[0]
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataFolderError) as caught:
        reindex(data, tuned())
    assert str(caught.value).startswith(f"feature shard 1 in {data}/features/set cannot be read: ")
    assert len(keys(data)) == 20


def test_one_at_a_time(tmp_path: Path) -> None:
    data = tmp_path / "data"
    ingest(data, images(tmp_path / "pictures", 3))
    with reindex_lock(data), pytest.raises(DataFolderBusyError) as caught:
        reindex(data, tuned())
    assert str(caught.value) == (
        f"{data} is being re-mapped by another process; wait until it ends, or stop it"
    )


def test_a_folder_in_use_at_the_end_is_said_and_switched_later(tmp_path: Path) -> None:
    data = tmp_path / "data"
    ingest(data, images(tmp_path / "pictures", 9))
    held: list[DataFolder] = []
    began = time.monotonic()
    with pytest.raises(DataFolderBusyError) as caught:
        reindex(
            data,
            tuned(),
            progress=Hook(lambda: held.append(DataFolder.open(data))),
            switch_wait_s=0.2,
        )
    assert time.monotonic() - began < 30
    assert str(caught.value).endswith(
        "; the new collection is ready: run the same command again to switch to it"
    )
    held[0].close()
    assert reindex(data, tuned()).mapped == 0
    assert len(keys(data)) == 9


def test_nothing_ingested_or_no_folder(tmp_path: Path) -> None:
    none = tmp_path / "none"
    with pytest.raises(DataFolderError) as caught:
        reindex(none, tuned())
    assert str(caught.value).startswith(f"{none} is no attrib data folder; ")
    assert not none.exists()
    empty = tmp_path / "empty"
    DataFolder.create(empty).close()
    with pytest.raises(DataFolderError) as caught:
        reindex(empty, tuned())
    assert str(caught.value) == (
        f"nothing was ingested into {empty} yet; run `attrib ingest SOURCE --data {empty}`"
    )
