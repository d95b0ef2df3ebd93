"""Payouts in the folder of an audit: they block nothing, are told of, and are named once stale."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from fake_audit import audit, contents
from folders import copy_folder
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from ingested import draw
from made_audit import make_audit
from typer.testing import CliRunner
from verified import audited, states, words

from attrib.commands.payout import payout as payout_command
from ingest.errors import DataFolderError
from search.audit.manifest import read_manifest, write_manifest
from search.audit.payout_found import FoundPayout, find_payouts, payout_file_names
from search.audit.verify import Verification, verify
from search.audit.verify_payouts import check_payouts


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder of 60 training images, a gallery, and its audit."""
    return audited(tmp_path_factory.mktemp("place"))


@pytest.fixture
def mine(place: Path, tmp_path: Path) -> Path:
    """A copy of all of it."""
    return copy_folder(place, tmp_path / "mine")


@pytest.fixture
def report(mine: Path) -> Path:
    return mine / "report"


def pay(report: Path, out: Path, *more: str) -> Any:
    app = typer.Typer()
    app.command()(payout_command)
    asked = ["--amount", "1000", "--currency", "EUR", "--out", str(out), *more]
    return CliRunner().invoke(app, [str(report), *asked])


def lines(found: Verification) -> tuple[str, ...]:
    return next(check.lines for check in found.checks if check.name == "payouts")


# -- audits go on beside them ------------------------------------------------------------------


def test_a_repeated_audit_is_left_as_it_is(mine: Path, report: Path) -> None:
    assert pay(report, report / "payout.csv").exit_code == 0
    assert pay(report, report / "june.csv", "--by", "licence").exit_code == 0
    before = contents(report)
    again = audit(mine / "data", [mine / "gallery"], report, k=20)
    assert again.was_finished
    assert contents(report) == before


def test_a_restart_keeps_them_and_what_a_kill_left_of_them(mine: Path, report: Path) -> None:
    assert pay(report, report / "payout.csv").exit_code == 0
    (report / ".june.json.payout-partial").write_text('{"amou')
    before = contents(report)
    done = audit(mine / "data", [mine / "gallery"], report, k=20, restart=True)
    assert not done.was_finished
    assert contents(report) == before
    assert states(verify(report, None))["payouts"] == "holds"


def test_a_folder_of_payouts_alone_can_be_audited_into(mine: Path, report: Path) -> None:
    (mine / "new").mkdir()
    assert pay(report, mine / "new" / "payout.csv").exit_code == 0
    audit(mine / "data", [mine / "gallery"], mine / "new", k=20)
    assert states(verify(mine / "new", None))["payouts"] == "holds"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("notes.json", '{"schema": "another/1"}'),
        ("notes.json", "{"),
        ("notes.csv", "line,field\r\n"),
        ("payout.csv", ""),
    ],
)
def test_other_files_block_it_still(mine: Path, report: Path, name: str, content: str) -> None:
    (report / name).write_text(content)
    with pytest.raises(DataFolderError, match="holds other things than an audit"):
        audit(mine / "data", [mine / "gallery"], report, k=20)


# -- what verify says of them ------------------------------------------------------------------


def test_they_are_told_of_and_are_no_part_of_the_audit(report: Path) -> None:
    pay(report, report / "payout.csv", "--floor", "5", "--remaining", "pro-rata")
    (report / "note.txt").write_text("x")
    found = verify(report, None)
    assert found.holds
    assert words(found, "files").endswith("; not part of the audit: note.txt")
    assert (
        words(found, "payouts") == "1 payout lies here, not part of the audit, and follows from it"
    )
    assert lines(found) == ("payout.csv: payout of 1000.00 EUR by creator, not part of the audit",)


def test_a_payout_of_an_audit_that_changed_is_stale(mine: Path, report: Path) -> None:
    pay(report, report / "payout.csv")
    then = json.loads((report / "payout.json").read_text())["audit"]["manifest_sha256"]
    draw(mine / "gallery" / "more.png", 9_000)
    audit(mine / "data", [mine / "gallery"], report, k=20, restart=True)
    pay(report, report / "new.csv", "--by", "licence")
    found = verify(report, None)
    assert found.holds  # the audit does
    assert states(found)["payouts"] == "not checked"
    assert words(found, "payouts") == (
        "2 payouts lie here, not part of the audit; 1 does not rest on it as it is"
    )
    now = json.loads((report / "new.json").read_text())["audit"]["manifest_sha256"]
    assert lines(found) == (
        "new.csv: payout of 1000.00 EUR by licence, not part of the audit",
        "payout.csv: stale: payout of 1000.00 EUR by creator, not part of the audit; the audit has "
        f"changed since (manifest {then[:12]} then, {now[:12]} now)",
    )
    (report / "payout.json").unlink()
    assert lines(verify(report, None))[1] == (
        f"payout.csv: stale: the audit has changed since (manifest {then[:12]} then, {now[:12]} "
        "now); a payout, but its audit trail payout.json is gone"
    )
    assert pay(report, report / "payout.csv").exit_code == 0  # takes the place of its own kind
    assert states(verify(report, None))["payouts"] == "holds"


