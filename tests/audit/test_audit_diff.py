"""Audits compared: by hand, paired intervals, images of one alone, and a takedown in earnest."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fake_backbone as fake
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from fake_audit import audit
from ingested import draw, images
from made_audit import make_audit
from typer.testing import CliRunner

from attrib.commands.audit_diff import diff as diff_command
from ingest.errors import RunError, UsageError
from search.audit.diff import AuditDiff, diff
from search.audit.diff_words import differences
from search.audit.manifest import write_manifest
from search.audit.tables import (
    attributions_schema,
    creators_schema,
    images_schema,
    rejects_schema,
)

Lines = Sequence[tuple[str, str, float]]
"""Training id, creator and influence."""


def made(out: Path, gallery: dict[str, Lines], **summary: Any) -> Path:
    """An audit of these images."""
    out.mkdir()
    rows, table = [], []
    for key, lines in gallery.items():
        for rank, (training, creator, influence) in enumerate(lines, start=1):
            rows.append(
                {"image": key, "rank": rank, "training_id": training, "creator": creator}
                | {"influence": influence, "dataset": "d"}
            )
        remaining = 1 - sum(influence for _, _, influence in lines)
        top = lines[0][0] if lines else ""
        table.append({"image": key, "sha256": key, "remaining": remaining, "top_key": top})
    for name, content, schema in (
        ("attributions", rows, attributions_schema()),
        ("images", table, images_schema()),
        ("creators", [], creators_schema()),
        ("rejects", [], rejects_schema()),
    ):
        pq.write_table(pa.Table.from_pylist(content, schema), out / f"{name}.parquet")
    (out / "summary.json").write_text(json.dumps({"schema": "attrib-audit/1", **summary}))
    write_manifest(out)
    return out


def moved(found: AuditDiff) -> dict[str, tuple[float, float, float]]:
    return {
        one.value or one.kind: (one.before, one.after, pytest.approx(one.change, abs=1e-12))
        for one in found.moved
    }


def test_shares_and_distances_by_hand(tmp_path: Path) -> None:
    a = made(
        tmp_path / "a",
        {
            "x": [("1", "A", 0.5), ("2", "B", 0.25)],
            "y": [("1", "A", 0.5), ("3", "", 0.5)],
            "alone": [("9", "Z", 1.0)],
        },
    )
    b = made(
        tmp_path / "b",
        {
            "new": [],
            "y": [("3", "", 0.5), ("1", "A", 0.5)],
            "x": [("2", "B", 0.5), ("4", "A", 0.25)],
        },
    )
    found = diff(a, b)
    assert (found.common, found.changed, found.only_a, found.only_b) == (2, 0, 1, 1)
    assert (found.named_a, found.named_b) == (("alone",), ("new",))
    assert [(one.kind, one.value, one.before, one.after, one.change) for one in found.moved] == [
        ("known", "A", 0.5, 0.375, -0.125),
        ("known", "B", 0.125, 0.25, 0.125),
        ("remaining", "", 0.125, 0.125, 0.0),
        ("unknown", "", 0.25, 0.25, 0.0),
    ]
    # x: 0.5 leaves 1, 0.25 comes to 2, 0.25 comes to 4; y only changed its order.
    assert [(one.image, one.distance, one.before, one.after) for one in found.movers] == [
        ("x", 0.5, "1", "2"),
        ("y", 0.0, "1", "3"),
    ]
    assert found.mean_distance == 0.25
    assert not any(one.sure for one in found.moved)  # of two images
    assert [one.image for one in diff(a, b, top=1).movers] == ["x"]


def test_all_moved_alike_is_an_interval_without_width(tmp_path: Path) -> None:
    a = made(tmp_path / "a", {str(i): [("1", "A", 0.5), ("2", "B", 0.25)] for i in range(30)})
    b = made(tmp_path / "b", {str(i): [("1", "A", 0.25), ("2", "B", 0.25)] for i in range(30)})
    found = {one.value or one.kind: one for one in diff(a, b).moved}
    assert (found["A"].low, found["A"].high) == pytest.approx((-0.25, -0.25), abs=1e-9)
    assert found["A"].sure
    assert found["remaining"].change == 0.25
    assert (found["B"].low, found["B"].high, found["B"].sure) == (0.0, 0.0, False)


def test_intervals_are_paired(tmp_path: Path) -> None:
    """Shares spread over 0..0.9, changes around 0.05: unpaired, 0 would be inside."""
    rng = np.random.default_rng(0)
    before = rng.random(100) * 0.9
    after = before + 0.05 + rng.normal(0, 0.01, 100)
    audits = [
        made(tmp_path / name, {str(i): [("1", "A", float(share))] for i, share in enumerate(one)})
        for name, one in (("a", before), ("b", after))
    ]
    found = {one.value: one for one in diff(*audits).moved if one.kind == "known"}["A"]
    change = after - before
    half = 1.984 * change.std(ddof=1) / 10
    assert found.change == pytest.approx(change.mean(), abs=1e-12)
    assert found.low == pytest.approx(change.mean() - half, abs=0.15 * half)
    assert found.high == pytest.approx(change.mean() + half, abs=0.15 * half)


def test_no_image_in_common(tmp_path: Path) -> None:
    found = diff(made(tmp_path / "a", {"x": [("1", "A", 1.0)]}), made(tmp_path / "b", {"y": []}))
    assert (found.common, found.only_a, found.only_b, found.moved) == (0, 1, 1, ())
    assert found.mean_distance == 0.0


def test_the_same_name_with_another_file_is_not_compared(tmp_path: Path) -> None:
    a = made(tmp_path / "a", {"x": [("1", "A", 1.0)], "y": [("1", "A", 1.0)]})
    b = made(tmp_path / "b", {"x": [("2", "B", 1.0)], "y": [("1", "A", 1.0)]})
    rows = pq.read_table(b / "images.parquet").to_pylist()
    rows[0]["sha256"] = "other"
    pq.write_table(pa.Table.from_pylist(rows, images_schema()), b / "images.parquet")
    write_manifest(b)
    found = diff(a, b)
    assert (found.common, found.changed, found.only_a, found.only_b) == (1, 1, 0, 0)
    assert {one.change for one in found.moved} == {0.0}


def test_large_audits_with_themselves_and_by_any_field(tmp_path: Path) -> None:
    out = make_audit(tmp_path / "a", 1_500, 3, hostile=True, unanswered=5)
    write_manifest(out)
    for by in ("creator", "caption", "training_id"):
        found = diff(out, out, by=by)
        assert found.words == ("gallery, model, collection, settings and versions are the same",)
        assert (found.common, found.only_a, found.only_b, found.mean_distance) == (1500, 0, 0, 0.0)
        assert all(one.change == one.low == one.high == 0 for one in found.moved)
        assert sum(one.before for one in found.moved) == pytest.approx(1, abs=1e-9)
    creators = pq.read_table(out / "creators.parquet").to_pylist()
    shares = {line["value"]: line["share"] for line in creators if line["field"] == "creator"
              and line["kind"] == "known"}  # fmt: skip
    found = diff(out, out)
    compared = {one.value: one.before for one in found.moved if one.kind == "known"}
    assert compared == pytest.approx(shares, abs=1e-9)


SUMMARY: dict[str, Any] = {
    "gallery": {"name": "g", "images": 1000, "inputs_sha256": "i"},
    "model": {"name": "m", "fingerprint": "f", "feature_fingerprint": "ff"},
    "calibrator": {"tau": 0.05, "b": -0.02, "fitted_on": "pairs"},
    "collection": {"name": "c", "images": 5000, "index": {"ef": 64, "quantization": ""}},
    "settings": {"mass": 0.99, "without": {}, "part_size": 256, "copy_model": ""},
    "versions": {"attrib": "0.1.0"},
}


def said(**other: Any) -> list[str]:
    return differences(
        SUMMARY, {name: {**part, **other.get(name, {})} for name, part in SUMMARY.items()}
    )


def test_what_differs_in_words() -> None:
    assert said() == ["gallery, model, collection, settings and versions are the same"]
    assert said(settings={"part_size": 16}) == said()
    assert said(gallery={"inputs_sha256": "j", "images": 900}) == [
        "gallery: g with 1,000 images before, g with 900 images after, not the same files, prompts "
        "or metadata"
    ]
    assert said(model={"name": "n", "fingerprint": "g", "feature_fingerprint": "gg"}) == [
        "model: m (ff) before, n (gg) after; similarities are not of one kind"
    ]
    assert said(model={"fingerprint": "g"}, calibrator={"tau": 0.1, "fitted_on": ""}) == [
        "calibration: tau 0.05, b -0.02, fitted on pairs before; tau 0.1, b -0.02, fitted on "
        "nothing after"
    ]
    assert said(collection={"name": "d", "images": 4990, "index": {"ef": 128}}) == [
        "collection: c before, d after",
        "collection: 5,000 training images before, 4,990 after",
        "index: ef 64 before, 128 after",
        'index: quantization "" before, none after',
    ]
    assert said(
        settings={"without": {"creator": ["A", "B"]}, "mass": 0.9, "copy_model": "sscd"}
    ) == [
        "after: as if the training images of creator=A, creator=B were not there",
        'settings: copy_model "" before, sscd after',
        "settings: mass 0.99 before, 0.9 after",
    ]
    assert said(versions={"attrib": "0.2.0"}) == ["versions: attrib 0.1.0 before, 0.2.0 after"]
    assert differences({}, {}) == said()


# -- in earnest --------------------------------------------------------------------------------


def invoke(*args: object) -> Any:
    app = typer.Typer()
    app.command()(diff_command)
    return CliRunner().invoke(app, [str(arg) for arg in args])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An audit, and the same as if one creator's training images were not there."""
    folder = tmp_path_factory.mktemp("place")
    fake.run(folder / "data", [str(images(folder / "pictures", 60))])
    for i in range(20):
        draw(folder / "gallery" / f"{i:03d}.png", 500 + i)
    audit(folder / "data", [folder / "gallery"], folder / "before", k=20)
    lines = pq.read_table(folder / "before" / "creators.parquet").to_pylist()
    creator = next(
        line["value"] for line in lines if line["field"] == "creator" and line["kind"] == "known"
    )
    (folder / "creator").write_text(creator)
    audit(
        *(folder / "data", [folder / "gallery"], folder / "after"),
        k=20,
        without={"creator": [creator]},
    )
    return folder


