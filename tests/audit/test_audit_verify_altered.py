"""Audits that were altered by somebody who knows how they are made: what tells, and in which words.

All hashes and sums are right in them. What is altered is what the audit says of the world.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from folders import copy_folder
from verified import (
    Verifies,
    alter,
    alter_summary,
    audited_drawings,
    failing,
    follow,
    states,
    words,
)

from search.audit.verify import verify
from search.audit.verify_sample import CollectionAsked
from search.collection import Collection

ALTERED = "altered, or corrected in the collection since"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return audited_drawings(tmp_path_factory.mktemp("place"))


def test_what_is_in_the_audit(report: Path, verified: Verifies) -> None:
    rows = pq.read_table(report / "images.parquet").to_pylist()
    assert [row["image"] for row in rows if row["copy_of"]] == ["5 copy.png"]
    assert {row["image"]: row["duplicate_of"] for row in rows if row["duplicate_of"]} == {
        "6 same.png": "0.png",
        "7 like.jpg": "1.png",
    }
    found = verified()
    assert found.holds
    assert words(found, "records") == (
        "24 training records are in the collection as the audit names them"
    )
    assert words(found, "sample") == (
        "8 of 8 images, drawn at random, were attributed again: none moved by more than 0 of "
        "influence (0.01 would do), and their training records, similarities, intervals, "
        "near-copies and duplicates among them are as told"
    )
    follow(report)
    assert verified().holds  # a report without pictures shows the same


# -- whose the money is ------------------------------------------------------------------------


def renamed(report: Path) -> None:
    """One creator's money goes to another."""

    def rename(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            for column in ("creator", "top_creator", "main_creator"):
                if row.get(column) == "creator 3":
                    row[column] = "Mallory"

    for table in ("attributions.parquet", "images.parquet"):
        alter(report, table, rename)
    follow(report)


def test_a_creator_renamed_everywhere(report: Path, verified: Verifies) -> None:
    renamed(report)
    found = verified()
    assert failing(found) == {
        "records": f"of 24 training records 5 are others in the collection ({ALTERED})",
        "sample": (
            "of 8 of 8 images attributed again, 8 differ: 0.png: the collection names 'creator 3' "
            f"as creator of {first_of(report, 'Mallory')}, the audit 'Mallory' ({ALTERED})"
        ),
    }
    lines = next(check.lines for check in found.checks if check.name == "records")
    assert len(lines) == 5
    assert "the collection names 'creator 3' as creator of 03.png, the audit 'Mallory'" in lines
    assert words(verified(), "shares").endswith("intervals and all")


def first_of(report: Path, creator: str) -> str:
    """Key of the first training image of theirs."""
    rows = pq.read_table(report / "attributions.parquet").to_pylist()
    return next(str(row["training_key"]) for row in rows if row["creator"] == creator)


def test_records_are_looked_up_without_a_gallery(report: Path, collection: Collection) -> None:
    renamed(report)
    found = verify(report, collection, sample=0)
    assert list(failing(found)) == ["records"]


def test_over_a_service_those_of_the_sample_are_compared(
    report: Path, place: Path, collection: Collection
) -> None:
    asked, gallery = CollectionAsked(collection), [str(place / "gallery")]
    found = verify(place / "report", None, service=asked, sample=3, gallery=gallery)
    assert found.holds
    assert states(found)["records"] == "not checked"
    assert words(found, "records") == (
        "a service tells no training records by themselves: those of the sample are compared with "
        "its answers, the others were not"
    )
    renamed(report)
    found = verify(report, None, service=asked, sample=3, gallery=gallery)
    assert list(failing(found)) == ["sample"]


@pytest.mark.parametrize("column", ["licence", "url", "caption", "path", "dataset", "sha256"])
def test_what_else_is_told_of_a_training_image(
    report: Path, verified: Verifies, column: str
) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            if row["training_key"] == "03.png":
                row[column] = "other"

    alter(report, "attributions.parquet", change)
    follow(report)
    found = verified()
    assert failing(found).keys() == {"records", "sample"}
    lines = next(check.lines for check in found.checks if check.name == "records")
    (line,) = lines
    assert line.startswith("the collection names '")
    assert line.endswith(f"' as {column} of 03.png, the audit 'other'")


def test_a_path_that_a_service_kept_to_itself(report: Path, verified: Verifies) -> None:
    def hide(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row["path"] = ""

    alter(report, "attributions.parquet", hide)
    follow(report)
    found = verified()
    assert failing(found) == {}
    assert states(found)["records"] == states(found)["sample"] == "holds"


def test_a_training_image_that_there_is_not(report: Path, verified: Verifies) -> None:
    for name in ("00000000-0000-5000-8000-000000000000", "no id"):

        def change(rows: list[dict[str, Any]], name: str = name) -> None:
            rows[-1]["training_id"] = name

        alter(report, "attributions.parquet", change)
        key = pq.read_table(report / "attributions.parquet").to_pylist()[-1]["training_key"]
        check = next(check for check in verified().checks if check.name == "records")
        assert (check.state, check.words) == (
            "fails",
            f"of 25 training records 0 are others in the collection ({ALTERED}); 1 are not in it",
        )
        assert check.lines == (f"{key} ({name}) is not in the collection",)


def test_training_images_taken_down_since(place: Path, tmp_path: Path) -> None:
    with Collection.open(copy_folder(place / "data", tmp_path / "data"), wait_s=10) as fewer:
        gone = next(iter(fewer.index.scroll({"key": ["03.png"]})))
        fewer.index.delete(gone)
        found = verify(place / "report", fewer)
    assert found.holds
    check = next(check for check in found.checks if check.name == "records")
    assert (check.state, check.words) == (
        "not checked",
        "of 24 training records 1 are not in the collection: the collection changed since: 24 "
        "training images then, 23 now",
    )
    assert check.lines == (f"03.png ({gone[0]}) is not in the collection",)


# -- what the index says otherwise -------------------------------------------------------------


def test_similarities_that_were_raised(report: Path, verified: Verifies) -> None:
    def higher(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            for column in ("similarity", "top_similarity"):
                if column in row:
                    row[column] = row[column] * 0.9

    first = pq.read_table(report / "attributions.parquet").to_pylist()[0]
    alter(report, "attributions.parquet", higher)
    alter(report, "images.parquet", higher)
    follow(report)
    assert failing(verified()) == {
        "sample": (
            "of 8 of 8 images attributed again, 8 differ: 0.png: its similarity to "
            f"{first['training_key']} is {first['similarity']:.4f}, and "
            f"{first['similarity'] * 0.9:.4f} in the audit"
        )
    }


def test_a_method_that_was_not_used(report: Path, verified: Verifies) -> None:
    method = pq.read_table(report / "images.parquet").to_pylist()[0]["method"]

    def change(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row["method"] = "estimated"
            row.update({name: 0.0 for name in row if name.endswith("_low")})
            row.update({name: 1.0 for name in row if name.endswith("_high")})

    alter(report, "attributions.parquet", change)
    alter(report, "images.parquet", change)
    follow(report)
    assert failing(verified()) == {
        "sample": (
            f"of 8 of 8 images attributed again, 8 differ: 0.png: its method is {method}, and "
            "estimated in the audit"
        )
    }


@pytest.mark.parametrize(
    ("column", "value", "fault"),
    [
        ("support", 1000, "its support is 24, and 1,000 in the audit"),
        ("width", 7, "it has 224 x 224 pixels, and 7 x 224 in the audit"),
        ("note", "by magic", "its note is '', and 'by magic' in the audit"),
    ],
)
def test_what_else_is_told_of_an_image(
    report: Path, verified: Verifies, column: str, value: object, fault: str
) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        rows[1][column] = value

    alter(report, "images.parquet", change)
    follow(report)
    assert failing(verified()) == {
        "sample": f"of 8 of 8 images attributed again, 1 differs: 1.png: {fault}"
    }


# -- flags that were taken away ----------------------------------------------------------------


def unflagged(report: Path, flag: str, **other: object) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            if flag in row["flags"]:
                row.update(other, flags=[one for one in row["flags"] if one != flag])

    alter(report, "images.parquet", change)
    follow(report)


def test_a_near_copy_without_its_flag(report: Path, verified: Verifies) -> None:
    rows = pq.read_table(report / "images.parquet").to_pylist()
    image = next(row for row in rows if row["copy_of"])
    unflagged(report, "near-copy", copy_of="")
    assert failing(verified()) == {
        "images": (
            f"1 of 8 images do not hold: 5 copy.png: its copy_score is {image['copy_score']:.4g}, "
            "it is not called a near-copy, and near-copies are from 0.73"
        ),
        "sample": (
            "of 8 of 8 images attributed again, 1 differs: 5 copy.png: it copies "
            f"{image['copy_of']}, and none in the audit"
        ),
    }


@pytest.mark.parametrize("score", [None, 0.5])
def test_a_near_copy_without_its_score(
    report: Path, verified: Verifies, score: float | None
) -> None:
    rows = pq.read_table(report / "images.parquet").to_pylist()
    image = next(row for row in rows if row["copy_of"])
    unflagged(report, "near-copy", copy_of="", copy_score=score)
    told = "none" if score is None else "0.5"
    assert failing(verified()) == {
        "sample": (
            "of 8 of 8 images attributed again, 1 differs: 5 copy.png: its copy_score is "
            f"{image['copy_score']:.4g}, and {told} in the audit"
        )
    }


def test_a_near_copy_by_a_threshold_that_was_given(report: Path, verified: Verifies) -> None:
    """It is the audit's to choose; but it is told."""
    unflagged(report, "near-copy", copy_of="")

    def loosen(summary: dict[str, Any]) -> None:
        summary["settings"]["thresholds"]["near_copy"] = 1.0

    alter_summary(report, loosen)
    follow(report)
    found = verified()
    assert failing(found) == {}
    assert words(found, "summary") == (
        "summary.json follows from the tables; limits and flags are told as this attrib does; "
        "thresholds are not the usual ones: near-copy 1.0 (usual: 0.73)"
    )


def test_duplicates_without_their_flags(report: Path, verified: Verifies) -> None:
    unflagged(report, "duplicate", duplicate_of="")
    assert failing(verified()) == {
        "images": (
            "1 of 8 images do not hold: 6 same.png: its file is that of 0.png, which it is not "
            "called a duplicate of"
        ),
        "sample": (
            "of 8 of 8 images attributed again, 2 differ: 6 same.png: it looks like 0.png, and is "
            "not called a duplicate"
        ),
    }


def test_a_duplicate_of_something_else(report: Path, verified: Verifies) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        rows[7]["duplicate_of"] = "0.png"

    alter(report, "images.parquet", change)
    follow(report)
    assert failing(verified()) == {
        "sample": (
            "of 8 of 8 images attributed again, 1 differs: 7 like.jpg: it does not look like "
            "0.png, which it is called a duplicate of"
        )
    }
