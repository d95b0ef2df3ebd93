"""`attrib payout` as it is typed: both files, wrong calls, disks that refuse, doubtful names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from made_audit import make_audit
from typer.testing import CliRunner

from attrib.commands.payout import payout as payout_command
from ingest.errors import DataFolderError
from search.audit.apportion import Money
from search.audit.manifest import read_manifest, write_manifest
from search.audit.payout import Policy, read_audited, split
from search.audit.payout_files import write_payout
from search.audit.tables import creators_schema

EUR = Money("EUR", 2)
NO_NUMBER = (
    "--amount {!r} will not do: write a number above 0 such as 1000 or 99.95, without signs or "
    "separators"
)


@pytest.fixture
def report(tmp_path: Path) -> Path:
    out = make_audit(tmp_path / "report", 30, 4, hostile=True)
    write_manifest(out)
    return out


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    app.command()(payout_command)
    return lambda *args: CliRunner().invoke(app, [str(arg) for arg in args])


def test_the_command_writes_both_files(
    report: Path, tmp_path: Path, invoke: Callable[..., Any]
) -> None:
    done = invoke(report, "--amount", "1000", "--currency", "EUR", "--floor", "5")
    assert done.exit_code == 0, done.output
    assert "A similarity-based estimate, not a causal proof" in done.stdout
    assert "1000.00 EUR by creator" in done.stdout
    content = (tmp_path / "payout.csv").read_bytes()
    record = json.loads((tmp_path / "payout.json").read_text("utf-8"))
    assert record["csv_sha256"] == hashlib.sha256(content).hexdigest()
    assert record["audit"]["manifest_sha256"] == read_manifest(report).sha256
    assert record["audit"]["model"]["name"] == "made-up"
    assert record["audit"]["settings"]["mass"] == 0.99
    assert Fraction(record["paid"]) + Fraction(record["held_back"]) == 1000
    stored = {line["value"] for line in pq.read_table(report / "creators.parquet").to_pylist()}
    assert {payee["name"] for payee in record["payees"]} <= stored
    assert str(tmp_path) not in json.dumps(record)
    again = invoke(report, "--amount", "1000.00", "--currency", "eur", "--floor", "5.00", "--json")
    assert (tmp_path / "payout.csv").read_bytes() == content
    assert json.loads(again.stdout).items() <= record.items()


def test_other_fields_and_no_decimals(report: Path, invoke: Callable[..., Any]) -> None:
    done = invoke(
        *(report, "--amount", "999", "--currency", "JPY", "--by", "licence"),
        *("--remaining", "pro-rata", "--unknown", "pro-rata", "--json"),
    )
    record = json.loads(done.stdout)
    assert sum(int(payee["paid"]) for payee in record["payees"]) == 999
    assert record["held_back"] == "0"


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["--amount", "-5", "--currency", "EUR"], 2, NO_NUMBER.format("-5")),
        (["--amount", "5", "--currency", "EUR", "--floor", "x"], 2, None),
        (["--amount", "5", "--currency", "XYZ"], 2, None),
        (["--amount", "5", "--currency", "EUR", "--by", "url"], 2, None),
        (
            ["--amount", "5", "--currency", "EUR", "--out", "."],
            2,
            ". is a folder: name the CSV file with --out, such as payout.csv",
        ),
        (
            ["--amount", "5", "--currency", "EUR", "--out", "p.json"],
            2,
            "p.json names the CSV file: its trail goes into p.json beside it",
        ),
    ],
)
def test_wrong_calls_end_in_one_line(
    report: Path, invoke: Callable[..., Any], args: list[str], code: int, message: str | None
) -> None:
    done = invoke(report, *args)
    assert done.exit_code == code
    assert done.stderr.startswith("attrib: ")
    assert done.stderr.count("\n") == 1
    if message is not None:
        assert done.stderr == f"attrib: {message}\n"


def test_shares_that_were_changed_are_not_paid_by(report: Path, invoke: Callable[..., Any]) -> None:
    path = report / "creators.parquet"
    table = pq.read_table(path).to_pylist()
    table[0]["share"], table[1]["share"] = table[1]["share"], table[0]["share"]
    pq.write_table(pa.Table.from_pylist(table, creators_schema()), path)
    done = invoke(report, "--amount", "5", "--currency", "EUR")
    assert done.exit_code == 1
    assert done.stderr.startswith(f"attrib: {report} cannot be paid by: creators.parquet ")
    assert done.stderr.endswith(f"; see `attrib audit verify {report}`\n")


def test_no_audit(tmp_path: Path, invoke: Callable[..., Any]) -> None:
    done = invoke(tmp_path / "none", "--amount", "5", "--currency", "EUR")
    assert (done.exit_code, done.stderr) == (
        1,
        f"attrib: {tmp_path / 'none'} is no finished audit: it has no manifest.json; `attrib audit "
        f"GALLERY --out {tmp_path / 'none'}` makes one, and goes on where it stopped\n",
    )


def test_a_disk_that_refuses(report: Path, tmp_path: Path) -> None:
    found = read_audited(report)
    made = split(found.lines, 100, EUR, Policy())
    with pytest.raises(DataFolderError, match="cannot write to"):
        write_payout(made, found, tmp_path / "nowhere" / "payout.csv")


def test_a_folder_is_no_file_and_nothing_is_left(
    report: Path, tmp_path: Path, invoke: Callable[..., Any]
) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    before = sorted(tmp_path.rglob("*"))
    done = invoke(report, "--amount", "5", "--currency", "EUR", "--out", folder)
    assert (done.exit_code, done.stderr) == (
        2,
        f"attrib: {folder} is a folder: name the CSV file with --out, such as payout.csv\n",
    )
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "payout.json").mkdir()
    done = invoke(report, "--amount", "5", "--currency", "EUR")
    assert done.exit_code == 2
    assert done.stderr.startswith("attrib: payout.json is no payout's file")
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "payout.json"])


def test_of_a_payout_that_cannot_be_written_nothing_is_left(report: Path, tmp_path: Path) -> None:
    found = read_audited(report)
    made = split(found.lines, 100, EUR, Policy())
    out = tmp_path / "paid"
    out.mkdir()
    # The trail comes first, and the table's place is taken: by a folder where it is written.
    (out / ".payout.csv.payout-partial").mkdir()
    with pytest.raises(DataFolderError, match=f"cannot write to {out}: Is a directory"):
        write_payout(made, found, out / "payout.csv")
    assert [path.name for path in out.iterdir()] == [".payout.csv.payout-partial"]


def test_doubtful_names_are_told_of_and_paid(tmp_path: Path, invoke: Callable[..., Any]) -> None:
    names = ["unknown", "HASH(0x8a4563c)", "&Aacute;ki", "anonymous", "Ann"]
    records = [
        {"key": f"{n}", "dataset": "d", "creator": name, "licence": "", "url": "", "path": f"{n}"}
        | {"caption": "", "sha256": f"{n}"}
        for n, name in enumerate(names)
    ]
    out = make_audit(tmp_path / "report", 12, 3, records=records)
    write_manifest(out)
    done = invoke(out, "--amount", "1000", "--currency", "EUR", "--json")
    record = json.loads(done.stdout)
    paid = {payee["name"]: Fraction(payee["paid"]) for payee in record["payees"]}
    assert all(paid[name] > 0 for name in names)
    told = [payee["name"] for payee in record["payees"] if payee["name"] in names[:4]]
    assert record["doubtful_names"] == told
    assert done.stderr == (
        "attrib: warning: 4 names look like nobody's and come to "
        f"{float(sum(paid[name] for name in told)):.2f} EUR: "
        f"{', '.join(map(repr, told[:3]))} and 1 more; correct them in the collection and audit "
        "again, or see to it yourself\n"
    )
    assert json.loads((tmp_path / "payout.json").read_text("utf-8"))["doubtful_names"] == told


def test_nothing_is_said_of_ordinary_names(tmp_path: Path, invoke: Callable[..., Any]) -> None:
    out = make_audit(tmp_path / "report", 12, 3)
    write_manifest(out)
    done = invoke(out, "--amount", "1000", "--currency", "EUR")
    assert (done.exit_code, done.stderr) == (0, "")
    assert json.loads((tmp_path / "payout.json").read_text("utf-8"))["doubtful_names"] == []


def test_the_command_says_that_it_is_uncalibrated(
    report: Path, tmp_path: Path, invoke: Callable[..., Any]
) -> None:
    path = report / "summary.json"
    summary = json.loads(path.read_text("utf-8"))
    summary["calibrator"]["fitted_on"] = ""
    path.write_text(json.dumps(summary), "utf-8")
    write_manifest(report)
    done = invoke(report, "--amount", "5", "--currency", "EUR")
    assert "to the generated ones, uncalibrated (" in done.stdout
