"""Made-up audits with something changed, and what their tables say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from search.audit.tables import ATTRIBUTIONS, CREATORS, IMAGES, SUMMARY


def with_late_creators(out: Path, sources: int) -> dict[str, dict[str, Any]]:
    """Flag one-creator where the main creator has none of the first ``sources`` ranks; by image,
    the first of that creator's lines."""
    images, lines = pq.read_table(out / IMAGES), pq.read_table(out / ATTRIBUTIONS).to_pylist()
    table, late = images.to_pylist(), {}
    for image in table:
        own = [line for line in lines if line["image"] == image["image"]]
        early = {line["creator"] for line in own if line["rank"] <= sources}
        first = next((line for line in own if line["creator"] not in {*early, ""}), None)
        if first is not None:
            late[image["image"]] = first
            image |= {"main_creator": first["creator"], "flags": ["one-creator"]}
    pq.write_table(type(images).from_pylist(table, images.schema), out / IMAGES)
    return late


def images_of(audit: Path, creator: str) -> int:
    """As the table of shares counts them."""
    [found] = [
        line["images"]
        for line in pq.read_table(audit / CREATORS).to_pylist()
        if (line["field"], line["kind"], line["value"]) == ("creator", "known", creator)
    ]
    return int(found)


def with_summary(out: Path, **changes: dict[str, object]) -> Path:
    """The audit with other values in parts of its summary."""
    summary = json.loads((out / SUMMARY).read_text("utf-8"))
    for part, values in changes.items():
        summary[part] |= values
    (out / SUMMARY).write_text(json.dumps(summary), encoding="utf-8")
    return out
