"""A real audit to verify, ways to alter it, and what was found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import fake_backbone as fake
import pyarrow as pa
import pyarrow.parquet as pq
from fake_audit import audit
from ingested import draw, images
from made_drawings import drawing

from search.audit.finished import image_batches, read_table
from search.audit.flags import Thresholds, flags_in_words
from search.audit.manifest import write_manifest
from search.audit.report import write_report
from search.audit.resampling import SEED
from search.audit.shares import Shares
from search.audit.summary import Totals
from search.audit.verify import Verification

GALLERY = 40

Verifies = Callable[..., Verification]
"""The fixture `verified`; it takes the options of `verify`."""


def audited(folder: Path) -> Path:
    """A data folder of 60 training images, a gallery of 40 and a bad one, and its report."""
    fake.run(folder / "data", [str(images(folder / "pictures", 60))])
    for i in range(GALLERY):
        draw(folder / "gallery" / f"{i:03d}.png", 500 + i)
    (folder / "gallery" / "bad.png").write_bytes(b"bad")
    audit(folder / "data", [folder / "gallery"], folder / "report", k=20)
    return folder


def audited_drawings(folder: Path) -> Path:
    """24 training drawings, a gallery of 8 with a near-copy and two duplicates, and its report."""
    (folder / "training").mkdir()
    (folder / "gallery").mkdir()
    for i in range(24):
        drawing(i).save(folder / "training" / f"{i:02d}.png")
        told = {"creator": f"creator {i % 5}", "licence": "CC0", "caption": f"drawing {i}"}
        (folder / "training" / f"{i:02d}.json").write_text(json.dumps(told))
    for i in range(5):
        drawing(100 + i).save(folder / "gallery" / f"{i}.png")
    drawing(7).save(folder / "gallery" / "5 copy.png", compress_level=1)
    shutil.copy(folder / "gallery" / "0.png", folder / "gallery" / "6 same.png")
    drawing(101).save(folder / "gallery" / "7 like.jpg", quality=90)
    (folder / "gallery" / "8.png").write_bytes(b"none")
    fake.run(folder / "data", [str(folder / "training")])
    audit(folder / "data", [folder / "gallery"], folder / "report", k=20)
    return folder


def states(found: Verification) -> dict[str, str]:
    return {check.name: check.state for check in found.checks}


def words(found: Verification, name: str) -> str:
    return next(check.words for check in found.checks if check.name == name)


def alter(report: Path, name: str, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Alter a table, and have the manifest agree with it: the numbers alone can tell."""
    table = pq.read_table(report / name)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, table.schema), report / name)
    write_manifest(report)


def alter_summary(report: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Alter summary.json, and have the manifest agree with it."""
    path = report / "summary.json"
    summary = json.loads(path.read_text("utf-8"))
    change(summary)
    path.write_text(json.dumps(summary))
    write_manifest(report)


def follow(report: Path) -> None:
    """Have all that is made of the two large tables agree with them: shares, totals, the report
    (without pictures) and the manifest. So would somebody who knows attrib alter an audit."""
    shares, totals = Shares(("creator", "licence", "dataset"), SEED), Totals()
    totals.reject(read_table(report, "rejects.parquet"))
    for batch in image_batches(report):
        shares.add(batch.lines, batch.images)
        totals.add(batch.lines, batch.images)
    summed = shares.table()
    pq.write_table(summed, report / "creators.parquet")
    lines = summed.to_pylist()

    def tell(summary: dict[str, Any]) -> None:
        summary["totals"].update(totals.record())
        for field in summary["creators"]:
            known = [line for line in lines if line["kind"] == "known"]
            field["values"] = sum(line["field"] == field["field"] for line in known)
        summary["gallery"]["inputs_sha256"] = totals.inputs
        settings = summary["settings"]
        flags = flags_in_words(
            Thresholds(**settings["thresholds"]), summary["model"]["name"], settings["copy_model"]
        )
        for name, flag in flags.items():
            told = asdict(flag)
            del told["name"]
            summary["flags"][name] = told

    alter_summary(report, tell)
    write_report(report, lambda key: None, lambda ids: [None] * len(ids))
    write_manifest(report)


def failing(found: Verification) -> dict[str, str]:
    """What fails, and the words."""
    return {check.name: check.words for check in found.checks if check.state == "fails"}
