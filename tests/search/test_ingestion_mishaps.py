"""The ingest pipeline when it is killed, crowded out or shut out; takedowns."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import fake_backbone as fake
import pytest
from folders import copy_folder, small_disk
from ingested import draw, images, state
from programs import script

from ingest.errors import DataFolderBusyError, DataFolderError
from ingest.ledger import Ledger
from ingest.record import point_id
from search.collection import Collection
from search.folder import DataFolder
from search.removal import take_down


def test_killed_at_any_moment_the_same_command_goes_on(tmp_path: Path) -> None:
    """SIGKILL at random moments, until a run comes through: the end is that of an unbroken run."""
    source = images(tmp_path / "pictures", 240)
    (source / "bad.png").write_bytes(b"bad")
    fake.run(tmp_path / "unbroken", [str(source)], shard_size=8)
    wanted = state(tmp_path / "unbroken")
    data = tmp_path / "killed"
    seed = 20231004
    print("seed", seed)
    rng = random.Random(seed)
    kills = 0
    for _ in range(40):
        process = subprocess.Popen(
            [sys.executable, fake.__file__, str(data), "set", "8", str(source)],
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        process.stdout.readline()  # the first batch is being embedded, or all is done
        if rng.random() < 0.9:
            time.sleep(rng.uniform(0, 0.3))
        try:
            process.wait(timeout=0 if kills < 12 else 60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
        process.stdout.close()
        if process.returncode == 0:
            break
    assert process.returncode == 0
    assert kills >= 5
    assert state(data) == wanted


def test_the_index_process_of_a_killed_run_is_waited_for(tmp_path: Path) -> None:
    """It may take its time over the flush, as on a busy disk: here it is stopped for a while."""
    data = tmp_path / "data"
    fake.run(data, [str(images(tmp_path / "pictures", 10))])
    program = script(
        """
        import os, sys, time
        from pathlib import Path
        from search.collection import Collection
        from search.edge import EdgeIndex
        with Collection.open(Path(sys.argv[1])) as collection:
            assert isinstance(collection.index, EdgeIndex)
            print(collection.index.process_id, flush=True)
            time.sleep(60)
        """,
        data,
    )
    with program:
        assert program.stdout is not None
        orphan = int(program.stdout.readline())
        os.kill(orphan, signal.SIGSTOP)
        program.kill()
        program.wait()
        timer = threading.Timer(4.0, os.kill, (orphan, signal.SIGCONT))
        timer.start()
        with Collection.open(data) as collection:
            assert not timer.is_alive()
            assert collection.index.count() == 10


@pytest.mark.parametrize("left", ["lock", "lock.json", ".lock.json.part", ".attrib.json.part"])
def test_a_run_killed_as_it_made_the_folder_can_be_begun_again(left: str, tmp_path: Path) -> None:
    (tmp_path / left).write_text("{")
    with DataFolder.create(tmp_path) as folder:
        assert folder.facts() == {"format": 1}


def test_leftovers_of_a_source_that_changed_after_a_kill_are_mended(tmp_path: Path) -> None:
    source = images(tmp_path / "pictures", 10)
    data = tmp_path / "data"
    fake.run(data, [str(source)])
    with Collection.open(data) as collection:
        # As if a run had been killed between index and ledger, and the file had then gone.
        vector = collection.index.vectors([point_id("set", "image 0000.png")])
        stray = point_id("set", "gone.png")
        collection.index.upsert([stray], vector, [{"key": "gone.png", "dataset": "set"}])
        collection.index.delete([point_id("set", "image 0004.png")])
        collection.index.delete([point_id("set", "image 0007.png")])
    images(source, 1, start=50)
    report = fake.run(data, [str(source)])
    assert report.total == 11
    points = state(data)["points"]
    assert str(stray) not in points
    assert points[str(point_id("set", "image 0004.png"))][1]["caption"] == "picture 4"


def test_a_takedown_is_gone_everywhere_and_stays_gone(tmp_path: Path) -> None:
    source = images(tmp_path / "pictures", 30)
    data = tmp_path / "data"
    fake.run(data, [str(source)], shard_size=8)
    with Collection.open(data) as collection:
        assert take_down(collection, where={"creator": ["creator 3"]}) == 4
        assert take_down(collection, keys=["image 0000.png"]) == 1
    taken = {f"image {i:04d}.png" for i in (3, 10, 17, 24, 0)}
    found = state(data)
    assert taken.isdisjoint(payload["key"] for _, payload in found["points"].values())
    for _, rows, thumbnails in found["shards"].values():
        assert taken.isdisjoint(row.key for row in rows)
        assert taken.isdisjoint(key for key, _ in thumbnails)
    assert len(found["points"]) == 25
    for force in (False, True):
        report = fake.run(data, [str(source)], shard_size=8, force=force)
        assert (report.total, report.buried) == (25, 5)
    # The same bytes under another name stay out, too; other images come in.
    (source / "renamed.png").write_bytes((source / "image 0003.png").read_bytes())
    draw(source / "new.png", 500)
    report = fake.run(data, [str(source)], shard_size=8)
    assert (report.ingested, report.buried, report.total) == (1, 6, 26)


def test_an_equal_image_of_another_owner_survives_a_takedown(tmp_path: Path) -> None:
    source = images(tmp_path / "pictures", 3)
    (source / "twin.png").write_bytes((source / "image 0001.png").read_bytes())
    data = tmp_path / "data"
    fake.run(data, [str(source)])
    with Collection.open(data) as collection:
        assert take_down(collection, keys=["image 0001.png"]) == 1
    report = fake.run(data, [str(source)], force=True)
    assert report.total == 3
    assert str(point_id("set", "twin.png")) in state(data)["points"]


def test_a_takedown_that_was_killed_is_finished_at_the_next_opening(tmp_path: Path) -> None:
    source = images(tmp_path / "pictures", 12)
    data = tmp_path / "data"
    fake.run(data, [str(source)], shard_size=8)
    ledger = Ledger(data / "ledger.sqlite")
    ledger.bury([("set", "image 0002.png", "")], "2026-01-01T00:00:00+00:00")
    ledger.close()  # killed here: nothing has left index and shards yet
    found = state(data)
    assert str(point_id("set", "image 0002.png")) not in found["points"]
    assert "image 0002.png" not in [
        row.key for _, rows, _ in found["shards"].values() for row in rows
    ]


def test_two_ingests_at_once_into_one_folder(tmp_path: Path) -> None:
    source = images(tmp_path / "pictures", 3)
    data = tmp_path / "data"
    with Collection.create(data, None, fake.fake_model):
        with pytest.raises(DataFolderBusyError) as caught:
            Collection.create(data, None, fake.fake_model, wait_s=0.1)
        assert str(caught.value).startswith(f"{data} is in use by process {os.getpid()} (")
        assert str(caught.value).endswith(
            "one process at a time can use a data folder: wait until it ends, or stop it"
        )
    assert fake.run(data, [str(source)]).total == 3


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path: Path) -> None:
    """A small real file system that fills up; and after making room, the same command goes on."""
    source = images(tmp_path / "pictures", 200)
    data = tmp_path / "data"
    fake.run(data, [str(images(tmp_path / "first", 10))])
    with small_disk(tmp_path / "small", "1500k") as disk:
        # The features are on the small disk, index and ledger are not.
        features = data / "features"
        features.rename(tmp_path / "kept")
        copy_folder(tmp_path / "kept", disk / "features")
        features.symlink_to(disk / "features")
        (disk / "ballast").write_bytes(os.urandom(1_300_000))
        with pytest.raises(DataFolderError) as caught:
            fake.run(data, [str(source)], shard_size=50)
        assert str(caught.value) == (
            f"cannot write to {data}: No space left on device; free some space and run the same "
            "command again: what is finished is kept"
        )
        (disk / "ballast").unlink()
        assert fake.run(data, [str(source)], shard_size=50).total == 200
        fake.run(tmp_path / "unbroken", [str(tmp_path / "first")])
        fake.run(tmp_path / "unbroken", [str(source)], shard_size=50)
        assert state(data)["points"].keys() == state(tmp_path / "unbroken")["points"].keys()


def test_a_read_only_data_folder_is_one_line(tmp_path: Path) -> None:
    data = tmp_path / "data"
    fake.run(data, [str(images(tmp_path / "pictures", 3))])
    made = subprocess.run(["mount", "--bind", str(data), str(data)], capture_output=True)
    if made.returncode:
        pytest.skip("a folder can be mounted read-only by root only")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(data)], check=True)
        with pytest.raises(DataFolderError) as caught:
            DataFolder.open(data)
        assert str(caught.value) == (
            f"cannot write to {data}: Read-only file system; check its permissions"
        )
    finally:
        subprocess.run(["umount", "-l", str(data)], check=True)


def test_a_newer_data_folder_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    fake.run(data, [str(images(tmp_path / "pictures", 3))])
    facts = json.loads((data / "attrib.json").read_text())
    (data / "attrib.json").write_text(json.dumps({**facts, "format": 99}))
    with pytest.raises(DataFolderError) as caught:
        Collection.open(data)
    assert str(caught.value) == (
        f"{data} was written by a newer attrib (data format 99; this one reads 1); upgrade attrib"
    )


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    source = images(tmp_path / "pictures", 3)
    with pytest.raises(DataFolderError) as caught:
        fake.run(source, [str(source)])
    assert str(caught.value) == (
        f"{source} holds other things than attrib's; choose an empty or new folder with --data"
    )
    assert not (source / "lock").exists()


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    """What is in flight is bounded: prepared images never exceed the look-ahead and the queue."""
    source = images(tmp_path / "pictures", 160)
    alive = 0
    most = 0
    lock = threading.Lock()
    import search.pipeline as module

    real = module._prepare_item

    def counted(*arguments: Any) -> Any:
        nonlocal alive, most
        with lock:
            alive += 1
            most = max(most, alive)
        return real(*arguments)

    class Counting(fake.FakeEmbedder):
        def embed(self, pixels: Any) -> Any:
            nonlocal alive
            with lock:
                alive -= len(pixels)
            time.sleep(0.005)
            return super().embed(pixels)

    module._prepare_item = counted
    try:
        fake.run(tmp_path / "data", [str(source)], embedder=Counting())
    finally:
        module._prepare_item = real
    assert most <= 2 * 5 + 2 + 5 + 2  # look-ahead, one batch, what the threads hold