def _edit_table(report: Path) -> None:
    path = report / "payout.csv"
    path.write_bytes(path.read_bytes().replace(b",EUR,", b",USD,", 1))


def _edit_both(report: Path) -> None:
    """Another amount for everyone, with hashes that agree."""
    from hashlib import sha256

    path, trail = report / "payout.csv", report / "payout.json"
    path.write_bytes(path.read_bytes().replace(b",EUR,", b",USD,"))
    record = json.loads(trail.read_text())
    record["csv_sha256"] = sha256(path.read_bytes()).hexdigest()
    trail.write_text(json.dumps(record))


def _edit_trail(report: Path) -> None:
    trail = report / "payout.json"
    record = json.loads(trail.read_text())
    record["payees"][0]["name"] = "somebody else"
    trail.write_text(json.dumps(record))


def _damage(report: Path) -> None:
    trail = report / "payout.json"
    record = json.loads(trail.read_text())
    del record["policy"]
    trail.write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (
            _edit_table,
            "payout.csv was changed: its SHA-256 is not that of payout.json; payout of 1000.00 EUR "
            "by creator, not part of the audit",
        ),
        (_edit_both, "payout.csv does not follow from the audit's shares; payout of "),
        (_edit_trail, "payout.csv does not follow from the audit's shares; payout of "),
        (_damage, "payout.json is damaged; payout of "),
    ],
)
def test_a_payout_that_was_altered_fails(
    report: Path, edit: Callable[[Path], None], told: str
) -> None:
    pay(report, report / "payout.csv")
    edit(report)
    found = verify(report, None)
    assert not found.holds
    assert [name for name, state in states(found).items() if state == "fails"] == ["payouts"]
    assert words(found, "payouts") == (
        "1 payout lies here, not part of the audit; 1 does not follow from it"
    )
    assert lines(found)[0].startswith(told)


def test_a_trail_without_its_table(report: Path) -> None:
    pay(report, report / "payout.csv")
    (report / "payout.csv").unlink()
    assert lines(verify(report, None)) == (
        "payout.json: audit trail of a payout of 1000.00 EUR by creator, not part of the audit; "
        "its CSV is not here",
    )


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def paid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up audit with a payout beside it."""
    out = make_audit(tmp_path_factory.mktemp("paid") / "report", 12, 3)
    write_manifest(out)
    assert pay(out, out / "payout.csv").exit_code == 0
    return out


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_whatever_a_trail_says_is_told_and_never_holds(paid: Path, data: st.DataObject) -> None:
    record = json.loads((paid / "payout.json").read_text())
    names = [name for name in sorted(record) if name not in ("schema", "csv_sha256")]
    inside = record
    name = data.draw(st.sampled_from(names))
    if isinstance(record[name], dict) and data.draw(st.booleans()):
        inside = record[name]
        name = data.draw(st.sampled_from(sorted(inside)))
    value = data.draw(json_values)
    assume(json.dumps(value) != json.dumps(inside[name]))
    inside[name] = value
    manifest = read_manifest(paid)
    check = check_payouts(paid, manifest, [FoundPayout("payout.csv", "payout.json", record)])
    assert check.state != "holds"
    assert len(check.lines[0]) < 600
    [untouched] = find_payouts(paid)
    assert check_payouts(paid, manifest, [untouched]).state == "holds"


# -- which files they are ----------------------------------------------------------------------


def test_they_are_known_by_their_contents(report: Path, tmp_path: Path) -> None:
    out = tmp_path / "paid"
    out.mkdir()
    pay(report, out / "a.csv")
    pay(report, out / "b.txt")
    (out / "c.csv").write_bytes((out / "a.csv").read_bytes())
    (out / "d.csv").write_text("x")
    (out / "d.json").write_text("[]")
    found = [(one.table, one.trail) for one in find_payouts(out)]
    assert found == [("a.csv", "a.json"), ("b.txt", "b.json"), ("c.csv", "")]
    assert payout_file_names(out) == {"a.csv", "a.json", "b.txt", "b.json", "c.csv"}
    (out / "a.csv").write_text("saved by a spreadsheet")
    assert ("a.csv", "a.json") in [(one.table, one.trail) for one in find_payouts(out)]


@pytest.mark.parametrize("name", ["summary.csv", "manifest.csv", "images.parquet"])
def test_a_payout_takes_no_other_files_place(report: Path, name: str) -> None:
    before = contents(report)
    done = pay(report, report / name)
    assert done.exit_code == 2
    there = name if name.endswith(".parquet") else name.replace(".csv", ".json")
    assert done.stderr == (
        f"attrib: {report / there} is no payout's file, or was changed since, and would be "
        "replaced: choose another name with --out\n"
    )
    assert contents(report) == before