def test_a_takedown(place: Path) -> None:
    creator = (place / "creator").read_text()
    found = diff(place / "before", place / "after")
    assert found.words == (f"after: as if the training images of creator={creator} were not there",)
    assert (found.common, found.only_a, found.only_b) == (20, 0, 0)
    gone = next(one for one in found.moved if one.value == creator)
    assert gone.before > 0
    assert gone.after == 0
    assert gone.sure
    assert sum(one.change for one in found.moved) == pytest.approx(0, abs=1e-9)


def test_the_command_tells_of_it(place: Path) -> None:
    creator = (place / "creator").read_text()
    done = invoke(place / "before", place / "after", "--top", "2")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == f"after: as if the training images of creator={creator} were not there"
    assert lines[1] == "20 images in both; only before: 0, only after: 0"
    assert "shares by creator; * where 0 is outside of the interval" in done.stdout
    assert "more share" in done.stdout
    found = json.loads(invoke(place / "before", place / "after", "--json").stdout)
    assert found["moved"][0]["value"] == creator
    assert len(found["movers"]) == 20
    done = invoke(place / "before", place / "before")
    assert done.stdout.splitlines()[2:] == [
        "no share by creator moved",
        "influence that moved: 0.00% of an image's on average",
    ]


def test_hostile_names_stay_in_their_lines(tmp_path: Path) -> None:
    evil = "x\x1b[31m\nfake"
    a = made(tmp_path / "a", {evil: [("1", evil, 1.0)], "y": [("1", evil, 1.0)]})
    b = made(tmp_path / "b", {"y": [("2", "B", 1.0)]})
    done = invoke(a, b)
    assert done.exit_code == 0
    assert "\x1b" not in done.stdout
    assert "\nfake" not in done.stdout


