"""The two files of a payout: a CSV that a spreadsheet opens, and a JSON file with its audit trail.

A comment line at the head of the CSV would be a first row to a spreadsheet. So the trail stands in
a file beside it, and each line of the CSV names the manifest of the audit that it comes from.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ingest.errors import UsageError
from search.audit.csv_cells import safe_cell
from search.audit.payout import LIMITS, Audited, Payee, Payout
from search.folder import writing

__all__ = ["COLUMNS", "PAYOUT_SCHEMA", "payout_csv", "payout_record", "write_payout"]

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

_BASIS = "similarity-based estimate, not a causal proof"


def write_payout(payout: Payout, audited: Audited, path: Path) -> Path:
    """Write the CSV to `path`, and its trail beside it as .json; returns the latter's path.

    Same audit, amount and policy: same bytes. Each file is replaced whole.

    Raises:
        UsageError: `path` ends in .json.
        DataFolderError: the disk refuses.
    """
    beside = path.with_suffix(".json")
    if beside == path:
        raise UsageError(f"{path} names the CSV file: its trail goes into {path.name} beside it")
    table = payout_csv(payout, audited)
    record = {"csv_sha256": hashlib.sha256(table).hexdigest(), **payout_record(payout, audited)}
    text = json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    with writing(path.parent):
        for target, content in ((beside, text.encode()), (path, table)):
            partial = target.with_name(f".{target.name}.partial")
            partial.write_bytes(content)
            partial.replace(target)
    return beside


def payout_csv(payout: Payout, audited: Audited) -> bytes:
    """One line a payee: UTF-8 with the mark that spreadsheets know it by, RFC 4180.

    `name` is made safe by `safe_cell`; the sums of `paid` and `held_back` are the amount.
    """
    written = io.StringIO(newline="")
    writer = csv.writer(written, quoting=csv.QUOTE_MINIMAL, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for number, payee in enumerate(payout.payees, start=1):
        writer.writerow(
            [
                number,
                payout.policy.by,
                payee.kind,
                safe_cell(payee.name),
                _decimal(payee.share),
                _decimal(float(payee.part)),
                payout.money.text(payee.paid),
                payout.money.text(payee.held),
                payout.money.currency,
                payee.reason,
                _BASIS,
                audited.manifest_sha256,
            ]
        )
    return written.getvalue().encode("utf-8-sig")


def payout_record(payout: Payout, audited: Audited) -> dict[str, Any]:
    """Everything there is to say of a payout, as JSON values; names as they stand."""
    money, policy, summary = payout.money, payout.policy, audited.summary
    return {
        "schema": PAYOUT_SCHEMA,
        "limits": LIMITS,
        "audit": {
            "manifest_sha256": audited.manifest_sha256,
            **{
                name: summary.get(name)
                for name in ("schema", "gallery", "model", "calibrator", "collection", "settings")
            },
        },
        "currency": money.currency,
        "decimals": money.decimals,
        "amount": money.text(payout.amount),
        "paid": money.text(payout.paid),
        "held_back": money.text(payout.held),
        "policy": {
            "by": policy.by,
            "remaining": policy.remaining,
            "unknown": policy.unknown,
            "floor": money.text(policy.floor),
            "words": policy.words(money),
        },
        "payees": [_payee_record(payee, payout) for payee in payout.payees],
    }


def _payee_record(payee: Payee, payout: Payout) -> Mapping[str, Any]:
    return {
        "kind": payee.kind,
        "name": payee.name,
        "share": payee.share,
        "part": float(payee.part),
        "paid": payout.money.text(payee.paid),
        "held_back": payout.money.text(payee.held),
        "reason": payee.reason,
    }


def _decimal(share: float) -> str:
    """Without an exponent, which some programs take for text."""
    return f"{share:.12f}"
