"""Verification of the tables: whatever is altered is found, though the manifest agrees with it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from verified import alter, audited, states, words

from search.audit.flags import Thresholds
from search.audit.manifest import write_manifest
from search.audit.verify import verify
from search.audit.verify_image import Repeated, wrong_with_image


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return audited(tmp_path_factory.mktemp("place"))


@pytest.fixture
def report(place: Path, tmp_path: Path) -> Path:
    """A copy of the audit, to be altered."""
    shutil.copytree(place / "report", tmp_path / "report")
    return tmp_path / "report"


def test_a_file_that_was_altered(report: Path) -> None:
    path = report / "report.html"
    path.write_bytes(path.read_bytes().replace(b"<", b"(", 1))
    found = verify(report, None)
    assert not found.holds
    assert words(found, "files") == (
        "report.html was changed: its SHA-256 is not that of the manifest"
    )


def test_what_lies_beside_is_named(report: Path) -> None:
    (report / "payout.csv").write_text("x")
    found = verify(report, None)
    assert found.holds
    assert words(found, "files").endswith("; not part of the audit: payout.csv")


def test_influence_that_does_not_sum_to_1(report: Path) -> None:
    names = []

    def add(rows: list[dict[str, Any]]) -> None:
        row = next(row for row in rows if row["influence"] < 0.9)
        row["influence"] += 1e-6
        names.append(row["image"])

    alter(report, "attributions.parquet", add)
    found = verify(report, None)
    assert (states(found)["files"], states(found)["images"]) == ("holds", "fails")
    assert words(found, "images") == (
        f"1 of 40 images do not hold: {names[0]}: its influence and what remains sum to 1.000001, "
        "not to 1"
    )
    assert states(found)["shares"] == "fails"


def test_a_creator_who_gets_more(report: Path) -> None:
    def give(rows: list[dict[str, Any]]) -> None:
        known = [row for row in rows if row["kind"] == "known"]
        known[0]["share"] += 1e-6
        known[1]["share"] -= 1e-6

    alter(report, "creators.parquet", give)
    found = verify(report, None)
    assert states(found)["shares"] == "fails"
    assert words(found, "shares").startswith(
        "creators.parquet does not follow from attributions.parquet: share of "
    )


@pytest.mark.parametrize("column", ["share_low", "images", "top_of", "training_images"])
def test_other_numbers_of_creators(report: Path, column: str) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        rows[0][column] += 1

    alter(report, "creators.parquet", change)
    assert f": {column} of " in words(verify(report, None), "shares")


def test_creators_that_are_missing_or_foreign(report: Path) -> None:
    def lose(rows: list[dict[str, Any]]) -> None:
        del rows[0]

    alter(report, "creators.parquet", lose)
    assert "the attributions give" in words(verify(report, None), "shares")

    def rename(rows: list[dict[str, Any]]) -> None:
        rows[0]["field"] = "shoe size"

    alter(report, "creators.parquet", rename)
    assert words(verify(report, None), "shares").endswith(
        "it has shares by 'shoe size', which nothing can be summed by"
    )


def test_a_summary_that_tells_other_totals(report: Path) -> None:
    path = report / "summary.json"
    summary = json.loads(path.read_text("utf-8"))

    def said(part: str, **other: Any) -> str:
        path.write_text(json.dumps({**summary, part: {**summary[part], **other}}))
        write_manifest(report)
        found = verify(report, None)
        assert states(found)["summary"] == "fails"
        return words(found, "summary").removeprefix(
            "summary.json is not what attrib writes of these tables: "
        )

    assert said("gallery", rejected=0) == "its gallery.rejected is 0, and the tables give 1"
    assert said("totals", images=41) == "its totals.images is 41, and the tables give 40"
    assert said("totals", remaining_mean=0.0).startswith(
        "its totals.remaining_mean is 0.0, and the "
    )
    assert said("totals", flags={}) == "it has no totals.flags.near-copy"


def test_lines_out_of_order_and_tables_that_are_damaged(report: Path) -> None:
    alter(report, "attributions.parquet", list.reverse)
    found = verify(report, None)
    assert words(found, "tables").endswith(
        "attributions.parquet has lines of images that are not in images.parquet, or not in its "
        "order"
    )
    path = report / "attributions.parquet"
    path.write_bytes(path.read_bytes()[:1000])
    found = verify(report, None)
    assert (states(found)["files"], states(found)["tables"]) == ("fails", "fails")
    path.unlink()
    assert not verify(report, None).holds


def test_an_image_that_is_there_twice(report: Path) -> None:
    def double(rows: list[dict[str, Any]]) -> None:
        rows[-1]["image"] = rows[0]["image"]

    alter(report, "images.parquet", double)
    assert not verify(report, None).holds


IMAGE = {
    "remaining": 0.25,
    "sources": 2,
    "entropy": 1.0397207708399179,
    "effective_sources": 2.8284271247461903,
    "top_id": "a",
    "top_key": "ka",
    "top_creator": "A",
    "top_influence": 0.5,
    "top_similarity": 0.9,
    "main_creator": "A",
    "main_creator_share": 0.5,
    "method": "exact",
    "support": 2,
    "remaining_low": 0.25,
    "remaining_high": 0.25,
    "copy_of": "",
    "copy_score": None,
    "duplicate_of": "",
    "flags": ["one-creator", "one-source"],
}
LINES = [
    {"rank": 1, "training_id": "a", "training_key": "ka", "creator": "A", "method": "exact"}
    | {"influence": 0.5, "influence_low": 0.5, "influence_high": 0.5, "similarity": 0.9},
    {"rank": 2, "training_id": "b", "training_key": "kb", "creator": "B", "method": "exact"}
    | {"influence": 0.25, "influence_low": 0.25, "influence_high": 0.25, "similarity": 0.8},
]
ESTIMATED = {"method": "estimated", "remaining_low": 0.2, "remaining_high": 0.3}


def test_an_image_that_follows_from_its_lines() -> None:
    assert wrong_with_image(IMAGE, LINES, Thresholds()) == ""
    estimated = [{**line, "method": "estimated", "influence_low": 0.1} for line in LINES]
    assert wrong_with_image({**IMAGE, **ESTIMATED, "support": None}, estimated) == ""
    copied = {"copy_of": "b", "copy_score": 0.9, "flags": ["near-copy", *IMAGE["flags"]]}
    assert wrong_with_image({**IMAGE, **copied}, LINES, Thresholds(near_copy=0.9)) == ""


@pytest.mark.parametrize(
    ("image", "line", "fault"),
    [
        ({"remaining": -0.25}, {}, "an influence is not in 0..1"),
        ({"remaining": float("nan")}, {}, "an influence is not in 0..1"),
        ({"remaining": 0.250001}, {}, "its influence and what remains sum to 1.000001, not to 1"),
        ({}, {"rank": 2}, "its ranks are not 1, 2, 3, ..."),
        (
            {"remaining": 0.375},
            {"influence": 0.375},
            "its entropy is 1.03972077084, and its lines give 1.08219553",
        ),
        ({"sources": 3}, {}, "it tells of 3 sources and has 2"),
        ({"entropy": 1.0}, {}, "its entropy is 1, and its lines give 1.03972077084"),
        ({"top_id": "b"}, {}, "its top source is not that of rank 1"),
        ({"top_influence": 0.75}, {}, "its top source is not that of rank 1"),
        ({}, {"creator": "B"}, "its top source is not that of rank 1"),
        ({"main_creator": "B"}, {}, "its main creator is not the one with the largest share"),
        ({"main_creator_share": 0.6}, {}, "its main creator is not the one with the largest share"),
        ({}, {"training_id": "b"}, "a training image is there twice"),
        ({}, {"similarity": float("nan")}, "a similarity is not in -1..1"),
        ({"method": "guessed"}, {}, "its method is none, or not that of its lines"),
        ({}, {"method": "estimated"}, "its method is none, or not that of its lines"),
        ({}, {"influence_low": 0.4}, "its method is exact, and an influence has an interval"),
        ({"remaining_high": 0.3}, {}, "its method is exact, and an influence has an interval"),
        ({"support": 1}, {}, "its support is 1, and it has 2 lines"),
        ({"flags": []}, {}, "its flags are not those of its numbers and the thresholds"),
        (
            {"copy_of": "c", "copy_score": 0.9},
            {},
            "the training image that it copies is not among its lines",
        ),
    ],
)
def test_what_may_be_wrong_with_an_image(
    image: dict[str, Any], line: dict[str, Any], fault: str
) -> None:
    found = wrong_with_image({**IMAGE, **image}, [{**LINES[0], **line}, LINES[1]], Thresholds())
    assert found.startswith(fault)


@pytest.mark.parametrize(
    ("copied", "score", "fault"),
    [
        ("", 0.75, "its copy_score is 0.75, it is not called a near-copy, and near-copies are "),
        (
            "a",
            0.7,
            "its copy_score is 0.7, it is called a near-copy, and near-copies are from 0.73",
        ),
        ("a", None, "its copy_score is none, it is called a near-copy, and near-copies are from "),
    ],
)
def test_near_copies_are_those_from_the_threshold(
    copied: str, score: float | None, fault: str
) -> None:
    image = {**IMAGE, "copy_of": copied, "copy_score": score}
    found = wrong_with_image(image, LINES, Thresholds(near_copy=0.73))
    assert found.startswith(fault)


def test_an_interval_that_does_not_hold_its_influence() -> None:
    lines = [{**line, "method": "estimated"} for line in LINES]
    assert wrong_with_image({**IMAGE, **ESTIMATED}, lines) == ""
    lines[1]["influence_high"] = 0.2
    fault = "an interval does not hold its influence"
    assert wrong_with_image({**IMAGE, **ESTIMATED}, lines) == fault


def test_what_may_be_wrong_with_duplicates() -> None:
    def said(*images: tuple[str, str, str]) -> list[str]:
        """`images`: name, file, and what it is called a duplicate of."""
        repeated = Repeated()
        names = ("image", "sha256", "duplicate_of")
        return [repeated.wrong(dict(zip(names, image, strict=True))) for image in images]

    assert said(("a", "1", ""), ("b", "1", "a"), ("c", "2", "a"), ("d", "2", "a")) == [""] * 4
    assert said(("a", "1", ""), ("a", "2", ""))[1] == "it is there twice"
    no_first = "it is called a duplicate of b, which is no earlier image, or one itself"
    assert said(("a", "1", "b"), ("b", "2", ""))[0] == no_first
    assert said(("a", "1", ""), ("b", "2", "a"), ("c", "3", "b"))[2] == no_first
    no_duplicate = "its file is that of a, which it is not called a duplicate of"
    assert said(("a", "1", ""), ("b", "1", ""))[1] == no_duplicate


def test_ranks_fall_with_influence() -> None:
    lines = [{**LINES[0], "influence": 0.25}, {**LINES[1], "influence": 0.5}]
    assert wrong_with_image(IMAGE, lines) == "its ranks are not in order of influence"
