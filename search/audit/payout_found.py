"""Payouts that lie in a folder: known by what is in their files, whatever they are called."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = [
    "COLUMNS",
    "PARTIAL",
    "PAYOUT_SCHEMA",
    "FoundPayout",
    "find_payouts",
    "is_payout_table",
    "payout_file_names",
    "read_trail",
]

PAYOUT_SCHEMA = "attrib-payout/1"

COLUMNS = (
    "line",
    "field",
    "kind",
    "name",
    "share",
    "part",
    "paid",
    "held_back",
    "currency",
    "reason",
    "basis",
    "audit",
)

PARTIAL = ".payout-partial"
"""How the name of a file of a payout ends while it is being written."""

_HEAD = (",".join(COLUMNS) + "\r\n").encode("utf-8-sig")
_MAX_TRAIL_BYTES = 1 << 27  # some 500,000 payees


@dataclass(frozen=True)
class FoundPayout:
    """The files of one payout.

    Attributes:
        table: name of the CSV; '' where it is gone.
        trail: name of the audit trail; '' where it is gone.
        record: what the trail says; empty where it is gone.
    """

    table: str
    trail: str
    record: Mapping[str, Any]


def find_payouts(folder: Path) -> list[FoundPayout]:
    """The payouts in a folder, by name. Folders in it are not looked into.

    Raises:
        OSError: the folder cannot be read.
    """
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    trails = {
        name: record
        for name in names
        if name.endswith(".json") and (record := read_trail(folder / name)) is not None
    }
    # Of one trail's possible tables the .csv comes first, however its content was changed since.
    tables: dict[str, str] = {}
    alone = []
    for name in sorted(names, key=lambda name: (not name.endswith(".csv"), name)):
        trail = Path(name).with_suffix(".json").name if Path(name).stem else ""
        beside = trail in trails and name != trail and trail not in tables
        if beside and (name.endswith(".csv") or is_payout_table(folder / name)):
            tables[trail] = name
        elif is_payout_table(folder / name):
            alone.append(FoundPayout(name, "", {}))
    paired = [FoundPayout(tables.get(name, ""), name, trails[name]) for name in trails]
    return sorted([*paired, *alone], key=lambda found: found.table or found.trail)


def payout_file_names(folder: Path) -> frozenset[str]:
    """The names of all files in a folder that are of a payout, half-written ones among them.

    Raises:
        OSError: the folder cannot be read.
    """
    partial = {path.name for path in folder.iterdir() if path.name.endswith(PARTIAL)}
    found = {name for each in find_payouts(folder) for name in (each.table, each.trail) if name}
    return frozenset(found | partial)


def is_payout_table(path: Path) -> bool:
    """Whether a file begins as the CSV of a payout does."""
    try:
        with path.open("rb") as file:
            return file.read(len(_HEAD)) == _HEAD
    except OSError:
        return False


def read_trail(path: Path) -> Mapping[str, Any] | None:
    """What the audit trail of a payout says; None where the file is none."""
    try:
        if path.stat().st_size > _MAX_TRAIL_BYTES:
            return None
        record = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    is_one = isinstance(record, dict) and record.get("schema") == PAYOUT_SCHEMA
    return record if is_one else None
