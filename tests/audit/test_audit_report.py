"""The report of an audit: what is in the file."""

from __future__ import annotations

import io
import json
import math
import shutil
from collections import Counter
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from changed_audit import with_late_creators
from made_audit import each, made_picture, make_audit
from PIL import Image
from report_reader import Report

from ingest.errors import RunError, UsageError
from search.audit.report import ReportSettings, write_report
from search.audit.tables import ATTRIBUTIONS, CREATORS, IMAGES, SUMMARY


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_audit(tmp_path_factory.mktemp("report") / "audit", 60, 4, unanswered=2)


@pytest.fixture(scope="module")
def report(audit: Path) -> Report:
    return Report(write_report(audit, made_picture, each(made_picture)))


def none(name: str) -> None:
    return None


def copied(audit: Path, to: Path) -> Path:
    return Path(shutil.copytree(audit, to))


def test_same_audit_same_bytes_and_nothing_of_the_machine(audit: Path, tmp_path: Path) -> None:
    other = copied(audit, tmp_path / "elsewhere")
    first = write_report(audit, made_picture, each(made_picture)).read_bytes()
    assert write_report(other, made_picture, each(made_picture)).read_bytes() == first
    assert str(audit.parent).encode() not in first
    assert sorted(path.name for path in other.iterdir()) == sorted(
        [ATTRIBUTIONS, IMAGES, CREATORS, "rejects.parquet", SUMMARY, "report.html"]
    )


def test_every_image_is_listed_in_order(audit: Path, report: Report) -> None:
    table = pq.read_table(audit / IMAGES).to_pylist()
    names, flags = report.items("names"), report.first["flags"]
    assert flags == ["near-copy", "one-source", "one-creator", "nothing-close", "duplicate"]
    for line, item in zip(table, report.items("index"), strict=True):
        assert item[:2] == [line["image"], line["prompt"]]
        assert sorted(name for bit, name in enumerate(flags) if item[3] >> bit & 1) == line["flags"]
        numbers = ["remaining", "effective_sources", "top_influence", "top_similarity"]
        for value, name in zip(item[4:8], numbers, strict=True):
            assert value == (
                line[name] if line[name] is None else pytest.approx(line[name], abs=1e-6)
            )
        assert ["exact", "complete", "estimated"][item[8]] == line["method"]
        assert (names[item[10]] if item[10] >= 0 else "") == line["main_creator"]


def test_details_sum_to_one_and_name_their_sources(audit: Path, report: Report) -> None:
    table = pq.read_table(audit / IMAGES).to_pylist()
    lines: dict[str, list[dict[str, Any]]] = {}
    for line in pq.read_table(audit / ATTRIBUTIONS).to_pylist():
        lines.setdefault(line["image"], []).append(line)
    training = report.items("training")
    assert len({record[0] for record in training}) == len(training)
    folded = more_seen = 0
    for image, detail in zip(table, report.items("details"), strict=True):
        rows, more, rest = detail[11:]
        assert len(rows) == min(image["sources"], 12)
        assert more == image["sources"] - len(rows)
        total = math.fsum(row[1] for row in rows) + rest + image["remaining"]
        assert total == pytest.approx(1, abs=2e-5)
        for rank, row in enumerate(rows, start=1):
            own = [line for line in lines[image["image"]] if line["rank"] == rank]
            assert len(row[4]) + row[5] == len(own)
            assert row[1] == pytest.approx(sum(line["influence"] for line in own), abs=1e-6)
            assert row[2] <= row[1] <= row[3]
            for place, line in zip(row[4], own, strict=False):
                fields = ["training_id", "training_key", "dataset", "creator", "licence", "url"]
                assert training[place][:8] == [line[name] for name in [*fields, "path", "caption"]]
            folded += len(own) > 1
        more_seen += more > 0
    assert folded > 10
    assert more_seen > 10


def test_pictures_are_small_drawn_anew_and_stored_once(audit: Path, tmp_path: Path) -> None:
    asked: Counter[str] = Counter()

    def of(name: str) -> bytes:
        asked[name] += 1
        return made_picture(name, 300, "JPEG")

    report = Report(write_report(copied(audit, tmp_path / "audit"), of, each(of)))
    assert set(asked.values()) == {1}
    pictures, index, training = (report.items(name) for name in ("pictures", "index", "training"))
    assert len(set(pictures)) == len(pictures)
    sides = set()
    for item in index:
        with Image.open(io.BytesIO(pictures[item[2]])) as picture:
            assert picture.format == "WEBP"
            sides.add((bool(item[3]), *picture.size))
    assert sides == {(True, 192, 192), (False, 96, 96)}  # flagged ones are looked at side by side
    shown_first = {row[4][0] for detail in report.items("details") for row in detail[11]}
    assert all(training[place][8] >= 0 for place in shown_first)
    assert report.first["limits"]["training"] == {
        "shown": len(asked) - len(index),
        "missing": 0,
        "left_out": 0,
    }


