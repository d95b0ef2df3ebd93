"""`jobs.sqlite` and what workers leave beside the features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embed.shards import ImageRow, ShardWriter, read_shard, read_thumbnails, shard_paths
from ingest.decode import DecodeLimits
from ingest.errors import DataFolderBusyError, DataFolderError, RejectReason
from ingest.ledger import Ledger, ShardRow, TarRow
from ingest.record import Reject
from search.admission import Origin
from workers.jobs import Jobs, coordinating
from workers.results import (
    Done,
    Failed,
    Image,
    Outcome,
    Result,
    adopt,
    discard,
    failures,
    read_result,
    results,
    staged,
    tidy,
    write_failure,
    write_result,
)
from workers.shard_spec import ShardSpec
from workers.staged_rows import is_whole, keep_rows

PLAN = "ab12"
SEND = "cd34"


def spec(number: int) -> ShardSpec:
    path = Path(f"/tars/{number:05d}.tar")
    return ShardSpec(number, "set", "tar", path, str(path), None, "s", 8, DecodeLimits())


def result(number: int, *keys: str) -> Result:
    origin = Origin("/tars/a.tar", "s")
    outcomes = [Outcome(Image(key, f"a.tar#{key}", "0" * 64), origin) for key in keys]
    outcomes.append(Outcome(Reject("bad", "a.tar#bad", RejectReason.NOT_AN_IMAGE, "why"), origin))
    return Result(
        number, PLAN, SEND, "digest", "f" * 64, "w", 1.5, outcomes, TarRow("/tars/a.tar", "s", "a")
    )


def stage(features: Path, number: int, *keys: str) -> None:
    writer = ShardWriter(staged(features, PLAN, number, SEND), number, 3)
    rows = [ImageRow(key, "set", key, "", "", "", "", 1, 1, key) for key in keys]
    values = np.arange(3 * len(keys), dtype=np.float16).reshape(-1, 3)
    writer.append(values, rows, [f"picture {i}".encode() for i in range(len(keys))])
    writer.finish()


def test_jobs_survive_and_go_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    with Jobs(path) as jobs:
        plan = jobs.plan
        for number in (4, 2, 3):
            jobs.plan_shard(spec(number))
        job = jobs.all()[0]
        assert (job.number, job.state, job.spec) == (2, "planned", spec(2))
        job.state, job.attempts, job.reason = "dead", 3, "it fails"
        jobs.update(job)
    with Jobs(path) as jobs:
        assert jobs.plan == plan
        assert jobs.counts() == {"planned": 2, "sent": 0, "dead": 1}
        assert jobs.dead() == [(2, "set", "/tars/00002.tar", 3, "it fails")]
        assert jobs.next_number() == 5
        jobs.done(3)
        assert [job.number for job in jobs.clear(dead=False)] == [4]
        assert jobs.revive() == 1
        revived = jobs.all()
        assert [(job.number, job.state, job.attempts) for job in revived] == [(2, "planned", 0)]


def test_jobs_of_a_newer_attrib_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    with Jobs(path) as jobs:
        jobs._db.execute("PRAGMA user_version=9")
    with pytest.raises(DataFolderError) as caught:
        Jobs(path)
    assert str(caught.value) == (
        f"{path} was written by a newer attrib (format 9; this one reads 1); upgrade attrib"
    )


def test_one_coordinator_at_a_time(tmp_path: Path) -> None:
    with coordinating(tmp_path):
        with pytest.raises(DataFolderBusyError) as caught, coordinating(tmp_path):
            pass
        assert str(caught.value) == (
            f"an ingest with workers is running on {tmp_path}; `attrib status --data {tmp_path}` "
            "shows it"
        )
    with coordinating(tmp_path):
        pass


def test_numbers_that_workers_have_are_not_given_to_others(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.finish(ShardRow(0, "set", "a", 0, 0), [], [])
    ledger.reserve(7)
    assert (ledger.next_shard(), ledger.next_shard(reserved=False)) == (7, 1)
    assert (ledger.has_shard(0), ledger.has_shard(1)) == (True, False)
    ledger.reserve(None)
    assert ledger.next_shard() == 1
    ledger.close()


def test_a_result_comes_back_as_it_was_written(tmp_path: Path) -> None:
    written = result(5, "a", "b")
    write_result(tmp_path, written)
    assert results(tmp_path, PLAN) == [Done(5, PLAN)]
    assert results(tmp_path, "0123") == []
    assert read_result(tmp_path, Done(5, PLAN)) == written
    (tmp_path / "done" / f"00005-{PLAN}.json.gz").write_bytes(b"half")
    assert read_result(tmp_path, Done(5, PLAN)) is None


def test_a_failure_comes_back_until_it_is_discarded(tmp_path: Path) -> None:
    failed = Failed(5, PLAN, SEND, "died", "it was killed", "w")
    write_failure(tmp_path, failed)
    assert failures(tmp_path, PLAN) == [failed]
    discard(tmp_path, PLAN, 5, "other")
    assert failures(tmp_path, PLAN) == [failed]
    discard(tmp_path, PLAN, 5, SEND)
    assert failures(tmp_path, PLAN) == []


@pytest.mark.parametrize("moved", [0, 1, 2, 3])
def test_taking_a_shard_in_can_be_broken_off_anywhere(tmp_path: Path, moved: int) -> None:
    stage(tmp_path, 5, "a", "b")
    folder = staged(tmp_path, PLAN, 5, SEND)
    pairs = list(zip(shard_paths(folder, 5), shard_paths(tmp_path, 5), strict=True))
    for source, target in pairs[:moved]:
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)
    assert is_whole(folder, 5) == (moved == 0)
    for _ in range(2):
        adopt(tmp_path, result(5, "a", "b"), rows=2)
    features, rows = read_shard(tmp_path, 5)
    assert [row.key for row in rows] == ["a", "b"]
    assert features.tolist() == [[0, 1, 2], [3, 4, 5]]
    discard(tmp_path, PLAN, 5)
    assert list((tmp_path / "done").rglob("*5*")) == []


def test_rows_are_told_by_their_place(tmp_path: Path) -> None:
    """Of two rows of one key the second may be the one that stands."""
    stage(tmp_path, 5, "a", "b", "a")
    folder = staged(tmp_path, PLAN, 5, SEND)
    for _ in range(2):  # the staged shard stays, so that it can be done again
        keep_rows(folder, tmp_path, 5, np.array([False, True, True]))
    features, rows = read_shard(tmp_path, 5)
    assert [row.key for row in rows] == ["b", "a"]
    assert features.tolist() == [[3, 4, 5], [6, 7, 8]]
    assert read_thumbnails(tmp_path, 5, ["a", "b"]) == {"b": b"picture 1", "a": b"picture 2"}
    keep_rows(folder, tmp_path, 5, np.zeros(3, bool))
    assert read_shard(tmp_path, 5)[1] == []


def test_what_nobody_asks_for_is_tidied_away(tmp_path: Path) -> None:
    for number in (5, 6):
        stage(tmp_path, number, "a")
        write_result(tmp_path, result(number, "a"))
    tidy(tmp_path, keep={6})
    assert results(tmp_path, PLAN) == [Done(6, PLAN)]
    assert is_whole(staged(tmp_path, PLAN, 6, SEND), 6)
    assert not staged(tmp_path, PLAN, 5, SEND).exists()
    tidy(tmp_path, keep=set())
    assert not (tmp_path / "done").exists()
