"""Summaries and reports that do not say what the tables do: what tells, and in which words."""

from __future__ import annotations

import json
import shutil
import zlib
from base64 import b64decode
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from fake_audit import audit
from folders import copy_folder
from verified import Verifies, alter_summary, audited_drawings, failing, follow, states, words

from search.audit.manifest import write_manifest
from search.audit.report_blocks import packed
from search.audit.verify import verify

VERSION = version("attrib")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return audited_drawings(tmp_path_factory.mktemp("place"))


# -- the summary -------------------------------------------------------------------------------


def setting(*path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(summary: dict[str, Any]) -> None:
        *outer, last = path
        for name in outer:
            summary = summary[name]
        summary[last] = value

    return change


SUMMARIES = [
    (("gallery", "images"), 99999, "its gallery.images is 99999, and the tables give 8"),
    (
        ("gallery", "rejected_by_reason"),
        {"x": 1},
        "it has no gallery.rejected_by_reason.not an image",
    ),
    (
        ("totals", "training_images"),
        7,
        "its totals.training_images is 7, and the tables give 24",
    ),
    (("totals", "also"), 7, "it has totals.also, which is not to be there"),
    (
        ("creators",),
        [{"field": "creator", "values": 3}],
        'its creators is [{"field": "creator", "values": 3}], and the tables give '
        '[{"field": "creator", "values": 5}, {"field": "licence", "v…',
    ),
    (
        ("limits",),
        "A causal proof.",
        f"its limits is 'A causal proof.', and attrib {VERSION} writes ",
    ),
    (("also",), 1, "it has also, which is not to be there"),
    (
        ("flags", "near-copy", "definition"),
        "nonsense",
        f"its flags.near-copy.definition is 'nonsense', and attrib {VERSION} writes '",
    ),
    (("settings", "k"), "all", "it does not tell the settings of the audit"),
    (
        ("settings", "by"),
        ["creator"],
        "its settings.by is [\"creator\"], and the shares are by ['creator', 'licence', 'dataset']",
    ),
    (("versions",), {}, "it does not tell the versions that it was made with"),
]


@pytest.mark.parametrize(("path", "value", "fault"), SUMMARIES)
def test_a_summary_that_was_altered(
    report: Path, path: tuple[str, ...], value: object, fault: str
) -> None:
    alter_summary(report, setting(*path, value=value))
    found = verify(report, None)
    assert states(found)["summary"] == "fails"
    whole = f"summary.json is not what attrib writes of these tables: {fault}"
    if fault.endswith((" writes ", " writes '")):  # and then long texts of attrib's own
        assert words(found, "summary").startswith(whole)
    else:
        assert words(found, "summary") == whole


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        (("model", "name"), "better", "its model.name is 'better', and the data folder has 'fake'"),
        (
            ("model", "backbone"),
            "better",
            "its model.backbone is 'better', and the data folder has 'fake'",
        ),
        (("calibrator", "tau"), 5.0, "its calibrator.tau is 5.0, and the data folder has "),
        (("collection", "name"), "x", "its collection.name is 'x', and the data folder has 'fake-"),
    ],
)
def test_a_summary_of_another_collection(
    report: Path, verified: Verifies, path: tuple[str, ...], value: object, fault: str
) -> None:
    alter_summary(report, setting(*path, value=value))
    follow(report)
    assert failing(verified())["summary"].startswith(
        f"summary.json is not of this collection: {fault}"
    )


def test_an_audit_by_another_attrib(report: Path, verified: Verifies) -> None:
    alter_summary(report, setting("limits", value="Other limits."))
    alter_summary(report, setting("versions", "attrib", value="0.0.9"))
    why = f"it was made by attrib 0.0.9, and this is {VERSION}"
    found = verified()
    assert found.holds
    assert words(found, "summary") == (
        "summary.json follows from the tables; what it says of limits and flags was not compared: "
        + why
    )
    assert words(found, "report") == f"report.html was not compared with the tables: {why}"
    assert words(found, "sample").endswith(
        f"; near-copies were not looked for again: {why}; duplicates were not looked for again: "
        f"{why}"
    )
    alter_summary(report, setting("gallery", "images", value=9))
    assert list(failing(verified())) == ["summary"]