def test_small_pictures_are_never_made_larger_and_equal_ones_are_one(
    audit: Path, tmp_path: Path
) -> None:
    report = Report(
        write_report(
            copied(audit, tmp_path / "audit"), lambda _: made_picture("one", 64), each(none)
        )
    )
    pictures = report.items("pictures")
    assert len(pictures) == 1
    assert {item[2] for item in report.items("index")} == {0}
    with Image.open(io.BytesIO(pictures[0])) as picture:
        assert picture.size == (64, 64)


def test_pictures_beyond_the_limits_are_left_out_and_told(audit: Path, tmp_path: Path) -> None:
    settings = ReportSettings(generated_pictures=20, training_bytes=20_000)
    out = copied(audit, tmp_path / "audit")
    report = Report(write_report(out, made_picture, each(made_picture), settings))
    index = report.items("index")
    assert sum(item[2] >= 0 for item in index) == 20
    flagged = [item for item in index if item[3]]
    assert all(item[2] >= 0 for item in flagged[:20])
    assert report.first["limits"]["generated"] == {"shown": 20, "missing": 0, "left_out": 40}
    of_training = report.first["limits"]["training"]
    known = {record[0]: record[8] for record in report.items("training") if record[8] >= 0}
    pictures = report.items("pictures")
    assert sum(len(pictures[number]) for number in set(known.values())) <= 20_000
    assert of_training["left_out"] > 100
    assert of_training["shown"] == len(known)
    # What stands beside a flagged image comes first.
    beside = [report.items("training")[item[13][1]][8] for item in flagged if item[13][1] >= 0]
    assert sum(number >= 0 for number in beside[:10]) >= sum(number >= 0 for number in beside[-10:])


@pytest.mark.parametrize("data", [None, b"", b"no image", made_picture("a")[:200]])
def test_pictures_that_are_missing_or_broken_are_counted(
    audit: Path, tmp_path: Path, data: bytes | None
) -> None:
    report = Report(write_report(copied(audit, tmp_path / "audit"), lambda _: data, each(none)))
    assert report.first["limits"]["generated"] == {"shown": 0, "missing": 60, "left_out": 0}
    assert {item[2] for item in report.items("index")} == {-1}
    assert report.first["blocks"]["pictures"]["items"] == 0


def test_limits_of_sources_owners_shares_and_text(audit: Path, tmp_path: Path) -> None:
    settings = ReportSettings(sources=2, owners=1, shares=3, rejects=1, text=16)
    report = Report(write_report(copied(audit, tmp_path / "audit"), none, each(none), settings))
    rows = [row for detail in report.items("details") for row in detail[11]]
    assert {len(detail[11]) for detail in report.items("details")} == {0, 1, 2}
    assert {len(row[4]) for row in rows} == {1}
    assert max(row[5] for row in rows) >= 1
    assert {len(record[0]) for record in report.items("training")} == {16}
    assert all(record[0].endswith("…") for record in report.items("training"))
    creators = report.first["shares"][0]
    table = [
        line for line in pq.read_table(audit / CREATORS).to_pylist() if line["field"] == "creator"
    ]
    known = [line for line in table if line["kind"] == "known"]
    assert [line["kind"] for line in creators["values"]].count("known") == 3
    assert creators["others"] == len(known) - 3
    assert creators["others_share"] == pytest.approx(
        sum(line["share"] for line in known[3:]), abs=1e-5
    )
    assert {"unknown", "remaining"} <= {line["kind"] for line in creators["values"]}
    assert report.first["rejected"] == 2
    assert len(report.first["rejects"]) == 1


def test_copied_training_image_is_named_wherever_it_ranks(tmp_path: Path) -> None:
    out = make_audit(tmp_path / "audit", 30, 7)
    lines = pq.read_table(out / ATTRIBUTIONS).to_pylist()
    last = max((line for line in lines), key=lambda line: line["rank"])
    images = pq.read_table(out / IMAGES)
    table = images.to_pylist()
    for line in table:
        if line["image"] == last["image"]:
            line |= {"copy_of": last["training_id"], "flags": ["near-copy"]}
    pq.write_table(type(images).from_pylist(table, images.schema), out / IMAGES)
    report = Report(write_report(out, none, each(none), ReportSettings(sources=3)))
    copied, first, _ = next(item[13] for item in report.items("index") if item[0] == last["image"])
    training = report.items("training")
    assert training[copied][0] == last["training_id"]
    top = next(line for line in lines if line["image"] == last["image"])
    assert training[first][0] == top["training_id"] != last["training_id"]