def test_wrong_calls(place: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be summed by 'shoe', those of both only by "):
        diff(place / "before", place / "after", by="shoe")
    with pytest.raises(UsageError, match="--top must be at least 0, not -1"):
        diff(place / "before", place / "after", top=-1)
    with pytest.raises(RunError, match="is no finished audit"):
        diff(place / "before", tmp_path)
    shutil.copytree(place / "after", tmp_path / "after")
    path = tmp_path / "after" / "attributions.parquet"
    path.write_bytes(path.read_bytes()[:-8])
    done = invoke(place / "before", tmp_path / "after")
    assert done.exit_code == 1
    size = path.stat().st_size
    assert done.stderr == (
        f"attrib: {tmp_path / 'after'} cannot be compared: attributions.parquet has {size:,} "
        f"bytes, not the {size + 8:,} of the manifest; see `attrib audit verify "
        f"{tmp_path / 'after'}`\n"
    )


@pytest.mark.parametrize("name", ["images", "creators", "rejects", "attributions", "summary"])
@pytest.mark.parametrize("which", ["before", "after"])
def test_altered_audits_are_not_compared(tmp_path: Path, which: str, name: str) -> None:
    for when in ("before", "after"):
        made(tmp_path / when, {"x": [("1", "A", 1.0)]})
    path = tmp_path / which / (name + (".json" if name == "summary" else ".parquet"))
    content = path.read_bytes()
    for other in (content + b"junk", bytes([content[0] ^ 1]) + content[1:]):
        path.write_bytes(other)
        done = invoke(tmp_path / "before", tmp_path / "after")
        assert done.exit_code == 1
        assert done.stderr.startswith(
            f"attrib: {tmp_path / which} cannot be compared: {path.name} "
        )
        assert done.stderr.count("\n") == 1
    path.write_bytes(content)
    assert invoke(tmp_path / "before", tmp_path / "after").exit_code == 0
