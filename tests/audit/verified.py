"""A real audit to verify, ways to alter it, and what was found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_backbone as fake
import pyarrow as pa
import pyarrow.parquet as pq
from fake_audit import audit
from ingested import draw, images

from search.audit.manifest import write_manifest
from search.audit.verify import Verification

GALLERY = 40


def audited(folder: Path) -> Path:
    """A data folder of 60 training images, a gallery of 40 and a bad one, and its report."""
    fake.run(folder / "data", [str(images(folder / "pictures", 60))])
    for i in range(GALLERY):
        draw(folder / "gallery" / f"{i:03d}.png", 500 + i)
    (folder / "gallery" / "bad.png").write_bytes(b"bad")
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
