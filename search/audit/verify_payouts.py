"""Whether the payouts that lie in an audit's folder still follow from it."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from ingest.errors import AttribError
from search.audit.apportion import parse_amount, parse_currency
from search.audit.check import Check, State
from search.audit.manifest import Manifest, file_sha256
from search.audit.payout import Handling, Policy, read_audited, split
from search.audit.payout_files import payout_csv, payout_record
from search.audit.payout_found import FoundPayout

__all__ = ["check_payouts"]

_SHOWN = 12  # digits of a manifest's SHA-256
_MOST = 40  # characters of what a trail says, whoever wrote it


def check_payouts(out: Path, manifest: Manifest, payouts: list[FoundPayout]) -> Check:
    """What is to be said of payouts that lie beside an audit; they are no part of it.

    One that names this very audit must follow from it to the byte. One of an audit that has
    changed since is stale, which says nothing of the audit.

    Args:
        out: the audit's folder.
        manifest: of the audit.
        payouts: at least one, see `search.audit.payout_found.find_payouts`.
    """
    told = [_checked(out, manifest, payout) for payout in payouts]
    count = len(told)
    here = f"{count:,} payouts lie" if count > 1 else "1 payout lies"
    wrong = sum(state == "fails" for state, _ in told)
    other = sum(state == "not checked" for state, _ in told)
    state: State = "fails" if wrong else "not checked" if other else "holds"
    words = f"{here} here, not part of the audit"
    if not wrong and not other:
        words += f", and follow{'' if count > 1 else 's'} from it"
    for number, what in ((wrong, "not follow from it"), (other, "not rest on it as it is")):
        if number:
            words += f"; {number:,} {'do' if number > 1 else 'does'} {what}"
    return Check("payouts", state, words, tuple(line for _, line in told))


def _checked(out: Path, manifest: Manifest, payout: FoundPayout) -> tuple[State, str]:
    name = payout.table or payout.trail
    if not payout.trail:
        beside = Path(payout.table).with_suffix(".json").name
        rests_on = _named_manifest(out / payout.table)
        stale = "" if rests_on == manifest.sha256 else f"stale: {_changed(rests_on, manifest)}; "
        return "not checked", f"{name}: {stale}a payout, but its audit trail {beside} is gone"
    record = payout.record
    words = f"payout of {_told(record)}, not part of the audit"
    rests_on = _of(record, "audit", "manifest_sha256")
    if rests_on != manifest.sha256:
        return "not checked", f"{name}: stale: {words}; {_changed(rests_on, manifest)}"
    if not payout.table:
        return "not checked", f"{name}: audit trail of a {words}; its CSV is not here"
    try:
        if file_sha256(out / payout.table) != record.get("csv_sha256"):
            return (
                "fails",
                f"{name} was changed: its SHA-256 is not that of {payout.trail}; {words}",
            )
        if not _follows(out, record):
            return "fails", f"{name} does not follow from the audit's shares; {words}"
    except AttribError as exc:
        return "fails", f"{name} cannot be checked: {exc}; {words}"
    except (KeyError, TypeError, ValueError, AttributeError):
        return "fails", f"{payout.trail} is damaged; {words}"
    return "holds", f"{name}: {words}"


def _follows(out: Path, record: Mapping[str, Any]) -> bool:
    """Whether the audit, split again by what the trail says, gives the trail and its table."""
    money = parse_currency(record["currency"], current=False)
    told = record["policy"]
    floor = parse_amount(told["floor"], money, "the floor", zero=True)
    for name in ("remaining", "unknown"):
        if told[name] not in get_args(Handling):
            return False
    policy = Policy(told["by"], told["remaining"], told["unknown"], floor)
    audited = read_audited(out)
    amount = parse_amount(record["amount"], money, "the amount")
    made = split(audited.lines, amount, money, policy)
    given = dict(record)
    given.pop("csv_sha256")
    same_table = hashlib.sha256(payout_csv(made, audited)).hexdigest() == record["csv_sha256"]
    # As text: in Python 1, 1.0 and true are equal.
    return same_table and _text(given) == _text(payout_record(made, audited))


def _text(record: Mapping[str, Any]) -> str:
    return json.dumps(record, sort_keys=True)


def _told(record: Mapping[str, Any]) -> str:
    told = (record.get("amount"), record.get("currency"), _of(record, "policy", "by"))
    amount, currency, by = (str(text)[:_MOST] for text in told)
    return f"{amount} {currency} by {by}"


def _of(record: Mapping[str, Any], name: str, inside: str) -> str:
    found = record.get(name)
    return str(found.get(inside, "")) if isinstance(found, Mapping) else ""


def _changed(then: str, manifest: Manifest) -> str:
    now = manifest.sha256[:_SHOWN]
    return f"the audit has changed since (manifest {then[:_SHOWN] or 'unknown'} then, {now} now)"


def _named_manifest(table: Path) -> str:
    """The SHA-256 that the first line of a payout's CSV names; '' where it names none."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.DictReader(file)
            return str(next(lines, {}).get("audit") or "")
    except (OSError, ValueError, csv.Error):
        return ""
