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
from contextlib import suppress
from pathlib import Path
from typing import Any

from ingest.errors import UsageError
from search.audit.csv_cells import safe_cell
from search.audit.payout import Audited, Payee, Payout, is_calibrated, limits
from search.audit.payout_found import COLUMNS, PARTIAL, PAYOUT_SCHEMA, is_payout_table, read_trail
from search.audit.payout_names import doubtful
from search.folder import writing

__all__ = ["COLUMNS", "PAYOUT_SCHEMA", "payout_csv", "payout_record", "write_payout"]

_BASIS = "similarity-based estimate, not a causal proof"


def write_payout(payout: Payout, audited: Audited, path: Path) -> Path:
    """Write the CSV to `path`, and its trail beside it as .json; returns the latter's path.

    Same audit, amount and policy: same bytes. Each file is replaced whole, and only by a payout;
    both are written before one of them is.

    Raises:
        UsageError: `path` is a folder or ends in .json, or one of the two files would take the
            place of another file.
        DataFolderError: the disk refuses.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder: name the CSV file with --out, such as payout.csv")
    beside = path.with_suffix(".json")
    if beside == path:
        raise UsageError(f"{path} names the CSV file: its trail goes into {path.name} beside it")
    for place, is_ours in (
        (path, is_payout_table(path)),
        (beside, read_trail(beside) is not None),
    ):
        if not is_ours and (place.is_dir() or (place.is_file() and place.stat().st_size)):
            raise UsageError(
                f"{place} is no payout's file, or was changed since, and would be replaced: choose "
                "another name with --out"
            )
    table = payout_csv(payout, audited)
    record = {"csv_sha256": hashlib.sha256(table).hexdigest(), **payout_record(payout, audited)}
    text = json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    contents = {beside: text.encode(), path: table}
    partials = {place: place.with_name(f".{place.name}{PARTIAL}") for place in contents}
    with writing(path.parent):
        try:
            # Both first: a trail alone would be that of a payout that never was.
            for place, content in contents.items():
                partials[place].write_bytes(content)
            for place, partial in partials.items():
                partial.replace(place)
        except BaseException:
            for partial in partials.values():
                with suppress(OSError):
                    partial.unlink(missing_ok=True)
            raise
    return beside


def payout_csv(payout: Payout, audited: Audited) -> bytes:
    """One line a payee: UTF-8 with the mark that spreadsheets know it by, RFC 4180.

    `name` is made safe by `safe_cell`; the sums of `paid` and `held_back` are the amount.
    """
    basis = _BASIS if is_calibrated(audited.summary) else f"uncalibrated {_BASIS}"
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
                basis,
                audited.manifest_sha256,
            ]
        )
    return written.getvalue().encode("utf-8-sig")


def payout_record(payout: Payout, audited: Audited) -> dict[str, Any]:
    """Everything there is to say of a payout, as JSON values; names as they stand."""
    money, policy, summary = payout.money, payout.policy, audited.summary
    return {
        "schema": PAYOUT_SCHEMA,
        "limits": limits(summary),
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
        "doubtful_names": [payee.name for payee in doubtful(payout)],
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
