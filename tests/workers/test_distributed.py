"""Ingests by real workers end as on one machine, whatever the images and whoever refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import distributed_program as program
import pytest
import slow_backbone as backbone
from made_tars import make_tar, make_tars, png, state
from processes import Redis, Workers, wait_for

from ingest.errors import SourceError
from search.collection import Collection
from search.removal import take_down
from workers.board import Board
from workers.jobs import Jobs, jobs_path
from workers.progress import status_of
from workers.requests import cancel, revive


def both(tmp_path: Path, redis: Redis, sources: list[str], **more: Any) -> tuple[Any, Any]:
    """What remains of an ingest here, and of one with workers."""
    program.here(tmp_path / "here", sources, **more)
    program.with_workers(tmp_path / "there", redis.url, sources, **more)
    return state(tmp_path / "here"), state(tmp_path / "there")


def test_a_folder_of_images(tmp_path: Path, redis: Redis, workers: Workers) -> None:
    source = tmp_path / "pictures"
    for i in range(23):
        (source / f"{i % 3}").mkdir(parents=True, exist_ok=True)
        (source / f"{i % 3}" / f"{i}.png").write_bytes(png(i))
        (source / f"{i % 3}" / f"{i}.json").write_text(json.dumps({"creator": f"c{i}"}))
    (source / "bad.png").write_bytes(b"bad")
    workers.start(2)
    here, there = both(tmp_path, redis, [str(source)], shard_size=5)
    assert there == here
    assert len(there["points"]) == 23
    again = program.with_workers(tmp_path / "there", redis.url, [str(source)], shard_size=5)
    assert (again.ingest.ingested, again.ingest.unchanged) == (0, 24)
    assert not (tmp_path / "there" / "features" / "set" / "done").exists()
    with Jobs(jobs_path(tmp_path / "there")) as jobs:
        assert jobs.all() == []
    # What comes later, on one machine or many, gets the next numbers.
    (source / "new.png").write_bytes(png(100))
    program.here(tmp_path / "there", [str(source)], shard_size=5)
    assert sorted(state(tmp_path / "there")["shards"]) == list(range(6))


def equal_stems(folder: Path) -> list[str]:
    """Three tars of equal stem; the second one has a key twice, too."""
    paths = []
    for name, seed in (("a", 0), ("b", 100), ("c", 200)):
        images = {f"{i}": png(seed + i) for i in range(6)} | {f"only-{name}": png(seed + 50)}
        again = {"only-b": png(7)} if name == "b" else {}
        paths.append(make_tar(folder / name / "same.tar", images, again))
    return [str(path) for path in paths]


def test_keys_that_two_shards_have(tmp_path: Path, redis: Redis, workers: Workers) -> None:
    """The same images win as on one machine, and the same are rejected."""
    workers.start(3)
    here, there = both(tmp_path, redis, equal_stems(tmp_path))
    assert there == here
    assert len(here["points"]) == 6 + 3
    assert {payload["path"].split("/")[-2] for _, payload in here["points"].values()} == set("abc")


def test_keys_that_two_shards_have_on_a_server(
    tmp_path: Path, redis: Redis, workers: Workers, qdrant: str
) -> None:
    """Workers put points in that do not stand: the coordinator puts back those that do."""
    sources = equal_stems(tmp_path)
    program.here(tmp_path / "here", sources)
    workers.start(3)
    report = program.with_workers(tmp_path / "there", redis.url, sources, index=qdrant)
    assert report.ingest.total == 9
    assert state(tmp_path / "there") == state(tmp_path / "here")
    with Collection.open(tmp_path / "there") as collection:
        assert take_down(collection, keys=["same/3"]) == 1
    report = program.with_workers(tmp_path / "there", redis.url, sources, force=True)
    assert (report.ingest.total, len(state(tmp_path / "there")["points"])) == (8, 8)


def test_what_was_taken_down_stays_out(tmp_path: Path, redis: Redis, workers: Workers) -> None:
    source = str(make_tars(tmp_path / "tars", 3, 8, bad=1))
    workers.start(2)
    both(tmp_path, redis, [source])
    for data in ("here", "there"):
        with Collection.open(tmp_path / data) as collection:
            assert take_down(collection, keys=["00001/0003", "00002/0000"]) == 2
    # The bytes of one of them under another name, too.
    make_tar(tmp_path / "tars" / "00009.tar", {"renamed": png(1003), "new": png(9999)})
    here, there = both(tmp_path, redis, [source], force=True)
    assert there == here
    assert len(there["points"]) == 22 + 1


def test_a_poison_shard_ends_in_the_dead_letters(
    tmp_path: Path, redis: Redis, workers: Workers
) -> None:
    """An image that kills whichever process embeds it; retried where it does not, all are in."""
    source = make_tars(tmp_path / "tars", 5, 6)
    poison = {f"{i}": png(i) for i in range(5)} | {"poison": png(0, (1, 2, 3))}
    make_tar(source / "00002.tar", poison)
    program.here(tmp_path / "here", [str(source)])
    workers.start(2, program=backbone.program(mark="#010203"))
    said: list[str] = []
    report = program.with_workers(
        tmp_path / "there", redis.url, [str(source)], lease_s=1, attempts=2, notice=said.append
    )
    reason = "the process that embedded it was killed by SIGSEGV"
    assert report.dead == [f"{source}/00002.tar: {reason}"]
    assert f"shard 2 of {source}/00002.tar is a dead letter after 2 attempts: {reason}" in said
    assert (report.ingest.ingested, report.ingest.total) == (24, 24)
    status = status_of(tmp_path / "there", Board(redis.url))
    assert [(letter.number, letter.attempts) for letter in status.dead] == [(2, 2)]
    # The same ingest leaves it alone; an ingest here gives its number to nobody.
    again = program.with_workers(tmp_path / "there", redis.url, [str(source)])
    assert (again.ingest.ingested, len(again.dead)) == (0, 1)
    workers.stop()
    workers.start(1)
    assert revive(tmp_path / "there") == (1, False)
    report = program.with_workers(tmp_path / "there", redis.url, [])
    assert (report.ingest.ingested, report.dead) == (6, [])
    assert state(tmp_path / "there") == state(tmp_path / "here")


def test_other_weights_are_refused(tmp_path: Path, redis: Redis, workers: Workers) -> None:
    source = make_tars(tmp_path / "tars", 4, 6)
    workers.start(1, program=backbone.program(weights="e" * 64), name="other")
    said: list[str] = []
    why = (
        "the weights of projection are not those that the index is built with: the index has "
        "ffffffffffffffff, this worker has eeeeeeeeeeeeeeee; copy the weights folder to this "
        "machine"
    )
    done = threading.Event()

    def come_later() -> None:
        wait_for(lambda: workers.processes[0].poll() is not None)
        workers.start(1)
        done.set()

    helper = threading.Thread(target=come_later)
    helper.start()
    report = program.with_workers(
        tmp_path / "data", redis.url, [str(source)], lease_s=1, notice=said.append
    )
    helper.join()
    assert done.is_set()
    assert workers.processes[0].returncode == 1
    assert f"attrib: other: {why}" in workers.said()
    assert f"worker other refuses: {why}" in said
    assert (report.ingest.ingested, report.dead) == (24, [])


def test_a_shard_that_vanished(tmp_path: Path, redis: Redis, workers: Workers) -> None:
    source = make_tars(tmp_path / "tars", 3, 6)
    gone = source / "00001.tar"

    def vanish() -> None:
        wait_for(lambda: redis.client().llen("attrib") == 3)
        gone.unlink()
        workers.start(1)

    helper = threading.Thread(target=vanish)
    helper.start()
    report = program.with_workers(
        tmp_path / "data", redis.url, [str(source)], lease_s=1, attempts=2, notice=print
    )
    helper.join()
    assert report.dead == [f"{gone}: cannot read {gone}: No such file or directory"]
    assert report.ingest.ingested == 12


def test_a_tar_that_is_cut_off_is_kept_as_far_as_it_goes(
    tmp_path: Path, redis: Redis, workers: Workers
) -> None:
    source = make_tars(tmp_path / "tars", 2, 6)
    whole = (source / "00001.tar").read_bytes()
    (source / "00001.tar").write_bytes(whole[: len(whole) // 2])
    workers.start(1)
    here, there = both(tmp_path, redis, [str(source)])
    assert there == here
    assert [reject.reason.value for _, reject in there["rejects"]] == ["source cut off"]


def test_clocks_that_differ_do_not_matter(tmp_path: Path, redis: Redis, workers: Workers) -> None:
    """A worker whose clock is a day ahead, and one a day behind."""
    for name, days in (("ahead", 1), ("behind", -1)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "sitecustomize.py").write_text(
            f"import time\nreal = time.time\ntime.time = lambda: real() + {days} * 86400\n"
        )
        workers.start(
            1,
            program=backbone.program(pause_s=0.1),
            environment={"PYTHONPATH": str(tmp_path / name)},
        )
    source = make_tars(tmp_path / "tars", 8, 20)
    program.here(tmp_path / "here", [str(source)])
    report = program.with_workers(tmp_path / "there", redis.url, [str(source)], lease_s=1)
    assert report.dead == []
    assert state(tmp_path / "there") == state(tmp_path / "here")


def test_waiting_for_workers_is_said_and_can_be_cancelled(tmp_path: Path, redis: Redis) -> None:
    source = make_tars(tmp_path / "tars", 3, 4)
    said: list[str] = []

    def give_up() -> None:
        wait_for(lambda: said)
        status = status_of(tmp_path / "data", Board(redis.url))
        assert (status.state, status.total, status.waiting) == ("running", 3, 3)
        assert cancel(tmp_path / "data", Board(redis.url)) == 3

    helper = threading.Thread(target=give_up)
    helper.start()
    report = program.with_workers(tmp_path / "data", redis.url, [str(source)], notice=said.append)
    helper.join()
    assert report.cancelled
    assert status_of(tmp_path / "data", Board(redis.url)).state == "cancelled"
    assert said == [
        f"waiting: no worker answers at {redis.url}; start one with `attrib worker`, on any "
        "machine that sees this Redis"
    ]
    assert report.ingest.total == 0
    with Jobs(jobs_path(tmp_path / "data")) as jobs:
        assert jobs.all() == []


def test_what_a_killed_run_left_is_cancelled_without_it(tmp_path: Path, redis: Redis) -> None:
    source = make_tars(tmp_path / "tars", 3, 4)
    data = tmp_path / "data"
    run = subprocess.Popen(
        [sys.executable, program.__file__ or "", data, redis.url, "2", "3", "10", source],
        cwd=Path(__file__).parent,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    wait_for(lambda: redis.client().llen("attrib") == 3)
    run.kill()
    run.wait()
    assert status_of(data, Board(redis.url)).state == "stopped"
    assert cancel(data, Board(redis.url)) == 3
    assert status_of(data, Board(redis.url)).state == "cancelled"
    with Jobs(jobs_path(data)) as jobs:
        assert jobs.all() == []


def test_a_source_without_images_is_one_line(tmp_path: Path, redis: Redis) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="no images in"):
        program.with_workers(tmp_path / "data", redis.url, [str(tmp_path / "empty")])