def test_main_creator_s_best_training_image_stands_beside_wherever_it_ranks(
    audit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.audit.report_tables._BATCH", 37)  # an image's lines in two batches
    out = copied(audit, tmp_path / "audit")
    late = with_late_creators(out, 3)
    settings = ReportSettings(sources=3)
    report = Report(write_report(out, made_picture, each(made_picture), settings))
    training = report.items("training")
    assert len(late) > 20
    seen = 0
    for item in report.items("index"):
        if item[0] in late:
            record = training[item[13][2]]
            assert record[0] == late[item[0]]["training_id"]
            assert record[3] == late[item[0]]["creator"]
            assert record[8] >= 0  # its picture is in the report
            seen += 1
        elif not item[3]:
            assert item[13][2] == -1
    assert seen == len(late)


def test_training_image_beside_is_that_of_the_words(audit: Path, report: Report) -> None:
    """The creator of whom the words tell, and not of the training image that is first or copied."""
    lines: dict[str, list[dict[str, Any]]] = {}
    for line in pq.read_table(audit / ATTRIBUTIONS).to_pylist():
        lines.setdefault(line["image"], []).append(line)
    training, others = report.items("training"), 0
    for image, item in zip(
        pq.read_table(audit / IMAGES).to_pylist(), report.items("index"), strict=True
    ):
        _, first, of_main = item[13]
        if "one-creator" in image["flags"]:
            own = [x for x in lines[image["image"]] if x["creator"] == image["main_creator"]]
            assert training[of_main][0] == own[0]["training_id"]
            others += training[first][3] != image["main_creator"]
        if "one-source" in image["flags"] or "nothing-close" in image["flags"]:
            known = [image["top_id"]] if image["top_id"] else []
            assert [training[first][0]] * (first >= 0) == known
    assert others > 0


def influencers(report: Report) -> dict[str, set[str]]:
    """By creator, the images that name it."""
    names = report.items("names")
    found: dict[str, set[str]] = {}
    for item in report.items("index"):
        for number in accumulate(item[12]):
            found.setdefault(names[number], set()).add(item[0])
    return found


@pytest.mark.parametrize("batch", [8192, 50])
def test_images_of_a_creator_are_as_many_as_its_share_counts(
    audit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr("search.audit.report_tables._BATCH", batch)
    out = copied(audit, tmp_path / "audit")
    found = influencers(Report(write_report(out, none, each(none), ReportSettings(sources=2))))
    table = pq.read_table(out / CREATORS).to_pylist()
    counted = {
        line["value"]: line["images"]
        for line in table
        if line["field"] == "creator" and line["kind"] == "known"
    }
    assert len(counted) > 20
    assert {name: len(images) for name, images in found.items()} == counted


def test_gallery_without_images_and_images_without_sources(tmp_path: Path) -> None:
    empty = make_audit(tmp_path / "empty", 0, rejected=0)
    report = Report(write_report(empty, none, each(none)))
    assert report.items("index") == []
    assert sum(report.first["plots"]["remaining"]["counts"]) == 0
    nothing = make_audit(tmp_path / "nothing", 3, unanswered=3)
    report = Report(write_report(nothing, none, each(none)))
    assert [item[4] for item in report.items("index")] == [1, 1, 1]
    assert [item[7] for item in report.items("index")] == [None] * 3


def spoil_schema(out: Path) -> None:
    (out / SUMMARY).write_text(json.dumps({"schema": "attrib-audit/9"}))


def spoil_order(out: Path) -> None:
    table = pq.read_table(out / IMAGES)
    pq.write_table(table.slice(1), out / IMAGES)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda out: (out / SUMMARY).unlink(), "is no finished audit: it has no summary.json"),
        (lambda out: (out / SUMMARY).write_text("{"), "cannot read "),
        (spoil_schema, "is an audit of the schema 'attrib-audit/9', not 'attrib-audit/1'"),
        (lambda out: (out / IMAGES).unlink(), "is no finished audit: it has no images.parquet"),
        (lambda out: (out / CREATORS).write_bytes(b"PAR1 no"), "cannot read "),
        (spoil_order, "the tables do not belong together"),
    ],
)
def test_what_is_no_finished_audit_is_refused(
    audit: Path, tmp_path: Path, spoil: Callable[[Path], object], words: str
) -> None:
    out = copied(audit, tmp_path / "audit")
    (out / "report.html").unlink(missing_ok=True)
    spoil(out)
    with pytest.raises(RunError, match=words.replace(".", r"\.")) as caught:
        write_report(out, none, each(none))
    assert "\n" not in str(caught.value)
    assert list(out.glob("*report*")) == list(out.glob(".*report*")) == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (ReportSettings(sources=0), "sources of a report must be at least 1, not 0"),
        (ReportSettings(text=3), "text of a report must be at least 16 characters, not 3"),
        (ReportSettings(quality=101), "quality of a report's pictures is 1 to 100, not 101"),
    ],
)
def test_settings_that_cannot_be_meant(audit: Path, settings: ReportSettings, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        write_report(audit, none, each(none), settings)
    assert str(caught.value) == words


def test_report_that_cannot_be_written(audit: Path, tmp_path: Path) -> None:
    out = copied(audit, tmp_path / "audit")
    (out / "report.html").unlink(missing_ok=True)
    (out / "report.html").mkdir()
    with pytest.raises(RunError, match=r"cannot write the report .*: Is a directory"):
        write_report(out, none, each(none))
    assert list(out.glob(".*")) == []