def test_settings_that_are_none(report: Path, verified: Verifies) -> None:
    alter_summary(report, setting("settings", "k", value="all"))
    found = verified()
    assert list(failing(found)) == ["summary", "report"]  # which shows the summary too
    why = "summary.json does not tell the settings of the audit"
    assert words(found, "sample") == f"no image was attributed again: {why}"
    assert words(found, "inputs").endswith(f", but the gallery was not read: {why}")


def test_a_copy_model_that_is_not_there(report: Path, verified: Verifies) -> None:
    alter_summary(report, setting("settings", "copy_model", value="no-such-model"))
    follow(report)
    found = verified()
    assert found.holds
    assert "; near-copies were not looked for again: " in words(found, "sample")
    assert "intervals and duplicates among them are as told; near" in words(found, "sample")


def test_thresholds_that_are_not_known(report: Path) -> None:
    alter_summary(report, setting("settings", "thresholds", "beauty", value=1))
    found = verify(report, None)
    assert states(found)["images"] == "not checked"
    assert words(found, "images").endswith(
        ", but for its flags: their thresholds are not known here"
    )
    assert states(found)["summary"] == "fails"


# -- the report --------------------------------------------------------------------------------


def reported(report: Path, old: str, new: str) -> str:
    """What is said of a report in which a text was changed."""
    path = report / "report.html"
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")
    write_manifest(report)
    found = verify(report, None)
    assert list(failing(found)) == ["report"]
    return failing(found)["report"]


def test_a_report_that_shows_another_share(report: Path) -> None:
    content = (report / "report.html").read_text("utf-8").partition('"shares":')[2]
    share = content.partition('"share":')[2].partition(",")[0]
    assert reported(report, f'"share":{share}', '"share":0.9038') == (
        "report.html does not show what the tables say: its shares[0].values[0].share is 0.9038, "
        f"and the tables give {share}"
    )


def test_a_report_whose_page_shows_something_else(report: Path) -> None:
    assert reported(report, "const ", "let ") == (
        f"the page of report.html is not the one that attrib {VERSION} writes (altered, or made by "
        "an unreleased state of it): it may show anything"
    )


def test_a_report_of_another_audit(report: Path, place: Path, tmp_path: Path) -> None:
    """A block is that of a gallery with less in it, all else is of this one."""
    (tmp_path / "gallery").mkdir()
    for i in range(4):
        shutil.copy(place / "gallery" / f"{i}.png", tmp_path / "gallery" / f"{i}.png")
    data = copy_folder(place / "data", tmp_path / "data")
    audit(data, [tmp_path / "gallery"], tmp_path / "other", k=20)
    start, end = '<script type="application/octet-stream" id="index-0">', "</script>\n"
    mine, theirs = (
        (folder / "report.html").read_text("utf-8").partition(start)[2].partition(end)[0]
        for folder in (report, tmp_path / "other")
    )
    assert reported(report, mine, theirs) == (
        "report.html does not show what the tables say: its index end after 4"
    )


def test_reports_that_are_broken(report: Path) -> None:
    path = report / "report.html"
    text = path.read_text("utf-8")

    def said(content: str) -> str:
        path.write_text(content, "utf-8")
        write_manifest(report)
        return failing(verify(report, None))["report"]

    assert said("") == "report.html cannot be read: cannot mmap an empty file"
    assert said("<html>") == "report.html is damaged: it carries no data"
    block = text.partition('id="index-0">')[2]
    assert said(text.replace(block[:8], "!!!!!!!!", 1)) == (
        "report.html is damaged: a block of index cannot be unpacked"
    )
    assert said(text.replace('id="index-0"', 'id="index-1"', 1)) == (
        "report.html is damaged: its blocks of index are not in order"
    )
    path.unlink()
    write_manifest(report)
    found = verify(report, None)
    assert found.holds
    assert words(found, "report") == "there is no report.html"


def test_a_report_whose_block_tells_something_else(report: Path) -> None:
    text = (report / "report.html").read_text("utf-8")
    start, end = '<script type="application/octet-stream" id="training-0">', "</script>\n"
    block = text.partition(start)[2].partition(end)[0]
    items = json.loads(zlib.decompress(b64decode(block)))
    place, column = next(
        (place, item.index("creator 3")) for place, item in enumerate(items) if "creator 3" in item
    )
    items[place][column] = "Mallory"
    assert reported(report, block, packed(items)) == (
        "report.html does not show what the tables say: its "
        f"training[{place}][{column}] is 'Mallory', and the tables give 'creator 3'"
    )
