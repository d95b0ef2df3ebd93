"""The ledger: what it says is done is done; a removal is forgotten once it is carried out."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from ingest.errors import DataFolderError, RejectReason
from ingest.ledger import Entry, Known, Ledger, Removal, ShardRow, TarRow
from ingest.record import Reject


def finish(ledger: Ledger, number: int, keys: dict[str, bool], signature: str = "1") -> None:
    entries = [Entry(key, f"/src/{key}", signature, usable) for key, usable in keys.items()]
    rejects = [
        Reject(key, f"/src/{key}", RejectReason.NOT_AN_IMAGE)
        for key, usable in keys.items()
        if not usable
    ]
    row = ShardRow(number, "set", "src", sum(keys.values()), len(rejects))
    ledger.finish(row, entries, rejects)


def test_a_finished_shard_is_known(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l.sqlite")
    assert ledger.next_shard() == 0
    finish(ledger, 0, {"a": True, "b": False})
    assert ledger.next_shard() == 1
    assert ledger.known("set", ["a", "b", "c"]) == {
        "a": Known("/src/a", "1", 0, True),
        "b": Known("/src/b", "1", 0, False),
    }
    assert ledger.known("other", ["a"]) == {}
    assert (ledger.images(), ledger.images("set"), ledger.images_of(0)) == (1, 1, 1)
    assert ledger.datasets() == {"set": 1}
    ledger.close()
    again = Ledger(tmp_path / "l.sqlite")
    assert again.usable_in(0) == [("set", "a")]
    again.close()


def test_many_keys_are_asked_at_once(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l.sqlite")
    keys = [f"k{i}" for i in range(1700)]
    finish(ledger, 0, dict.fromkeys(keys, True))
    assert len(ledger.known("set", [*keys, "x"])) == 1700
    ledger.close()


def test_a_key_that_comes_again_leaves_its_old_shard(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l.sqlite")
    finish(ledger, 0, {"a": True, "b": True, "c": False})
    finish(ledger, 1, {"a": True, "b": False, "c": True}, "2")
    removals = ledger.removals()
    # a was replaced in the index already; b is no image any more and must leave it.
    assert removals == [Removal("set", "a", 0, False), Removal("set", "b", 0, True)]
    assert [reject.key for _, reject in ledger.rejects()] == ["b"]
    ledger.removed(removals[:1])
    assert ledger.removals() == removals[1:]
    ledger.close()


def test_finishing_the_same_shard_again_changes_nothing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l.sqlite")
    for _ in range(2):
        finish(ledger, 0, {"a": True, "b": False})
    assert ledger.removals() == []
    assert len(ledger.shards()) == 1
    ledger.close()


def test_a_replaced_tar_gives_up_what_it_held(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l.sqlite")
    for number, keys in enumerate((["00/a", "00/b"], ["00/b", "00/c"])):
        ledger.finish(
            ShardRow(number, "set", "00.tar", 2, 0),
            [Entry(key, "/x/00.tar", str(number), True) for key in keys],
            [Reject("00/z", "00.tar#z", RejectReason.TRUNCATED)] if number == 0 else [],
            tar=TarRow("/x/00.tar", str(number), "00"),
        )
    assert ledger.tar("set", "/x/00.tar") == ("1", 1)
    assert ledger.removals() == [
        Removal("set", "00/a", 0, True),
        Removal("set", "00/b", 0, False),
    ]
    assert ledger.known("set", ["00/a"]) == {}
    assert ledger.rejects() == []
    ledger.close()


def test_burying(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l.sqlite")
    finish(ledger, 0, {"a": True, "b": True})
    assert ledger.bury([("set", "a", "f00d")], "2026-01-01") == 1
    assert ledger.bury([("set", "a", "f00d")], "2026-01-02") == 0
    assert ledger.buried("set", ["a", "b"]) == {"a"}
    assert ledger.buried("other", ["a"]) == set()
    assert ledger.buried_bytes() == frozenset({"f00d"})
    assert ledger.removals() == [Removal("set", "a", 0, True)]
    assert ledger.images() == 1
    ledger.close()


def test_a_failed_transaction_leaves_nothing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l.sqlite")

    def entries() -> object:
        yield Entry("a", "/a", "1", True)
        raise RuntimeError("killed here")

    with pytest.raises(RuntimeError):
        ledger.finish(ShardRow(0, "set", "s", 1, 0), entries(), [])  # type: ignore[arg-type]
    assert ledger.known("set", ["a"]) == {}
    assert ledger.next_shard() == 0
    ledger.close()


def test_marks(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l.sqlite")
    ledger.set_mark("forced:set", "3")
    assert ledger.mark("forced:set") == "3"
    ledger.set_mark("forced:set", None)
    assert ledger.mark("forced:set") is None
    ledger.close()


def test_a_newer_or_damaged_ledger_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    Ledger(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version=9")
    db.close()
    with pytest.raises(DataFolderError) as caught:
        Ledger(path)
    assert str(caught.value) == (
        f"{path} was written by a newer attrib (ledger format 9; this one reads 1); upgrade attrib"
    )
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(DataFolderError) as caught:
        Ledger(path)
    assert str(caught.value) == f"cannot use the ledger {path}: file is not a database"


def test_a_replaced_tar_takes_only_its_own_keys_along(tmp_path: Path) -> None:
    """Stems that begin alike, on both sides of it in the order of keys."""
    ledger = Ledger(tmp_path / "l.sqlite")
    for number, stem in enumerate(("a", "a-b", "a0", "a.b")):
        path = f"/src/{stem}.tar"
        row = ShardRow(number, "set", path, 1, 2)
        entries = [Entry(f"{stem}/1", path, "1", True)]
        rejects = [Reject(key, path, RejectReason.NOT_AN_IMAGE) for key in (f"{stem}/2", stem)]
        ledger.finish(row, entries, rejects, tar=TarRow(path, "1", stem))
    row = ShardRow(9, "set", "/src/a.tar", 1, 0)
    entry = Entry("a/3", "/src/a.tar", "2", True)
    ledger.finish(row, [entry], [], tar=TarRow("/src/a.tar", "2", "a"))
    assert set(ledger.known("set", ["a/1", "a/3", "a-b/1", "a0/1", "a.b/1"])) == {
        "a/3",
        "a-b/1",
        "a0/1",
        "a.b/1",
    }
    assert ledger.removals() == [Removal("set", "a/1", 0, True)]
    assert [reject.key for _, reject in ledger.rejects()] == [
        "a-b",
        "a-b/2",
        "a.b",
        "a.b/2",
        "a0",
        "a0/2",
    ]
    ledger.close()
